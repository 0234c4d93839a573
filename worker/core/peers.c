/*
 * The neighbours of a worker and the rings to them.
 *
 * Process and thread: front, drive; the loop thread.
 * Owns: mappings of both rings and of the bell of each peer; the own bell.
 * Invariants: a struct mkv_peer never moves and is never freed before the end; `up` says that both rings are open; bells outlive the rings.
 * Fails: a damaged ring (the far end's words, or what room->desc says about a descriptor) closes that pair and is reported (RING_BAD); the
 * supervisor's PEER_DIED follows when it has ended the culprit. A retired one likewise, without a word in the log. Damage never ends this process.
 */
#include "config.h"
#include "worker/core/core_priv.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/shm/metric.h"

static const char *
peer_kind(const struct mkv_peer *p)
{
	return (p->kind == MKV__CTL__PEER_KIND__PEER_DRIVE ? "drive" : "front");
}

struct mkv_peer *
mkv_worker_peer(struct mkv_worker *w, Mkv__Ctl__PeerKind kind, uint32_t index)
{
	for (unsigned i = 0; i < w->n_peers; i++)
		if (w->peer[i]->kind == kind && w->peer[i]->index == index)
			return (w->peer[i]);
	return (NULL);
}

static struct mkv_peer *
peer_make(struct mkv_worker *w, Mkv__Ctl__PeerKind kind, uint32_t index)
{
	struct mkv_peer *p = mkv_worker_peer(w, kind, index);

	if (p != NULL)
		return (p);
	if (w->n_peers == MKV_PEERS_MAX || (p = calloc(1, sizeof(*p))) == NULL)
		return (NULL);
	p->magic = MKV_PEER_MAGIC;
	p->kind = kind;
	p->index = index;
	w->peer[w->n_peers++] = p;
	return (p);
}

static void
peer_close_rings(struct mkv_peer *p)
{
	if (!p->up)
		return;
	p->up = 0;
	p->rang = p->out_bad = 0;		/* not the next ring's damage */
	mkv_ring_close(&p->out);
	mkv_ring_close(&p->in);
}

static void
peer_down(struct mkv_worker *w, struct mkv_peer *p, uint32_t epoch, int restarting)
{
	peer_close_rings(p);
	w->ops->peer_down(w, p, epoch, restarting);
}

static void
peer_accuse(struct mkv_worker *w, struct mkv_peer *p, const char *what)
{
	Mkv__Ctl__RingBad b = MKV__CTL__RING_BAD__INIT;
	MKV_CTL_MESSAGE(m, RING_BAD, ring_bad, &b);

	b.peer = p->kind;
	b.index = p->index;
	b.epoch = p->epoch;
	b.what = (char *)(uintptr_t)what;
	mkv_worker_say(w, &m);
	peer_down(w, p, p->epoch, 1);
}

static void
peer_damaged(struct mkv_worker *w, struct mkv_peer *p, const char *what)
{
	mkv_metric_add(w->metrics, w->ops->is_drive ? MKV_M_drive_ring_bad_total : MKV_M_front_ring_bad_total, 0, 1);
	mkv_log(MKV_EV_RING_BAD, "peer=%s:%" PRIu32 " epoch=%" PRIu32 " what=%s", peer_kind(p), p->index, p->epoch, what);
	peer_accuse(w, p, what);
}

/*
 * Retired: its far end died and PEER_DIED is on its way, so this is no damage. Or the far end wrote the epoch, or this end's word before it was
 * opened: the supervisor knows which rings it retired.
 */
static void
peer_bad(struct mkv_worker *w, struct mkv_peer *p, int err, const char *what)
{
	if (err == MKV_E_STALE)
		peer_accuse(w, p, "stale");
	else
		peer_damaged(w, p, what);
}

/* fds: the bell page, the bell. */
int
mkv_peers_bell(struct mkv_worker *w, const Mkv__Ctl__Bell *m, int *fds)
{
	struct mkv_peer *p = NULL;
	struct mkv_bell bell;
	int r;

	if (m->own && (w->has_bell || w->q != NULL))
		return (MKV_E_PROTO);			/* polled already; it outlives us, so there is nothing to replace */
	if (!m->own && (p = peer_make(w, m->peer, m->index)) == NULL)
		return (MKV_E_NOMEM);
	if ((r = mkv_bell_open(&bell, fds[0], fds[1])) != 0)
		return (r);
	fds[1] = -1;
	if (m->own) {
		w->bell = bell;
		w->has_bell = 1;
		return (0);
	}
	if (p->has_bell)
		mkv_bell_close(&p->bell);
	p->bell = bell;
	p->has_bell = 1;
	return (0);
}

/* fds: outgoing, incoming. */
int
mkv_peers_ring(struct mkv_worker *w, const Mkv__Ctl__Ring *m, int *fds)
{
	struct mkv_peer *p = peer_make(w, m->peer, m->index);
	int r;

	if (p == NULL)
		return (MKV_E_NOMEM);
	if (!p->has_bell)
		return (MKV_E_PROTO);
	if (p->up)
		peer_down(w, p, p->epoch, 1);
	p->epoch = m->epoch;
	if ((r = mkv_ring_open(&p->out, fds[0], m->epoch, 1)) == 0 && (r = mkv_ring_open(&p->in, fds[1], m->epoch, 0)) != 0)
		mkv_ring_close(&p->out);
	/* The far end had it before us and may have spoilt it already, or died already: as in peer_pop(). */
	if (r == MKV_E_PEER || r == MKV_E_STALE) {
		peer_bad(w, p, r, "new");
		return (0);
	}
	if (r != 0)
		return (r);
	p->up = 1;
	w->ops->peer_up(w, p);
	return (0);
}

/* Also for a peer whose ring is closed already: the room needs the epoch, and whether it comes back. */
int
mkv_peers_died(struct mkv_worker *w, const Mkv__Ctl__PeerDied *m)
{
	struct mkv_peer *p = peer_make(w, m->peer, m->index);

	if (p == NULL)
		return (MKV_E_NOMEM);
	peer_down(w, p, m->epoch, m->restarting);
	return (0);
}

int
mkv_peer_push(struct mkv_worker *w MKV_UNUSED, struct mkv_peer *p, const struct mkv_desc *d)
{
	int r;

	MKV_CHECK_OBJ(p, MKV_PEER_MAGIC);
	if (!p->up)
		return (MKV_E_CLOSED);
	r = mkv_ring_push(&p->out, d);
	if (r == 0)
		p->rang = 1;
	if (r == MKV_E_PEER || r == MKV_E_STALE)
		p->out_bad = r;			/* closed by the next turn: the caller is in the middle of something */
	return (r == 0 || r == MKV_E_AGAIN ? r : MKV_E_CLOSED);
}

static unsigned
peer_pop(struct mkv_worker *w, struct mkv_peer *p)
{
	struct mkv_desc d;
	unsigned n;
	int r = 0;

	for (n = 0; n < MKV_POP_BATCH && p->up; n++) {
		if ((r = mkv_ring_pop(&p->in, &d)) != 1)
			break;
		if ((r = w->ops->desc(w, p, &d)) != 0)
			break;
	}
	if (r < 0 && p->up)
		peer_bad(w, p, r, "incoming");
	return (n);
}

unsigned
mkv_peers_pop(struct mkv_worker *w)
{
	unsigned n = 0;

	for (unsigned i = 0; i < w->n_peers; i++) {
		if (!w->peer[i]->up)
			continue;
		if (w->peer[i]->out_bad != 0) {
			peer_bad(w, w->peer[i], w->peer[i]->out_bad, "outgoing");
			continue;
		}
		n += peer_pop(w, w->peer[i]);
	}
	return (n);
}

int
mkv_peers_idle(const struct mkv_worker *w)
{
	for (unsigned i = 0; i < w->n_peers; i++)
		if (w->peer[i]->up && (w->peer[i]->out_bad || !mkv_ring_empty(&w->peer[i]->in)))
			return (0);
	return (1);
}

int
mkv_peers_any_up(const struct mkv_worker *w)
{
	for (unsigned i = 0; i < w->n_peers; i++)
		if (w->peer[i]->up)
			return (1);
	return (0);
}

/* Once a turn: however many descriptors were pushed, a sleeping consumer costs one call. */
void
mkv_peers_ring_bells(struct mkv_worker *w)
{
	for (unsigned i = 0; i < w->n_peers; i++) {
		if (!w->peer[i]->rang)
			continue;
		w->peer[i]->rang = 0;
		w->bell_calls += (uint64_t)mkv_bell_ring(&w->peer[i]->bell);
	}
}

void
mkv_peers_close(struct mkv_worker *w)
{
	for (unsigned i = 0; i < w->n_peers; i++) {
		peer_close_rings(w->peer[i]);
		if (w->peer[i]->has_bell)
			mkv_bell_close(&w->peer[i]->bell);
		free(w->peer[i]);
	}
	w->n_peers = 0;
	if (w->has_bell)
		mkv_bell_close(&w->bell);
	w->has_bell = 0;
}
