/*
 * memkv-front, loop thread: regions that drives have (MKV_DRV_F_DIRECT): a drive that was shown a client's memory reads a get's whole blocks straight into it, and with verify_put
 * off writes a put's from there.
 *
 * Of each drive and each region that is stable, or of any with verify_put off:
 *
 *   NONE --drive is up--> WANT --REGION to the supervisor--> ASKED --taken--> HERE --retired, unused--> DROP --asked--> DROPPING --answered--> NONE
 *                          ^                                   |--not now--> LATER --timer--.  '--refused--> REFUSED
 *                          '------------------------------------------------------------ --'
 *   (a drive that is not there yet when it is to forget one: DROP_LATER --timer--> DROP)
 *   any --drive is down--> NONE: its rings and table are gone; I/O of its own that may be under way is the parts' to wait for
 *
 * A drive is used from HERE on; until then, and where it refuses, values go by the stage: nobody waits for any of this. LENDS_ASKED_MAX are asked at a time, of all. To pin
 * pages takes time of the drive's loop, so that a client which passes and drops memory without end would slow down others: what a drive is shown is limited in size and by time.
 *
 * A part that goes straight has a reference (part.region) from its choice to its drive's answer. If the drive dies first, the part is `lost`: the medium may still
 * be at work in the client's memory, so it keeps its reference, is asked nowhere else and not given up until the supervisor says that no I/O of that life is left.
 * mkv_lends() tells whether a request has such memory out; no answer that lets the client use it again leaves before (req.c). A drive that does not come back would keep
 * the place of each such request in its session for ever, so the session ends at last: the library then gives up that memory, and comes again.
 *
 * A region that its client has dropped, or whose session is gone, is `retired`: no new part gets it; it stays in its table, and in the caps, until no drive has it and no
 * part refers to it. Then its mapping and its descriptor go, and the DROP that waits for it is answered.
 *
 * Owns: the numbers under which drives know regions: from 1, never used twice. Fails: never; what is not possible goes by the stage.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"

#define LENDS_ASKED_MAX		32u			/* of the 64 that the supervisor passes on to a drive (REGIONS_ASKED_MAX) */
#define LENDS_PROCESS_MAX	32u			/* of one process */
#define LENDS_BYTES_MAX		(256ull << 20)		/* of one region: a drive's loop stands still while it pins the pages */
#define LENDS_AGAIN_BYTES	(64ull << 20)		/* shown to a drive in each ... */
#define LENDS_AGAIN_NS		(100 * MKV_NS_PER_MS)	/* ... such period, ... */
#define LENDS_LEAST_BYTES	(256ull << 10)		/* ... of each at least so many: to map and forget it takes as long, however small */
#define LEND_BYTES_MIN		MKV_CRC_CHUNK		/* less is read sooner together with its page, and copied */

_Static_assert(MKV_FRONT_DRIVES_MAX <= 64, "no_put has a bit for each drive");

static struct mkv_region *
lend_of(struct mkv_list *it)
{
	return (MKV_CONTAINER_OF(it, struct mkv_region, used));
}

/* Is it the supervisor's or that drive's business? */
static int
lend_is_out(uint8_t state)
{
	return (state == LEND_ASKED || state == LEND_HERE || state == LEND_DROP || state == LEND_DROP_LATER || state == LEND_DROPPING);
}

static void
lend_set(struct mkv_front *f, struct mkv_region *g, unsigned drive, enum mkv_lend to)
{
	int asked = (to == LEND_ASKED || to == LEND_DROPPING) - (g->at[drive] == LEND_ASKED || g->at[drive] == LEND_DROPPING);
	int out = lend_is_out(to) - lend_is_out(g->at[drive]);
	int here = (to == LEND_HERE) - (g->at[drive] == LEND_HERE);

	f->lends_asked += (unsigned)asked;
	f->lends_here += (unsigned)here;
	g->out += (unsigned)out;
	g->at[drive] = (uint8_t)to;
	f->lend_due = 1;
}

/* ---- Which, and until when ------------------------------------------------------------------------------------------------- */

/* Drives have work to do in it. */
static int
lend_wanted(const struct mkv_front *f, const struct mkv_region *g)
{
	return (!f->conf.memory_mode && f->conf.lend != NULL && (g->stable || !f->conf.verify_put) && g->shm.bytes <= LENDS_BYTES_MAX);
}

static int
lend_may(const struct mkv_front *f, const struct mkv_region *g)
{
	unsigned all = 0, own = 0;

	MKV_LIST_FOREACH(it, &f->regions_used) {
		const struct mkv_region *o = lend_of(it);

		all += o->id != 0;
		own += o->id != 0 && o->pid == g->pid;
	}
	return (all < MKV_DRV_REGIONS_MAX && own < LENDS_PROCESS_MAX && f->lend_last != UINT32_MAX);
}

void
mkv_lend_begin(struct mkv_front *f, struct mkv_region *g)
{
	g->id = 0;
	g->no_put = 0;
	g->retired = 0;
	g->refs = g->out = 0;
	memset(g->at, LEND_NONE, sizeof(g->at));
	if (!lend_wanted(f, g) || !lend_may(f, g))
		return;
	g->id = ++f->lend_last;
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++)
		if (f->drive[i].up)
			lend_set(f, g, i, LEND_WANT);
}

/* The place of one of this process is free: of those that found none the first of the same takes it, or the first of another. */
void
mkv_lend_next(struct mkv_front *f, pid_t pid)
{
	struct mkv_region *own = NULL, *other = NULL;

	MKV_LIST_FOREACH(it, &f->regions_used) {
		struct mkv_region *g = lend_of(it), **first = g->pid == pid ? &own : &other;

		if (*first == NULL && g->id == 0 && !g->retired && lend_wanted(f, g))
			*first = g;
	}
	if (own != NULL)
		mkv_lend_begin(f, own);
	if (other != NULL && (own == NULL || own->id == 0))
		mkv_lend_begin(f, other);
}

/* Those that no drive needed to know so far. */
void
mkv_lend_reload(struct mkv_front *f)
{
	MKV_LIST_FOREACH(it, &f->regions_used)
		if (lend_of(it)->id == 0 && !lend_of(it)->retired)
			mkv_lend_begin(f, lend_of(it));
}

int
mkv_lend_retire(struct mkv_front *f, struct mkv_region *g)
{
	g->retired = 1;
	f->lend_due = 1;
	return (g->out == 0 && g->refs == 0);
}

void
mkv_lend_drive_up(struct mkv_front *f, unsigned drive)
{
	MKV_LIST_FOREACH(it, &f->regions_used) {
		lend_of(it)->no_put &= ~(1ull << drive);
		if (lend_of(it)->id != 0 && !lend_of(it)->retired)
			lend_set(f, lend_of(it), drive, LEND_WANT);
	}
}

void
mkv_lend_drive_down(struct mkv_front *f, unsigned drive)
{
	MKV_LIST_FOREACH(it, &f->regions_used)
		lend_set(f, lend_of(it), drive, LEND_NONE);
}

/* ---- Asking ---------------------------------------------------------------------------------------------------------------- */

static void	lend_again(struct mkv_front *f);

static void
lend_fire(struct mkv_timer *t, uint64_t now_ns MKV_UNUSED)
{
	struct mkv_front *f = MKV_CONTAINER_OF(t, struct mkv_front, lend_timer);

	MKV_LIST_FOREACH(it, &f->regions_used)
		for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++)
			if (lend_of(it)->at[i] == LEND_LATER || lend_of(it)->at[i] == LEND_DROP_LATER)
				lend_set(f, lend_of(it), i, lend_of(it)->at[i] == LEND_LATER ? LEND_WANT : LEND_DROP);
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++) {
		f->drive[i].lend_bytes -= MKV_MIN(f->drive[i].lend_bytes, LENDS_AGAIN_BYTES);
		if (f->drive[i].lend_bytes > 0)
			lend_again(f);
	}
	f->lend_due = 1;
}

static void
lend_again(struct mkv_front *f)
{
	if (f->lend_timer.heap_idx != 0)
		return;
	f->lend_timer.fire = lend_fire;
	mkv_timer_arm(f->timers, &f->lend_timer, mkv_now_ns() + LENDS_AGAIN_NS);
}

/* 1: this drive is shown it now; 0: it has had its share. */
static int
lend_fits(struct mkv_front *f, struct mkv_region *g, unsigned drive)
{
	lend_again(f);
	if (f->drive[drive].lend_bytes >= LENDS_AGAIN_BYTES) {
		lend_set(f, g, drive, LEND_LATER);
		return (0);
	}
	f->drive[drive].lend_bytes += MKV_MAX(g->shm.bytes, LENDS_LEAST_BYTES);
	return (1);
}

/* 0: nothing more can be asked now. */
static int
lend_ask(struct mkv_front *f, struct mkv_region *g, unsigned drive)
{
	int drop = g->at[drive] == LEND_DROP;

	if (f->lends_asked == LENDS_ASKED_MAX)
		return (0);
	if (!drop && !lend_fits(f, g, drive))
		return (1);
	if (f->conf.lend(f->conf.arg, drive, f->drive[drive].epoch, g->id, g->shm.bytes, drop ? -1 : g->fd) != 0) {
		lend_again(f);
		return (0);
	}
	lend_set(f, g, drive, drop ? LEND_DROPPING : LEND_ASKED);
	return (1);
}

static int
lend_step(struct mkv_front *f, struct mkv_region *g, unsigned drive)
{
	if (g->retired && g->at[drive] == LEND_HERE && g->refs == 0)
		lend_set(f, g, drive, LEND_DROP);
	if (g->retired && (g->at[drive] == LEND_WANT || g->at[drive] == LEND_LATER))
		lend_set(f, g, drive, LEND_NONE);
	if (!f->drive[drive].up || (g->at[drive] != LEND_WANT && g->at[drive] != LEND_DROP))
		return (1);
	return (lend_ask(f, g, drive));
}

/* What waited goes on, what was waited for is freed. */
void
mkv_lend_turn(struct mkv_front *f)
{
	int more = 1;

	if (!f->lend_due)
		return;
	f->lend_due = 0;
	MKV_LIST_FOREACH_SAFE(it, tmp, &f->regions_used) {
		struct mkv_region *g = lend_of(it);

		for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX && more && g->id != 0; i++)
			more = lend_step(f, g, i);
		if (g->retired && g->out == 0 && g->refs == 0)
			mkv_region_ended(f, g);
	}
}

void
mkv_front_lent(struct mkv_front *f, uint32_t drive, uint32_t epoch, uint32_t id, int drop, int status)
{
	struct mkv_region *g = NULL;

	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	if (drive >= MKV_FRONT_DRIVES_MAX || !f->drive[drive].up || f->drive[drive].epoch != epoch || id == 0)
		return;
	MKV_LIST_FOREACH(it, &f->regions_used)
		if (lend_of(it)->id == id)
			g = lend_of(it);
	if (g == NULL || g->at[drive] != (drop ? LEND_DROPPING : LEND_ASKED))
		return;
	if (status == MKV_E_RETRY) {
		lend_set(f, g, drive, drop ? LEND_DROP_LATER : LEND_LATER);
		lend_again(f);
	} else if (drop)
		lend_set(f, g, drive, LEND_NONE);
	else {
		lend_set(f, g, drive, status == 0 ? LEND_HERE : LEND_REFUSED);
		mkv_metric_add(f->m, MKV_M_front_regions_not_lent_total, 0, status != 0);
	}
}

/* ---- Parts that go straight ------------------------------------------------------------------------------------------------ */

int
mkv_lend_at(const struct mkv_region *g, unsigned drive)
{
	return (!g->retired && g->at[drive] == LEND_HERE);
}

/* Where in its segments the part begins. */
static uint64_t
lend_place(const struct mkv_req *r, const struct mkv_part *p)
{
	const struct mkv_get *u = &r->u.get;

	return (u->multi ? (uint64_t)p->no * u->piece_bytes + p->off - u->off : 0);
}

/* It ends on a chunk, or with its value as far as is known: the drive refuses it where that turns out to be wrong. */
static int
lend_ends_well(const struct mkv_req *r, const struct mkv_part *p)
{
	const struct mkv_get *u = &r->u.get;

	return (!u->multi || (p->off + p->bytes) % MKV_CRC_CHUNK == 0 || (uint64_t)p->no * u->piece_bytes + p->off + p->bytes == u->value_bytes);
}

static void
lend_ref(struct mkv_part *p, struct mkv_region *g, uint64_t at)
{
	MKV_ASSERT(at + p->bytes <= g->shm.bytes);
	p->region = g;
	p->region_off = at;
	g->refs++;
}

int
mkv_lend_take(struct mkv_req *r, struct mkv_part *p, int drive)
{
	struct mkv_region *g;
	uint64_t at;

	if (!r->by_region || r->n_seg != 1 || p->staged || drive < 0 || p->bytes < LEND_BYTES_MIN || p->off % MKV_CRC_CHUNK != 0 || !lend_ends_well(r, p))
		return (0);
	at = r->seg[0].addr + lend_place(r, p);
	if (at % 4096 != 0 || (g = mkv_region_named(r->c, r->seg[0].rkey)) == NULL || !g->stable || !mkv_lend_at(g, (unsigned)drive))
		return (0);
	lend_ref(p, g, at);
	return (1);
}

/* The region that all of its payload lies in, if a drive may be asked to write it from there, and nobody has to look at it. */
static struct mkv_region *
lend_of_put(const struct mkv_req *r, const struct mkv_part *p)
{
	const struct mkv_conn *c = r->c;
	struct mkv_region *g;

	if (r->f->conf.verify_put || c->rx_part != p || !c->rx_ref || c->rx_n_seg != 1 || c->rx_seg[0].addr % 4096 != 0 || p->crc_make || p->bytes < LEND_BYTES_MIN)
		return (NULL);
	g = mkv_region_named(c, c->rx_seg[0].rkey);
	return (g != NULL && g->out != 0 ? g : NULL);
}

int
mkv_lend_may_put(const struct mkv_req *r, const struct mkv_part *p)
{
	return (lend_of_put(r, p) != NULL);
}

int
mkv_lend_take_put(struct mkv_req *r, struct mkv_part *p, int drive)
{
	struct mkv_region *g = lend_of_put(r, p);

	if (g == NULL || drive < 0 || !mkv_lend_at(g, (unsigned)drive) || (g->no_put >> drive & 1) != 0)
		return (0);
	lend_ref(p, g, r->c->rx_seg[0].addr);
	return (1);
}

void
mkv_lend_back(struct mkv_front *f, struct mkv_part *p)
{
	struct mkv_region *g = p->region;

	if (g == NULL)
		return;
	p->region = NULL;
	p->lost = 0;
	MKV_ASSERT(g->refs > 0);
	if (--g->refs == 0 && g->retired)
		f->lend_due = 1;
}

void
mkv_lend_lost(struct mkv_part *p, unsigned drive, uint32_t epoch)
{
	p->lost = p->region != NULL;
	p->lost_drive = (uint8_t)drive;
	p->lost_epoch = epoch;
}

void
mkv_lend_drained(struct mkv_front *f, unsigned drive, uint32_t epoch)
{
	for (uint32_t i = 0; f->regions != NULL && i < f->conf.requests_max; i++) {
		struct mkv_req *r = &f->reqs[i];
		int found = 0;

		for (unsigned k = 0; k < REQ_PARTS; k++) {
			struct mkv_part *p = &r->part[k];

			if (!p->lost || p->lost_drive != drive || p->lost_epoch > epoch)
				continue;
			mkv_lend_back(f, p);
			found = 1;
		}
		if (found)
			mkv_req_run(r);
	}
}

int
mkv_lends(const struct mkv_req *r)
{
	if (r->op == MKV_WIRE_REGION)
		return (r->u.region != NULL);
	for (unsigned i = 0; i < REQ_PARTS; i++)
		if (r->part[i].lost || (r->part[i].region != NULL && r->part[i].state == PART_DRIVE))
			return (1);
	return (0);
}

int
mkv_lends_lost(const struct mkv_req *r)
{
	for (unsigned i = 0; i < REQ_PARTS; i++)
		if (r->part[i].lost)
			return (1);
	return (0);
}
