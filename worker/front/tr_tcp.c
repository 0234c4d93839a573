/*
 * memkv-front, loop thread: TCP behind transport.h. One recv and one send of a connection are outstanding at most; both are the queue's until their
 * results come, also after stop().
 */
#include "config.h"

#include "worker/front/transport.h"

#include <sys/socket.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "worker/front/front_priv.h"

static void
tcp_recv_done(struct mkv_io *io, int res)
{
	struct mkv_conn *c = MKV_CONTAINER_OF(io, struct mkv_conn, rx_io);

	MKV_CHECK_OBJ(c, CONN_MAGIC);
	mkv_conn_received(c, res);
}

static void
tcp_send_done(struct mkv_io *io, int res)
{
	struct mkv_conn *c = MKV_CONTAINER_OF(io, struct mkv_conn, tx_io);

	MKV_CHECK_OBJ(c, CONN_MAGIC);
	mkv_conn_sent(c, res);
}

static void
tcp_recv(struct mkv_conn *c, void *buf, uint32_t bytes, unsigned flags)
{
	MKV_ASSERT(!c->rx_busy);
	c->rx_busy = 1;
	c->rx_io.done = tcp_recv_done;
	if (flags & MKV_TR_PASS)
		mkv_ioq_recv_fd(c->f->q, &c->rx_io, MKV_FD(c->fd), buf, bytes, flags & MKV_TR_ALL ? MKV_IO_ALL : 0, &c->f->passes[c->idx]);
	else
		mkv_ioq_recv(c->f->q, &c->rx_io, MKV_FD(c->fd), buf, bytes, flags & MKV_TR_ALL ? MKV_IO_ALL : 0);
}

static void
tcp_send(struct mkv_conn *c, const struct iovec *iov, unsigned n)
{
	MKV_ASSERT(!c->tx_busy);
	c->tx_busy = 1;
	c->tx_io.done = tcp_send_done;
	mkv_ioq_send(c->f->q, &c->tx_io, MKV_FD(c->fd), iov, n);
}

static void
tcp_stop(struct mkv_conn *c)
{
	if (c->rx_busy)
		mkv_ioq_cancel(c->f->q, &c->rx_io);
	if (c->tx_busy)
		mkv_ioq_cancel(c->f->q, &c->tx_io);
}

static void
tcp_close(struct mkv_conn *c)
{
	MKV_ASSERT(!c->rx_busy && !c->tx_busy);
	if (c->local) {
		(void)shutdown(c->fd, SHUT_RDWR);	/* its client hears of the end now; */
		mkv_close_stranger(c->fd);		/* this may wait for what he has passed and nobody has read */
	} else {
		close(c->fd);
	}
	c->fd = -1;
}

const struct mkv_transport mkv_transport_tcp = {
	.name = "tcp",
	.recv = tcp_recv,
	.send = tcp_send,
	.stop = tcp_stop,
	.close = tcp_close,
};
