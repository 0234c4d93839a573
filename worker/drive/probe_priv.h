/*
 * What is on a medium and who uses it, looked at without changing anything. For the offline commands; any thread.
 */
#ifndef MKV_DRIVE_PROBE_PRIV_H
#define MKV_DRIVE_PROBE_PRIV_H

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/clock.h"
#include "worker/drive/failreg.h"
#include "worker/drive/layout.h"

#define PROBE_HEAD_BYTES	(1u << 20)
#define PROBE_TEXT_BYTES	512u
#define PROBE_SETTLE_NS		(2 * MKV_NS_PER_SEC)	/* for probe_settled(), and who takes the lock */
#define PROBE_AGAIN_NS		(20 * (long)MKV_NS_PER_MS)
#define PROBE_MEDIA_MAX		255u		/* bytes of a medium's name in a configuration */

enum probe_state {
	PROBE_MISSING,		/* no such file */
	PROBE_EMPTY,		/* nothing that we or anybody known wrote: its first MiB is zero, no signature; of a file also no data behind */
	PROBE_STORE,		/* a memkv store, at least one superblock good */
	PROBE_DAMAGED,		/* a memkv store, no superblock good, or of another version */
	PROBE_FOREIGN,		/* somebody else's: file system, partition table, unknown data */
	PROBE_IN_USE,		/* mounted, swap, member of a volume, or open elsewhere, whatever lies on it */
	PROBE_UNUSABLE,		/* not readable, not writable, neither file nor block device */
	PROBE_STATES
};

struct probe {
	char		path[PROBE_MEDIA_MAX + 1], real[PATH_MAX], model[64];
	enum probe_state state;
	enum probe_state content;	/* EMPTY, STORE, DAMAGED or FOREIGN, also while it is in use */
	char		what[PROBE_TEXT_BYTES];	/* what was found, in words */
	int		is_block, busy, partitions;
	dev_t		dev;			/* block device: its number; file: that of its file system, and */
	ino_t		ino;
	uint64_t	bytes;
	uint32_t	sector_bytes;
	enum mkv_sb_state copy[2];
	struct mkv_sb	sb;			/* of a STORE: the copy that counts */
};

/* Look at a medium. Always fills p; what went wrong is in state and what. head: NULL, or room for its first PROBE_HEAD_BYTES (4096-aligned). */
void		probe_medium(struct probe *p, const char *path, uint8_t *head);
/*
 * The same, again and again until until_ns (monotonic) while a server seems to have it: the kernel takes down the ring of a process behind its end, and
 * only then its lock is gone. Who was told that the server has stopped need not try twice.
 */
void		probe_settled(struct probe *p, const char *path, uint8_t *head, uint64_t until_ns);
const char *	probe_state_name(enum probe_state s);	/* "in-use" */
/* Read bytes of a probed medium, past caches where that is possible; buf, off and bytes multiples of 4096. 0 or MKV_E_*. */
int		probe_read(const struct probe *p, void *buf, uint32_t bytes, uint64_t off);

/* probe_linux.c, probe_none.c */
/* Who uses a block device: text for `what` (empty: nobody); sets model and partitions. */
void		probe_users(struct probe *p, char *users, size_t n);
/* A signature as the system's library knows them: text, empty if there is none. fd: buffered, readable. */
void		probe_signature(int fd, char *text, size_t n);
/* Call fn with the path of each block device that might hold a store (disks, volumes; no partitions). */
void		probe_each(void (*fn)(void *arg, const char *path), void *arg);
/* The partition table has changed: let the kernel forget the old one. What is no device, or has none, is left in peace. */
void		probe_reread(int fd);
/* RDMA devices: the n-th name, 0 past the end. */
int		probe_rdma(unsigned n, char *name, size_t name_bytes);

#endif
