/*
 * memkv-front, loop thread: DC in a rail: the pool of initiators, and the target that all clients of DC send to. Owns both, and the lines that are leased.
 *
 * A DC client costs no queue pair here: its channel is found by what a message says of itself, and believed by its MAC. A request gets a line (an initiator that is
 * aimed at the client's target) when its first message is taken up; all its pieces and all its answers go by it, in order; a CANCEL joins the line of the
 * request that it ends, since its answer says that nothing comes any more.
 *
 *	line	free --a request begins--> leased --the request is gone, or waits for its client, and nothing is out--> over --next turn--> free
 *				leased --an error--> broken --all that was out came back--> over --reset--> free, or out of service
 *
 * No line is free: the message is held, and its channel waits in rail.wait; who waits is woken in turn. The last few lines are for PING and CANCEL. Where there are
 * several channels, one of them gets a further line only while it has fewer than are free: the last one goes to a channel that has none.
 *
 * What fails: an initiator, and with it the request that has it (and no other). The client is told why by another line, since it may have to make its memory
 * safe: bytes of a get may be under way still unless its own NIC refused them. If it cannot be told, its channel breaks, so that no later CANCEL is answered. Two
 * failures in a row of its path, or of its receives, break the channel as well: it attaches again. An initiator that cannot be made anew is out of service; with the
 * last of them goes DC. A device without DC: the rail has RC alone, and says why.
 */
#include "config.h"

#include "worker/front/rail_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/log.h"

#define DC_FAULTS_MAX	2u		/* in a row */
#define DC_KEEP_MIN	2u		/* initiators for PING and CANCEL, where there are more */
#define DC_KEEP_SHARE	16u

static void	dc_broken(struct mkv_rdma_qp *qp, const char *why);
static void	dc_no_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx);
static void	target_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx);
static void	target_done(struct mkv_rdma_qp *qp, void *cookie, int status);
static void	target_broken(struct mkv_rdma_qp *qp, const char *why);

static const struct mkv_rdma_qp_ops dc_ops = { .recv = dc_no_recv, .done = xfer_done, .broken = dc_broken };
static const struct mkv_rdma_qp_ops target_ops = { .recv = target_recv, .done = target_done, .broken = target_broken };

/* ---- The device ------------------------------------------------------------------------------------------------------------ */

/* Initiators and their send queues get half of what the completion queue can take at most. */
void
rail_dc_share(struct mkv_rail *r, uint32_t sends)
{
	const struct mkv_verbs *v = r->dev->v;

	r->dc_n = v->dc_supported != NULL && v->dc_supported(r->dev->ctx->device) ? r->conf.num_dcis : 0;
	r->dc_sends = LINE_SENDS_MAX;
	while (r->dc_sends > LINE_SENDS_MIN && (uint64_t)r->dc_n * r->dc_sends > sends / 2)
		r->dc_sends /= 2;
	r->dc_n = MKV_MIN(r->dc_n, sends / 2 / r->dc_sends);
}

static int
dc_lines(struct mkv_rail *r)
{
	if ((r->lines = calloc(r->dc_n, sizeof(*r->lines))) == NULL)
		return (MKV_E_NOMEM);
	for (uint32_t i = 0; i < r->dc_n; i++) {
		line_init(&r->lines[i], r, r->dc_sends);
		r->lines[i].dc = 1;
		mkv_list_push_tail(&r->line_free, &r->lines[i].link);
	}
	return (0);
}

static int
dc_make(struct mkv_rail *r)
{
	struct mkv_rdma_qp_conf i = { .sends = r->dc_sends, .send_bytes = LINE_SEND_BYTES }, t = { .ops = &target_ops, .owner = r };
	int e;

	if (r->conf.num_dcis == 0 || !mkv_rdma_dc_try(r->hub, r->dc_why, sizeof(r->dc_why)))
		return (MKV_E_UNSUPPORTED);
	if (r->dc_n == 0) {
		snprintf(r->dc_why, sizeof(r->dc_why), "the completion queue of RDMA device %s has no room for DC initiators", r->dev->name);
		return (MKV_E_UNSUPPORTED);
	}
	if ((e = dc_lines(r)) != 0 || (e = mkv_rdma_pool_open(&r->pool, r->hub, &i, r->dc_n, r->dc_why, sizeof(r->dc_why))) != 0)
		return (e);
	return (mkv_rdma_target_create(&r->target, r->hub, &t));
}

void
rail_dc_open(struct mkv_rail *r)
{
	int e = dc_make(r);

	if (e != 0) {
		if (r->dc_why[0] == '\0')
			snprintf(r->dc_why, sizeof(r->dc_why), "%s", r->conf.num_dcis == 0 ? "no initiators are asked for" : mkv_err(e));
		rail_dc_close(r);
		mkv_log(MKV_EV_RAIL_WITHOUT_DC, "device=%s why=%s", r->dev->name, r->dc_why);
		return;
	}
	r->dc_keep = MKV_MAX(DC_KEEP_MIN, r->dc_n / DC_KEEP_SHARE);
	r->sends_all -= r->dc_n * r->dc_sends;
	r->sends_left = r->sends_all;
	r->dc_why[0] = '\0';
}

void
rail_dc_close(struct mkv_rail *r)
{
	if (r->target != NULL) {
		mkv_rdma_qp_fail(r->target);
		mkv_rdma_qp_destroy(&r->target);
	}
	mkv_rdma_pool_close(&r->pool);
	free(r->lines);
	r->lines = NULL;
	mkv_list_init(&r->line_free);
}

/* No message comes any more, or nothing can be answered. Whoever attaches again gets RC, while that works. */
static void
rail_dc_give_up(struct mkv_rail *r, const char *why)
{
	if (r->dc_lost)
		return;
	r->dc_lost = 1;
	snprintf(r->dc_why, sizeof(r->dc_why), "%s", why);
	mkv_log(MKV_EV_RAIL_WITHOUT_DC, "device=%s why=%s", r->dev->name, why);
	for (uint32_t i = 0; i < r->f->conf.connections_max + FRONT_SPARE_CONNS; i++)
		if (r->chans[i].dc)
			chan_break(&r->chans[i], why);
}

/* How many are for PING and CANCEL alone: not all that are left. */
static uint32_t
rail_dc_keep(const struct mkv_rail *r)
{
	uint32_t size = mkv_rdma_pool_size(r->pool);

	return (MKV_MIN(r->dc_keep, size != 0 ? size - 1 : 0));
}

/* ---- Lines ----------------------------------------------------------------------------------------------------------------- */

/* 0; MKV_E_AGAIN: no more than `keep` are free; else the client's target is not to be reached. */
static int
line_lease(struct mkv_chan *ch, uint32_t keep, struct mkv_line **out)
{
	struct mkv_rail *r = ch->rail;
	struct mkv_line *line;
	int e;

	*out = NULL;
	if (mkv_list_empty(&r->line_free))
		return (MKV_E_AGAIN);
	mkv_rdma_way_follow(&ch->way);
	line = MKV_CONTAINER_OF(r->line_free.next, struct mkv_line, link);
	if ((e = mkv_rdma_pool_lease(r->pool, &ch->dct, keep, &dc_ops, line, &line->qp)) != 0)
		return (e);
	mkv_list_remove(&line->link);
	mkv_list_push_tail(&ch->lines, &line->link);
	ch->n_lines++;
	line->ch = ch;
	line->broken = line->vital = 0;
	line->users = 0;
	line->rests = NULL;
	*out = line;
	return (0);
}

/* Nothing is out of it, and nobody needs it. */
static int
line_is_over(const struct mkv_line *line)
{
	return (line->users == (line->rests != NULL) && line->rec_head == line->rec_tail && mkv_list_empty(&line->outs) && mkv_list_empty(&line->xfers));
}

/* Callers may be inside of a callback of it, or about to use it: the turn takes it back. */
void
line_rest(struct mkv_line *line)
{
	if (line->dc && line_is_over(line) && mkv_list_empty(&line->over))
		mkv_list_push_tail(&line->rail->over, &line->over);
}

static void
line_back(struct mkv_line *line)
{
	struct mkv_rail *r = line->rail;

	MKV_ASSERT(line->window == 0 && line->reads == 0);
	if (line->rests != NULL)
		line->rests->line = NULL;
	if (line->ch->obit == line)
		line->ch->obit = NULL;
	if (line->broken)
		mkv_metric_add(r->f->m, MKV_M_front_dci_resets_total, 0, 1);
	mkv_list_remove(&line->dirty);
	mkv_list_remove(&line->link);
	line->ch->n_lines--;
	mkv_rdma_pool_back(r->pool, &line->qp);
	line->ch = NULL;
	mkv_list_push_tail(&r->line_free, &line->link);
	if (mkv_rdma_pool_size(r->pool) == 0)
		rail_dc_give_up(r, "none of its DC initiators can be made anew");
}

void
rail_lines_back(struct mkv_rail *r)
{
	struct mkv_list *l;

	while ((l = mkv_list_pop(&r->over)) != NULL) {
		struct mkv_line *line = MKV_CONTAINER_OF(l, struct mkv_line, over);

		if (line_is_over(line))
			line_back(line);
	}
}

static void
line_leave(struct mkv_req *r)
{
	struct mkv_line *line = r->line;

	if (line == NULL)
		return;
	MKV_ASSERT(line->users > 0);
	r->line = NULL;
	line->users--;
	if (line->rests == r)
		line->rests = NULL;
	line_rest(line);
}

void
mkv_chan_req_begins(struct mkv_req *r)
{
	struct mkv_remote *m = r->c->remote;

	r->line = m != NULL ? m->line : NULL;
	if (r->line == NULL)
		return;
	m->line = NULL;
	r->line->users++;
}

void
mkv_chan_req_gone(struct mkv_req *r)
{
	line_leave(r);
}

/* What it has had is answered when nothing is out of its line, so that the answer to what comes next may go by another: they keep their order. */
void
mkv_chan_req_rests(struct mkv_req *r)
{
	if (r->line == NULL)
		return;
	r->line->rests = r;
	line_rest(r->line);
}

/* ---- Waiting for one ------------------------------------------------------------------------------------------------------- */

/* How many it must leave to others: those that are kept, and as many as it has. */
static uint32_t
chan_leaves(const struct mkv_chan *ch, int last)
{
	return (last ? 0 : rail_dc_keep(ch->rail) + (ch->rail->n_dc > 1 ? ch->n_lines : 0));
}

/* What may have one of the last stands in front. */
static void
chan_wait(struct mkv_chan *ch, int last)
{
	const uint32_t n = mkv_rdma_pool_free(ch->rail->pool);

	if (!last && !mkv_list_empty(&ch->wait))
		return;
	if (mkv_list_empty(&ch->wait)) {
		mkv_metric_add(ch->rail->f->m, MKV_M_front_dci_waits_total, 0, 1);
		mkv_metric_add(ch->rail->f->m, MKV_M_front_dci_shares_total, 0, n > rail_dc_keep(ch->rail) && n <= chan_leaves(ch, last));
	}
	mkv_list_remove(&ch->wait);
	if (last) {
		ch->wants_last = 1;
		mkv_list_push_head(&ch->rail->wait, &ch->wait);
	} else
		mkv_list_push_tail(&ch->rail->wait, &ch->wait);
}

/* The first of those who wait that may have one while n are free; NULL: none. Who is passed over has at least one: they are never more than there are lines. */
static struct mkv_chan *
wait_next(const struct mkv_rail *r, uint32_t n)
{
	if (n == 0)
		return (NULL);
	MKV_LIST_FOREACH(it, &r->wait) {
		struct mkv_chan *ch = MKV_CONTAINER_OF(it, struct mkv_chan, wait);

		if (n > chan_leaves(ch, ch->wants_last))
			return (ch);
		if (n <= rail_dc_keep(r))		/* what wants one of the last stands in front */
			return (NULL);
	}
	return (NULL);
}

/* By how many are free, not by what came back: one that was woken may need none any more. */
void
mkv_rail_wake(struct mkv_rail *r)
{
	struct mkv_chan *ch;
	uint32_t n;

	ctl_wake(r);
	if (r->pool == NULL)
		return;
	rail_lines_back(r);
	for (n = mkv_rdma_pool_free(r->pool); (ch = wait_next(r, n)) != NULL; n--) {
		mkv_list_remove(&ch->wait);
		ch->woken = 1;
		ch->wants_last = 0;
		mkv_conn_kick(ch->c);
	}
}

/* Some who wait could go on. */
int
rail_dc_is_due(const struct mkv_rail *r)
{
	return (!mkv_list_empty(&r->over) || (!mkv_list_empty(&r->wait) && wait_next(r, mkv_rdma_pool_free(r->pool)) != NULL));
}

/* Of the request that it ends, so that its answer comes behind all that was out; behind the word that such a request has failed. NULL: of its own. */
static struct mkv_line *
cancel_line(const struct mkv_chan *ch, const struct mkv_hdr *h, const uint8_t *body)
{
	const struct mkv_wire_cancel *w = (const struct mkv_wire_cancel *)(const void *)body;
	const struct mkv_req *o;

	if (h->op != MKV_WIRE_CANCEL || h->body_bytes != sizeof(*w))
		return (NULL);
	o = mkv_req_find(ch->c->f, ch->c, w->request_id);
	return (o != NULL && o->line != NULL ? o->line : ch->obit);
}

/* 1: the channel broke. */
static int
chan_fault(struct mkv_chan *ch, enum mkv_rdma_fault fault, const char *why)
{
	if ((fault != MKV_RDMA_FAULT_RNR || ++ch->n_rnr < DC_FAULTS_MAX) && (fault != MKV_RDMA_FAULT_PATH || ++ch->n_path < DC_FAULTS_MAX))
		return (0);
	chan_break(ch, why);
	return (1);
}

/* For what the message in work asks. last: it may have one of those that are kept. */
static int
chan_lease(struct mkv_conn *c, struct mkv_chan *ch, int last)
{
	int e = MKV_E_AGAIN;

	/* Others were here before. */
	if (last || ch->woken || wait_next(ch->rail, mkv_rdma_pool_free(ch->rail->pool)) == NULL)
		e = line_lease(ch, chan_leaves(ch, last), &c->remote->line);
	if (!last)
		ch->woken = 0;
	if (e == MKV_E_AGAIN)
		chan_wait(ch, last);
	else if (e != 0)
		(void)chan_fault(ch, MKV_RDMA_FAULT_PATH, mkv_err(e));
	else if (!last)
		mkv_metric_time(c->f->m, MKV_M_front_rdma_acquire_seconds, mkv_now_ns() - c->hdr_ns);
	return (e);
}

int
mkv_chan_lease(struct mkv_conn *c, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_chan *ch = c->remote_channel != 0 ? chan_of(c) : NULL;

	if (ch == NULL || !ch->dc || (c->remote->line = cancel_line(ch, h, body)) != NULL)
		return (0);
	/* What moves nothing, and is answered by another way, needs none. */
	if (c->remote_carrier != MKV_WIRE_CONTROL_RDMA && h->op != MKV_WIRE_PUT && h->op != MKV_WIRE_GET)
		return (0);
	return (chan_lease(c, ch, h->op == MKV_WIRE_PING || h->op == MKV_WIRE_CANCEL));
}

int
mkv_chan_lease_again(struct mkv_req *r)
{
	struct mkv_chan *ch = r->channel != 0 ? chan_of(r->c) : NULL;
	int e;

	if (ch == NULL || !ch->dc || r->ending)
		return (0);
	if (r->line != NULL) {
		r->line->rests = NULL;
		return (0);
	}
	if ((e = chan_lease(r->c, ch, 0)) == 0)
		mkv_chan_req_begins(r);
	return (e);
}

/* All that there are go by one, and it goes back behind them. */
void
dc_run(struct mkv_chan *ch)
{
	struct mkv_line *line;
	struct mkv_list *l;
	int e;

	if (mkv_list_empty(&ch->late))
		return;
	if ((e = line_lease(ch, 0, &line)) != 0) {
		if (e == MKV_E_AGAIN)
			chan_wait(ch, 1);
		else
			(void)chan_fault(ch, MKV_RDMA_FAULT_PATH, mkv_err(e));
		return;
	}
	while ((l = mkv_list_pop(&ch->late)) != NULL)
		mkv_list_push_tail(&line->outs, l);
	line_touch(line);
}

/* Not from in here: a channel that breaks ends its requests, and this one is in the middle of that. */
void
dc_reply_late(struct mkv_chan *ch, struct mkv_out *o)
{
	mkv_list_push_tail(&ch->late, &o->link);
	mkv_conn_kick(ch->c);
}

/*
 * By DC an answer to CANCEL alone says nothing of the request: its own may come by another initiator. So it has one, in front of CANCEL's; without it the client
 * would have to fence. No room for it: that.
 */
void
dc_say_cancelled(const struct chan_held *m, const struct mkv_req *cancel)
{
	const struct mkv_hdr *h = held_hdr(m);
	struct mkv_chan *ch = chan_of(cancel->c);

	if (!ch->dc)
		return;
	if (m->carrier != MKV_WIRE_CONTROL_RDMA)
		ctl_say_cancelled(ch, m);
	else if (cancel->line != NULL)
		(void)line_word(cancel->line, h->op, h->request_id, 0, MKV_E_CANCELLED, MKV_REASON_NONE);
}

/* ---- Errors ---------------------------------------------------------------------------------------------------------------- */

/* The client hears by another line how its request ended. 0: it will not. */
static int
chan_tell(struct mkv_chan *ch, const struct mkv_req *r, unsigned reason)
{
	/* By another way it is told as its request ends, but not in front of what else comes by that way. */
	if (r->carrier != MKV_WIRE_CONTROL_RDMA)
		return (0);
	if (ch->obit == NULL && line_lease(ch, 0, &ch->obit) != 0)
		return (0);
	if (line_word(ch->obit, r->op, r->id, 0, MKV_E_CLOSED, reason) != 0)
		return (0);
	/* Bytes of a get may be on their way still: the client must not take a CANCEL's answer for their end. */
	if (r->op == MKV_WIRE_GET && reason != MKV_REASON_NIC_REFUSED)
		ch->obit->vital = 1;
	return (1);
}

/* All who used the line have lost it. 1: one of them should have been told, and could not be. */
static int
dc_end_requests(struct mkv_line *line, enum mkv_rdma_fault fault)
{
	unsigned reason = fault == MKV_RDMA_FAULT_ACCESS ? MKV_REASON_NIC_REFUSED : MKV_REASON_PATH;
	struct mkv_chan *ch = line->ch;
	int untold = 0;

	MKV_LIST_FOREACH_SAFE(it, tmp, &ch->c->reqs) {
		struct mkv_req *r = MKV_CONTAINER_OF(it, struct mkv_req, link);

		if (r->line != line)
			continue;
		/* Without a receive there is nothing to tell it by, and all in front of that message has arrived. */
		if (fault != MKV_RDMA_FAULT_RNR && !chan_tell(ch, r, reason))
			untold |= r->op == MKV_WIRE_GET && reason != MKV_REASON_NIC_REFUSED;
		line_leave(r);
		if (!r->ending)
			mkv_req_end(r, MKV_E_CLOSED, reason, NULL, 0);
		mkv_req_run(r);
	}
	return (untold);
}

static void
dc_broken(struct mkv_rdma_qp *qp, const char *why)
{
	struct mkv_line *line = mkv_rdma_qp_owner(qp);
	enum mkv_rdma_fault fault = mkv_rdma_qp_fault(qp);
	struct mkv_chan *ch = line->ch;
	int untold;

	MKV_CHECK_OBJ(line, LINE_MAGIC);
	line->broken = 1;
	if (ch->state != CHAN_OPEN)
		return;
	mkv_log(MKV_EV_LINE_BROKEN, "session=%" PRIx64 " channel=%u why=%s", ch->c->s.id, ch->number, why);
	if (chan_fault(ch, fault, why))
		return;
	if (ch->obit == line)
		ch->obit = NULL;
	untold = line->vital;
	untold |= dc_end_requests(line, fault);
	xfer_break(line);
	if (untold)
		chan_break(ch, "a client could not be told that bytes may still arrive");
}

/* Of a channel that breaks: what is out ends at our end at once. */
void
dc_break_lines(struct mkv_chan *ch)
{
	struct mkv_list *l;

	mkv_list_remove(&ch->wait);
	while ((l = mkv_list_pop(&ch->late)) != NULL)
		out_end(MKV_CONTAINER_OF(l, struct mkv_out, link), MKV_E_CLOSED);
	MKV_LIST_FOREACH(it, &ch->lines) {
		struct mkv_line *line = MKV_CONTAINER_OF(it, struct mkv_line, link);

		if (!line->broken && line->rec_head != line->rec_tail) {
			mkv_rdma_qp_fail(line->qp);
			line->broken = 1;
		}
		xfer_break(line);
	}
}

/* ---- ATTACH ---------------------------------------------------------------------------------------------------------------- */

/* An initiator's path MTU and the READs that it has under way are the device's: a client that takes less cannot be served so. */
int
dc_can(const struct mkv_rail *r, const struct mkv_wire_attach *w)
{
	return (r->target != NULL && !r->dc_lost && w->mtu_bytes >= r->dev->mtu_bytes && w->rd_atomic_in >= r->dev->rd_atomic_out);
}

/* Its address is looked up, and so long as the channel lives it stays known here: no lease waits for the kernel. */
int
dc_attach(struct mkv_chan *ch, const struct mkv_wire_attach *w)
{
	ch->dct = (struct mkv_rdma_dct){ .lid = w->lid, .dctn = w->qpn, .key = w->dc_key };
	memcpy(ch->dct.gid, w->gid, sizeof(ch->dct.gid));
	ch->n_rnr = ch->n_path = ch->woken = ch->wants_last = 0;
	ch->obit = NULL;
	return (mkv_rdma_way_take(&ch->way, ch->rail->hub, &ch->dct));
}

/* Whether the target's numbers make sense is tried, if an initiator is free for that. The last of them may have gone meanwhile. */
int
dc_attached(struct mkv_chan *ch)
{
	struct mkv_line *line;
	int e;

	if ((e = mkv_rdma_way_known(ch->way)) != 0)
		return (e);
	if (ch->rail->dc_lost)
		return (MKV_E_UNSUPPORTED);
	if ((e = line_lease(ch, 0, &line)) != 0)
		return (e == MKV_E_AGAIN ? 0 : e);
	line_rest(line);
	return (0);
}

/* ---- The target ------------------------------------------------------------------------------------------------------------ */

static void
dc_no_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx)
{
	mkv_rdma_rx_back(mkv_rdma_qp_hub(qp), rx);
}

/* Who sent it is what it says; the MAC will tell. */
static void
target_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx)
{
	struct mkv_rail *r = mkv_rdma_qp_owner(qp);
	const struct mkv_hdr *h = (const struct mkv_hdr *)(const void *)rx->buf;
	struct mkv_chan *ch = NULL;

	MKV_CHECK_OBJ(r, RAIL_MAGIC);
	if (rx->bytes >= sizeof(*h))
		ch = ctl_find(r, h->session_id, h->channel);
	if (ch != NULL && ch->dc) {
		chan_message(ch, rx);
		return;
	}
	mkv_metric_add(r->f->m, MKV_M_front_messages_unknown_total, 0, 1);
	mkv_rdma_rx_back(r->hub, rx);
}

static void
target_done(struct mkv_rdma_qp *qp MKV_UNUSED, void *cookie MKV_UNUSED, int status MKV_UNUSED)
{
	MKV_ASSERT(!"a target sends nothing");
}

/* The device fails. */
static void
target_broken(struct mkv_rdma_qp *qp, const char *why)
{
	struct mkv_rail *r = mkv_rdma_qp_owner(qp);

	MKV_CHECK_OBJ(r, RAIL_MAGIC);
	rail_dc_give_up(r, why);
}
