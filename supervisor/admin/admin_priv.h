/*
 * The admin port: HTTP(S) for people and their monitoring. Read only.
 */
#ifndef MKV_SUPERVISOR_ADMIN_PRIV_H
#define MKV_SUPERVISOR_ADMIN_PRIV_H

#include <stddef.h>

struct mkv_sup;
struct admin;

/* Listens; sup->admin_port is the port as bound. 0; MKV_E_LOCKED the port is taken; MKV_E_SYSTEM; words in why. */
int	admin_open(struct admin **out, struct mkv_sup *s, char *why, unsigned why_bytes);
/* Stops; the loop must run until it has nothing left before admin_free(). Both accept NULL. */
void	admin_close(struct admin *a);
void	admin_free(struct admin **a);

/* routes.c */
struct admin_answer {
	int		status;			/* HTTP */
	const char	*type;			/* Content-Type */
	char		*body;			/* malloc'd; NULL: out of memory */
	size_t		bytes;
};
void	admin_route(struct mkv_sup *s, const char *path, struct admin_answer *a);
/* An answer that is only words. */
void	admin_say(struct admin_answer *a, int status, const char *text);

/* Bodies: malloc'd text, its length in *bytes; NULL when out of memory. */
char *	admin_metrics(struct mkv_sup *s, size_t *bytes);
char *	admin_health(struct mkv_sup *s, size_t *bytes, int *unhealthy);
char *	admin_status(struct mkv_sup *s, size_t *bytes);

#endif
