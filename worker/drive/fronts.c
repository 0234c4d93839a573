/*
 * Fronts and other drives: descriptors in, answers out, deaths. Drive's loop thread; owns the backlogs.
 *
 * A request's slot is foreign memory: the engine copies it before it looks. Answers that find their ring full wait in order and are tried again each
 * turn; requests that find the engine full likewise. Both backlogs are bounded by what fronts can have under way; beyond that a request is answered
 * `busy` and an answer is dropped, which costs its front a deadline.
 * A front that died: its requests run to their end without answers; when the last is complete, DRAINED(front, epoch).
 */
#include "config.h"

#include <stdlib.h>
#include <stddef.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/log.h"
#include "worker/drive/drive.h"

int
drive_fronts_init(struct drive *d)
{
	d->requests.wait = calloc(DRIVE_BACKLOG_MAX, sizeof(*d->requests.wait));
	d->answers.wait = calloc(DRIVE_BACKLOG_MAX, sizeof(*d->answers.wait));
	return (d->requests.wait == NULL || d->answers.wait == NULL ? MKV_E_NOMEM : 0);
}

void
drive_fronts_fini(struct drive *d)
{
	free(d->requests.wait);
	free(d->answers.wait);
}

static int
backlog_push(struct drive_backlog *b, uint32_t client, const struct mkv_desc *desc)
{
	struct drive_wait *w = &b->wait[(b->head + b->count) % DRIVE_BACKLOG_MAX];

	if (b->count == DRIVE_BACKLOG_MAX)
		return (MKV_E_BUSY);
	b->count++;
	w->client = client;
	w->desc = *desc;
	return (0);
}

static void
backlog_pop(struct drive_backlog *b)
{
	b->head = (b->head + 1) % DRIVE_BACKLOG_MAX;
	b->count--;
}

/* Forget what belongs to a client; the order of the rest stays. */
static void
backlog_drop(struct drive_backlog *b, uint32_t client)
{
	uint32_t n = b->count, keep = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct drive_wait w = b->wait[(b->head + i) % DRIVE_BACKLOG_MAX];

		if (w.client != client)
			b->wait[(b->head + keep++) % DRIVE_BACKLOG_MAX] = w;
	}
	b->count = keep;
}

static struct drive_stage *
front_stage(struct drive *d, const struct mkv_peer *p)
{
	return (p->index < DRIVE_FRONTS_MAX && d->stage[p->index].stage != NULL ? &d->stage[p->index] : NULL);
}

static int
front_client(const struct drive *d, const struct mkv_peer *p)
{
	for (unsigned i = 0; i < MKV_ENGINE_CLIENTS_MAX; i++) {
		if (d->client[i].peer == p && !d->client[i].dying)
			return ((int)i);
	}
	return (-1);
}

int
drive_front_client(const struct drive *d, uint32_t front, uint32_t epoch)
{
	for (unsigned i = 0; i < MKV_ENGINE_CLIENTS_MAX; i++) {
		const struct drive_client *c = &d->client[i];

		if (c->peer != NULL && !c->dying && c->peer->index == front && c->epoch == epoch)
			return ((int)i);
	}
	return (-1);
}

static int
front_dying(const struct drive *d, const struct mkv_peer *p)
{
	for (unsigned i = 0; i < MKV_ENGINE_CLIENTS_MAX; i++) {
		if (d->client[i].peer == p && d->client[i].dying)
			return (1);
	}
	return (0);
}

void
drive_peer_up(struct mkv_worker *w, struct mkv_peer *p)
{
	struct drive *d = w->room;

	if (p->kind != MKV__CTL__PEER_KIND__PEER_FRONT)
		return;
	for (unsigned i = 0; i < MKV_ENGINE_CLIENTS_MAX; i++) {
		struct drive_client *c = &d->client[i];

		if (c->peer != NULL)
			continue;
		c->peer = p;
		c->epoch = p->epoch;
		c->dying = 0;
		return;
	}
	/* So many dead fronts with I/O that does not end: this drive hangs, and its fronts will hear `retry`. */
	mkv_worker_report(w, -1, -1, "no room for another front: I/O of dead ones does not end");
}

static void
front_say_drained(struct drive *d, const struct mkv_peer *p)
{
	uint32_t *epoch = &d->drain_epoch[p->index % DRIVE_FRONTS_MAX];

	if (*epoch == 0 || front_dying(d, p))
		return;
	mkv_worker_drained_front(d->w, p->index, *epoch);
	*epoch = 0;
}

void
drive_client_done(void *arg, uint32_t client)
{
	struct drive *d = arg;
	struct mkv_peer *p = d->client[client].peer;

	drive_regions_gone(d, client);
	memset(&d->client[client], 0, sizeof(d->client[client]));
	front_say_drained(d, p);
}

void
drive_peer_down(struct mkv_worker *w, struct mkv_peer *p, uint32_t epoch, int restarting)
{
	struct drive *d = w->room;
	int i;

	(void)restarting;
	if (p->kind != MKV__CTL__PEER_KIND__PEER_FRONT)
		return;
	d->drain_epoch[p->index % DRIVE_FRONTS_MAX] = MKV_MAX(epoch, 1u);
	if ((i = front_client(d, p)) >= 0) {
		backlog_drop(&d->requests, (uint32_t)i);
		backlog_drop(&d->answers, (uint32_t)i);
		d->client[i].dying = 1;
		if (d->e != NULL)
			mkv_engine_client_gone(d->e, (uint32_t)i);	/* ends in drive_client_done() */
		else
			drive_client_done(d, (uint32_t)i);
	}
	front_say_drained(d, p);
}

static void
front_answer(struct drive *d, uint32_t client, const struct mkv_desc *desc)
{
	struct mkv_peer *p = d->client[client].peer;
	int r = MKV_E_AGAIN;

	if (d->answers.count == 0)
		r = mkv_peer_push(d->w, p, desc);
	if (r != MKV_E_AGAIN)
		return;				/* pushed, or the ring is closed and peer_down comes */
	mkv_metric_add(d->w->metrics, MKV_M_drive_ring_full_total, 0, 1);
	if (backlog_push(&d->answers, client, desc) != 0)
		mkv_log(MKV_EV_RING_BAD, "what=\"answers overflow\" front=%u", p->index);
}

void
drive_reply(void *arg, const struct mkv_call *call, const struct mkv_drv_rep *rep)
{
	struct drive *d = arg;
	struct drive_client *c = &d->client[call->client];
	struct mkv_desc desc = { .op = rep->op, .slot_idx = call->slot_idx, .gen = call->gen, .status = rep->status };
	uint8_t *slot = mkv_stage_slot(d->stage[c->peer->index].stage, call->slot_idx);

	MKV_ASSERT(slot != NULL);		/* it was there when the request came */
	memcpy(slot + MKV_STAGE_SLOT_BYTES / 2, rep, sizeof(*rep));
	front_answer(d, call->client, &desc);
}

static void
front_refuse(struct drive *d, uint32_t client, const struct mkv_desc *desc, int status)
{
	struct mkv_drv_rep rep = { .magic = MKV_DRV_REP_MAGIC, .op = desc->op, .status = status };
	struct mkv_call call = { client, desc->slot_idx, desc->gen };

	drive_reply(d, &call, &rep);
}

/* 0; MKV_E_AGAIN: the engine is full; MKV_E_PEER: no such slot. */
static int
front_submit(struct drive *d, uint32_t client, const struct mkv_desc *desc)
{
	struct mkv_call call = { client, desc->slot_idx, desc->gen };
	struct drive_stage *s = front_stage(d, d->client[client].peer);
	struct mkv_drv_req q;
	uint8_t *slot;

	if (s == NULL || (slot = mkv_stage_slot(s->stage, desc->slot_idx)) == NULL)
		return (MKV_E_PEER);
	memcpy(&q, slot, sizeof(q));		/* once: it may change under us */
	if (q.op != desc->op) {
		mkv_metric_add(d->w->metrics, MKV_M_drive_requests_bad_total, 0, 1);
		front_refuse(d, client, desc, MKV_E_PROTO);
		return (0);
	}
	return (mkv_engine_submit(d->e, &call, &q));
}

/* No room to wait in. Nobody sends an ABORT after a COMMIT, so what that one had reserved goes with it. */
static int
front_overflow(struct drive *d, uint32_t client, const struct mkv_desc *desc)
{
	struct drive_stage *s = front_stage(d, d->client[client].peer);
	uint8_t *slot = s != NULL ? mkv_stage_slot(s->stage, desc->slot_idx) : NULL;
	uint64_t txn;

	if (slot == NULL)
		return (MKV_E_PEER);
	if (desc->op == MKV_DRV_COMMIT) {
		memcpy(&txn, slot + offsetof(struct mkv_drv_req, txn), sizeof(txn));
		mkv_engine_unreserve(d->e, client, txn);
	}
	front_refuse(d, client, desc, MKV_E_BUSY);
	return (0);
}

static int
front_desc(struct drive *d, uint32_t client, const struct mkv_desc *desc)
{
	int r = MKV_E_AGAIN;

	if (d->e == NULL) {
		if (desc->op != MKV_DRV_RELEASE && front_stage(d, d->client[client].peer) != NULL &&
		    mkv_stage_slot(front_stage(d, d->client[client].peer)->stage, desc->slot_idx) != NULL)
			front_refuse(d, client, desc, MKV_E_RETRY);
		return (0);
	}
	if (desc->op == MKV_DRV_RELEASE) {
		mkv_engine_release(d->e, client, desc->arg[0], desc->arg[1]);
		return (0);
	}
	if (d->requests.count == 0)
		r = front_submit(d, client, desc);
	if (r == MKV_E_AGAIN && backlog_push(&d->requests, client, desc) != 0)
		return (front_overflow(d, client, desc));
	return (r == MKV_E_AGAIN ? 0 : r);
}

int
drive_desc(struct mkv_worker *w, struct mkv_peer *p, const struct mkv_desc *desc)
{
	struct drive *d = w->room;
	int i;

	if (p->kind == MKV__CTL__PEER_KIND__PEER_DRIVE) {
		if (d->e != NULL)
			mkv_engine_peer(d->e, p->index, desc);
		return (0);
	}
	if ((i = front_client(d, p)) < 0)
		return (0);
	return (front_desc(d, (uint32_t)i, desc));
}

void
drive_peer_send(void *arg, uint32_t drive, const struct mkv_desc *desc)
{
	struct drive *d = arg;

	for (uint32_t i = 0; i < MKV_DRV_STRIPE_MAX; i++) {
		struct mkv_peer *p;

		if (i == d->w->index || (drive != MKV_ENGINE_ALL_DRIVES && drive != i))
			continue;
		p = mkv_worker_peer(d->w, MKV__CTL__PEER_KIND__PEER_DRIVE, i);
		if (p != NULL && p->up)
			(void)mkv_peer_push(d->w, p, desc);
	}
}

unsigned
drive_fronts_turn(struct drive *d)
{
	unsigned n = 0;

	while (d->answers.count > 0) {
		struct drive_wait *w = &d->answers.wait[d->answers.head];

		if (mkv_peer_push(d->w, d->client[w->client].peer, &w->desc) == MKV_E_AGAIN)
			break;
		backlog_pop(&d->answers);
	}
	while (d->e != NULL && d->requests.count > 0) {
		struct drive_wait w = d->requests.wait[d->requests.head];

		/* A slot that is no more would have been refused when it came. */
		if (front_submit(d, w.client, &w.desc) == MKV_E_AGAIN)
			break;
		backlog_pop(&d->requests);
		n++;
	}
	return (n);
}
