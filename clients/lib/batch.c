/*
 * Many puts or gets under one deadline.
 *
 * Callers' threads. Owns an array of ops for one round at a time: as many items as the pool has ops for, at most ROUND_MOST, are in flight together.
 * Fails: item by item; only arguments and the handle fail the call.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "clients/lib/client_priv.h"
#include "common/base/clock.h"

#define ROUND_MOST	256u

struct batch {
	struct mkv_client *c;
	enum op_kind	kind;
	const struct mkv_put_opts *opts;
	uint64_t	until_ns;
	int		done;			/* how many succeeded */
};

static int
batch_fill(struct op *o, const struct batch *b, struct mkv_batch_item *it)
{
	struct iovec v = { .iov_base = it->buf, .iov_len = it->buf_bytes };
	int r;

	o->kind = b->kind;
	o->user = it;
	o->len = it->buf_bytes;
	o->whole = 1;
	if ((r = mkv_op_set_key(o, it->key.data, it->key.bytes)) != 0 || (r = mkv_op_set_iov(o, &v, 1)) != 0)
		return (r);
	return (b->kind == OPK_PUT ? mkv_op_set_put(o, b->opts) : mkv_op_set_ns(o, NULL));
}

/* An op for the item, filled; NULL: its result is set, or (*again) the pool is empty. */
static struct op *
batch_op(struct batch *b, struct mkv_batch_item *it, int may_wait, int *again)
{
	struct op *o;
	int r;

	*again = 0;
	it->result = MKV_E_TIMEOUT;
	it->reason = MKV_REASON_TIMED_OUT;
	if ((o = mkv_op_take(b->c, b->until_ns, may_wait, &r)) == NULL) {
		*again = !may_wait;
		return (NULL);
	}
	if ((r = batch_fill(o, b, it)) == 0)
		return (o);
	it->result = r;
	it->reason = MKV_REASON_NONE;
	mkv_op_put_back(o);
	return (NULL);
}

static void
batch_collect(struct batch *b, struct op *o)
{
	struct mkv_batch_item *it = o->user;

	it->result = o->result;
	it->reason = o->object.reason;
	b->done += it->result >= 0;
	mkv_op_put_back(o);
}

/* Some items from the front; returns how many. Each goes out at once: making CRCs of a round of large values takes longer than many deadlines. */
static unsigned
batch_round(struct batch *b, struct mkv_batch_item *items, unsigned n)
{
	struct op *ops[ROUND_MOST], *o;
	unsigned taken = 0, i;
	struct sink s;
	int again = 0;

	mkv_sink_init(&s, 0);
	for (i = 0; i < n && taken < ROUND_MOST && mkv_now_ns() < b->until_ns; i++) {
		o = batch_op(b, &items[i], taken == 0, &again);
		if (again)
			break;
		if (o == NULL)
			continue;
		ops[taken++] = o;
		mkv_sink_add(&s);
		mkv_op_submit(o, &s);
	}
	mkv_sink_wait(&s, ops, taken, b->until_ns);
	mkv_sink_fini(&s);
	for (unsigned k = 0; k < taken; k++)
		if (ops[k] != NULL)
			batch_collect(b, ops[k]);
	return (i);
}

/* The deadline has passed: nothing more goes out. */
static void
batch_late(struct mkv_batch_item *items, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		items[i].result = MKV_E_TIMEOUT;
		items[i].reason = MKV_REASON_TIMED_OUT;
	}
}

static int
batch_run(struct batch *b, struct mkv_batch_item *items, unsigned n, uint64_t deadline_us)
{
	unsigned at = 0;
	int r;

	if ((r = mkv_client_enter(b->c)) != 0)
		return (r);
	if ((b->until_ns = mkv_client_deadline(deadline_us)) == 0 || (items == NULL && n > 0))
		return (MKV_E_INVAL);
	while (at < n && mkv_now_ns() < b->until_ns)
		at += batch_round(b, items + at, n - at);
	batch_late(items + at, n - at);
	return (b->done);
}

int
mkv_put_batch(struct mkv_client *c, struct mkv_batch_item *items, unsigned n, const struct mkv_put_opts *opts, uint64_t deadline_us)
{
	struct batch b = { .c = c, .kind = OPK_PUT, .opts = opts };
	int saved = errno, r = batch_run(&b, items, n, deadline_us);

	errno = saved;
	return (r);
}

int
mkv_get_batch(struct mkv_client *c, struct mkv_batch_item *items, unsigned n, uint64_t deadline_us)
{
	struct batch b = { .c = c, .kind = OPK_GET };
	int saved = errno, r = batch_run(&b, items, n, deadline_us);

	errno = saved;
	return (r);
}
