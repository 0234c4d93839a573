/*
 * Completion I/O for one loop thread: io_uring (os_uring.c) or poll(2) with helper threads for files (os_poll.c), one interface.
 *
 * Used by fronts, drives and libmemkv's I/O thread. A queue belongs to one thread: every call below is made by that thread, and
 * every completion runs on it, from mkv_ioq_run() and never from inside a submitting call. A struct mkv_io belongs to the queue from
 * the submitting call until its `done` runs; memory it names (buffers, iovecs, addresses) stays valid and untouched until then.
 * Nothing here allocates per operation. Results are >= 0 or a negative MKV_E_*; short file reads past the end are reported as such.
 */
#ifndef MKV_BASE_IOQ_H
#define MKV_BASE_IOQ_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/base/list.h"

struct mkv_ioq;
struct mkv_io;
typedef void	mkv_io_fn(struct mkv_io *io, int res);

struct mkv_io {
	mkv_io_fn	*done;			/* set by the caller; may submit again, may free the struct */
	/* The rest is the queue's. Zero it before first use. */
	struct mkv_list	link;
	uint8_t		op, active, flags, multishot;
	int		fd, buf_idx, events;
	int		res;
	int		passed;			/* recv_fd: the descriptor that came, the caller's from now on; -1: none. send_fd: the caller's */
	uint64_t	off, bytes, moved;
	void		*buf;
	struct iovec	one;
	struct msghdr	msg;
	_Alignas(struct cmsghdr) char ctl[CMSG_SPACE(sizeof(int))];
	struct mkv_io_pass *pass;		/* recv_fd */
	struct sockaddr_storage addr;
	socklen_t	addr_bytes;
};

/* Whose descriptors a recv takes. One that did not fit would be closed by the kernel, in our thread, which may take as long as the peer likes: so all fit that can come. */
#define MKV_IO_PASS_MAX	253		/* with one send, says the kernel */
struct mkv_io_pass {
	void		(*stray)(int fd);	/* takes what comes beyond the first */
	_Alignas(struct cmsghdr) char ctl[CMSG_SPACE(MKV_IO_PASS_MAX * sizeof(int))];
};

enum mkv_ioq_kind { MKV_IOQ_AUTO, MKV_IOQ_URING, MKV_IOQ_POLL };

struct mkv_ioq_opts {
	enum mkv_ioq_kind kind;
	unsigned	entries;		/* submission slots, power of two; more in flight is allowed up to depth_max */
	unsigned	depth_max;		/* operations in flight at most; asserted */
	unsigned	threads;		/* file helper threads of the poll back end (reads, writes, flushes); 0: no file I/O */
	int		guest;			/* in somebody else's program: its own descriptors are out of his way */
	int		restricted;		/* create disabled; mkv_ioq_jail() then enables it: call it before the first run (no effect in the poll back end) */
};

/*
 * The queue belongs to the thread that first submits, runs or jails it: it may be created, and files and buffers registered, by another.
 * 0; MKV_E_UNSUPPORTED: io_uring refused and kind is URING; MKV_E_NOMEM; MKV_E_SYSTEM. AUTO falls back to POLL.
 */
int		mkv_ioq_create(struct mkv_ioq **out, const struct mkv_ioq_opts *opts);
void		mkv_ioq_destroy(struct mkv_ioq **q);		/* cancels and forgets everything (no done runs); waits up to 2 s for file I/O; accepts NULL */
const char *	mkv_ioq_name(const struct mkv_ioq *q);		/* "io_uring" | "poll" */
unsigned	mkv_ioq_in_flight(const struct mkv_ioq *q);

/*
 * Files. A registered file is used by its index (0..), an unregistered one by -1 - fd: see MKV_FD(). Register before mkv_ioq_jail().
 * Buffers: registered ranges of at most 1 GiB; slots beyond n stay empty and may be filled later with mkv_ioq_set_buffer().
 * MKV_E_NOMEM (memlock): go on with buf_idx -1.
 */
#define MKV_FD(fd)	(-1 - (fd))
int		mkv_ioq_register_file(struct mkv_ioq *q, int fd);	/* index or error */
int		mkv_ioq_register_buffers(struct mkv_ioq *q, const struct iovec *iov, unsigned n, unsigned slots);
int		mkv_ioq_set_buffer(struct mkv_ioq *q, unsigned slot, const struct iovec *iov);

/* What a jailed queue may still do. */
enum {
	MKV_IOQ_MAY_FILE   = 1,		/* read, write, flush on registered files only */
	MKV_IOQ_MAY_SOCKET = 2,		/* recv, send, accept; never socket, connect, open */
};
/* IORING_REGISTER_RESTRICTIONS, then enable. 0; MKV_E_UNSUPPORTED: not restricted, but usable (so also the poll back end); MKV_E_SYSTEM. */
int		mkv_ioq_jail(struct mkv_ioq *q, unsigned may);

/* Sockets. file as above. recv: 1..bytes, or exactly bytes with MKV_IO_ALL (short only at end of stream); 0 is end of stream. */
#define MKV_IO_ALL	1
void		mkv_ioq_recv(struct mkv_ioq *q, struct mkv_io *io, int file, void *buf, uint32_t bytes, unsigned flags);
void		mkv_ioq_send(struct mkv_ioq *q, struct mkv_io *io, int file, const struct iovec *iov, unsigned n); /* all or error; iov stays the caller's */
/*
 * Unix sockets: the same with a descriptor beside the bytes (SCM_RIGHTS). It goes with the first byte that is sent, and comes with the recv that brings this
 * byte, close-on-exec, in io->passed; a recv without MKV_IO_ALL never goes beyond the bytes of that send. pass, the caller's until the end, takes the others.
 */
void		mkv_ioq_recv_fd(struct mkv_ioq *q, struct mkv_io *io, int file, void *buf, uint32_t bytes, unsigned flags, struct mkv_io_pass *pass);
void		mkv_ioq_send_fd(struct mkv_ioq *q, struct mkv_io *io, int file, const struct iovec *iov, unsigned n, int fd);
void		mkv_ioq_accept(struct mkv_ioq *q, struct mkv_io *io, int file);		/* new fd, close-on-exec; peer in io->addr */
void		mkv_ioq_connect(struct mkv_ioq *q, struct mkv_io *io, int file, const struct sockaddr *sa, socklen_t bytes);
/*
 * Readiness, POLLIN; the result is the set of poll bits. Multishot runs done again and again (a bell: edge triggered, never read; a
 * socket: done must take all there is) and ends with a negative result only.
 */
void		mkv_ioq_poll(struct mkv_ioq *q, struct mkv_io *io, int file, int multishot);

/* Files: exact or error; 0..bytes-1 only at end of file. buf_idx: slot of the registered buffer that holds buf, -1 for none. */
void		mkv_ioq_read(struct mkv_ioq *q, struct mkv_io *io, int file, void *buf, uint32_t bytes, uint64_t off, int buf_idx);
void		mkv_ioq_write(struct mkv_ioq *q, struct mkv_io *io, int file, const void *buf, uint32_t bytes, uint64_t off, int buf_idx);
void		mkv_ioq_flush(struct mkv_ioq *q, struct mkv_io *io, int file);		/* fdatasync */

/* Ask for an early end; done still runs, once (MKV_E_CANCELLED or the real result). File I/O at the device cannot be recalled. */
void		mkv_ioq_cancel(struct mkv_ioq *q, struct mkv_io *io);

/*
 * Submit what is queued, wait until something completes or until_ns (monotonic; 0: do not wait; UINT64_MAX: no limit) and run completions.
 * Returns how many ran, or a negative MKV_E_*. One system call when nothing is waiting (counted: mkv_ioq_enters()).
 */
int		mkv_ioq_run(struct mkv_ioq *q, uint64_t until_ns);
uint64_t	mkv_ioq_enters(const struct mkv_ioq *q);
/* Wake a queue that waits in mkv_ioq_run() on another thread: the one call that any thread may make. */
void		mkv_ioq_wake(struct mkv_ioq *q);

#endif
