/*
 * What the platform files share among themselves: errors, and descriptors as companions of a message (os_posix.c).
 */
#ifndef MKV_BASE_OS_PRIV_H
#define MKV_BASE_OS_PRIV_H

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/base/os.h"

#define OS_CTL_FDS_MAX	32u		/* with one message */

static inline int
os_err(void)
{
	return (mkv_err_from_errno(errno));
}

static inline int
os_close_err(int fd, int err)
{
	(void)close(fd);
	return (err);
}

union os_ctl_buf {
	char		buf[CMSG_SPACE(OS_CTL_FDS_MAX * sizeof(int))];
	struct cmsghdr	align;
};

/* os_dcb.c. One message of rtnetlink, 4-aligned: as mkv_os_dcb(); -EBADMSG: cut off. */
int	os_dcb_parse(const void *msg, size_t bytes, struct mkv_os_dcb *out);

/* Hangs n_fds (at most OS_CTL_FDS_MAX) to the message; buf, CMSG_SPACE() of them and aligned for struct cmsghdr, must live until it is sent. */
void	os_ctl_attach(struct msghdr *m, void *buf, const int *fds, unsigned n_fds);
/*
 * Takes the descriptors out of a message that was received. *n_fds: room, then how many came.
 * Returns: 0; MKV_E_PROTO if there were more, or if it is not whole: all are closed then and *n_fds is 0.
 */
int	os_ctl_detach(struct msghdr *m, int whole, int *fds, unsigned *n_fds);

#endif
