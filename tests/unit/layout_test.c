/*
 * Geometry for media of every size, superblocks that are not ours, records and pages made of random bytes.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "tests/lib/rnd.h"
#include "worker/drive/layout.h"

static void
test_plan(void **state)
{
	struct rnd rnd;
	char why[256];

	(void)state;
	rnd_init(&rnd, 3);
	for (unsigned i = 0; i < 20000; i++) {
		struct mkv_layout_want w = { .total_bytes = (rnd_u64(&rnd) >> (18 + rnd_below(&rnd, 28))) & ~4095ull };
		struct mkv_sb sb = { .magic = MKV_SB_MAGIC, .version = MKV_FORMAT_VERSION };
		int r;

		w.extent_bytes = MKV_EXTENT_MIN << rnd_below(&rnd, 5);
		if (rnd_below(&rnd, 3) == 0)
			w.meta_bytes = w.total_bytes / (2 + rnd_below(&rnd, 40)) & ~4095ull;
		why[0] = '\0';
		r = mkv_layout_plan(&sb, &w, why, sizeof(why));
		if (r != 0) {
			assert_true(why[0] != '\0');
			assert_true(w.total_bytes < (64u << 20) || w.meta_bytes != 0);
			continue;
		}
		mkv_block_seal(&sb, offsetof(struct mkv_sb, crc));
		assert_int_equal(mkv_layout_check_sb(&sb), MKV_SB_GOOD);
		assert_true(sb.data_off + sb.data_units * sb.unit_bytes <= w.total_bytes);
		/* Metadata, journal and checkpoints cost a few percent of anything that is not tiny. */
		if (w.meta_bytes == 0 && w.total_bytes > (256u << 20))
			assert_true(sb.data_units * sb.unit_bytes > w.total_bytes / 100 * 93);
	}
	{
		struct mkv_layout_want w = { .total_bytes = 1u << 30, .extent_bytes = 3u << 20 };
		struct mkv_sb sb = { 0 };

		assert_int_equal(mkv_layout_plan(&sb, &w, why, sizeof(why)), MKV_E_INVAL);
	}
}

static void
test_superblock(void **state)
{
	struct mkv_layout_want w = { .total_bytes = 1u << 30, .extent_bytes = 4u << 20 };
	struct mkv_sb good = { .magic = MKV_SB_MAGIC, .version = MKV_FORMAT_VERSION }, sb;
	char why[256];

	(void)state;
	assert_int_equal(mkv_layout_plan(&good, &w, why, sizeof(why)), 0);
	mkv_block_seal(&good, offsetof(struct mkv_sb, crc));
	for (unsigned i = 0; i < sizeof(sb) * 8; i += 3) {
		sb = good;
		((uint8_t *)&sb)[i / 8] ^= (uint8_t)(1u << i % 8);
		assert_int_not_equal(mkv_layout_check_sb(&sb), MKV_SB_GOOD);
	}
	/* Another version says so although its CRC is right; so does a feature that we do not know. */
	sb = good;
	sb.version++;
	mkv_block_seal(&sb, offsetof(struct mkv_sb, crc));
	assert_int_equal(mkv_layout_check_sb(&sb), MKV_SB_VERSION);
	sb = good;
	sb.feat_incompat = 4;
	mkv_block_seal(&sb, offsetof(struct mkv_sb, crc));
	assert_int_equal(mkv_layout_check_sb(&sb), MKV_SB_VERSION);
	sb = good;
	sb.feat_compat = sb.feat_ro_compat = 4;
	mkv_block_seal(&sb, offsetof(struct mkv_sb, crc));
	assert_int_equal(mkv_layout_check_sb(&sb), MKV_SB_GOOD);
	sb = good;
	sb.data_units += 1u << 20;
	mkv_block_seal(&sb, offsetof(struct mkv_sb, crc));
	assert_int_equal(mkv_layout_check_sb(&sb), MKV_SB_DAMAGED);
}

static void
test_foreign(void **state)
{
	uint8_t *head = calloc(1, 1u << 20);

	(void)state;
	assert_null(mkv_layout_foreign(head, 1u << 20));
	memcpy(head + 0x10040, "_BHRfS_M", 8);
	assert_non_null(strstr(mkv_layout_foreign(head, 1u << 20), "btrfs"));
	memset(head, 0, 1u << 20);
	head[(1u << 20) - 1] = 1;
	assert_non_null(strstr(mkv_layout_foreign(head, 1u << 20), "unknown"));
	free(head);
}

/* Hostile pages: every walk ends, nothing outside the page is named. */
static void
test_pages(void **state)
{
	struct mkv_page *pg = malloc(sizeof(*pg));
	struct rnd rnd;

	(void)state;
	rnd_init(&rnd, 11);
	for (unsigned i = 0; i < 100000; i++) {
		struct mkv_obj *o = (struct mkv_obj *)pg->data;
		struct mkv_obj_view v;
		uint32_t pos = 0;
		unsigned n = 0;

		rnd_fill(&rnd, pg, 512);
		pg->used = (uint16_t)rnd_u64(&rnd);
		if (i % 2) {			/* nearly right */
			o->key_bytes &= 0x3ff;
			o->n_crcs &= 0x7f;
			o->ns_bytes &= 0x7f;
			o->n_runs &= 15;
			o->n_stripe &= 0x7f;
			o->bytes = (uint16_t)mkv_obj_bytes(o);
			pg->used = sizeof(pg->data);
		}
		while (mkv_page_next(pg, &pos, &v) == 1) {
			assert_true(v.key + v.o->key_bytes <= pg->data + sizeof(pg->data));
			assert_true(++n <= sizeof(pg->data) / sizeof(struct mkv_obj));
		}
	}
	free(pg);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plan), cmocka_unit_test(test_superblock), cmocka_unit_test(test_foreign), cmocka_unit_test(test_pages),
	};

	mkv_crc_init();
	return (cmocka_run_group_tests(tests, NULL, NULL));
}
