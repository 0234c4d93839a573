/*
 * A store of format 3, written by the build of 28 November 2026 and kept in this tree: what is released must stay readable, so each later build opens it, finds every
 * object byte for byte, and goes on writing. Then the same store with a feature that this build does not know, of each kind.
 *
 *	stored_test [IMAGE.xz]			default: store-format3.img.xz beside the source
 *	stored_test -w IMAGE			writes such a store with this build: for a new format, never over the old one
 *
 * The image is that of a process that died: two checkpoints behind it, a journal tail, the last group without a mark of its flush. In it: small and large
 * values, one in several runs, one in pieces, times to live, pins, verified and accepted ones, parents, put ids, namespaces of which one was purged and
 * came back, deleted and replaced keys, a pool map, a row of the failure registry. `rows` is what must be there.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/auth.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "tests/crash/check.h"
#include "tests/crash/rig.h"
#include "worker/drive/engine_priv.h"

#define BYTES		(5u << 20)
#define EXTENT		MKV_EXTENT_MIN
#define HOUR_MS		3600000u
#define YEAR_MS		(365ull * 24 * HOUR_MS)
#define LONG_KEY	"a-key-of-512-bytes"		/* and what is missing of them */
#define OLD		(1u << 16)			/* before the checkpoint */
#define FILLERS		48u				/* at most */

static unsigned	failed;
static uint8_t	piece_secret[MKV_SECRET_BYTES];

struct row {
	const char	*ns, *key;
	uint64_t	bytes, seed;
	unsigned	flags;				/* of its put, and OLD */
	uint64_t	ttl_ms;				/* as it is in the end */
};

static const struct row rows[] = {
	{ "", "empty", 0, 1, OLD, 0 },
	{ "", "one", 1, 2, OLD | MKV_DRV_F_VERIFIED, 0 },
	{ "", "page", 4096, 3, OLD, 0 },
	{ "", "chunk", 65536, 4, OLD | MKV_DRV_F_VERIFIED, 0 },
	{ "", "more", 65537, 5, OLD, 0 },
	{ "", "extent", EXTENT, 6, OLD | MKV_DRV_F_VERIFIED, 0 },
	{ "", "runs", 200000, 7, OLD, 0 },
	{ "", "replaced", 9000, 8, OLD, 0 },
	{ "", "replaced-late", 5000, 9, 0, 0 },
	{ "", "hour", 3000, 10, OLD, HOUR_MS },
	{ "", "year", 3000, 11, OLD, YEAR_MS },
	{ "", "touched", 700, 12, OLD, YEAR_MS },
	{ "", "pinned", 20000, 13, OLD | MKV_DRV_F_PIN, 0 },
	{ "", "pinned-late", 20000, 14, MKV_DRV_F_PIN, 0 },
	{ "", "accepted", 30000, 15, OLD | MKV_DRV_F_ACCEPTED, 0 },
	{ "", LONG_KEY, 100, 16, OLD, 0 },
	{ "", "late", 100000, 17, MKV_DRV_F_VERIFIED, 0 },
	{ "models", "page", 4096, 18, OLD, 0 },
	{ "models", "late", 50, 19, 0, 0 },
	{ "purged", "again", 8000, 20, OLD, 0 },
	{ "purged-late", "again", 8000, 21, 0, 0 },
	{ "", "pieces", 2 * EXTENT + 12345, 22, OLD, 0 },
	{ "", "pieces-late", EXTENT + 1, 23, 0, 0 },
};

static const struct row gone[] = {
	{ "", "deleted", 0, 0, 0, 0 }, { "", "deleted-late", 0, 0, 0, 0 }, { "", "never", 0, 0, 0, 0 }, { "purged", "before", 0, 0, 0, 0 },
	{ "purged-late", "before", 0, 0, 0, 0 }, { "models", "never", 0, 0, 0, 0 },
};

static const struct row *
row_of(const char *ns, const char *key)
{
	const struct row *w = rows;

	while (strcmp(w->ns, ns) != 0 || strcmp(w->key, key) != 0)
		w++;
	return (w);
}

/* ---- Requests --------------------------------------------------------------------------------------------------------------- */

/* Compressible, and of its seed and place all the same. */
static uint8_t
value_byte(uint64_t seed, uint64_t i)
{
	return ((uint8_t)(seed * 37 + i + (i >> 8) * 3 + (i >> 16) * 5));
}

static void
row_req(struct mkv_drv_req *q, unsigned op, const struct row *w)
{
	char key[MKV_DRV_KEY_MAX + 1];

	snprintf(key, sizeof(key), "%s", w->key);
	for (size_t n = strlen(key); strcmp(w->key, LONG_KEY) == 0 && n < MKV_DRV_KEY_MAX; n++) {
		key[n] = 'x';
		key[n + 1] = '\0';
	}
	rig_req(q, op, key);
	q->ns_bytes = (uint16_t)strlen(w->ns);
	memcpy(q->ns, w->ns, q->ns_bytes);
	/* Another key of another namespace. */
	q->digest.hi ^= q->ns_bytes > 0 ? mkv_hash64(w->ns, q->ns_bytes, 3) : 0;
	q->map_version = 1;
}

static int
run(struct rig *r, struct mkv_drv_req *q)
{
	rig_submit(r, 0, q);
	return (rig_wait(r, 0)->status);
}

static void
row_bytes(struct rig *r, struct mkv_drv_req *q, const struct row *w, uint64_t from, uint64_t bytes)
{
	uint8_t *p = rig_mem(r, 0);

	for (uint64_t i = 0; i < bytes; i++)
		p[i] = value_byte(w->seed, from + i);
	rig_bufs(q, 0, bytes);
	q->value_bytes = bytes;
	q->n_crcs = (uint16_t)mkv_crc_chunks(bytes);
	mkv_crc_chunk_list(p, bytes, q->crcs);
}

/* ---- Writing it ------------------------------------------------------------------------------------------------------------- */

static int
put_pieces(struct rig *r, const struct row *w)
{
	struct mkv_drv_req q;
	struct mkv_set_id set;
	uint32_t n = (uint32_t)MKV_DIV_UP(w->bytes, EXTENT);

	row_req(&q, MKV_DRV_SET_NEW, w);
	q.deadline_ns = r->now_ns + MKV_NS_PER_SEC;
	if (run(r, &q) != 0)
		return (-1);
	set = r->slot[0].rep.set;
	for (uint32_t no = 0; no < n; no++) {
		uint64_t from = (uint64_t)no * EXTENT;

		row_req(&q, MKV_DRV_PUT, w);
		row_bytes(r, &q, w, from, MKV_MIN(w->bytes - from, (uint64_t)EXTENT));
		q.flags = MKV_DRV_F_PIECE;
		q.key_bytes = 0;
		q.set = set;
		q.piece_no = no;
		q.digest = mkv_piece_digest(piece_secret, set, no);
		if (run(r, &q) != 0)
			return (-1);
	}
	row_req(&q, MKV_DRV_PUT, w);
	q.flags = MKV_DRV_F_MANIFEST;
	q.set = set;
	q.value_bytes = w->bytes;
	q.piece_count = n;
	q.piece_bytes = EXTENT;
	q.n_stripe = 1;
	q.put_id = w->seed;
	return (run(r, &q));
}

static void
put(struct rig *r, const struct row *w)
{
	struct mkv_drv_req q;
	int err;

	if (w->bytes > EXTENT)
		err = put_pieces(r, w);
	else {
		row_req(&q, MKV_DRV_PUT, w);
		row_bytes(r, &q, w, 0, w->bytes);
		q.flags = (uint16_t)w->flags;
		q.ttl_ms = w->ttl_ms;
		q.put_id = w->seed;
		q.parent.lo = w->seed % 2;
		err = run(r, &q);
	}
	CHECK(err == 0, "put %s: %s", w->key, mkv_err(err));
}

static void
put_other(struct rig *r, const char *ns, const char *key, uint64_t bytes)
{
	const struct row w = { ns, key, bytes, 99, MKV_DRV_F_OVERWRITE, 0 };

	put(r, &w);
}

static void
other(struct rig *r, unsigned op, const char *ns, const char *key, uint64_t ttl_ms)
{
	const struct row w = { ns, key, 0, 0, 0, 0 };
	struct mkv_drv_req q;

	row_req(&q, op, &w);
	q.ttl_ms = ttl_ms;
	CHECK(run(r, &q) == 0, "%s", key);
}

static void
turns(struct rig *r, uint64_t ms)
{
	r->now_ns += ms * MKV_NS_PER_MS;
	for (unsigned i = 0; i < 100; i++)
		rig_turn(r);
}

static void
give_map(struct rig *r)
{
	struct mkv_map m = { .version = 1, .n = 1 };

	memcpy(m.row[0].uuid, r->o.drive_uuid, 16);
	m.row[0].known = 1;
	m.row[0].state = MKV_DRIVE_ONLINE;
	m.row[0].weight = 100;
	mkv_engine_map(r->e, &m);
	turns(r, 10);
	CHECK(r->map_stored == 1, "the map");
}

/* All is full but for holes of 60 KiB: "runs" has to lie in several of them. */
static void
put_in_holes(struct rig *r, const struct row *w)
{
	char key[16];
	unsigned n = 0;

	for (; n < FILLERS; n++) {
		const struct row filler = { "", key, 61440, 50 + n, 0, 0 };
		struct mkv_drv_req q;

		snprintf(key, sizeof(key), "fill-%u", n);
		row_req(&q, MKV_DRV_PUT, &filler);
		row_bytes(r, &q, &filler, 0, filler.bytes);
		if (run(r, &q) != 0)
			break;
	}
	CHECK(n < FILLERS && n > 12, "%u fillers", n);
	for (unsigned i = 1; i < 10; i += 2) {
		snprintf(key, sizeof(key), "fill-%u", i);
		other(r, MKV_DRV_DELETE, "", key, 0);
	}
	put(r, w);
	for (unsigned i = 0; i < n; i += i < 10 ? 2 : 1) {
		snprintf(key, sizeof(key), "fill-%u", i);
		other(r, MKV_DRV_DELETE, "", key, 0);
	}
}

static struct rig *
stored_rig(void)
{
	struct rig *r = rig_create(RIG_SIM, BYTES, 1);

	memset(r->o.drive_uuid, 0x42, sizeof(r->o.drive_uuid));
	memset(r->o.server_id, 0x17, sizeof(r->o.server_id));
	memset(r->o.store_secret, 0x5a, sizeof(r->o.store_secret));
	CHECK(mkv_hkdf(r->o.store_secret, 32, NULL, 0, MKV_PIECE_INFO, strlen(MKV_PIECE_INFO), piece_secret, sizeof(piece_secret)) == 0, "hkdf");
	r->o.extent_bytes = EXTENT;
	r->o.journal_bytes = 128 * MKV_BLOCK;
	r->o.objects_max = 128;
	r->o.evict = 0;
	return (r);
}

static void
write_early(struct rig *r)
{
	put_other(r, "", "replaced", 20000);
	put_other(r, "", "replaced-late", 20000);
	put_other(r, "", "deleted", 3000);
	put_other(r, "", "deleted-late", 3000);
	put_other(r, "purged", "before", 3000);
	put_other(r, "purged-late", "before", 3000);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(rows); i++) {
		if ((rows[i].flags & OLD) == 0 || strcmp(rows[i].key, "again") == 0)
			continue;
		if (strcmp(rows[i].key, "runs") == 0)
			put_in_holes(r, &rows[i]);
		else
			put(r, &rows[i]);
	}
	other(r, MKV_DRV_DELETE, "", "deleted", 0);
	CHECK(rig_purge(r, "purged") == 0, "purge");
	put(r, row_of("purged", "again"));
	fail_note(r->e, MKV_FAIL_READ, r->e->sb.data_off, MKV_BLOCK, MKV_E_IO, 0);
	turns(r, 2000);
}

static void
write_late(struct rig *r)
{
	other(r, MKV_DRV_DELETE, "", "deleted-late", 0);
	CHECK(rig_purge(r, "purged-late") == 0, "purge");
	other(r, MKV_DRV_TOUCH, "", "touched", YEAR_MS);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(rows); i++) {
		if ((rows[i].flags & OLD) == 0)
			put(r, &rows[i]);
	}
}

static int
write_image(const char *path)
{
	struct rig *r = stored_rig();
	FILE *f;

	CHECK(rig_open(r) == 0, "%s", r->why);
	give_map(r);
	write_early(r);
	CHECK(rig_close(r, 0) == 0 && rig_open(r) == 0, "%s", r->why);
	other(r, MKV_DRV_TOUCH, "", "touched", HOUR_MS);
	r->e->ck.wanted = 1;
	turns(r, 100);
	write_late(r);
	rig_close(r, 1);
	sim_reboot(r->sim, SIM_KEEP);
	if ((f = fopen(path, "we")) == NULL || fwrite(r->sim->now, BYTES, 1, f) != 1 || fclose(f) != 0) {
		perror(path);
		failed++;
	}
	rig_destroy(&r);
	return (failed != 0);
}

/* ---- Reading it ------------------------------------------------------------------------------------------------------------- */

static int
bytes_are(struct rig *r, const struct mkv_drv_rep *p, const struct row *w, uint64_t from, uint64_t bytes)
{
	const uint8_t *b = rig_mem(r, 0) + p->skip;

	for (uint64_t i = 0; i < bytes; i++)
		if (b[i] != value_byte(w->seed, from + i))
			return (0);
	return (p->len == bytes && p->value_bytes == bytes && p->n_crcs == mkv_crc_chunks(bytes) && (bytes == 0 || mkv_crc32c(0, b, MKV_MIN(bytes,
	    (uint64_t)MKV_CRC_CHUNK)) == p->crcs[0]));
}

static void
check_pieces(struct rig *r, const struct row *w, struct mkv_drv_rep m)
{
	struct mkv_drv_req q;

	CHECK(m.value_bytes == w->bytes && m.piece_bytes == EXTENT && (m.flags & MKV_DRV_F_MANIFEST), "%s", w->key);
	for (uint32_t no = 0; no < MKV_DIV_UP(w->bytes, EXTENT); no++) {
		uint64_t from = (uint64_t)no * EXTENT, bytes = MKV_MIN(w->bytes - from, (uint64_t)EXTENT);

		row_req(&q, MKV_DRV_GET, w);
		rig_bufs(&q, 0, RIG_SLOT_BYTES / 2);
		q.key_bytes = 0;
		q.ns_bytes = 0;
		q.len = EXTENT;
		q.flags = MKV_DRV_F_PIECE;
		q.set = m.set;
		q.piece_no = no;
		q.piece_bytes = EXTENT;
		q.digest = mkv_piece_digest(piece_secret, m.set, no);
		CHECK(run(r, &q) == 0 && bytes_are(r, &r->slot[0].rep, w, from, bytes), "%s: piece %u", w->key, no);
	}
}

static void
check_row(struct rig *r, const struct row *w, uint64_t base_ms)
{
	const struct mkv_drv_rep *p = &r->slot[0].rep;
	struct mkv_drv_req q;

	row_req(&q, MKV_DRV_STAT, w);
	CHECK(run(r, &q) == 0 && p->value_bytes == w->bytes && p->put_id == w->seed, "%s/%s: %s, %" PRIu64 " bytes", w->ns, w->key, mkv_err(p->status), p->value_bytes);
	CHECK(((p->flags & MKV_DRV_F_PIN) != 0) == ((w->flags & MKV_DRV_F_PIN) != 0), "%s: pinned or not", w->key);
	CHECK((w->flags & MKV_DRV_F_VERIFIED) == 0 || (p->flags & MKV_DRV_F_VERIFIED), "%s: verified once", w->key);
	CHECK(p->put_wall_ms >= base_ms && p->put_wall_ms < base_ms + 60000, "%s: when it was put", w->key);
	CHECK(w->ttl_ms == 0 ? p->expires_wall_ms == 0 : p->expires_wall_ms >= base_ms + w->ttl_ms && p->expires_wall_ms < base_ms + w->ttl_ms + 60000,
	    "%s: its time to live ends at %" PRIu64, w->key, p->expires_wall_ms);
	row_req(&q, MKV_DRV_GET, w);
	rig_bufs(&q, 0, RIG_SLOT_BYTES / 2);
	q.len = EXTENT;
	CHECK(run(r, &q) == 0, "%s: %s", w->key, mkv_err(p->status));
	if (w->bytes > EXTENT)
		check_pieces(r, w, *p);
	else
		CHECK(bytes_are(r, p, w, 0, w->bytes), "%s/%s: wrong bytes", w->ns, w->key);
}

static void
check_all(struct rig *r, const char *when)
{
	struct mkv_inspect in = { .data = 1 };
	struct mkv_engine_info info;
	struct mkv_engine_ns ns[8];
	const unsigned before = failed, pieces = 3 + 2;
	struct mkv_drv_req q;

	for (unsigned i = 0; i < MKV_ARRAY_LEN(rows); i++)
		check_row(r, &rows[i], 1700000000000ull);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(gone); i++) {
		row_req(&q, MKV_DRV_STAT, &gone[i]);
		CHECK(run(r, &q) == MKV_E_MISS, "%s/%s is there", gone[i].ns, gone[i].key);
	}
	mkv_engine_info(r->e, &info);
	CHECK(info.damaged_blocks == 0 && info.lost_objects == 0 && info.superblock_bad == 0, "damage");
	CHECK(info.objects >= MKV_ARRAY_LEN(rows) + pieces, "%" PRIu64 " objects", info.objects);
	CHECK(mkv_engine_namespaces(r->e, ns, 8) == 4, "namespaces");
	row_req(&q, MKV_DRV_STAT, row_of("", "runs"));
	CHECK(eng_ent(r->e, mkv_index_find(&r->e->ix, q.digest))->flags & MKV_ENT_MULTI, "the value in several runs is in one");
	CHECK(mkv_engine_map_kept(r->e)->version == 1, "the pool map");
	CHECK(r->e->fl.sum.rows >= 1 && r->e->fl.sum.damaged == 0, "the failure registry");
	CHECK(mkv_engine_inspect(r->e, &in) == 0 && in.bad_pages + in.bad_records + in.bad_data == 0, "the store has bad pages, records or values");
	if (failed > before)
		fprintf(stderr, "%s\n", when);
}

/* The image on a medium of its own. */
static struct rig *
stored(const uint8_t *image)
{
	struct rig *r = stored_rig();

	memcpy(r->sim->now, image, BYTES);
	memcpy(r->sim->durable, image, BYTES);
	r->o.epoch = 100;
	r->o.may_format = 0;
	return (r);
}

static void
test_read(const uint8_t *image)
{
	struct rig *r = stored(image);
	const struct row w = { "models", "new", 50000, 77, 0, 0 };
	struct mkv_drv_req q;

	r->o.look_only = 1;
	CHECK(rig_open(r) == 0, "%s", r->why);
	check_all(r, "looked at only");
	rig_close(r, 0);
	CHECK(memcmp(r->sim->now, image, BYTES) == 0, "who only looks has written");
	r->o.look_only = 0;
	CHECK(rig_open(r) == 0, "%s", r->why);
	check_all(r, "opened");
	/* It is written to, checkpointed, and opened once more: with audits, that nothing is given back which somebody needs. */
	put(r, &w);
	put_other(r, "", "other", 300);
	other(r, MKV_DRV_DELETE, "", "other", 0);
	turns(r, 3000);
	CHECK(rig_close(r, 0) == 0 && rig_open(r) == 0, "%s", r->why);
	check_all(r, "opened again");
	row_req(&q, MKV_DRV_STAT, &w);
	CHECK(run(r, &q) == 0, "what was put now");
	/* After two hours. */
	r->wall_ms += 2 * HOUR_MS;
	row_req(&q, MKV_DRV_STAT, row_of("", "hour"));
	CHECK(run(r, &q) == MKV_E_MISS, "what lives for an hour is there");
	row_req(&q, MKV_DRV_STAT, row_of("", "year"));
	CHECK(run(r, &q) == 0, "what lives for a year has expired");
	rig_destroy(&r);
}

/* ---- Features that this build does not know --------------------------------------------------------------------------------- */

enum kind { COMPAT, RO_COMPAT, INCOMPAT };

static struct mkv_sb *
sb_of(struct rig *r, unsigned copy)
{
	return ((struct mkv_sb *)(r->sim->now + (copy ? MKV_SB_OFF_B : MKV_SB_OFF_A)));
}

static struct rig *
with_feature(const uint8_t *image, enum kind k, uint64_t bits)
{
	struct rig *r = stored(image);

	for (unsigned i = 0; i < 2; i++) {
		struct mkv_sb *sb = sb_of(r, i);

		*(k == COMPAT ? &sb->feat_compat : k == RO_COMPAT ? &sb->feat_ro_compat : &sb->feat_incompat) |= bits;
		mkv_block_seal(sb, offsetof(struct mkv_sb, crc));
	}
	memcpy(r->sim->durable, r->sim->now, BYTES);
	return (r);
}

static void
test_features(const uint8_t *image)
{
	const struct row w = { "", "new", 100, 77, 0, 0 };
	uint8_t *before = malloc(BYTES);
	struct mkv_drv_req q;
	struct rig *r;

	/* Compatible: served as ever, and the bit stays for who knows it. */
	r = with_feature(image, COMPAT, 1ull << 40);
	CHECK(rig_open(r) == 0 && !r->readonly, "%s", r->why);
	check_all(r, "compatible feature");
	put(r, &w);
	CHECK(rig_close(r, 0) == 0, "close");
	CHECK(sb_of(r, 0)->feat_compat == 1ull << 40 && sb_of(r, 1)->feat_compat == 1ull << 40, "the bit is lost");
	rig_destroy(&r);

	/* Read-only compatible: everything can be read, nothing is written. */
	r = with_feature(image, RO_COMPAT, 1ull << 41);
	memcpy(before, r->sim->now, BYTES);
	CHECK(rig_open(r) == 0 && r->readonly, "%s", r->why);
	check_all(r, "read-only compatible feature");
	row_req(&q, MKV_DRV_PUT, &w);
	row_bytes(r, &q, &w, 0, w.bytes);
	CHECK(run(r, &q) == MKV_E_READONLY, "a put");
	CHECK(rig_close(r, 0) == 0 && memcmp(before, r->sim->now, BYTES) == 0, "the medium was written to");
	rig_destroy(&r);

	/* Incompatible: refused, by name. */
	r = with_feature(image, INCOMPAT, 1ull << 42 | 1ull << 3);
	memcpy(before, r->sim->now, BYTES);
	CHECK(rig_open(r) == MKV_E_VERSION && strstr(r->why, "bits 3, 42") != NULL, "%s", r->why);
	r->o.may_format = 1;
	CHECK(rig_open(r) == MKV_E_VERSION && memcmp(before, r->sim->now, BYTES) == 0, "it was not left alone: %s", r->why);
	rig_destroy(&r);
	free(before);
}

static uint8_t *
image_read(const char *path)
{
	uint8_t *image = malloc(BYTES);
	char cmd[1024];
	FILE *f;
	size_t n;

	snprintf(cmd, sizeof(cmd), "xz -dc '%s'", path);
	if (image == NULL || access(path, R_OK) != 0 || (f = popen(cmd, "re")) == NULL) {
		perror(path);
		exit(1);
	}
	n = fread(image, 1, BYTES, f);
	if (pclose(f) != 0 || n != BYTES) {
		printf("skipped: xz does not unpack %s\n", path);
		exit(77);
	}
	return (image);
}

int
main(int argc, char **argv)
{
	const char *dir = getenv("srcdir");
	char path[512];
	uint8_t *image;

	mkv_log_init(MKV_LOG_ERROR);
	mkv_crc_init();
	if (argc == 3 && strcmp(argv[1], "-w") == 0)
		return (write_image(argv[2]));
	snprintf(path, sizeof(path), "%s/store-format3.img.xz", dir != NULL ? dir : ".");
	image = image_read(argc == 2 ? argv[1] : path);
	test_read(image);
	test_features(image);
	free(image);
	printf("%zu objects of a store of format 3, features of three kinds, %u failed\n", MKV_ARRAY_LEN(rows), failed);
	return (failed != 0);
}
