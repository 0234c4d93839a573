/*
 * The jail of a worker (SECURITY.md): entered once, before the first foreign byte, never left.
 *
 * Order: restrictions of the ring, no_new_privs, Landlock (no file, no TCP), another user without capabilities, seccomp. What is left: the
 * descriptors that are open, memory, threads of its own, recvmsg/sendmsg on the control socket.
 */
#ifndef MKV_WORKER_JAIL_H
#define MKV_WORKER_JAIL_H

#include <stddef.h>

#include "common/base/ioq.h"

enum mkv_jail_part {
	MKV_JAIL_RING		= 1,	/* io_uring restricted to named operations (nothing to restrict: counts as done) */
	MKV_JAIL_NO_NEW_PRIVS	= 2,
	MKV_JAIL_LANDLOCK	= 4,
	MKV_JAIL_USER		= 8,	/* a user of its own; not possible without root */
	MKV_JAIL_SECCOMP	= 16,
	MKV_JAIL_ALL		= 31
};

/* Beside MKV_IOQ_MAY_*, for who has an RDMA device open. */
enum {
	MKV_JAIL_MAY_VERBS	= 256,	/* the one ioctl of libibverbs */
	/*
	 * The credentials that opened the device stay: no user of its own, no Landlock, both are missing then. A soft device posts by write(), which
	 * the kernel takes under these credentials alone; entering either part makes new ones.
	 */
	MKV_JAIL_KEEP_CREDENTIALS = 512,
};

/*
 * q     created restricted, all its files and buffers registered, nothing submitted; NULL: no queue.
 * may   MKV_IOQ_MAY_*, MKV_JAIL_*: also chooses the system calls (sockets, or file calls for the portable back end).
 * user  name of the unprivileged user, taken if this process is root.
 * Context: one thread (those made later are born in the jail). Returns the parts that are missing, 0 if all of it holds.
 */
unsigned	mkv_jail_enter(struct mkv_ioq *q, unsigned may, const char *user);
const char *	mkv_jail_part_name(unsigned part);		/* "landlock"; one bit */

#endif
