/*
 * The platform: os_linux.c and os_darwin.c. Everything that is not POSIX goes through here (os_darwin.c has shm_open for memfd, a pipe for
 * eventfd, kqueue for pidfd). Results: descriptor >= 0, 0, or negative MKV_E_*. All descriptors are close-on-exec.
 */
#ifndef MKV_BASE_OS_H
#define MKV_BASE_OS_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/*
 * Shared memory of exactly `bytes`, zeroed, sealed against shrinking and growing. huge: 0 off, 1 advise (memfd + MADV_HUGEPAGE), 2 reserved pages of
 * 2 MiB or fail (mkv_os_shm_create_huge()).
 */
int	mkv_os_shm_create(const char *name, uint64_t bytes, int huge);
/*
 * The same in huge pages of page_bytes that the system has set aside; bytes is a multiple of them. All of them are taken here, so that nobody gets a
 * signal for one that is missing later. node: the NUMA node they are to be of, -1: any.
 * Returns: a descriptor; MKV_E_UNSUPPORTED there are no pages of that size here; MKV_E_NOMEM not so many are free; MKV_E_DENIED they were promised and then
 * withheld: by a limit of the cgroup, or the node has not so many.
 */
int	mkv_os_shm_create_huge(const char *name, uint64_t bytes, uint64_t page_bytes, int node);
/*
 * Memory that somebody else has made, before it is used as a region: a memfd with the seals SHRINK, GROW and SEAL, writable, no FUTURE_WRITE, all
 * its pages there. 0; MKV_E_INVAL: it is none; MKV_E_UNSUPPORTED: the system has none.
 */
struct mkv_os_shm {
	uint64_t	bytes;
	dev_t		dev;			/* with ino: its name, by whatever descriptor it comes */
	ino_t		ino;
};
int	mkv_os_shm_check(int fd, struct mkv_os_shm *out);
/* All pages of one's own memfd are there from now on. 0, MKV_E_NOSPACE, MKV_E_NOMEM, MKV_E_UNSUPPORTED. */
int	mkv_os_shm_fill(int fd, uint64_t bytes);
/* Pages that nobody has touched yet come from this node as long as it has any. 0, MKV_E_UNSUPPORTED, or why not. */
int	mkv_os_shm_prefer(int fd, uint64_t bytes, int node);
/* Ask for memory behind [p, p+bytes) that is mapped writable, before it is used; what is there stays as it is. Only advice. */
void	mkv_os_populate(void *p, uint64_t bytes);
/*
 * New pages, zeroes, take the place of those at p, also where those are of a file; p and bytes are whole pages of that mapping. *old: where the former ones are mapped now, for
 * mkv_os_shm_unmap(); NULL: nowhere. 0; MKV_E_NOMEM: nothing has changed.
 */
int	mkv_os_replace_pages(void *p, uint64_t bytes, void **old);
/* Huge pages for p, which is mapped writable, wherever 2 MiB of it lie on such a boundary: what is there is copied. 1: done; 0: not all of it, and that may have taken a while. */
int	mkv_os_collapse(void *p, uint64_t bytes);
int	mkv_os_shm_map(int fd, uint64_t bytes, int writable, int huge, void **out);	/* fd's size must be >= bytes: MKV_E_INVAL */
void	mkv_os_shm_unmap(void *p, uint64_t bytes);

/* Bell: a counter one rings and one waits for by polling. */
int	mkv_os_bell_create(int *wait_fd, int *ring_fd);		/* two numbers, close both (Linux: one eventfd under both) */
void	mkv_os_bell_ring(int ring_fd);				/* never blocks */
void	mkv_os_bell_clear(int wait_fd);				/* only where polling is not edge triggered (ioq does it) */

/* Control pair: message boundaries kept, descriptors pass. */
int	mkv_os_ctl_pair(int fds[2]);
/* Send one message with n_fds descriptors (<= 32). 0, MKV_E_AGAIN, MKV_E_CLOSED, MKV_E_SYSTEM. */
int	mkv_os_ctl_send(int fd, const void *msg, size_t bytes, const int *fds, unsigned n_fds);
/* Bytes received; 0 end; descriptors in fds (close-on-exec), *n_fds in: room, out: count. Too many or truncated: all closed, MKV_E_PROTO. MKV_E_AGAIN when none. */
ssize_t	mkv_os_ctl_recv(int fd, void *msg, size_t bytes, int *fds, unsigned *n_fds);

/*
 * Whether a peer of this unix socket, or of those that are accepted from it, may pass descriptors: whoever receives one has to close it, and that may take as long as the
 * passer likes. Sockets begin with 1. A kernel before Linux 6.16 has no such switch: then nothing changes.
 */
void	mkv_os_pass_rights(int fd, int on);

/* User and process at the other end of a connected unix socket, when it connected; pid may be NULL. 0 or MKV_E_SYSTEM. */
int	mkv_os_peer(int fd, uid_t *uid, pid_t *pid);

/* Process end: a descriptor that becomes readable when pid ends. */
int	mkv_os_proc_watch(pid_t pid);
/* Ask the kernel to keep this process from gaining privileges and to end with no parent surprises. */
int	mkv_os_no_new_privs(void);

/* Landlock: deny all file and TCP rights to this thread and those that it makes later. The ABI used (>= 1), 0 if the kernel has none, or an error. */
int	mkv_os_landlock_deny_all(void);

/* Medium: size in bytes, sector, whether it is a block device. */
struct mkv_os_medium {
	uint64_t	bytes;
	uint32_t	sector_bytes;
	int		is_block;
};
int	mkv_os_medium_query(int fd, struct mkv_os_medium *out);
/* The block device that path is, or that its file lies on. 0, MKV_E_UNSUPPORTED, or why not. */
int	mkv_os_block_number(const char *path, unsigned *major_no, unsigned *minor_no);
/* Open for all I/O of a drive: O_DIRECT where it works (*direct says), block devices also O_EXCL. MKV_E_LOCKED if busy. */
int	mkv_os_medium_open(const char *path, int *direct);
int	mkv_os_medium_lock(int fd);				/* flock LOCK_EX|LOCK_NB: 0, MKV_E_LOCKED */
/* Reserve the whole file: blocks are there afterwards. MKV_E_NOSPACE (nothing changed), MKV_E_UNSUPPORTED. */
int	mkv_os_preallocate(int fd, uint64_t bytes);
int	mkv_os_discard(int fd, uint64_t off, uint64_t bytes);	/* BLKDISCARD: 0; MKV_E_UNSUPPORTED */
int	mkv_os_punch(int fd, uint64_t off, uint64_t bytes);	/* a hole in a file, its size stays: 0; MKV_E_UNSUPPORTED */
/* A file reads as zeros there, and its blocks stay reserved: 0; MKV_E_UNSUPPORTED nothing changed; MKV_E_NOSPACE zeros, but not reserved any more. */
int	mkv_os_zero(int fd, uint64_t off, uint64_t bytes);
/*
 * The next part of a file from off on that was written, or read since it was reserved: 1 and where it lies; 0 there is none, so zeros are read.
 * Where the file system cannot tell, all of the rest. Moves the descriptor's place.
 */
int	mkv_os_next_data(int fd, uint64_t off, uint64_t *from, uint64_t *to);

/* What this process and its children may have. */
struct mkv_os_memory {
	uint64_t	total;			/* of the machine */
	uint64_t	huge_total;		/* of that set aside as huge pages of any size */
	uint64_t	huge_page_bytes;	/* the size that vm.nr_hugepages counts; 0: there are none */
	uint64_t	limit;			/* of the memory cgroup and those above it; UINT64_MAX: none */
};
int	mkv_os_memory(struct mkv_os_memory *out);		/* 0 or MKV_E_SYSTEM */

int	mkv_os_cpu_count(void);
int	mkv_os_clock_synchronised(void);			/* does something keep the clock right? 1, 0, or -errno: the system does not tell */
/* What a network device was told of its priorities. */
struct mkv_os_dcb {
	int		pfc;			/* bit p: priority p stops instead of losing packets; -1: not told */
	int8_t		of_dscp[64];		/* the priority that a DSCP is put into; -1: no rule of its own */
};
int	mkv_os_dcb(const char *netdev, struct mkv_os_dcb *out);	/* 0 or -errno: -EOPNOTSUPP where the driver (or the platform) has none */
int	mkv_os_uring_try(void);					/* make an io_uring and drop it: 0, or -errno as the system says it */
#define MKV_OS_CPUS_MAX		1024u
struct mkv_os_cpus {
	uint64_t	bit[MKV_OS_CPUS_MAX / 64];	/* processor i: bit i % 64 of word i / 64 */
};
/* The processors that this thread may run on, and those that it makes later. set: for between fork and exec. 0, MKV_E_UNSUPPORTED, or why not. */
int	mkv_os_cpus_get(struct mkv_os_cpus *out);
int	mkv_os_cpus_set(const struct mkv_os_cpus *cpus);
/* How many shared objects this process has loaded so far: another number than before means that one was added. 0: not told, on a platform without CUDA. */
uint64_t mkv_os_libs_loaded(void);
int	mkv_os_listen_tcp(const char *host, uint16_t port, int reuseport, uint16_t *bound_port);	/* bound, listening, non-blocking */
/*
 * A unix socket at path, listening, non-blocking, which who has the rights of mode may connect to. What a killed process left there is replaced, the directory
 * above made if it is missing. The caller unlinks it. Context: no other thread makes files meanwhile (umask). MKV_E_LOCKED: somebody listens there; MKV_E_EXISTS:
 * something is there that is no socket; MKV_E_TOOBIG: the path is too long; MKV_E_SYSTEM, MKV_E_DENIED.
 */
int	mkv_os_listen_unix(const char *path, mode_t mode);
/* Tells of entries that leave a directory. A descriptor (non-blocking, readable when there is news) or MKV_E_*. */
int	mkv_os_watch_dir(const char *path);
int	mkv_os_watch_left(int fd, const char *name);		/* takes all news: 1: an entry of this name left */
int	mkv_os_close_from(int lowest);				/* closes every descriptor >= lowest */
/*
 * For the first line of a program: descriptors 0 to 2 that its parent left closed are taken by something that fails on use, lest the first socket or
 * store that is opened becomes our standard output.
 */
void	mkv_os_std_fds(void);
/*
 * For the last line of a program that prints, with SIGPIPE ignored: is all of it out? NULL, or why not; "" where the reader left before the end (`| head`):
 * who does that knows it, and is to be told nothing.
 */
const char *mkv_os_std_end(void);
int	mkv_os_std_unread(void);				/* 1: nobody reads the standard output any more */
int	mkv_os_fds_inherited(void);				/* how many above 2 are open and not close-on-exec: tests of what a child gets */

/*
 * What the poll back end of ioq stands on.
 */
extern const int mkv_os_msg_nosignal;	/* flag for send: no SIGPIPE (0 where mkv_os_socket_mode() does it) */
extern const int mkv_os_msg_cloexec;	/* for recvmsg(), or 0 */
int	mkv_os_poll(struct pollfd *fds, unsigned n, uint64_t wait_ns);	/* count, 0 (time passed, signal) or error; UINT64_MAX: no limit */
int	mkv_os_accept(int fd, struct sockaddr_storage *addr, socklen_t *bytes);	/* close-on-exec, non-blocking; or -errno */
int	mkv_os_socket_mode(int fd, int nonblocking);		/* also: no SIGPIPE where that is a socket option */
int	mkv_os_is_socket(int fd);
void	mkv_os_fd_away(int *fd);				/* a guest's, above the numbers that its program gives (dup2); where it is if the limit is too low */
/* A stream to a unix socket, close-on-exec; each wait on it ends after timeout_s with EAGAIN. A descriptor, or -errno. */
int	mkv_os_connect_unix(const char *path, unsigned timeout_s);
int	mkv_os_flush(int fd);					/* data to the medium, its cache included; 0 or -errno */

#endif
