/*
 * memkv-front, loop thread: the rails of this server as a front knows them. A TCP front lists them in HELLO's reply and passes connections that ask for one
 * through its door; a rail's own front takes them from there. Owns the doors: the ends to send to, or the one end to receive from.
 *
 * Invariants: a door is the present life's of that rail's front, or shut; a rail is listed from the first word about it on, up or down. A connection is
 * passed while nothing of it is with the queue, and this front forgets it at once: two processes never read one socket. A front that stops shuts its door, so
 * that nobody waits in it.
 * What can fail: the rail's front (dead: its door is shut and the rail down until the supervisor says otherwise; slow: the client is told BUSY); messages
 * from the door, which are checked like any foreign bytes.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"
#include "worker/front/pass.h"

_Static_assert(MKV_WIRE_HDR_BYTES + MKV_WIRE_HELLO_MAX + CONN_AHEAD_BYTES <= MKV_PASS_BYTES_MAX, "all that can be read before HELLO is answered");
_Static_assert(MKV_PASS_BYTES_MAX <= CONN_RX_BYTES, "what was read fits the next receive buffer");

void
mkv_doors_init(struct mkv_front *f)
{
	for (unsigned i = 0; i < MKV_WIRE_RAILS_MAX; i++)
		f->doors[i].fd = -1;
	f->door = -1;
}

static void
door_shut(struct mkv_door *r)
{
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
	r->row.state = 0;
}

void
mkv_doors_fini(struct mkv_front *f)
{
	for (unsigned i = 0; i < f->n_doors; i++)
		door_shut(&f->doors[i]);
	if (f->door >= 0)
		close(f->door);
	f->door = -1;
}

static struct mkv_door *
door_find(struct mkv_front *f, uint16_t number)
{
	for (unsigned i = 0; i < f->n_doors; i++)
		if (f->doors[i].row.rail == number)
			return (&f->doors[i]);
	return (NULL);
}

int
mkv_front_rail(struct mkv_front *f, const struct mkv_wire_rail *row, int door)
{
	struct mkv_door *r = door_find(f, row->rail);

	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	if (row->rail == 0 || (r == NULL && f->n_doors == MKV_WIRE_RAILS_MAX)) {
		if (door >= 0)
			close(door);
		return (MKV_E_INVAL);
	}
	if (r == NULL)
		r = &f->doors[f->n_doors++];
	if (door >= 0) {
		door_shut(r);
		r->fd = door;
	}
	r->row = *row;
	return (0);
}

unsigned
mkv_doors_list(const struct mkv_front *f, struct mkv_wire_rail list[MKV_WIRE_RAILS_MAX], uint32_t *features)
{
	*features = 0;
	for (unsigned i = 0; i < f->n_doors; i++) {
		list[i] = f->doors[i].row;
		if (list[i].state == 1)
			*features |= list[i].transports;
	}
	return (f->n_doors);
}

/* ---- Passing --------------------------------------------------------------------------------------------------------------- */

int
mkv_doors_pass(struct mkv_conn *c, uint16_t number)
{
	struct mkv_front *f = c->f;
	struct mkv_door *r = door_find(f, number);
	struct sockaddr_storage from;
	uint8_t msg[MKV_PASS_MSG_MAX];
	socklen_t n = sizeof(from);
	size_t bytes;
	int e;

	MKV_ASSERT(!c->rx_busy && !c->tx_busy && c->state == CONN_HELLO);
	if (r == NULL || f->conf.rail != 0)
		return (MKV_E_UNSUPPORTED);
	if (r->row.state != 1 || r->fd < 0)
		return (MKV_E_UNREACHABLE);
	if (getpeername(c->fd, (struct sockaddr *)&from, &n) != 0)
		return (MKV_E_CLOSED);			/* it is gone already */
	bytes = mkv_pass_encode(msg, number, (struct sockaddr *)&from, (socklen_t)MKV_MIN(n, (socklen_t)sizeof(from)), c->rx_buf + c->rx_head,
	    c->rx_tail - c->rx_head);
	MKV_ASSERT(bytes != 0);
	if ((e = mkv_os_ctl_send(r->fd, msg, bytes, &c->fd, 1)) == 0) {
		mkv_metric_add(f->m, MKV_M_front_rail_passed_total, 0, 1);
		c->local = 0;				/* the socket lives on: not to be shut */
		mkv_conn_close(c);
		return (0);
	}
	if (e != MKV_E_CLOSED)
		return (MKV_E_BUSY);			/* it is full, or the kernel has too many sockets on their way */
	door_shut(r);
	return (MKV_E_UNREACHABLE);
}

/* ---- Taking, in the rail's own front ---------------------------------------------------------------------------------------- */

int
mkv_front_adopt_passed(struct mkv_front *f, int fd, const struct sockaddr_storage *from, const void *bytes, uint32_t n)
{
	struct mkv_conn *c;

	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	MKV_ASSERT(n <= CONN_RX_BYTES);
	if ((c = mkv_front_open(f, fd, from)) == NULL)
		return (MKV_E_BUSY);
	memcpy(c->rx_buf, bytes, n);
	c->rx_tail = n;
	mkv_metric_add(f->m, MKV_M_front_rail_taken_total, 0, 1);
	return (c->crowded ? MKV_E_BUSY : 0);
}

/* 1: there may be more; 0: not now; MKV_E_CLOSED: nobody holds the other end any more. */
static int
door_take(struct mkv_front *f)
{
	struct sockaddr_storage from;
	uint8_t msg[MKV_PASS_MSG_MAX];
	const uint8_t *bytes;
	unsigned n_fds = 1;
	uint32_t n;
	ssize_t got;
	int fd;

	got = mkv_os_ctl_recv(f->door, msg, sizeof(msg), &fd, &n_fds);
	if (got == MKV_E_AGAIN)
		return (0);
	if (got == 0 || got == MKV_E_SYSTEM)
		return (MKV_E_CLOSED);
	if (got > 0 && n_fds == 1 && mkv_pass_decode(msg, (size_t)got, f->conf.rail, &from, &bytes, &n) == 0) {
		(void)mkv_front_adopt_passed(f, fd, &from, bytes, n);
		return (1);
	}
	if (got > 0 && n_fds == 1)
		close(fd);
	mkv_metric_add(f->m, MKV_M_front_bad_frames_total, 0, 1);
	mkv_log(MKV_EV_FRAME_BAD, "rail=%u why=%s", f->conf.rail, "passed connection");
	return (1);
}

static void
door_done(struct mkv_io *io, int res)
{
	struct mkv_front *f = MKV_CONTAINER_OF(io, struct mkv_front, door_io);
	int more = 1;

	if (res < 0) {
		f->door_busy = 0;		/* the queue takes it back: we stop */
		return;
	}
	while (more == 1 && !f->stopping)
		more = door_take(f);
	if (more < 0 && !f->stopping)
		mkv_ioq_cancel(f->q, &f->door_io);	/* no supervisor: the end is near, and it would be readable for ever */
}

void
mkv_front_door(struct mkv_front *f, int fd, int file)
{
	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	MKV_ASSERT(f->door < 0 && f->conf.rail != 0);
	f->door = fd;
	f->door_file = file;
}

void
mkv_doors_start(struct mkv_front *f)
{
	if (f->door < 0)
		return;
	f->door_busy = 1;
	f->door_io.done = door_done;
	mkv_ioq_poll(f->q, &f->door_io, f->door_file, 1);
}

void
mkv_doors_stop(struct mkv_front *f)
{
	if (f->door_busy)
		mkv_ioq_cancel(f->q, &f->door_io);
	if (f->door < 0)
		return;
	(void)shutdown(f->door, SHUT_RD);		/* TCP fronts find it shut from now on */
	while (door_take(f) == 1)			/* who is in it already is refused, since we stop */
		continue;
}
