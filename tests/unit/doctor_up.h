/*
 * A machine made of files in a temporary directory, for the tests of memkv doctor: two sockets, one NVMe drive, one mlx5 NIC, one GPU, a server's
 * configuration that uses them, and nothing wrong with any of it. A test takes one thing away.
 */
#ifndef MKV_TEST_DOCTOR_UP_H
#define MKV_TEST_DOCTOR_UP_H

#include <sys/stat.h>

#include "clients/cli/doctor_priv.h"

#define UP_ENV_MAX	8u
#define MLX		"/sys/class/infiniband/mlx5_0"

/* What is no file. */
struct up_fake {
	uint64_t	memlock, files;
	int		clock, uring, bind_data, bind_admin, uid;
	uint64_t	space;			/* free on the one filesystem there is */
	int		client;			/* what opening a handle says */
	const char	*client_why, *client_file;
	int		dcb_status;		/* -errno: the driver does not tell */
	struct mkv_os_dcb dcb;
	const char	*release, *env[UP_ENV_MAX][2];
	json_t		*answer;		/* of the server's checker; NULL: there is none */
};

extern char		up_root[64];
extern struct doctor	up;			/* of the last run; doctor_fini() after each */
extern struct up_fake	up_fake;

int	doctor_up(void **state);		/* setup and teardown of cmocka */
int	doctor_down(void **state);

void	up_path(char path[512], const char *name);	/* below the root */
void	up_above(const char *name);			/* the directories above it, and itself if it ends in a slash */
void	up_put(const char *name, const char *text);
void	up_put_bytes(const char *name, const void *bytes, size_t n);
void	up_link(const char *name, const char *target);
void	up_mode(const char *name, mode_t bits);
void	up_drop(const char *name);			/* with all that is in it */
void	up_key(const char *key, const char *value);	/* of the configuration */
void	up_env(const char *name, const char *value);

void	up_run(unsigned scope);
const struct doctor_found *up_found(const char *id);
void	up_show(void);					/* what was found, on standard error */

#endif
