/*
 * A channel that breaks while a put has one part whose bytes are here and one that waits for memory, which is there at that very moment.
 */
#include "config.h"

#include "tests/unit/front_rail_up.h"
#include "worker/front/rail_priv.h"

#define PART	(1u << 20)

static uint32_t num_dcis;

static struct mkv_req *
t_req(struct t *t)
{
	struct mkv_conn *c = MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link);

	assert_int_equal(c->n_reqs, 1);
	return (MKV_CONTAINER_OF(c->reqs.next, struct mkv_req, link));
}

/* All that the stage has. */
static unsigned
take_all(struct mkv_stage *s, struct mkv_buf *b, unsigned max)
{
	unsigned n = 0;

	for (uint32_t bytes = mkv_stage_chunk_bytes(s); bytes >= MKV_STAGE_UNIT; bytes /= 2)
		while (n < max && mkv_buf_take(s, bytes, &b[n]) == 0)
			n++;
	assert_true(n < max);
	return (n);
}

static void
a_part_waits_for_memory(void **state)
{
	static struct mkv_buf b[4096];
	struct t *t = opened(num_dcis);
	struct mkv_line *line;
	struct mkv_req *r;
	uint32_t sends;
	unsigned n;
	uint64_t id;

	(void)state;
	rig_fill(t->mem, PART, 1);
	fv_hold(1);
	id = t_put_part(t, "long", 0, 0, PART, 0, 2 * PART, 1, PART);
	t_pump(t);
	assert_int_equal(fv_step(1), 1);
	t_pump(t);
	for (r = t_req(t); r->part[0].x.left != 0; t_pump(t))
		assert_true(fv_step(4) > 0);
	/* Its last pieces come with the message of the next part; the word that they did cannot leave. */
	line = r->part[0].x.line;
	n = take_all(t->r.f->stage, b, MKV_ARRAY_LEN(b));
	(void)t_put_part(t, "long", id, PART, PART, PART, 2 * PART, 0, PART);
	mkv_rdma_hub_flush(t->u.hub);
	sends = line->sends;
	line->sends = 0;
	(void)fv_step(5);
	t_pump(t);
	assert_int_equal(r->part[0].x.kind, XFER_ACK);
	assert_int_equal(r->part[1].state, PART_WAIT);
	assert_ptr_equal(r->parked, &t->r.f->park_bufs);
	line->sends = sends;
	while (n > 0)
		mkv_buf_drop(t->r.f->stage, &b[--n]);
	chan_break(line->ch, "as if it were the path");
	fv_hold(0);
	t_assert_broken(t);
	assert_int_equal(t->r.f->n_reqs, 0);
	closed(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_part_waits_for_memory) };
	int failed = cmocka_run_group_tests_name("by RC", tests, NULL, NULL);

	num_dcis = 8;
	return (failed + cmocka_run_group_tests_name("by DC", tests, NULL, NULL));
}
