/*
 * The journal: records into blocks, blocks into groups, one group under way at a time. Drive's loop thread; owns two buffers of
 * JOURNAL_BUF_BLOCKS blocks.
 *
 *   gather (records arrive) --start--> flight: WRITING -> FLUSHING -> durable: requests are woken, what its records freed becomes free
 *
 * Block seq lies at ring position seq % journal_blocks. A block carries the highest sequence known durable, and the digests that the block
 * before it names: if that one is ever damaged, recovery knows which keys to distrust. After some quiet milliseconds an empty block (idle mark)
 * carries both for the last group. Ring room: [tail, next_seq) is in use; requests leave JOURNAL_RESERVE blocks to the engine itself.
 *
 * A failed write or flush of a group makes the engine read-only; it is never tried again.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define JOURNAL_RESERVE		12u
#define JOURNAL_IDLE_NS		(20 * MKV_NS_PER_MS)

static struct mkv_jblock *
journal_block(struct jbuf *b, uint32_t i)
{
	return ((struct mkv_jblock *)(b->mem + (size_t)i * MKV_BLOCK));
}

int
journal_init(struct mkv_engine *e)
{
	struct journal *j = &e->jn;

	mkv_list_init(&j->wait);
	for (int i = 0; i < 2; i++) {
		mkv_list_init(&j->buf[i].reqs);
		if (posix_memalign((void **)&j->buf[i].mem, MKV_BLOCK, (size_t)JOURNAL_BUF_BLOCKS * MKV_BLOCK) != 0) {
			j->buf[i].mem = NULL;
			return (MKV_E_NOMEM);
		}
	}
	j->gather = &j->buf[0];
	j->flight = &j->buf[1];
	j->limit = MKV_MIN(JOURNAL_BUF_BLOCKS, e->sb.journal_blocks / 8);
	j->next_seq = 1;
	j->tail = 1;
	j->last_idle = 1;
	j->mark_max = UINT64_MAX;
	return (0);
}

void
journal_fini(struct mkv_engine *e)
{
	free(e->jn.buf[0].mem);
	free(e->jn.buf[1].mem);
}

/*
 * The last group of the former life was cut off, and part of its first block lies where ours begins; recovery did not believe it. What we write there may be
 * torn as well, so that the beginning of theirs stays and what follows becomes what it was to be, since most blocks end in zeros: then their block is whole, and
 * what was refused, and seen to be refused, happens after all. So its beginning goes before anything is served; every later block differs from it there, by
 * its mount. The superblock's flush makes it durable.
 */
int
journal_wipe(struct mkv_engine *e)
{
	struct journal *j = &e->jn;

	if (!j->remains)
		return (0);
	MKV_ASSERT(j->state == JN_IDLE && j->gather->blocks == 0);
	j->remains = 0;
	memset(j->gather->mem, 0, MKV_BLOCK);
	return (eng_write(e, j->gather->mem, MKV_BLOCK, mkv_sb_journal_at(&e->sb, j->next_seq)));
}

int
journal_room(struct mkv_engine *e, uint32_t body_bytes, int internal)
{
	struct journal *j = &e->jn;
	struct jbuf *b = j->gather;
	uint32_t need = (uint32_t)(sizeof(struct mkv_jrec) + MKV_ALIGN_UP(body_bytes, 8));
	uint64_t used = j->next_seq - j->tail, keep = internal ? 1 : JOURNAL_RESERVE;

	if (e->readonly)
		return (MKV_E_READONLY);
	if (e->pend_count + 2 * e->o.queue_depth >= PENDING_MAX)
		return (MKV_E_AGAIN);
	if (b->blocks > 0 && !j->closed && journal_block(b, b->blocks - 1)->used + need <= sizeof(((struct mkv_jblock *)0)->data))
		return (0);
	if (b->blocks >= j->limit)
		return (MKV_E_AGAIN);
	return (used + keep < e->sb.journal_blocks ? 0 : MKV_E_AGAIN);
}

static struct mkv_jblock *
journal_begin_block(struct mkv_engine *e)
{
	struct journal *j = &e->jn;
	struct jbuf *b = j->gather;
	struct mkv_jblock *k;

	MKV_ASSERT(b->blocks < JOURNAL_BUF_BLOCKS);
	if (b->blocks == 0) {
		b->first_seq = j->next_seq;
		b->begin_ns = eng_now(e);
	}
	k = journal_block(b, b->blocks++);
	memset(k, 0, sizeof(*k));
	k->magic = MKV_JBLOCK_MAGIC;
	k->tag = e->tag;
	k->seq = j->next_seq++;
	k->n_touched = (uint16_t)j->n_touched;
	k->used = (uint16_t)(8 * j->n_touched);
	memcpy(k->data, j->touched, 8 * j->n_touched);
	j->n_touched = 0;
	j->closed = 0;
	return (k);
}

uint64_t
journal_append(struct mkv_engine *e, enum mkv_jtype type, struct mkv_digest d, uint32_t page, uint16_t pos, uint32_t arg, const void *body,
    uint32_t body_bytes)
{
	struct journal *j = &e->jn;
	struct jbuf *b = j->gather;
	uint32_t bytes = (uint32_t)(sizeof(struct mkv_jrec) + MKV_ALIGN_UP(body_bytes, 8));
	struct mkv_jblock *k = b->blocks ? journal_block(b, b->blocks - 1) : NULL;
	struct mkv_jrec *rec;

	if (k == NULL || j->closed || k->used + bytes > sizeof(k->data))
		k = journal_begin_block(e);
	MKV_ASSERT(k->used + bytes <= sizeof(k->data));
	rec = (struct mkv_jrec *)(k->data + k->used);
	memset(rec, 0, bytes);
	rec->type = (uint8_t)type;
	rec->bytes = (uint16_t)bytes;
	rec->page = page;
	rec->pos = pos;
	rec->arg = arg;
	rec->digest = d;
	if (body_bytes)
		memcpy(rec->body, body, body_bytes);
	k->used = (uint16_t)(k->used + bytes);
	k->n_records++;
	b->records++;
	if (mkv_jtype_touches(type)) {
		MKV_ASSERT(j->n_touched < MKV_TOUCHED_MAX);
		j->touched[j->n_touched++] = d.lo;
	}
	j->last_record = k->seq;
	return (k->seq);
}

void
journal_close_block(struct mkv_engine *e)
{
	e->jn.closed = 1;
}

void
journal_join(struct mkv_engine *e, struct mkv_req *r)
{
	MKV_ASSERT(e->jn.gather->blocks > 0);
	r->err = 0;
	mkv_list_push_tail(&e->jn.gather->reqs, &r->group_link);
	e->jn.gather->urgent = 1;
}

int
journal_sync_req(struct mkv_req *r)
{
	struct journal *j = &r->e->jn;

	if (j->flushed >= j->last_record)
		return (1);
	if (r->e->readonly)
		return (MKV_E_READONLY);
	if (j->gather->records > 0) {
		journal_join(r->e, r);
		return (0);
	}
	MKV_ASSERT(j->state != JN_IDLE);
	r->err = 0;
	mkv_list_push_tail(&j->flight->reqs, &r->group_link);
	return (0);
}

void
journal_urgent(struct mkv_engine *e)
{
	if (e->jn.gather->records > 0)
		e->jn.gather->urgent = 1;
}

static void
journal_wake_group(struct jbuf *b, int err)
{
	struct mkv_list *l;

	while ((l = mkv_list_pop(&b->reqs)) != NULL) {
		struct mkv_req *r = MKV_CONTAINER_OF(l, struct mkv_req, group_link);

		r->err = err;
		req_wake(r);
	}
}

void
journal_readonly(struct mkv_engine *e)
{
	journal_wake_group(e->jn.gather, MKV_E_READONLY);
}

static void
journal_failed(struct mkv_engine *e, const char *what)
{
	struct journal *j = &e->jn;

	j->state = JN_IDLE;
	eng_readonly(e, what);
	journal_wake_group(j->flight, MKV_E_READONLY);
	set_flushed(e);
}

static void
journal_done(struct mkv_engine *e)
{
	struct journal *j = &e->jn;
	struct jbuf *b = j->flight;

	j->state = JN_IDLE;
	if (!j->no_flush) {
		j->flushed = b->first_seq + b->blocks - 1;
		j->idle_at = eng_now(e) + JOURNAL_IDLE_NS;
		mkv_metric_time(e->o.metrics, MKV_M_drive_journal_seconds, eng_now(e) - b->begin_ns);
	}
	/* Requests first: a put's old runs are freed by its own apply, before the queue lets others have what the group freed. */
	journal_wake_group(b, 0);
	pending_run(e);
	set_flushed(e);
	req_wake_list(&j->wait, UINT32_MAX);
}

static void
journal_on_flush(struct mkv_mio *mio, int res)
{
	struct journal *j = MKV_CONTAINER_OF(mio, struct journal, mio[0]);
	struct mkv_engine *e = MKV_CONTAINER_OF(j, struct mkv_engine, jn);

	mkv_metric_time(e->o.metrics, MKV_M_drive_flush_seconds, eng_now(e) - j->io_begin_ns);
	if (res != 0) {
		ENG_COUNT(e, flush_errors_total, 1);
		fail_note(e, MKV_FAIL_FLUSH, mkv_sb_journal_at(&e->sb, j->flight->first_seq), j->flight->blocks * MKV_BLOCK, res, 0);
		journal_failed(e, "a flush failed");
		return;
	}
	MKV_CRASH_POINT("journal.after_flush");
	journal_done(e);
}

static void
journal_written(struct mkv_engine *e)
{
	struct journal *j = &e->jn;

	if (j->err != 0) {
		ENG_COUNT(e, write_errors_total, 1);
		fail_note(e, MKV_FAIL_META, mkv_sb_journal_at(&e->sb, j->flight->first_seq), j->flight->blocks * MKV_BLOCK, j->err, 0);
		journal_failed(e, "a journal write failed");
		return;
	}
	if (j->no_flush) {
		j->last_idle = 1;
		journal_done(e);
		return;
	}
	MKV_CRASH_POINT("journal.before_flush");
	j->last_idle = 0;
	j->state = JN_FLUSHING;
	j->flushes++;
	j->io_begin_ns = eng_now(e);
	ENG_COUNT(e, flushes_total, 1);
	j->mio[0].done = journal_on_flush;
	sched_flush(e, MKV_IO_JOURNAL, &j->mio[0]);
}

static void
journal_on_write0(struct mkv_mio *mio, int res)
{
	struct journal *j = MKV_CONTAINER_OF(mio, struct journal, mio[0]);

	if (res != 0)
		j->err = res;
	if (--j->ios == 0)
		journal_written(MKV_CONTAINER_OF(j, struct mkv_engine, jn));
}

static void
journal_on_write1(struct mkv_mio *mio, int res)
{
	struct journal *j = MKV_CONTAINER_OF(mio, struct journal, mio[1]);

	if (res != 0)
		j->err = res;
	if (--j->ios == 0)
		journal_written(MKV_CONTAINER_OF(j, struct mkv_engine, jn));
}

/* Seal the gathered blocks and write them, in two pieces where the ring ends. */
static void
journal_start(struct mkv_engine *e, int no_flush)
{
	struct journal *j = &e->jn;
	struct jbuf *b = j->gather;
	uint32_t at = (uint32_t)(b->first_seq % e->sb.journal_blocks), first = MKV_MIN(b->blocks, e->sb.journal_blocks - at);

	for (uint32_t i = 0; i < b->blocks; i++) {
		struct mkv_jblock *k = journal_block(b, i);

		k->flushed = MKV_MIN(j->flushed, j->mark_max);
		k->mount = e->sb.mount;
		k->epoch = e->sb.epoch;
		mkv_block_seal(k, offsetof(struct mkv_jblock, crc));
	}
	j->gather = j->flight;
	j->flight = b;
	j->gather->blocks = 0;
	j->gather->records = 0;
	j->gather->bytes = 0;
	j->gather->urgent = 0;
	j->state = JN_WRITING;
	j->io_begin_ns = eng_now(e);
	j->no_flush = no_flush;
	j->err = 0;
	j->ios = first < b->blocks ? 2 : 1;
	ENG_COUNT(e, journal_bytes_total, (uint64_t)b->blocks * MKV_BLOCK);
	MKV_CRASH_POINT("journal.before_commit");
	j->mio[0].done = journal_on_write0;
	j->mio[1].done = journal_on_write1;
	sched_write(e, MKV_IO_JOURNAL, &j->mio[0], b->mem, first * MKV_BLOCK, mkv_sb_journal_at(&e->sb, b->first_seq), -1);
	if (first < b->blocks)
		sched_write(e, MKV_IO_JOURNAL, &j->mio[1], b->mem + (size_t)first * MKV_BLOCK, (b->blocks - first) * MKV_BLOCK,
		    e->sb.journal_off, -1);
}

void
journal_step(struct mkv_engine *e, uint64_t now)
{
	struct journal *j = &e->jn;
	struct jbuf *b = j->gather;

	if (j->next_seq - j->tail > e->sb.journal_blocks / 2)
		e->ck.wanted = 1;
	if (j->state != JN_IDLE || e->readonly)
		return;
	if (b->records > 0) {
		if (b->urgent || b->blocks >= j->limit || !mkv_list_empty(&j->wait) || b->bytes >= e->o.accepted_window_bytes ||
		    now >= b->begin_ns + e->o.accepted_window_ns)
			journal_start(e, 0);
		return;
	}
	if (!j->last_idle && now >= j->idle_at && j->next_seq - j->tail + 1 < e->sb.journal_blocks) {
		if (b->blocks == 0)
			(void)journal_begin_block(e);
		journal_start(e, 1);
	}
}

uint64_t
journal_next_ns(const struct mkv_engine *e)
{
	const struct journal *j = &e->jn;

	if (j->state != JN_IDLE || e->readonly)
		return (UINT64_MAX);
	if (j->gather->records > 0)
		return (j->gather->begin_ns + e->o.accepted_window_ns);
	return (j->last_idle ? UINT64_MAX : j->idle_at);
}
