/*
 * memkv-front, loop thread: regions: memory of clients on this host, which they pass as memfds by the unix socket (proto/wire.h), and copies from and to it. So a value is
 * copied once between client and stage, and not through a socket.
 *
 * A region belongs to the session that passed it, under a number of the client's, until DROP or the session's end; then it is unmapped and closed aside (aside.c). The same memfd may
 * be a region of several sessions. It is mapped, and touched by mkv_guard_copy() alone: a client that takes pages away meets its own zeroes, or ends its own request; nothing in it
 * is believed: what is read is copied first and checked then, where it came from does not matter any more.
 * Whoever writes to memory without pages has them charged to himself: a client could make the front pay for as much as its regions are large, and the pages that a drive holds on top of that.
 * So a region counts twice in front_conf.regions_bytes, of which one process gets a half at most.
 *
 * A copy is CONN_PIECE_BYTES at most, then others have their turn (conn.c: puts; conn_tx.c: gets). Nothing is under way between two turns, so a region that is gone is not touched.
 * What fails: what a client passes is no memfd, not sealed, sparse (INVAL), beyond the caps (TOOBIG, NOSPACE): refused; segments outside of regions: the frame breaks the protocol.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define REGIONS_MAX		1024u
#define REGIONS_SESSION_MAX	64u

/* ---- The table ------------------------------------------------------------------------------------------------------------- */

int
mkv_regions_init(struct mkv_front *f)
{
	mkv_list_init(&f->region_free);
	mkv_list_init(&f->regions_used);
	if (f->conf.regions_bytes == 0)
		return (0);
	if (!mkv_guard_init())
		return (MKV_E_SYSTEM);
	if ((f->regions = calloc(REGIONS_MAX, sizeof(*f->regions))) == NULL)
		return (MKV_E_NOMEM);
	for (unsigned i = 0; i < REGIONS_MAX; i++) {
		f->regions[i].fd = -1;
		mkv_list_init(&f->regions[i].used);
		mkv_list_push_tail(&f->region_free, &f->regions[i].link);
	}
	return (0);
}

static struct mkv_region *
region_of_used(struct mkv_list *it)
{
	return (MKV_CONTAINER_OF(it, struct mkv_region, used));
}

struct mkv_region *
mkv_region_named(const struct mkv_conn *c, uint32_t number)
{
	MKV_LIST_FOREACH(it, &c->regions) {
		struct mkv_region *g = MKV_CONTAINER_OF(it, struct mkv_region, link);

		if (g->number == number)
			return (g);
	}
	return (NULL);
}

/* Another region of the same memory, of the same process or of any; NULL: none. */
static struct mkv_region *
region_twin(const struct mkv_front *f, const struct mkv_region *g, int own)
{
	MKV_LIST_FOREACH(it, &f->regions_used) {
		struct mkv_region *o = region_of_used(it);

		if (o != g && o->shm.dev == g->shm.dev && o->shm.ino == g->shm.ino && (!own || o->pid == g->pid))
			return (o);
	}
	return (NULL);
}

/* What the regions of a process count. */
static uint64_t
region_sum(const struct mkv_front *f, pid_t pid)
{
	uint64_t sum = 0;

	MKV_LIST_FOREACH(it, &f->regions_used) {
		const struct mkv_region *o = region_of_used(it);

		if (o->pid == pid && o->counts_own)
			sum += 2 * o->shm.bytes;
	}
	return (sum);
}

/* 0; MKV_E_TOOBIG: alone more than a process may have; MKV_E_NOSPACE. Notes what it is going to count. */
static int
region_may(const struct mkv_front *f, struct mkv_region *g)
{
	const uint64_t most = f->conf.regions_bytes, own = most / 2;
	int is_new = region_twin(f, g, 0) == NULL, is_own = is_new || region_twin(f, g, 1) == NULL;

	if (g->shm.bytes > own / 2)
		return (MKV_E_TOOBIG);
	if ((is_new && 2 * g->shm.bytes > most - f->regions_bytes) || (is_own && 2 * g->shm.bytes > own - MKV_MIN(own, region_sum(f, g->pid))))
		return (MKV_E_NOSPACE);
	g->counts = (uint8_t)is_new;
	g->counts_own = (uint8_t)is_own;
	return (0);
}

static void
region_charge(struct mkv_front *f, const struct mkv_region *g)
{
	if (g->counts)
		f->regions_bytes += 2 * g->shm.bytes;
}

void
mkv_region_ended(struct mkv_front *f, struct mkv_region *g)
{
	struct mkv_region *twin, *own;
	struct mkv_req *dropper = g->dropper;

	MKV_ASSERT(g->retired && g->refs == 0 && g->out == 0);
	mkv_list_remove(&g->used);
	twin = region_twin(f, g, 0);
	own = region_twin(f, g, 1);
	if (g->counts && twin != NULL)
		twin->counts = 1;
	else if (g->counts)
		f->regions_bytes -= 2 * g->shm.bytes;
	if (g->counts_own && own != NULL)
		own->counts_own = 1;
	/* The mapping goes with the last of its memory. */
	mkv_close_aside(&(struct mkv_aside){ g->fd, twin == NULL ? g->base : NULL, g->shm.bytes });
	g->fd = -1;
	g->base = NULL;
	f->n_regions--;
	mkv_list_push_tail(&f->region_free, &g->link);
	if (g->id != 0)
		mkv_lend_next(f, g->pid);
	if (dropper == NULL)
		return;
	g->dropper = NULL;
	dropper->u.region = NULL;
	mkv_req_run(dropper);
}

/* From here on it is nobody's memory but that of those who are at work in it. 1: it is free. */
static int
region_retire(struct mkv_front *f, struct mkv_region *g)
{
	mkv_list_remove(&g->link);
	if (!mkv_lend_retire(f, g))
		return (0);
	mkv_region_ended(f, g);
	return (1);
}

void
mkv_regions_fini(struct mkv_front *f)
{
	MKV_LIST_FOREACH(it, &f->regions_used) {
		struct mkv_region *g = region_of_used(it);

		if (g->fd >= 0)
			mkv_close_aside(&(struct mkv_aside){ .fd = g->fd });
	}
	free(f->regions);
}

void
mkv_regions_close(struct mkv_conn *c)
{
	while (!mkv_list_empty(&c->regions))
		(void)region_retire(c->f, MKV_CONTAINER_OF(c->regions.next, struct mkv_region, link));
	mkv_region_forget_passed(c);
}

/* Gets that were to go there: their numbers name nothing from now on, not even the next region that the client calls so. */
static void
region_unname(const struct mkv_conn *c, uint32_t number)
{
	MKV_LIST_FOREACH(it, &c->reqs) {
		struct mkv_req *r = MKV_CONTAINER_OF(it, struct mkv_req, link);

		for (unsigned i = 0; r->by_region && i < r->n_seg; i++)
			if (r->seg[i].rkey == number)
				r->seg[i].rkey = 0;
	}
}

/* ---- A descriptor that came ------------------------------------------------------------------------------------------------ */

void
mkv_region_forget_passed(struct mkv_conn *c)
{
	struct mkv_os_shm s;

	if (c->passed < 0)
		return;
	if (mkv_os_shm_check(c->passed, &s) == 0)
		mkv_close_aside(&(struct mkv_aside){ .fd = c->passed });
	else
		mkv_close_stranger(c->passed);
	c->passed = -1;
}

/* ---- REGION ---------------------------------------------------------------------------------------------------------------- */

static unsigned
region_count(const struct mkv_conn *c)
{
	unsigned n = 0;

	MKV_LIST_FOREACH(it, &c->regions)
		n++;
	return (n);
}

/* The same memory is mapped once: what a mapping costs here does not grow with the sessions that name it. */
static int
region_map(const struct mkv_front *f, struct mkv_region *g, int fd)
{
	const struct mkv_region *twin = region_twin(f, g, 0);

	if (twin == NULL)
		return (mkv_os_shm_map(fd, g->shm.bytes, 1, 0, &g->base));
	g->base = twin->base;
	return (0);
}

static int
region_add(struct mkv_conn *c, const struct mkv_wire_region *w)
{
	struct mkv_front *f = c->f;
	struct mkv_region *g;
	uid_t uid;
	int r;

	if (w->number == 0 || mkv_region_named(c, w->number) != NULL || c->passed < 0)
		return (MKV_E_INVAL);
	if (mkv_list_empty(&f->region_free) || region_count(c) >= REGIONS_SESSION_MAX)
		return (MKV_E_NOSPACE);
	g = MKV_CONTAINER_OF(f->region_free.next, struct mkv_region, link);
	if ((r = mkv_os_shm_check(c->passed, &g->shm)) != 0)
		return (r);
	if (g->shm.bytes != w->bytes)
		return (MKV_E_INVAL);
	if ((r = mkv_os_peer(c->fd, &uid, &g->pid)) != 0 || (r = region_may(f, g)) != 0)
		return (r);
	if ((r = region_map(f, g, c->passed)) != 0)
		return (r);
	region_charge(f, g);
	g->number = w->number;
	g->fd = c->passed;
	c->passed = -1;
	mkv_list_remove(&g->link);
	mkv_list_push_tail(&c->regions, &g->link);
	mkv_list_push_tail(&f->regions_used, &g->used);
	f->n_regions++;
	g->stable = (w->flags & MKV_WIRE_REGION_STABLE) != 0;
	mkv_lend_begin(f, g);
	return (0);
}

static int
region_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	const struct mkv_wire_region *w = (const struct mkv_wire_region *)(const void *)body;
	struct mkv_region *g;
	int e = 0;

	if (!r->c->local || r->f->conf.regions_bytes == 0)
		return (MKV_E_UNSUPPORTED);
	if (h->body_bytes != sizeof(*w) || (w->flags & ~(unsigned)(MKV_WIRE_REGION_DROP | MKV_WIRE_REGION_STABLE)) != 0)
		return (MKV_E_PROTO);
	if ((w->flags & MKV_WIRE_REGION_DROP) == 0) {
		if ((e = region_add(r->c, w)) != 0)
			mkv_metric_add(r->f->m, MKV_M_front_regions_refused_total, 0, 1);
		return (e);
	}
	if ((g = mkv_region_named(r->c, w->number)) == NULL)
		return (MKV_E_INVAL);
	region_unname(r->c, g->number);
	if (!region_retire(r->f, g)) {
		r->u.region = g;
		g->dropper = r;
	}
	return (0);
}

static enum mkv_next
region_step(struct mkv_req *r)
{
	if (r->u.region != NULL)
		return (MKV_NEXT_PARK);
	mkv_req_end(r, 0, MKV_REASON_NONE, NULL, 0);
	return (MKV_NEXT_AGAIN);
}

static void
region_on_dop(struct mkv_req *r MKV_UNUSED, struct mkv_dop *d MKV_UNUSED, const struct mkv_drv_rep *rep MKV_UNUSED, int status MKV_UNUSED)
{
	MKV_ASSERT(!"asks no drive");
}

/* Who asked is gone: the region's end is told to nobody, and the request may go. */
static enum mkv_next
region_undo(struct mkv_req *r)
{
	if (r->c == NULL && r->u.region != NULL) {
		r->u.region->dropper = NULL;
		r->u.region = NULL;
	}
	return (MKV_NEXT_DONE);
}

const struct mkv_req_ops mkv_region_ops = { .op = MKV_WIRE_REGION, .start = region_start, .step = region_step, .on_dop = region_on_dop, .undo = region_undo };

/* ---- Frames whose payload lies in regions ---------------------------------------------------------------------------------- */

enum mkv_take
mkv_region_frame(struct mkv_conn *c, const struct mkv_hdr *h, const uint8_t *body)
{
	enum mkv_take t;

	if (c->f->conf.regions_bytes == 0 || (h->op != MKV_WIRE_PUT && h->op != MKV_WIRE_GET))
		return (MKV_TAKE_BREAK);
	c->by_region = 1;
	t = mkv_req_dispatch(c, h, body);
	c->by_region = 0;
	return (t);
}

/* The rest of a body is segments. *n of them, *bytes altogether; NULL: not all of them lie in regions, or that is more than most. */
static const struct mkv_wire_seg *
region_segs(const struct mkv_conn *c, struct mkv_wire_in *in, unsigned most, unsigned *n, uint64_t *bytes)
{
	size_t left = (size_t)(in->end - in->p);
	const struct mkv_wire_seg *s;

	*n = (unsigned)(left / sizeof(*s));
	*bytes = 0;
	if (left % sizeof(*s) != 0 || *n > most)
		return (NULL);
	s = mkv_wire_take(in, left);
	for (unsigned i = 0; i < *n; i++) {
		const struct mkv_region *g = mkv_region_named(c, s[i].rkey);

		if (g == NULL || s[i].bytes == 0 || s[i].addr > g->shm.bytes || s[i].bytes > g->shm.bytes - s[i].addr)
			return (NULL);
		*bytes += s[i].bytes;
	}
	return (s);
}

int
mkv_region_take_put(struct mkv_conn *c, struct mkv_wire_in *in, uint64_t bytes)
{
	uint64_t have;

	c->rx_seg = region_segs(c, in, MKV_WIRE_SEGS_MAX, &c->rx_n_seg, &have);
	c->rx_seg_at = 0;
	return (c->rx_seg != NULL && have == bytes ? 0 : MKV_E_PROTO);
}

int
mkv_region_take_get(struct mkv_req *r, struct mkv_wire_in *in)
{
	const struct mkv_wire_seg *s = region_segs(r->c, in, MKV_WIRE_GET_SEGS_MAX, &r->n_seg, &r->seg_bytes);

	if (s == NULL)
		return (MKV_E_PROTO);
	memcpy(r->seg, s, r->n_seg * sizeof(*s));
	return (0);
}

/* ---- Copies ---------------------------------------------------------------------------------------------------------------- */

/* Where byte `at` of the segments lies, and how many bytes follow it there. NULL: the region has been dropped. */
static uint8_t *
region_at(const struct mkv_conn *c, const struct mkv_wire_seg *s, uint64_t at, uint32_t *room)
{
	const struct mkv_region *g;

	for (; at >= s->bytes; s++)
		at -= s->bytes;
	*room = s->bytes - (uint32_t)at;
	g = mkv_region_named(c, s->rkey);
	return (g == NULL ? NULL : (uint8_t *)g->base + s->addr + at);
}

uint32_t
mkv_region_read(struct mkv_conn *c, uint8_t *to, uint32_t bytes)
{
	const uint8_t *from;
	uint32_t room;

	from = region_at(c, c->rx_seg, c->rx_seg_at, &room);
	bytes = MKV_MIN(bytes, room);
	if (from == NULL || !mkv_guard_copy(to, from, bytes, from))
		return (0);
	c->rx_seg_at += bytes;
	mkv_metric_add(c->f->m, MKV_M_front_region_put_bytes_total, 0, bytes);
	return (bytes);
}

int
mkv_region_read_rest(struct mkv_conn *c, uint8_t *to)
{
	uint32_t rest = (uint32_t)(c->hdr.payload_bytes % 4096);

	c->rx_seg_at = c->hdr.payload_bytes - rest;
	memset(to + rest, 0, 4096 - rest);
	return (mkv_region_read(c, to, rest) == rest);
}

/* The next bytes of its payload lie at *p, so many in a run. */
static uint32_t
out_run(const struct mkv_out *o, uint8_t **p)
{
	uint64_t at = o->pay_bytes - o->place_left;
	unsigned i = 0;

	for (; at >= o->pay[i].iov_len; i++)
		at -= o->pay[i].iov_len;
	*p = (uint8_t *)o->pay[i].iov_base + at;
	return ((uint32_t)(o->pay[i].iov_len - at));
}

int
mkv_region_write(struct mkv_conn *c, struct mkv_out *o)
{
	uint32_t n, room, left = (uint32_t)MKV_MIN(o->place_left, (uint64_t)CONN_PIECE_BYTES);

	mkv_metric_add(c->f->m, MKV_M_front_region_get_bytes_total, 0, left);
	for (; left > 0; left -= n) {
		uint8_t *p, *to;

		n = MKV_MIN(out_run(o, &p), left);
		to = region_at(c, o->place, o->place_at, &room);
		n = MKV_MIN(n, room);
		if (to == NULL || !mkv_guard_copy(to, p, n, to))
			return (0);
		o->place_at += n;
		o->place_left -= n;
	}
	return (1);
}
