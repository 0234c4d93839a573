/*
 * memkv-front, loop thread: a connection's sending half. Replies queue in any order; a turn's worth of them leaves in one send. A reply is numbered and
 * signed when it is gathered, so one that is dropped from the queue leaves no hole in the counter.
 *
 * The queue is bounded by the requests of the session, each with at most REQ_PARTS parts. A client that does not read is closed when the oldest reply
 * under way has had its time.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

void
mkv_conn_send(struct mkv_conn *c, struct mkv_out *o)
{
	MKV_CHECK_OBJ(c, CONN_MAGIC);
	MKV_ASSERT(!o->busy);
	MKV_ASSERT(c->state != CONN_CLOSING && c->state != CONN_FREE && c->state != CONN_LOOSE);
	o->busy = 1;
	mkv_list_push_tail(&c->txq, &o->link);
	if (!c->tx_busy && mkv_list_empty(&c->tx_link))
		mkv_list_push_tail(&c->f->tx_dirty, &c->tx_link);
}

static int
tx_seal(struct mkv_conn *c, struct mkv_out *o)
{
	struct mkv_hdr *h = &o->hdr;

	if (o->sealed)
		return (0);
	h->session_id = c->s.id;
	h->counter = ++c->s.counter_out;
	h->credits = (uint16_t)MKV_MIN(c->f->conf.inflight_max, UINT16_MAX);
	return (mkv_mac_sign(c->s.mac_out, h, MKV_WIRE_SIGNED_BYTES, o->body, h->body_bytes, h->mac));
}

static unsigned
tx_gather_one(struct mkv_conn *c, struct mkv_out *o, unsigned n)
{
	c->tx_iov[n].iov_base = &o->hdr;
	c->tx_iov[n++].iov_len = sizeof(o->hdr);
	if (o->hdr.body_bytes != 0) {
		c->tx_iov[n].iov_base = (void *)(uintptr_t)o->body;
		c->tx_iov[n++].iov_len = o->hdr.body_bytes;
	}
	for (unsigned i = 0; i < o->n_pay && o->place == NULL; i++)
		c->tx_iov[n++] = o->pay[i];
	return (n);
}

/* Returns how many iovecs, 0 when nothing is queued, or an error of the crypto library. */
static int
tx_gather(struct mkv_conn *c)
{
	uint64_t bytes = 0, until = 0;
	unsigned n = 0;
	int r;

	while (!mkv_list_empty(&c->txq) && bytes < CONN_TX_BYTES) {
		struct mkv_out *o = MKV_CONTAINER_OF(c->txq.next, struct mkv_out, link);

		if (n + 2 + o->n_pay > CONN_TX_IOV || o->place_left != 0)
			break;
		if ((r = tx_seal(c, o)) != 0)
			return (r);
		mkv_list_remove(&o->link);
		mkv_list_push_tail(&c->tx_flight, &o->link);
		n = tx_gather_one(c, o, n);
		bytes += sizeof(o->hdr) + o->hdr.body_bytes + (o->place == NULL ? o->pay_bytes : 0);
		until = MKV_MAX(until, o->until_ns);
	}
	if (n != 0)
		mkv_timer_arm(c->f->timers, &c->tx_timer, MKV_MAX(until, mkv_now_ns() + CONN_TX_GRACE_NS));
	return ((int)n);
}

/*
 * What goes to a region is there before its reply leaves: a piece a turn, then others have theirs. 1: nothing in front has to be copied any more. A region that
 * takes nothing, or has been dropped under its get, is the client's fault.
 */
static int
tx_place(struct mkv_conn *c)
{
	struct mkv_out *o = mkv_list_empty(&c->txq) ? NULL : MKV_CONTAINER_OF(c->txq.next, struct mkv_out, link);

	if (o == NULL || o->place_left == 0)
		return (1);
	if (!mkv_region_write(c, o)) {
		mkv_conn_refuse(c, MKV_M_front_bad_frames_total, "region");
		return (0);
	}
	if (o->place_left == 0)
		return (1);
	mkv_list_push_tail(&c->f->tx_dirty, &c->tx_link);
	return (0);
}

void
mkv_conn_tx_begin(struct mkv_conn *c)
{
	int n;

	if (c->tx_busy || c->state == CONN_CLOSING || c->state == CONN_FREE || c->state == CONN_LOOSE)
		return;
	if (!tx_place(c))
		return;
	n = tx_gather(c);
	if (n < 0)
		mkv_conn_close(c);
	else if (n > 0)
		c->tr->send(c, c->tx_iov, (unsigned)n);
}

static void
tx_end(struct mkv_list *q, int res)
{
	struct mkv_list *l;

	while ((l = mkv_list_pop(q)) != NULL) {
		struct mkv_out *o = MKV_CONTAINER_OF(l, struct mkv_out, link);

		o->busy = 0;
		o->done(o, res);	/* touch nothing of o after */
	}
}

void
mkv_conn_tx_drop(struct mkv_conn *c)
{
	tx_end(&c->txq, MKV_E_CLOSED);
	/* Gathered, but the send never began. */
	if (!c->tx_busy)
		tx_end(&c->tx_flight, MKV_E_CLOSED);
}

void
mkv_conn_sent(struct mkv_conn *c, int res)
{
	c->tx_busy = 0;
	mkv_timer_disarm(c->f->timers, &c->tx_timer);
	tx_end(&c->tx_flight, res < 0 ? res : 0);
	if (res < 0)
		mkv_conn_lost(c);
	if (c->state == CONN_CLOSING || c->state == CONN_LOOSE)
		mkv_conn_kick(c);
	else if (!mkv_list_empty(&c->txq) && mkv_list_empty(&c->tx_link))
		mkv_list_push_tail(&c->f->tx_dirty, &c->tx_link);
}

void
mkv_conn_tx_fire(struct mkv_timer *t, uint64_t now_ns)
{
	struct mkv_conn *c = MKV_CONTAINER_OF(t, struct mkv_conn, tx_timer);

	(void)now_ns;
	MKV_CHECK_OBJ(c, CONN_MAGIC);
	mkv_metric_add(c->f->m, MKV_M_front_timeouts_total, 0, 1);
	mkv_conn_close(c);
}
