/*
 * One drive, by counts (front_single_test.c: what the front asks of it). A value of up to one extent: one request, its bytes go to the medium from the
 * buffer they arrived in, one journal write, one flush. A larger one: pieces and a manifest on the same drive. Neither sends a message to any drive.
 */
#include "config.h"

#include "tests/unit/sets_up.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "tests/crash/media_pass.h"
#include "tests/unit/engine_up.h"
#include "worker/drive/layout.h"

#define ME	3u			/* this drive's number in the map: not that of nobody */
#define SLOT	5u			/* of the puts; others than that of other requests */
#define PIECES	3u
#define BUF	65536u			/* the first of two buffers (rig_bufs) */

/* The medium, seen by what is asked of it. */
static struct {
	struct media_pass p;
	struct rig	*r;
	uint64_t	data_off;
	const uint8_t	*from;		/* the value's buffers */
	uint64_t	moved;		/* so many bytes of it came from there, in order */
	unsigned	elsewhere;	/* writes of data that did not, or not by the buffer's number */
	unsigned	meta_writes, flushes;
	unsigned	messages;	/* to drives, whichever */
} seen;

/* Two buffers of a put have two numbers. */
static int
buf_number(uint64_t off)
{
	return ((int)(off / BUF) + 7);
}

static void
seen_write(struct mkv_media *m, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int idx)
{
	uint64_t at = (uint64_t)(seen.from - seen.r->stage);

	if (off < seen.data_off)
		seen.meta_writes++;
	else if (seen.from != NULL && buf == seen.from + seen.moved && (idx == buf_number(at) || (seen.moved >= BUF && idx == buf_number(at + BUF))))
		seen.moved += bytes;
	else
		seen.elsewhere++;
	media_pass_write(m, mio, buf, bytes, off, -1);
}

static void
seen_read(struct mkv_media *m, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int idx)
{
	(void)idx;			/* numbers of no queue */
	media_pass_read(m, mio, buf, bytes, off, -1);
}

static void
seen_flush(struct mkv_media *m, struct mkv_mio *mio)
{
	seen.flushes++;
	media_pass_flush(m, mio);
}

static struct mkv_media *
seen_wrap(struct rig *r, struct mkv_media *m)
{
	(void)media_pass(&seen.p, m);
	seen.p.ops.read = seen_read;
	seen.p.ops.write = seen_write;
	seen.p.ops.flush = seen_flush;
	seen.r = r;
	return (&seen.p.m);
}

static void *
seen_buffer(void *arg, uint32_t client, uint64_t off, uint64_t bytes, int *buf_idx)
{
	struct rig *r = arg;

	(void)client;
	(void)bytes;
	*buf_idx = buf_number(off);
	return (r->stage + off);
}

static void
seen_peer(void *arg, uint32_t drive, const struct mkv_desc *d)
{
	(void)arg;
	(void)drive;
	(void)d;
	seen.messages++;
}

static struct rig *
single_up(enum rig_kind kind)
{
	static struct mkv_engine_ops ops;
	struct rig *r = rig_create(kind, 64 * MIB, 1);
	uint8_t zero[32] = { 0 };
	struct mkv_sb sb;

	memset(&seen, 0, sizeof(seen));
	assert_int_equal(mkv_hkdf(zero, 32, NULL, 0, MKV_PIECE_INFO, strlen(MKV_PIECE_INFO), secret, sizeof(secret)), 0);
	ops = *r->o.ops;
	ops.buffer = seen_buffer;
	ops.peer = seen_peer;
	r->o.ops = &ops;
	r->o.drive_idx = ME;
	r->wrap = seen_wrap;
	r = eng_opened(r);
	if (r->sim != NULL)
		memcpy(&sb, r->sim->now + MKV_SB_OFF_A, sizeof(sb));
	else
		assert_int_equal(pread(r->fd, &sb, sizeof(sb), MKV_SB_OFF_A), sizeof(sb));
	seen.data_off = sb.data_off;
	assert_int_equal(sb.extent_bytes, MIB);
	turns(r, 1);
	/* A drive that begins empty tells all others a few times what it may have lost; after an end in order nobody has anything to say. */
	assert_int_equal(rig_close(r, 0), 0);
	seen.messages = 0;
	assert_int_equal(rig_open(r), 0);
	turns(r, 2);
	return (r);
}

static void
count_from(struct rig *r, unsigned slot)
{
	seen.from = rig_mem(r, slot);
	seen.moved = seen.elsewhere = seen.meta_writes = seen.flushes = 0;
}

static void
one_extent(enum rig_kind kind)
{
	static const uint64_t sizes[] = { 1, 4095, 4096, 65536, 100000, 131073, 300000, MIB - 1, MIB };
	struct rig *r = single_up(kind);

	for (unsigned i = 0; i < MKV_ARRAY_LEN(sizes); i++) {
		struct mkv_drv_req q;
		struct mkv_engine_info info;
		char key[16];

		snprintf(key, sizeof(key), "v%u", i);
		rig_put_req(r, &q, SLOT, key, sizes[i], i);
		count_from(r, SLOT);
		rig_submit(r, SLOT, &q);
		assert_int_equal(rig_wait(r, SLOT)->status, 0);
		assert_int_equal(seen.elsewhere, 0);
		assert_int_equal(seen.moved, MKV_ALIGN_UP(sizes[i], MKV_BLOCK));
		assert_int_equal(seen.meta_writes, 1);		/* its record in the journal */
		assert_int_equal(seen.flushes, 1);
		mkv_engine_info(r->e, &info);
		assert_int_equal(info.objects, i + 1);		/* the value, nothing beside it */
		assert_int_equal(rig_get(r, key, 0, MIB, i), 0);
		assert_int_equal(r->slot[0].rep.flags & MKV_DRV_F_MANIFEST, 0);
	}
	turns(r, 5);
	assert_int_equal(seen.flushes, 1);		/* nothing follows */
	count_from(r, SLOT);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "v0", NULL), 0);
	turns(r, 5);
	assert_int_equal(seen.flushes, 1);
	turns(r, 200);				/* audits, checkpoints */
	assert_int_equal(seen.messages, 0);
	rig_destroy(&r);
}

static void
test_extent_sim(void **state)
{
	(void)state;
	one_extent(RIG_SIM);
}

static void
test_extent_uring(void **state)
{
	(void)state;
	one_extent(RIG_URING);
}

static void
test_extent_threads(void **state)
{
	(void)state;
	one_extent(RIG_THREADS);
}

/* All pieces of a value at once, as a front sends them; each from its own buffer. */
static void
put_all_pieces(struct rig *r, struct mkv_set_id set)
{
	for (uint32_t no = 0; no < PIECES; no++) {
		struct mkv_drv_req q;

		rig_piece_req(r, &q, SLOT + no, set, no, MIB, secret);
		rig_submit(r, SLOT + no, &q);
	}
	for (uint32_t no = 0; no < PIECES; no++)
		assert_int_equal(rig_wait(r, SLOT + no)->status, 0);
}

/*
 * More than an extent: one flush for the pieces, one for the manifest, and all that the home says of the set it says to itself by a call: committed,
 * freed, asked at the audit, looked for when a reader missed a piece.
 */
static void
test_larger(void **state)
{
	struct rig *r = single_up(RIG_SIM);
	uint64_t before = used(r), hold;
	struct mkv_set_id set;

	(void)state;
	count_from(r, SLOT);
	set = set_new(r, 0);
	assert_int_equal(seen.meta_writes + seen.flushes, 0);
	put_all_pieces(r, set);
	assert_int_equal(seen.flushes, 1);
	assert_int_equal(seen.meta_writes, 1);
	assert_int_equal(put_manifest(r, set, "large", PIECES, ME, 0), 0);
	assert_int_equal(seen.flushes, 2);
	assert_int_equal(seen.meta_writes, 2);
	assert_int_equal(used(r) - before, PIECES * MIB);		/* the manifest takes no unit */
	turns(r, 5);
	assert_int_equal(seen.flushes, 3);		/* that the set is committed; nobody waits for it */
	assert_int_equal(get_hold(r, "large", &hold), 0);
	assert_int_equal(r->slot[0].rep.flags & MKV_DRV_F_MANIFEST, MKV_DRV_F_MANIFEST);
	mkv_engine_release(r->e, 0, hold, MKV_DRV_RELEASE_SHORT);
	turns(r, 200);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	turns(r, 200);
	assert_int_equal(get_hold(r, "large", &hold), 0);
	mkv_engine_release(r->e, 0, hold, 0);
	assert_int_equal(used(r) - before, PIECES * MIB);
	count_from(r, SLOT);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "large", NULL), 0);
	turns(r, 10);
	assert_int_equal(seen.flushes, 3);		/* the manifest; the pieces; that they are freed */
	assert_int_equal(used(r), before);
	assert_int_equal(seen.messages, 0);
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_extent_sim), cmocka_unit_test(test_extent_uring), cmocka_unit_test(test_extent_threads),
		cmocka_unit_test(test_larger),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
