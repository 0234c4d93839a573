/*
 * The data directory: one server at a time, and the little that must survive it (server.state): who it is, the store's secret, the epoch, the map
 * of drives.
 */
#ifndef MKV_SUPERVISOR_STATE_PRIV_H
#define MKV_SUPERVISOR_STATE_PRIV_H

#include <stdint.h>

#include "common/base/place.h"

#define STATE_DRIVES_MAX	64u
#define STATE_MEDIA_MAX		512u

/* A row of the pool map; its number is the drive's, so no row ever goes. */
struct state_drive {
	struct mkv_map_row row;			/* as decided */
	struct mkv_map_row saved;		/* as the file has it: as fronts last went by it */
	int		added;			/* by an operator, while the server ran: started although the configuration lacks it */
	uint64_t	max_size;		/* of one that was added: as storage.drives has it */
	double		factor;
	char		media[STATE_MEDIA_MAX];
};

struct state {
	char		dir[STATE_MEDIA_MAX];
	int		dir_fd, lock_fd;
	int		unclean;		/* the last server did not come to its end: its children may still be at it */
	uint8_t		server_id[16];
	uint8_t		store_secret[32];	/* key digests; never leaves the server */
	uint32_t	epoch;			/* the last one in use */
	uint32_t	epoch_saved;		/* none above it was ever used; this is what the file has */
	uint64_t	map_version, map_saved;	/* decided; as the file has it */
	uint32_t	drive_count;		/* drives that were ever in the map, present or not */
	struct state_drive drive[STATE_DRIVES_MAX];
};

/*
 * Create the directory (mode 0700) if it is missing, lock it, read server.state or make a new identity.
 * why: words for the operator when it fails. 0; MKV_E_LOCKED another server has it; MKV_E_CORRUPT; MKV_E_SYSTEM.
 */
int	state_open(struct state *s, const char *dir, char *why, unsigned why_bytes);
/* Wipes the secret. clean: everything has ended. */
void	state_close(struct state *s, int clean);
/* Durable when it returns 0. MKV_E_SYSTEM, MKV_E_NOSPACE, ... and words in why: the old file is still whole. */
int	state_save(const struct state *s, char *why, unsigned why_bytes);
/* What is decided is what the next state_save() writes. */
void	state_take_map(struct state *s);
/* Row of a medium, made if it is new (ABSENT); NULL when there are too many. */
struct state_drive *state_drive(struct state *s, const char *media);

#endif
