/*
 * The rig (rig.h). Time is virtual and moves a tenth of a millisecond a turn, so a run over the simulated medium is a function of its seed.
 */
#include "config.h"

#include "tests/crash/rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/os.h"

static uint64_t
rig_now(void *arg)
{
	struct rig *r = arg;

	r->now_ns += r->look_ns;
	return (r->now_ns);
}

static uint64_t
rig_wall(void *arg)
{
	return (((struct rig *)arg)->wall_ms + ((struct rig *)arg)->now_ns / MKV_NS_PER_MS);
}

static void
rig_on_reply(void *arg, const struct mkv_call *call, const struct mkv_drv_rep *rep)
{
	struct rig *r = arg;
	struct rig_slot *s = &r->slot[call->slot_idx];

	MKV_ASSERT(call->slot_idx < RIG_CALLS && s->busy && s->gen == call->gen && !s->done);
	s->rep = *rep;
	s->done = 1;
}

static void *
rig_on_buffer(void *arg, uint32_t client, uint64_t off, uint64_t bytes, int *buf_idx)
{
	struct rig *r = arg;

	(void)client;
	*buf_idx = -1;
	if (off > (uint64_t)RIG_SLOTS * RIG_SLOT_BYTES || bytes > (uint64_t)RIG_SLOTS * RIG_SLOT_BYTES - off)
		return (NULL);
	return (r->stage + off);
}

static void
rig_on_peer(void *arg, uint32_t drive, const struct mkv_desc *d)
{
	struct rig *r = arg;

	r->peer[r->peers % 16] = *d;
	r->peer_drive[r->peers % 16] = drive;
	r->peers++;
}

static void
rig_on_client_done(void *arg, uint32_t client)
{
	(void)client;
	((struct rig *)arg)->client_done++;
}

static void
rig_on_readonly(void *arg, const char *why)
{
	(void)why;
	((struct rig *)arg)->readonly = 1;
}

static void
rig_on_purged(void *arg, uint64_t id, int err, uint64_t objects, uint64_t bytes)
{
	struct rig *r = arg;

	(void)bytes;
	r->purged_id = id;
	r->purged_err = err;
	r->purged_objects = objects;
}

static void
rig_on_map_stored(void *arg, uint64_t version)
{
	((struct rig *)arg)->map_stored = version;
}

static int
rig_on_pump(void *arg)
{
	struct rig *r = arg;
	int n = r->media->ops->pump(r->media, mkv_now_ns() + MKV_NS_PER_MS);

	r->now_ns += MKV_NS_PER_MS / 10;
	if (r->sim != NULL && r->sim->dead) {
		r->dead = 1;
		return (MKV_E_CANCELLED);
	}
	return (n);
}

static const struct mkv_engine_ops rig_ops = {
	.reply = rig_on_reply, .buffer = rig_on_buffer, .peer = rig_on_peer, .client_done = rig_on_client_done,
	.map_stored = rig_on_map_stored, .purged = rig_on_purged, .readonly = rig_on_readonly, .pump = rig_on_pump,
};

static void
rig_open_file(struct rig *r)
{
	const char *dir = getenv("TMPDIR");

	snprintf(r->path, sizeof(r->path), "%s/mkvrigXXXXXX", dir != NULL && strlen(dir) < 40 ? dir : "/tmp");
	r->fd = mkstemp(r->path);
	MKV_ASSERT(r->fd >= 0);
	MKV_ASSERT(ftruncate(r->fd, (off_t)r->bytes) == 0);
}

/* What the engine would take at random is in every block's tag and checksum. */
static void
rig_uuid(struct rig *r, uint64_t seed)
{
	struct rnd rnd = { seed ^ 0x1d1d1d1dull };

	rnd_fill(&rnd, r->o.drive_uuid, sizeof(r->o.drive_uuid));
}

struct rig *
rig_create(enum rig_kind kind, uint64_t bytes, uint64_t seed)
{
	static struct mkv_clock clocks[8];
	static unsigned next;
	struct rig *r = calloc(1, sizeof(*r));
	struct mkv_clock *c = &clocks[next++ % 8];

	mkv_crc_init();
	MKV_ASSERT(r != NULL);
	r->kind = kind;
	r->bytes = bytes;
	r->fd = r->meta_fd = -1;
	r->now_ns = MKV_NS_PER_SEC;
	r->wall_ms = 1700000000000ull;
	MKV_ASSERT(posix_memalign((void **)&r->stage, 4096, (size_t)RIG_SLOTS * RIG_SLOT_BYTES) == 0);
	*c = (struct mkv_clock){ rig_now, rig_wall, r };
	r->o = (struct mkv_engine_opts){
		.clock = c, .ops = &rig_ops, .arg = r, .name = "rig", .epoch = 1, .may_format = 1, .extent_bytes = 1u << 20,
		.queue_depth = 32, .page_cache_bytes = 1u << 20, .accepted_window_ns = MKV_NS_PER_SEC, .accepted_window_bytes = 64u << 20,
		.evict = 1, .evict_high_pct = 97, .evict_low_pct = 95,
	};
	if (kind == RIG_SIM) {
		r->sim = sim_create(bytes, 0, seed);
		rig_uuid(r, seed);
	} else if (kind == RIG_MEMORY) {
		r->meta_bytes = 8u << 20;
		r->fd = mkv_os_shm_create("rig-data", bytes, 0);
		r->meta_fd = mkv_os_shm_create("rig-meta", r->meta_bytes, 0);
		MKV_ASSERT(r->fd >= 0 && r->meta_fd >= 0);
	} else
		rig_open_file(r);
	return (r);
}

void
rig_destroy(struct rig **rp)
{
	struct rig *r = *rp;

	if (r->e != NULL)
		(void)rig_close(r, 1);
	if (r->path[0] != '\0')
		unlink(r->path);
	if (r->fd >= 0)
		close(r->fd);
	if (r->meta_fd >= 0)
		close(r->meta_fd);
	sim_destroy(&r->sim);
	free(r->stage);
	free(r);
	*rp = NULL;
}

static int
rig_open_media(struct rig *r)
{
	struct mkv_ioq_opts qo = { .kind = r->kind == RIG_URING ? MKV_IOQ_URING : MKV_IOQ_POLL, .entries = 64, .depth_max = 512, .threads = 4 };
	int err;

	if (r->kind == RIG_SIM) {
		r->media = &r->sim->m;
		return (0);
	}
	if (r->kind == RIG_MEMORY)
		return (mkv_media_memory_open(&r->media, r->fd, r->bytes, r->meta_fd, r->meta_bytes));
	if ((err = mkv_ioq_create(&r->q, &qo)) != 0)
		return (err);
	return (mkv_media_file_open(&r->media, r->q, MKV_FD(r->fd), r->bytes));
}

int
rig_open(struct rig *r)
{
	int err;

	MKV_ASSERT(r->e == NULL);
	if ((err = rig_open_media(r)) != 0)
		return (err);
	if (r->wrap != NULL)
		r->media = r->wrap(r, r->media);
	r->o.media = r->media;
	r->readonly = 0;
	memset(r->slot, 0, sizeof(r->slot));
	r->o.epoch++;
	err = mkv_engine_open(&r->e, &r->o, &r->epoch_seen, r->why, sizeof(r->why));
	if (err != 0) {
		mkv_media_close(&r->media);
		mkv_ioq_destroy(&r->q);
	}
	return (err);
}

int
rig_close(struct rig *r, int abandon)
{
	int err;

	for (int i = 0; !abandon && i < 10000 && mkv_engine_busy(r->e) > 0; i++)
		rig_turn(r);
	/* Files: let what is in flight land, as the kernel would after a kill. */
	for (int i = 0; abandon && r->q != NULL && mkv_ioq_in_flight(r->q) > 0 && i < 1000; i++)
		(void)mkv_ioq_run(r->q, mkv_now_ns() + MKV_NS_PER_MS);
	if (r->sim != NULL && abandon)
		r->sim->ops = r->sim->discarding = 0;		/* the process died: what it had begun stays pending, nothing is reported */
	err = mkv_engine_close(&r->e, abandon);
	mkv_media_close(&r->media);
	mkv_ioq_destroy(&r->q);
	return (err);
}

void
rig_restore(struct rig *r, const uint8_t *image)
{
	if (r->e != NULL)
		rig_close(r, 1);
	sim_reboot(r->sim, SIM_KEEP);
	memset(r->sim->bad, 0, sizeof(r->sim->bad));
	memcpy(r->sim->now, image, r->bytes);
	memcpy(r->sim->durable, image, r->bytes);
}

void
rig_turn(struct rig *r)
{
	uint64_t next = mkv_engine_step(r->e);

	(void)next;
	r->now_ns += MKV_NS_PER_MS / 10;
	(void)r->media->ops->pump(r->media, r->q != NULL && mkv_ioq_in_flight(r->q) > 0 ? mkv_now_ns() + 2 * MKV_NS_PER_MS : 0);
	if (r->sim != NULL && r->sim->dead)
		r->dead = 1;
}

uint8_t *
rig_mem(struct rig *r, unsigned slot)
{
	return (r->stage + (size_t)slot * RIG_SLOT_BYTES);
}

void
rig_req(struct mkv_drv_req *q, unsigned op, const char *key)
{
	memset(q, 0, sizeof(*q));
	q->magic = MKV_DRV_REQ_MAGIC;
	q->op = (uint16_t)op;
	if (key != NULL) {
		q->key_bytes = (uint16_t)strlen(key);
		memcpy(q->key, key, q->key_bytes);
		q->digest.lo = mkv_hash64(key, q->key_bytes, 1);
		q->digest.hi = mkv_hash64(key, q->key_bytes, 2);
	}
}

void
rig_bufs(struct mkv_drv_req *q, unsigned slot, uint64_t bytes)
{
	/* Two buffers where there is enough for two, so that both cuts are used. */
	uint64_t first = bytes > 2 * 65536 ? 65536 : bytes;

	q->n_bufs = bytes > first ? 2 : bytes > 0 ? 1 : 0;
	q->bufs[0].off = (uint64_t)slot * RIG_SLOT_BYTES;
	q->bufs[0].bytes = (uint32_t)first;
	q->bufs[1].off = q->bufs[0].off + first;
	q->bufs[1].bytes = (uint32_t)(bytes - first);
}

void
rig_submit(struct rig *r, unsigned slot, const struct mkv_drv_req *q)
{
	struct rig_slot *s = &r->slot[slot];
	struct mkv_call c = { .client = 0, .slot_idx = slot };

	MKV_ASSERT(!s->busy);
	s->busy = 1;
	s->done = 0;
	c.gen = ++s->gen;
	MKV_ASSERT(mkv_engine_submit(r->e, &c, q) == 0);
}

const struct mkv_drv_rep *
rig_wait(struct rig *r, unsigned slot)
{
	for (unsigned i = 0; !r->slot[slot].done && !r->dead; i++) {
		MKV_ASSERT(i < 200000);		/* a request that nobody answers */
		rig_turn(r);
	}
	if (!r->slot[slot].done)
		return (NULL);
	r->slot[slot].busy = 0;
	return (&r->slot[slot].rep);
}

void
rig_value(uint8_t *p, uint64_t bytes, uint64_t seed)
{
	for (uint64_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)(((i / 8 + seed) * 0x9e3779b97f4a7c15ull) >> (8 * (i % 8)));
}

int
rig_value_is(const uint8_t *p, uint64_t off, uint64_t bytes, uint64_t seed)
{
	for (uint64_t i = 0; i < bytes; i++) {
		uint64_t k = off + i;

		if (p[i] != (uint8_t)(((k / 8 + seed) * 0x9e3779b97f4a7c15ull) >> (8 * (k % 8))))
			return (0);
	}
	return (1);
}

void
rig_put_req(struct rig *r, struct mkv_drv_req *q, unsigned slot, const char *key, uint64_t bytes, uint64_t seed)
{
	rig_req(q, MKV_DRV_PUT, key);
	rig_value(rig_mem(r, slot), bytes, seed);
	rig_bufs(q, slot, bytes);
	q->value_bytes = bytes;
	q->n_crcs = (uint16_t)mkv_crc_chunks(bytes);
	mkv_crc_chunk_list(rig_mem(r, slot), bytes, q->crcs);
}

int
rig_put(struct rig *r, const char *key, uint64_t bytes, uint64_t seed, unsigned flags)
{
	struct mkv_drv_req q;
	const struct mkv_drv_rep *p;

	rig_put_req(r, &q, 0, key, bytes, seed);
	q.flags = (uint16_t)flags;
	rig_submit(r, 0, &q);
	p = rig_wait(r, 0);
	return (p == NULL ? MKV_E_CLOSED : p->status);
}

void
rig_piece_req(struct rig *r, struct mkv_drv_req *q, unsigned slot, struct mkv_set_id set, uint32_t no, uint64_t bytes, const uint8_t *secret)
{
	rig_put_req(r, q, slot, "", bytes, no);
	q->flags = MKV_DRV_F_PIECE;
	q->set = set;
	q->piece_no = no;
	q->digest = mkv_piece_digest(secret, set, no);
}

int
rig_put_piece(struct rig *r, struct mkv_set_id set, uint32_t no, uint64_t bytes, const uint8_t *secret)
{
	struct mkv_drv_req q;

	rig_piece_req(r, &q, 0, set, no, bytes, secret);
	rig_submit(r, 0, &q);
	return (rig_wait(r, 0)->status);
}

/* Copy what was delivered together: from the buffers, or from the arena's runs. */
static const uint8_t *
rig_delivered(struct rig *r, const struct mkv_drv_rep *p)
{
	uint8_t *to = rig_mem(r, 1);

	if (r->kind != RIG_MEMORY)
		return (rig_mem(r, 0) + p->skip);
	for (unsigned i = 0; i < p->n_runs; i++) {
		memcpy(to, r->media->ops->map(r->media, r->meta_bytes + p->runs[i].off, p->runs[i].bytes), p->runs[i].bytes);
		to += p->runs[i].bytes;
	}
	if (p->hold != 0)
		mkv_engine_release(r->e, 0, p->hold, 0);
	return (rig_mem(r, 1) + p->skip);
}

static int
rig_crcs_fit(const struct mkv_drv_rep *p, const uint8_t *b)
{
	uint64_t pos = p->off, end = p->off + p->len;

	for (unsigned i = 0; pos < end; i++) {
		uint64_t next = MKV_MIN((pos / MKV_CRC_CHUNK + 1) * MKV_CRC_CHUNK, end);

		if (i >= p->n_crcs || mkv_crc32c(0, b + (pos - p->off), next - pos) != p->crcs[i])
			return (0);
		pos = next;
	}
	return (1);
}

int
rig_get(struct rig *r, const char *key, uint64_t off, uint64_t len, uint64_t seed)
{
	struct mkv_drv_req q;
	const struct mkv_drv_rep *p;
	const uint8_t *b;

	rig_req(&q, MKV_DRV_GET, key);
	if (r->kind != RIG_MEMORY)
		rig_bufs(&q, 0, MKV_MIN(MKV_ALIGN_UP(len, 65536) + 131072, RIG_SLOT_BYTES));
	memset(rig_mem(r, 0), 0x5a, 4096);
	q.flags = (uint16_t)r->get_flags;
	q.off = off;
	q.len = len;
	rig_submit(r, 0, &q);
	if ((p = rig_wait(r, 0)) == NULL)
		return (MKV_E_CLOSED);
	if (p->status != 0)
		return (p->status);
	b = rig_delivered(r, p);
	if (p->len > 0 && (!rig_crcs_fit(p, b) || !rig_value_is(b, p->off, p->len, seed)))
		return (1);
	return (0);
}

int
rig_op(struct rig *r, unsigned op, const char *key, unsigned *reason)
{
	struct mkv_drv_req q;
	const struct mkv_drv_rep *p;

	rig_req(&q, op, key);
	rig_submit(r, 0, &q);
	if ((p = rig_wait(r, 0)) == NULL)
		return (MKV_E_CLOSED);
	if (reason != NULL)
		*reason = p->reason;
	return (p->status);
}

int
rig_purge(struct rig *r, const char *ns)
{
	uint64_t id = r->purged_id + 1;

	mkv_engine_purge(r->e, id, ns, strlen(ns));
	for (unsigned i = 0; r->purged_id != id && !r->dead; i++) {
		MKV_ASSERT(i < 200000);		/* a purge that is not answered */
		rig_turn(r);
	}
	return (r->purged_id == id ? r->purged_err : MKV_E_TIMEOUT);
}
