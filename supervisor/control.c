/*
 * Process: supervisor, loop thread.
 * Owns: one control socket and what waits to go out on it (packed bytes and duplicates of the descriptors).
 * Invariants: messages leave in the order they were given; a message is whole or not sent; nothing here blocks.
 * What can fail: memory, the peer (closed, slow, talking nonsense). A child that lets CTL_QUEUE_MAX messages pile up is reported to the caller,
 * who ends it. A child never sends descriptors, but for one with a REGION of the front of the unix socket: else it has broken the protocol (mkv_os_ctl_recv closes them).
 */
#include "config.h"

#include "supervisor/control_priv.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fcntl.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define CTL_BATCH	64		/* messages of one child before others have their turn */

struct ctl_out {
	struct mkv_list	link;
	uint32_t	bytes;
	unsigned	n_fds;
	int		fds[CTL_FDS_MAX];
	uint8_t		data[];
};

static const struct {
	int		body;
	unsigned	kinds, phases;
} ctl_table[] = {
#define BODY(x)	MKV__CTL__CONTROL__BODY_##x
	{ BODY(HELLO),	 CTL_FRONT | CTL_DRIVE,	CTL_NEW },
	{ BODY(DRAINED), CTL_DRIVE,		CTL_STARTING | CTL_RUNNING | CTL_STOPPING },
	{ BODY(READY),	 CTL_FRONT | CTL_DRIVE,	CTL_STARTING | CTL_STOPPING },
	{ BODY(STATE),	 CTL_FRONT | CTL_DRIVE,	CTL_STARTING | CTL_RUNNING | CTL_STOPPING },
	{ BODY(RING_BAD), CTL_FRONT | CTL_DRIVE,	CTL_STARTING | CTL_RUNNING | CTL_STOPPING },
	{ BODY(PONG),	 CTL_FRONT | CTL_DRIVE,	CTL_STARTING | CTL_RUNNING | CTL_STOPPING },
	{ BODY(STOPPED), CTL_FRONT | CTL_DRIVE,	CTL_STOPPING },
	{ BODY(MAP_STORED), CTL_DRIVE,		CTL_STARTING | CTL_RUNNING | CTL_STOPPING },
	{ BODY(AWAY_LOG), CTL_DRIVE,		CTL_RUNNING | CTL_STOPPING },
	{ BODY(PURGED),	 CTL_DRIVE,		CTL_RUNNING | CTL_STOPPING },
	{ BODY(SPACES),	 CTL_DRIVE,		CTL_RUNNING | CTL_STOPPING },
	{ BODY(REGION),	 CTL_LOCAL,		CTL_RUNNING | CTL_STOPPING },
	{ BODY(REGION_DONE), CTL_DRIVE,		CTL_STARTING | CTL_RUNNING | CTL_STOPPING },
	{ BODY(FAIL),	 CTL_FRONT | CTL_DRIVE,	CTL_NEW | CTL_STARTING | CTL_RUNNING | CTL_STOPPING },
#undef BODY
};

int
ctl_allowed(int body, unsigned kinds, enum ctl_phase phase)
{
	for (size_t i = 0; i < MKV_ARRAY_LEN(ctl_table); i++)
		if (ctl_table[i].body == body)
			return ((ctl_table[i].kinds & kinds) != 0 && (ctl_table[i].phases & phase) != 0);
	return (0);
}

static void
ctl_out_free(struct ctl_out *o)
{
	for (unsigned i = 0; i < o->n_fds; i++)
		close(o->fds[i]);
	explicit_bzero(o->data, o->bytes);	/* may be a key */
	free(o);
}

static void
ctl_on_handle_closed(uv_handle_t *h)
{
	free(h);
}

void
ctl_close(struct ctl *c)
{
	struct mkv_list *l;

	if (c->magic != CTL_MAGIC)
		return;
	uv_poll_stop(c->poll);
	c->poll->data = NULL;
	uv_close((uv_handle_t *)c->poll, ctl_on_handle_closed);
	while ((l = mkv_list_pop(&c->queue)) != NULL)
		ctl_out_free(MKV_CONTAINER_OF(l, struct ctl_out, link));
	close(c->fd);
	memset(c, 0, sizeof(*c));
	c->fd = -1;
}

static void	ctl_on_poll(uv_poll_t *h, int status, int events);

static void
ctl_watch(struct ctl *c)
{
	(void)uv_poll_start(c->poll, UV_READABLE | (c->queue_count > 0 ? UV_WRITABLE : 0), ctl_on_poll);
}

/* Send what waits, as far as the socket takes it. */
static int
ctl_flush(struct ctl *c)
{
	int r;

	while (!mkv_list_empty(&c->queue)) {
		struct ctl_out *o = MKV_CONTAINER_OF(c->queue.next, struct ctl_out, link);

		r = mkv_os_ctl_send(c->fd, o->data, o->bytes, o->fds, o->n_fds);
		if (r == MKV_E_AGAIN)
			return (0);
		mkv_list_remove(&o->link);
		c->queue_count--;
		ctl_out_free(o);
		if (r != 0)
			return (r);
	}
	return (0);
}

static int
ctl_enqueue(struct ctl *c, const uint8_t *data, uint32_t bytes, const int *fds, unsigned n_fds)
{
	struct ctl_out *o;

	if (c->queue_count >= CTL_QUEUE_MAX)
		return (MKV_E_BUSY);
	if ((o = malloc(sizeof(*o) + bytes)) == NULL)
		return (MKV_E_NOMEM);
	mkv_list_init(&o->link);
	o->bytes = bytes;
	o->n_fds = 0;
	memcpy(o->data, data, bytes);
	for (unsigned i = 0; i < n_fds; i++) {
		if ((o->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0)) == -1) {
			ctl_out_free(o);
			return (MKV_E_NOMEM);
		}
		o->n_fds++;
	}
	mkv_list_push_tail(&c->queue, &o->link);
	c->queue_count++;
	ctl_watch(c);
	return (0);
}

int
ctl_send(struct ctl *c, const Mkv__Ctl__Control *m, const int *fds, unsigned n_fds)
{
	static uint8_t buf[CTL_MSG_MAX];	/* one loop thread */
	size_t bytes;
	int r = MKV_E_AGAIN;

	MKV_ASSERT(n_fds <= CTL_FDS_MAX);
	if (c->magic != CTL_MAGIC)
		return (MKV_E_CLOSED);
	bytes = mkv__ctl__control__get_packed_size(m);
	if (bytes > sizeof(buf))
		return (MKV_E_TOOBIG);
	mkv__ctl__control__pack(m, buf);
	if (c->queue_count == 0)
		r = mkv_os_ctl_send(c->fd, buf, bytes, fds, n_fds);
	if (r == MKV_E_AGAIN)
		r = ctl_enqueue(c, buf, (uint32_t)bytes, fds, n_fds);
	explicit_bzero(buf, bytes);
	return (r);
}

/* One message in. 1: go on; 0: nothing more; negative: c is closed, touch nothing. */
static int
ctl_recv_one(struct ctl *c)
{
	static uint8_t buf[CTL_MSG_MAX];
	Mkv__Ctl__Control *m;
	unsigned n_fds = c->may_pass;
	int fd = -1, gone;
	ssize_t n;

	n = mkv_os_ctl_recv(c->fd, buf, sizeof(buf), &fd, &n_fds);
	if (n == MKV_E_AGAIN)
		return (0);
	if (n <= 0) {
		c->on_end(c->arg, n == 0 || n == MKV_E_CLOSED ? NULL : "message with descriptors or too long");
		return (-1);
	}
	m = mkv__ctl__control__unpack(NULL, (size_t)n, buf);
	if (m == NULL || m->body_case == MKV__CTL__CONTROL__BODY__NOT_SET) {
		c->on_end(c->arg, "message that is none");
		gone = 1;
	} else
		gone = c->on_msg(c->arg, m, fd);
	if (m != NULL)
		mkv__ctl__control__free_unpacked(m, NULL);
	if (fd != -1)
		close(fd);
	return (gone ? -1 : 1);
}

static void
ctl_on_poll(uv_poll_t *h, int status, int events)
{
	struct ctl *c = h->data;
	int r = 1;

	if (c == NULL)
		return;
	MKV_CHECK_OBJ(c, CTL_MAGIC);
	if (status == 0 && (events & UV_WRITABLE) != 0) {
		(void)ctl_flush(c);		/* a closed peer shows below, after what it had said */
		ctl_watch(c);
	}
	for (int i = 0; i < CTL_BATCH && r == 1; i++)
		r = ctl_recv_one(c);
}

void
ctl_drain(struct ctl *c)
{
	int r = 1;

	for (int i = 0; i < CTL_BATCH && r == 1 && c->magic == CTL_MAGIC; i++)
		r = ctl_recv_one(c);
}

int
ctl_open(struct ctl *c, uv_loop_t *loop, int fd, ctl_msg_fn *on_msg, ctl_end_fn *on_end, void *arg)
{
	memset(c, 0, sizeof(*c));
	if ((c->poll = malloc(sizeof(*c->poll))) == NULL) {
		close(fd);
		return (MKV_E_NOMEM);
	}
	if (uv_poll_init(loop, c->poll, fd) != 0) {
		free(c->poll);
		close(fd);
		return (MKV_E_SYSTEM);
	}
	c->magic = CTL_MAGIC;
	c->fd = fd;
	c->poll->data = c;
	c->on_msg = on_msg;
	c->on_end = on_end;
	c->arg = arg;
	mkv_list_init(&c->queue);
	ctl_watch(c);
	return (0);
}
