/*
 * The engine where one medium is enough: failures, memory mode's holds and reservations, what was on the medium before.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/auth.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "tests/crash/rig.h"
#include "tests/unit/engine_up.h"
#include "worker/drive/engine_priv.h"

#define MIB	(1ull << 20)

static void
test_flush_failure(void **state)
{
	struct rig *r = eng_up(RIG_SIM, 32 * MIB);

	(void)state;
	assert_int_equal(rig_put(r, "a", 100000, 1, 0), 0);
	r->sim->fail_flush = 1;
	assert_int_equal(rig_put(r, "b", 100000, 2, 0), MKV_E_READONLY);
	assert_true(r->readonly);
	assert_int_equal(rig_put(r, "c", 100000, 2, 0), MKV_E_READONLY);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "a", NULL), MKV_E_READONLY);
	assert_int_equal(rig_get(r, "a", 0, MIB, 1), 0);
	assert_int_equal(rig_op(r, MKV_DRV_STAT, "b", NULL), MKV_E_MISS);
	rig_destroy(&r);
}

/* It waits for the lock of a put whose flush fails: whether the object is there after a restart nobody knows, so "not there" is no answer. */
static void
test_delete_behind_a_failed_flush(void **state)
{
	struct rig *r = eng_up(RIG_SIM, 32 * MIB);
	const uint64_t before = r->e->jn.last_record;
	struct mkv_drv_req q;

	(void)state;
	r->sim->fail_flush = 1;
	rig_put_req(r, &q, 0, "a", 100000, 1);
	rig_submit(r, 0, &q);
	while (r->e->jn.last_record == before)	/* from here on it has the lock */
		rig_turn(r);
	rig_req(&q, MKV_DRV_DELETE, "a");
	rig_submit(r, 1, &q);
	assert_int_equal(rig_wait(r, 0)->status, MKV_E_READONLY);
	assert_int_equal(rig_wait(r, 1)->status, MKV_E_READONLY);
	rig_destroy(&r);
}

/* The page of numbers outlives the process: what a former one reported is not true of this one. */
static void
test_metrics_of_two_lives(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 32 * MIB, 1);
	struct mkv_metrics *m;

	(void)state;
	assert_int_equal(mkv_metrics_open_private(&m), 0);
	r->o.metrics = m;
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_put(r, "a", 100000, 1, 0), 0);
	assert_int_equal(mkv_metric_get(m, MKV_M_drive_queue_seconds, 0), 1);
	r->sim->fail_flush = 1;
	assert_int_equal(rig_put(r, "b", 100000, 2, 0), MKV_E_READONLY);
	assert_int_equal(mkv_metric_get(m, MKV_M_drive_readonly, 0), 1);
	assert_int_equal(mkv_metric_get(m, MKV_M_drive_queue_seconds, 0), 2);
	rig_close(r, 1);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(mkv_metric_get(m, MKV_M_drive_readonly, 0), 0);
	assert_int_equal(rig_get(r, "a", 0, MIB, 1), 0);
	assert_int_equal(mkv_metric_get(m, MKV_M_drive_queue_seconds, 0), 3);	/* two transfers, one first one */
	rig_destroy(&r);
	mkv_metrics_close(&m);
}

static void
test_write_failure(void **state)
{
	struct rig *r = eng_up(RIG_SIM, 32 * MIB);

	(void)state;
	r->sim->fail_write = 1;
	assert_int_equal(rig_put(r, "a", 100000, 1, 0), MKV_E_IO);
	assert_false(r->readonly);
	assert_int_equal(rig_put(r, "a", 100000, 2, 0), 0);
	assert_int_equal(rig_get(r, "a", 0, MIB, 2), 0);
	rig_destroy(&r);
}

static void
test_hold(void **state)
{
	struct rig *r = eng_up(RIG_MEMORY, 16 * MIB);
	const struct mkv_drv_rep *p;
	struct mkv_drv_req q;
	struct mkv_drv_run run;
	uint64_t hold;
	char key[16];

	(void)state;
	assert_int_equal(rig_put(r, "held", MIB, 42, 0), 0);
	rig_req(&q, MKV_DRV_GET, "held");
	q.len = MIB;
	rig_submit(r, 0, &q);
	p = rig_wait(r, 0);
	assert_int_equal(p->status, 0);
	assert_int_equal(p->n_runs, 1);
	run = p->runs[0];
	hold = p->hold;
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "held", NULL), 0);
	for (unsigned i = 0; i < 40; i++) {
		snprintf(key, sizeof(key), "f%u", i);
		assert_int_equal(rig_put(r, key, MIB, i, 0), 0);
	}
	assert_true(rig_value_is(r->media->ops->map(r->media, r->meta_bytes + run.off, run.bytes), 0, MIB, 42));
	mkv_engine_release(r->e, 0, hold, 0);
	mkv_engine_release(r->e, 0, hold, 0);	/* twice: counted, no harm */
	rig_destroy(&r);
}

static void
test_reserve(void **state)
{
	struct rig *r = eng_up(RIG_MEMORY, 16 * MIB);
	const struct mkv_drv_rep *p;
	struct mkv_engine_info a, b;
	struct mkv_drv_req q;
	uint64_t txn;

	(void)state;
	mkv_engine_info(r->e, &a);
	for (int how = 0; how < 6; how++) {
		rig_req(&q, MKV_DRV_RESERVE, "t");
		q.value_bytes = 300000;
		rig_submit(r, 0, &q);
		p = rig_wait(r, 0);
		assert_int_equal(p->status, 0);
		assert_int_equal(p->n_runs, 1);
		txn = p->txn;
		rig_value(r->media->ops->map(r->media, r->meta_bytes + p->runs[0].off, p->runs[0].bytes), 300000, 8);
		if (how == 2) {
			mkv_engine_client_gone(r->e, 0);
			assert_int_equal(r->client_done, 1);
		} else if (how == 5) {
			mkv_engine_unreserve(r->e, 1, txn);	/* another client's: nothing happens */
			mkv_engine_info(r->e, &b);
			assert_true(b.used_bytes > a.used_bytes);
			mkv_engine_unreserve(r->e, 0, txn);
			mkv_engine_unreserve(r->e, 0, txn);
		} else if (how == 1) {
			rig_req(&q, MKV_DRV_ABORT, NULL);
			q.txn = txn;
			rig_submit(r, 0, &q);
			assert_int_equal(rig_wait(r, 0)->status, 0);
		} else {
			rig_put_req(r, &q, 0, "t", 300000, 8);
			q.op = MKV_DRV_COMMIT;
			q.n_bufs = 0;
			q.txn = txn;
			q.deadline_ns = how == 3 ? 1 : 0;
			q.n_crcs = (uint16_t)(q.n_crcs - (how == 4));
			rig_submit(r, 0, &q);
			assert_int_equal(rig_wait(r, 0)->status, how == 3 ? MKV_E_TIMEOUT : how == 4 ? MKV_E_PROTO : 0);
			/* Refused or not: the transaction is over, and its run is not taken any more. */
			assert_int_equal(rig_get(r, "t", 0, MIB, 8), how == 0 ? 0 : MKV_E_MISS);
			assert_int_equal(rig_op(r, MKV_DRV_DELETE, "t", NULL), how == 0 ? 0 : MKV_E_MISS);
		}
		for (int i = 0; i < 10; i++)
			rig_turn(r);
		mkv_engine_info(r->e, &b);
		assert_int_equal(a.used_bytes, b.used_bytes);
	}
	rig_destroy(&r);
}

static void
test_foreign(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 32 * MIB, 1);

	(void)state;
	memcpy(r->sim->now + 1080, "\x53\xef", 2);
	assert_int_equal(rig_open(r), MKV_E_CONFIG);
	assert_non_null(strstr(r->why, "ext4"));
	memset(r->sim->now + 1080, 0, 2);
	r->sim->now[70000] = 1;
	assert_int_equal(rig_open(r), MKV_E_CONFIG);
	assert_non_null(strstr(r->why, "unknown data"));
	r->sim->now[70000] = 0;
	r->o.may_format = 0;
	assert_int_equal(rig_open(r), MKV_E_CONFIG);
	r->o.may_format = 1;
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_put(r, "k", 1000, 1, 0), 0);
	rig_close(r, 0);
	r->o.server_id[0] = 1;			/* formatted without: any will do */
	assert_int_equal(rig_open(r), 0);
	rig_close(r, 0);
	r->o.server_id[0] = 2;			/* the drive of the server before, which has other keys */
	assert_int_equal(rig_open(r), MKV_E_CONFIG);
	assert_non_null(strstr(r->why, "another server"));
	r->o.server_id[0] = 1;
	r->o.drive_uuid[3] = 77;
	assert_int_equal(rig_open(r), MKV_E_CONFIG);
	memset(r->o.drive_uuid, 0, 16);
	r->sim->m.total_bytes -= 1 << 20;
	assert_int_equal(rig_open(r), MKV_E_CONFIG);
	assert_non_null(strstr(r->why, "bytes and has"));
	r->sim->m.total_bytes += 1 << 20;
	r->o.extent_bytes *= 2;
	assert_int_equal(rig_open(r), MKV_E_CONFIG);
	assert_non_null(strstr(r->why, "storage.block_size 1048576"));
	r->o.extent_bytes /= 2;
	/* An epoch that the medium has seen already. */
	r->o.epoch = 1;
	assert_int_equal(rig_open(r), MKV_E_STALE);
	assert_true(r->epoch_seen >= 2);
	r->o.epoch = r->epoch_seen;
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_get(r, "k", 0, 1000, 1), 0);
	rig_destroy(&r);
}

/* A medium that fails while it is formatted: the words say so, the log does not say that it was, and the next open begins again. */
static void
test_format_fails(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 32 * MIB, 1);
	char line[4096];
	int fd[2];
	ssize_t n;

	(void)state;
	assert_int_equal(pipe(fd), 0);
	mkv_log_set_fd(fd[1]);
	r->sim->fail_write = 2;
	assert_int_equal(rig_open(r), MKV_E_IO);
	mkv_log(MKV_EV_DRIVE_FAILED, "drive=rig");	/* the end of what is read */
	mkv_log_set_fd(STDERR_FILENO);
	n = read(fd[0], line, sizeof(line) - 1);
	assert_true(n > 0);
	line[n] = '\0';
	assert_null(strstr(line, "event=drive_formatted"));
	assert_non_null(strstr(r->why, "cannot be formatted"));
	close(fd[0]);
	close(fd[1]);
	sim_reboot(r->sim, SIM_KEEP);
	assert_int_equal(rig_open(r), 0);
	rig_destroy(&r);
}

/*
 * A group of three blocks is cut off by a crash: the third reached the medium, the others did not. The next life's journal takes their place, and its
 * checkpoint begins right behind them, where the old block still lies: what it says was never answered for, and what was answered for since is newer.
 */
static void
test_block_of_a_former_life(void **state)
{
	struct rig *r = eng_up(RIG_SIM, 32 * MIB);
	struct mkv_jblock *b[3];
	uint64_t first;

	(void)state;
	assert_int_equal(rig_put(r, "k", 5000, 1, 0), 0);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	for (unsigned i = 0; i < 20; i++)
		rig_turn(r);				/* an idle mark */
	first = r->e->jn.next_seq;
	for (unsigned i = 0; i < 3; i++) {
		b[i] = (struct mkv_jblock *)(r->sim->now + mkv_sb_journal_at(&r->e->sb, first + i));
		assert_int_equal(rig_put(r, i == 0 ? "x" : i == 1 ? "y" : "k", 5000, 2, 0), 0);
		assert_int_equal(b[i]->seq, first + i);
	}
	rig_close(r, 1);
	memset(b[0], 0, sizeof(*b[0]));
	memset(b[1], 0, sizeof(*b[1]));
	b[2]->flushed = first - 1;
	mkv_block_seal(b[2], offsetof(struct mkv_jblock, crc));
	assert_int_equal(rig_open(r), 0);
	for (unsigned i = 0; i < 20; i++)
		rig_turn(r);				/* another */
	assert_int_equal(rig_get(r, "k", 0, 5000, 1), 0);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "k", NULL), 0);
	assert_int_equal(r->e->jn.next_seq, first + 2);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(b[2]->mount, 2);			/* still there */
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_op(r, MKV_DRV_STAT, "k", NULL), MKV_E_MISS);
	rig_destroy(&r);
}

static struct sim_write *
pending_at(const struct rig *r, uint64_t at)
{
	struct sim_write *w = r->sim->pending;

	while (w != NULL && w->off != at)
		w = w->next;
	return (w);
}

/* Turn until this block is being written, and lose power: of that write sectors [from, upto) of 512 bytes are kept, all others are kept whole. */
static void
torn_at(struct rig *r, uint64_t at, unsigned from, unsigned upto)
{
	for (unsigned i = 0; pending_at(r, at) == NULL; i++) {
		assert_true(i < 10000);
		rig_turn(r);
	}
	rig_close(r, 1);
	for (struct sim_write *w = r->sim->pending; w != NULL; w = w->next) {
		uint32_t begin = w->off == at ? 512 * from : 0, end = w->off == at ? 512 * upto : w->bytes;

		memcpy(r->sim->durable + w->off + begin, w->data + begin, end - begin);
	}
	sim_reboot(r->sim, SIM_DROP);
}

static void
refused(unsigned op, unsigned lost)
{
	struct rig *r = eng_up(RIG_SIM, 8 * MIB);
	struct mkv_drv_req q;
	char name[401];
	uint64_t at;

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(rig_put(r, "k", 5000, 1, 0), 0);
	assert_int_equal(rig_put(r, name, 5000, 2, 0), 0);
	/* Something of a former lap, longer than what follows. */
	at = mkv_sb_journal_at(&r->e->sb, r->e->jn.next_seq);
	memcpy(r->sim->now + at, r->sim->now + at - MKV_BLOCK, MKV_BLOCK);
	memcpy(r->sim->durable + at, r->sim->now + at, MKV_BLOCK);
	rig_put_req(r, &q, 0, "k", 3000, 3);
	if (op == MKV_DRV_DELETE)
		rig_req(&q, op, "k");
	rig_submit(r, 0, &q);
	torn_at(r, at, 0, 1);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_get(r, "k", 0, 5000, 1), 0);
	torn_at(r, at, lost, 8);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_get(r, "k", 0, 5000, 1), 0);
	rig_destroy(&r);
}

/*
 * Of the journal block of a put or delete the beginning alone reached the medium: it never was, recovery says. The first block of the next life, which goes to
 * the same place, is torn the other way round, and with its end, zeros, the former one is whole. What was refused must stay refused.
 */
static void
test_refused_stays_refused(void **state)
{
	(void)state;
	for (unsigned lost = 1; lost < 8; lost++) {
		refused(MKV_DRV_DELETE, lost);
		refused(MKV_DRV_PUT, lost);
	}
}

/* A feature that we may read but not write: what is there is served, nothing on the medium changes. */
static void
test_look_only(void **state)
{
	struct rig *r = eng_up(RIG_SIM, 32 * MIB);
	uint8_t *before = malloc(32 * MIB);

	(void)state;
	assert_int_equal(rig_put(r, "old", 70000, 1, 0), 0);
	assert_int_equal(rig_close(r, 1), 0);
	sim_reboot(r->sim, SIM_KEEP);
	for (unsigned i = 0; i < 2; i++) {
		struct mkv_sb *sb = (struct mkv_sb *)(r->sim->now + (i ? MKV_SB_OFF_B : MKV_SB_OFF_A));

		sb->feat_ro_compat |= 1ull << 40;
		mkv_block_seal(sb, offsetof(struct mkv_sb, crc));
	}
	memcpy(r->sim->durable, r->sim->now, 32 * MIB);
	memcpy(before, r->sim->now, 32 * MIB);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(r->readonly, 1);
	assert_int_equal(rig_get(r, "old", 0, MIB, 1), 0);
	assert_int_equal(rig_put(r, "new", 100, 2, 0), MKV_E_READONLY);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "old", NULL), MKV_E_READONLY);
	assert_int_equal(rig_close(r, 0), 0);
	assert_memory_equal(before, r->sim->now, 32 * MIB);
	free(before);
	rig_destroy(&r);
}

/* A checkpoint made while keys are overwritten may know one twice, and then more than there may be objects at all: the later item is the newer one. */
static void
test_twins(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 32 * MIB, 1);
	struct mkv_engine_info info;
	struct mkv_ckpt_block *b;
	struct mkv_ckpt_item it;
	struct mkv_sb sb;
	char key[16];

	(void)state;
	r->o.objects_max = 64;
	r->o.evict = 0;
	r = eng_opened(r);
	for (unsigned k = 0; k < 64; k++) {
		snprintf(key, sizeof(key), "key%u", k);
		assert_int_equal(rig_put(r, key, 5000, k, 0), 0);
	}
	assert_int_equal(rig_close(r, 0), 0);
	memcpy(&sb, r->sim->now, sizeof(sb));
	for (unsigned i = 0; i < 4; i++) {
		struct mkv_ckpt_head *h = (struct mkv_ckpt_head *)(r->sim->now + sb.ckpt_off[i / 2] + (i % 2 ? (sb.ckpt_blocks - 1) * 4096ull : 0));

		if (h->magic != MKV_CKPT_HEAD_MAGIC || h->items != 64)
			continue;
		h->items++;
		mkv_block_seal(h, offsetof(struct mkv_ckpt_head, crc));
		b = (struct mkv_ckpt_block *)(r->sim->now + sb.ckpt_off[i / 2]) + 1;
		if (i % 2)
			continue;
		memcpy(&it, b->data, sizeof(it));
		it.units = 1;			/* the one that the newer replaced; its unit is somebody else's by now */
		memmove(b->data + sizeof(it), b->data, b->used);
		memcpy(b->data, &it, sizeof(it));
		b->used = (uint16_t)(b->used + sizeof(it));
		b->n_items++;
		mkv_block_seal(b, offsetof(struct mkv_ckpt_block, crc));
	}
	memcpy(r->sim->durable, r->sim->now, 32 * MIB);
	assert_int_equal(rig_open(r), 0);
	mkv_engine_info(r->e, &info);
	assert_int_equal(info.recovered_objects, 64);
	assert_int_equal(info.lost_objects + info.damaged_blocks, 0);
	for (unsigned k = 0; k < 64; k++) {
		snprintf(key, sizeof(key), "key%u", k);
		assert_int_equal(rig_get(r, key, 0, MIB, k), 0);
	}
	rig_destroy(&r);
}

#define LISTED	2400u			/* of such keys: some 300 pages */
#define LONG	"%0400u"

/* What is listed below the empty prefix: each key once. */
static void
list_all(struct rig *r, uint8_t *seen)
{
	const struct mkv_drv_rep *p;
	struct mkv_drv_req q;
	uint64_t cursor = 0, at;

	do {
		rig_req(&q, MKV_DRV_LIST, "");
		q.off = cursor;
		q.len = 100;
		q.n_bufs = 1;
		q.bufs[0].bytes = 65536;
		rig_submit(r, 0, &q);
		p = rig_wait(r, 0);
		assert_int_equal(p->status, 0);
		at = 0;
		for (unsigned i = 0; i < p->n_rows; i++) {
			struct mkv_drv_list_row *row = (void *)(rig_mem(r, 0) + at);
			char key[401] = "";

			assert_int_equal(row->key_bytes, 400);
			memcpy(key, row->key, 400);
			assert_in_range(strtoul(key, NULL, 10), 0, LISTED - 1);
			assert_int_equal(seen[strtoul(key, NULL, 10)]++, 0);
			at += row->row_bytes;
		}
		cursor = p->cursor;
	} while (cursor != 0);
}

/* Keys are in metadata pages alone, and of these no more than the budget is in memory: also while all of them are listed. */
static void
test_page_budget(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 64 * MIB, 1);
	uint8_t seen[LISTED] = { 0 };
	struct mkv_metrics *m;
	char key[401];

	(void)state;
	assert_int_equal(mkv_metrics_open_private(&m), 0);
	r->o.metrics = m;
	r->o.objects_max = 8000;
	r->o.page_cache_bytes = MIB / 2 + 100;
	assert_int_equal(rig_open(r), 0);
	for (unsigned i = 0; i < LISTED; i++) {
		snprintf(key, sizeof(key), LONG, i);
		assert_int_equal(rig_put(r, key, 100, i, 0), 0);
	}
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	list_all(r, seen);
	for (unsigned i = 0; i < LISTED; i++)
		assert_int_equal(seen[i], 1);
	assert_in_range(mkv_metric_get(m, MKV_M_drive_meta_reads_total, 0), LISTED / 10, LISTED);	/* more pages than there is room for */
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(mkv_metric_get(m, MKV_M_drive_page_cache_bytes, 0), MIB / 2);
	rig_destroy(&r);
	mkv_metrics_close(&m);
}

/* A value takes whole units of 4 KiB: the ones it has bytes in, whatever its size. */
static void
test_units_of_a_value(void **state)
{
	static const uint64_t size[] = { 1002240, 1, 4095, 4096, 4097, 655360, MIB - 1, MIB };
	struct rig *r = eng_up(RIG_SIM, 32 * MIB);
	struct mkv_engine_info info;
	uint64_t before;

	(void)state;
	assert_int_equal(r->e->sb.unit_bytes, 4096);
	for (size_t i = 0; i < MKV_ARRAY_LEN(size); i++) {
		mkv_engine_info(r->e, &info);
		before = info.used_bytes;
		assert_int_equal(rig_put(r, "k", size[i], i, 0), 0);
		mkv_engine_info(r->e, &info);
		assert_int_equal(info.used_bytes - before, MKV_ALIGN_UP(size[i], 4096));
		assert_int_equal(rig_op(r, MKV_DRV_DELETE, "k", NULL), 0);
	}
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flush_failure), cmocka_unit_test(test_delete_behind_a_failed_flush), cmocka_unit_test(test_metrics_of_two_lives), cmocka_unit_test(test_write_failure),
		cmocka_unit_test(test_hold), cmocka_unit_test(test_reserve), cmocka_unit_test(test_foreign), cmocka_unit_test(test_look_only),
		cmocka_unit_test(test_twins), cmocka_unit_test(test_format_fails), cmocka_unit_test(test_block_of_a_former_life),
		cmocka_unit_test(test_refused_stays_refused),
		cmocka_unit_test(test_page_budget), cmocka_unit_test(test_units_of_a_value),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
