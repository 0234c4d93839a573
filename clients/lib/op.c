/*
 * Operations: from a caller's hand to the loop and back.
 *
 * Threads: mkv_op_take() .. mkv_op_submit(), sink_*(), mkv_op_run(), mkv_op_put_back() run on callers' threads; the rest on the op's loop.
 * Owns: nothing; ops are the handle's (pool), lent as client_priv.h says.
 *
 *             mkv_op_take()       mkv_op_submit()            mkv_op_lend()
 *   OP_FREE --------------> OP_NEW -------------> OP_LOOP <--------------> OP_LENT --op_done()--> OP_DONE
 *      ^  ^                   |                      |      mkv_op_unlend()    (sink: under its mutex;   |
 *      |  '--mkv_op_put_back()'                      |                          else under c->mutex)     |
 *      |      (bad arguments)                        | op_leave(): mkv_sink_wait() at the deadline       |
 *      |                                             v                                                   |
 *      +--mkv_op_put_back(): the loop, op_complete()--- OP_LEFT                                          |
 *      '--mkv_op_put_back(): the caller who waited, or mkv_drain(), or the one who closes the handle-----'
 *
 * So each op is put back once. Two may want to move it on from OP_LOOP, the loop (lend) and its caller (leave): both by a compare-and-swap on own, of
 * which one wins; from every other state just one may. A caller reads own of an op that is his until he has left it or read its result, so it cannot
 * have become another's in between (the count above the state is for `partial`). The loop completes an op once: legs_left reaches 0 once, since a leg
 * counts until it is LEG_IDLE and mkv_op_start() and mkv_op_abort() hold one of their own; whatever else comes (an answer that is late, a second one,
 * one for a number never given) finds no leg at its slot and is dropped, a cancel finds `over`. After op_done() and mkv_op_put_back() the loop touches
 * neither the op nor its sink.
 *
 * Invariants: own changes OP_LOOP -> OP_LEFT only by the caller and only at his deadline; whoever finds OP_LEFT never touches the caller's memory;
 * legs_left counts the legs that are not over, plus one while mkv_op_start() or mkv_op_abort() walks over them.
 * Fails: the pool is empty (MKV_E_AGAIN, or MKV_E_TIMEOUT after waiting), memory for long lists.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clients/lib/client_priv.h"
#include "clients/lib/into.h"
#include "clients/lib/transport.h"
#include "common/base/clock.h"

#define SINK_AGAIN_NS	(500 * MKV_NS_PER_US)	/* a caller that may not leave yet looks again after so long */

/* ---- callers' threads ---- */

static struct timespec
op_timespec(uint64_t ns)
{
	return ((struct timespec){ .tv_sec = (time_t)(ns / MKV_NS_PER_SEC), .tv_nsec = (long)(ns % MKV_NS_PER_SEC) });
}

static void
op_clean(struct op *o)
{
	uint64_t sequence = o->sequence;
	struct mkv_client *c = o->c;

	memset(o, 0, sizeof(*o));
	o->magic = OP_MAGIC;
	o->sequence = sequence;
	o->c = c;
	mkv_list_init(&o->link);
	mkv_list_init(&o->poke);
	o->iov = o->iov_inline;
	o->over = 1;
	o->object.size = sizeof(o->object);
	atomic_store_explicit(&o->partial, MKV_E_TIMEOUT, memory_order_relaxed);
	atomic_store_explicit(&o->partial_reason, MKV_REASON_TIMED_OUT, memory_order_relaxed);
}

struct op *
mkv_op_take(struct mkv_client *c, uint64_t deadline_ns, int may_wait, int *err)
{
	struct timespec ts = op_timespec(deadline_ns);
	struct mkv_list *n = NULL;
	struct op *o;

	*err = may_wait ? MKV_E_TIMEOUT : MKV_E_AGAIN;
	(void)pthread_mutex_lock(&c->mutex);
	while ((n = mkv_list_pop(&c->free)) == NULL && may_wait)
		if (pthread_cond_timedwait(&c->freed, &c->mutex, &ts) == ETIMEDOUT)
			may_wait = 0;
	if (n == NULL) {
		(void)pthread_mutex_unlock(&c->mutex);
		return (NULL);
	}
	o = MKV_CONTAINER_OF(n, struct op, link);
	MKV_CHECK_OBJ(o, OP_MAGIC);
	op_clean(o);
	o->sequence++;
	atomic_store_explicit(&o->id, o->sequence << 16 | (uint64_t)(o - c->pool), memory_order_relaxed);
	o->loop = &c->loop[atomic_fetch_add_explicit(&c->next_loop, 1, memory_order_relaxed) % c->cf.io_threads];
	(void)pthread_mutex_unlock(&c->mutex);
	o->deadline_ns = deadline_ns;
	atomic_store_explicit(&o->own, OP_NEW, memory_order_relaxed);
	*err = 0;
	return (o);
}

/* Each of these says what went wrong: not an op (its handle was closed under a caller), put back twice, still in work, still poked. */
static void
op_check_ended(const struct op *o)
{
	enum op_own own;

	MKV_CHECK_OBJ(o, OP_MAGIC);
	own = mkv_op_own(o);
	MKV_ASSERT(own != OP_FREE);
	MKV_ASSERT(own != OP_LOOP);
	MKV_ASSERT(own != OP_LENT);
	MKV_ASSERT(mkv_list_empty(&o->poke));
}

void
mkv_op_put_back(struct op *o)
{
	struct mkv_client *c = o->c;

	op_check_ended(o);
	if (o->iov != o->iov_inline)
		free(o->iov);
	if (o->dev != o->dev_inline)
		free(o->dev);
	if (o->legs != &o->one)
		free(o->legs);
	mkv_keys_free(o);
	free(o->reply);
	(void)pthread_mutex_lock(&c->mutex);
	atomic_store_explicit(&o->id, 0, memory_order_relaxed);
	atomic_store_explicit(&o->own, OP_FREE, memory_order_relaxed);
	mkv_list_push_head(&c->free, &o->link);
	(void)pthread_cond_signal(&c->freed);
	(void)pthread_mutex_unlock(&c->mutex);
}

int
mkv_op_set_iov(struct op *o, const struct iovec *iov, unsigned n)
{
	if (n > IOV_MOST || (n > 0 && iov == NULL))
		return (MKV_E_INVAL);
	if (n > IOV_INLINE && (o->iov = malloc(n * sizeof(*iov))) == NULL) {
		o->iov = o->iov_inline;
		return (MKV_E_NOMEM);
	}
	for (unsigned i = 0; i < n; i++) {
		if (iov[i].iov_base == NULL && iov[i].iov_len > 0)
			return (MKV_E_INVAL);
		if (iov[i].iov_len > MEMKV_VALUE_MAX - o->iov_bytes)
			return (MKV_E_TOOBIG);
		o->iov[i] = iov[i];
		o->iov_bytes += iov[i].iov_len;
	}
	o->n_iov = n;
	return (mkv_stage_look(o));
}

int
mkv_op_set_key(struct op *o, const void *key, size_t key_bytes)
{
	if (key == NULL || key_bytes == 0 || key_bytes > MEMKV_KEY_MAX)
		return (MKV_E_INVAL);
	memcpy(o->key, key, key_bytes);
	o->key_bytes = (uint16_t)key_bytes;
	o->server = mkv_client_server_of(o->c, key, key_bytes);
	o->object.server = (int)o->server;
	return (0);
}

int
mkv_op_set_ns(struct op *o, const char *ns)
{
	size_t n;

	if (ns == NULL)
		ns = o->c->cf.ns;
	n = strnlen(ns, MEMKV_NAMESPACE_MAX + 1);
	if (n > MEMKV_NAMESPACE_MAX)
		return (MKV_E_INVAL);
	memcpy(o->ns, ns, n);
	o->ns_bytes = (uint8_t)n;
	return (0);
}

int
mkv_op_set_put(struct op *o, const struct mkv_put_opts *opts)
{
	struct mkv_put_opts p;

	memset(&p, 0, sizeof(p));
	if (opts != NULL)
		memcpy(&p, opts, MKV_MIN(opts->size, sizeof(p)));
	if (p.flags & ~(unsigned)(MKV_PUT_IF_ABSENT | MKV_PUT_OVERWRITE | MKV_PUT_PIN | MKV_PUT_ACCEPTED | MKV_PUT_COMMIT))
		return (MKV_E_INVAL);
	if (p.parent_bytes > MEMKV_KEY_MAX || (p.parent == NULL && p.parent_bytes > 0))
		return (MKV_E_INVAL);
	o->flags = p.flags;
	o->ttl_ms = p.ttl_ms;
	if (p.parent_bytes > 0)
		memcpy(o->parent, p.parent, p.parent_bytes);
	o->parent_bytes = (uint16_t)p.parent_bytes;
	if (mkv_random(&o->put_id, sizeof(o->put_id)) != 0)
		return (MKV_E_SYSTEM);
	return (mkv_op_set_ns(o, p.namespace_));
}

/* The caller's core is as good as the loop's, and often idle: the first part's CRCs are made here. */
static void
op_first_crcs(struct op *o)
{
	uint64_t bytes = MKV_MIN(o->iov_bytes, MKV_WIRE_PART_MAX), left = bytes;
	uint32_t crc = 0, in_chunk = 0, n = 0;

	for (unsigned i = 0; left > 0; i++) {
		const uint8_t *p = o->iov[i].iov_base;

		for (uint64_t have = MKV_MIN(o->iov[i].iov_len, left), step; have > 0; have -= step, left -= step, p += step) {
			step = MKV_MIN(have, MKV_CRC_CHUNK - in_chunk);
			crc = mkv_crc32c(crc, p, step);
			in_chunk += (uint32_t)step;
			if (in_chunk == MKV_CRC_CHUNK || left == step) {
				o->crcs[n++] = crc;
				crc = in_chunk = 0;
			}
		}
	}
	o->crcs_for = bytes;
}

void
mkv_op_submit(struct op *o, struct sink *sink)
{
	o->sink = sink;
	o->start_ns = mkv_now_ns();
	if (o->kind == OPK_PUT && !o->c->cf.no_verify && o->dev == NULL)
		op_first_crcs(o);
	o->region = mkv_region_enter(o->c, o->iov, o->n_iov);
	atomic_store_explicit(&o->own, OP_LOOP, memory_order_release);
	mkv_loop_hand_in(o->loop, o);
}

void
mkv_sink_init(struct sink *s, unsigned n)
{
	pthread_condattr_t attr;

	(void)pthread_mutex_init(&s->mutex, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->cond, &attr);
	(void)pthread_condattr_destroy(&attr);
	s->left = n;
	s->partial = MKV_E_TIMEOUT;
	s->partial_reason = MKV_REASON_TIMED_OUT;
}

void
mkv_sink_add(struct sink *s)
{
	(void)pthread_mutex_lock(&s->mutex);
	s->left++;
	(void)pthread_mutex_unlock(&s->mutex);
}

void
mkv_sink_fini(struct sink *s)
{
	(void)pthread_cond_destroy(&s->cond);
	(void)pthread_mutex_destroy(&s->mutex);
}

enum op_own
mkv_op_own(const struct op *o)
{
	return ((enum op_own)(atomic_load_explicit(&o->own, memory_order_acquire) & OP_STATE));
}

/* 1: the caller has left the op; his memory is his again. */
static int
op_leave(struct op *o, struct sink *s)
{
	/* Acquire, pairs with mkv_op_unlend(): what the loop did to the caller's memory has happened before he returns. */
	uint32_t own = atomic_load_explicit(&o->own, memory_order_acquire);
	struct into t;
	int left;

	if ((own & OP_STATE) != OP_LOOP)
		return (0);
	s->partial = atomic_load_explicit(&o->partial, memory_order_relaxed);
	s->partial_reason = atomic_load_explicit(&o->partial_reason, memory_order_relaxed);
	mkv_into_hold(&t, o, own);
	left = atomic_compare_exchange_strong_explicit(&o->own, &own, OP_LEFT, memory_order_acq_rel, memory_order_relaxed);
	mkv_into_left(&t, left);
	return (left);
}

/* The deadline has passed: leave what nobody touches. */
static unsigned
sink_leave(struct sink *s, struct op **ops, unsigned n)
{
	unsigned left = 0;

	for (unsigned i = 0; i < n; i++) {
		if (ops[i] == NULL || !op_leave(ops[i], s))
			continue;
		ops[i] = NULL;				/* the loop's from here on */
		left++;
	}
	return (left);
}

void
mkv_sink_wait(struct sink *s, struct op **ops, unsigned n, uint64_t deadline_ns)
{
	struct timespec ts = op_timespec(deadline_ns);

	(void)pthread_mutex_lock(&s->mutex);
	while (s->left > 0) {
		if (pthread_cond_timedwait(&s->cond, &s->mutex, &ts) != ETIMEDOUT || s->left == 0)
			continue;
		s->left -= sink_leave(s, ops, n);
		ts = op_timespec(mkv_now_ns() + SINK_AGAIN_NS);
	}
	(void)pthread_mutex_unlock(&s->mutex);
}

struct op *
mkv_op_run_keep(struct op *o, int64_t *partial, unsigned *reason)
{
	struct sink s;

	mkv_sink_init(&s, 1);
	mkv_op_submit(o, &s);
	mkv_sink_wait(&s, &o, 1, o->deadline_ns);
	mkv_sink_fini(&s);
	*partial = s.partial;
	*reason = s.partial_reason;
	return (o);
}

void
mkv_op_tell_object(struct mkv_object *to, const struct mkv_object *from)
{
	struct mkv_object o = *from;

	if (to == NULL)
		return;
	o.size = MKV_MIN(to->size == 0 ? sizeof(o) : to->size, sizeof(o));
	memcpy(to, &o, o.size);
}

int64_t
mkv_op_run(struct op *o, struct mkv_object *obj)
{
	struct mkv_object late = o->object;
	int64_t result;

	if ((o = mkv_op_run_keep(o, &result, &late.reason)) != NULL) {
		result = o->result;
		late = o->object;
		mkv_op_put_back(o);
	}
	mkv_op_tell_object(obj, &late);
	return (result);
}

/* ---- the loop ---- */

int
mkv_op_lend(struct op *o)
{
	/* Acquire, pairs with op_leave(): a caller that has left will not look at the op again, so it may go back to the pool. */
	uint32_t own = atomic_load_explicit(&o->own, memory_order_acquire);

	if ((own & OP_STATE) != OP_LOOP)
		return (0);
	return (atomic_compare_exchange_strong_explicit(&o->own, &own, (own & ~OP_STATE) | OP_LENT, memory_order_acquire, memory_order_acquire));
}

void
mkv_op_unlend(struct op *o)
{
	uint32_t own = atomic_load_explicit(&o->own, memory_order_relaxed);

	MKV_ASSERT((own & OP_STATE) == OP_LENT);
	/* Release, pairs with op_leave(). */
	atomic_store_explicit(&o->own, (own & ~OP_STATE) + (OP_STATE + 1) + OP_LOOP, memory_order_release);
}

/* Under s->mutex. Nobody waits between the parts of a stream. */
static void
sink_tell(struct sink *s, int may_be_absent)
{
	MKV_ASSERT(s->left > 0 || may_be_absent);
	if (s->left > 0 && --s->left == 0)
		(void)pthread_cond_signal(&s->cond);
}

static void
op_done(struct op *o)
{
	struct sink *s = o->sink;

	if (s == NULL) {
		mkv_client_done(o->c, o);
		return;
	}
	(void)pthread_mutex_lock(&s->mutex);
	atomic_store_explicit(&o->own, OP_DONE, memory_order_release);
	sink_tell(s, o->kind == OPK_STREAM);
	(void)pthread_mutex_unlock(&s->mutex);		/* touch neither o nor s after */
}

static void
op_complete(struct op *o)
{
	int there;

	MKV_ASSERT(o->legs_left == 0);
	mkv_timer_disarm(&o->loop->timers, &o->timer);
	mkv_list_remove(&o->link);
	(void)pthread_mutex_lock(&o->loop->mutex);
	o->over = 1;
	mkv_list_remove(&o->poke);
	(void)pthread_mutex_unlock(&o->loop->mutex);
	mkv_metrics_op(o);
	/* Before its region is left: mkv_into_hold() relies on it. */
	there = mkv_op_lend(o);
	if (o->region != NULL)
		mkv_region_leave(o->c, o->region);
	if (there) {
		MKV_ASSERT(atomic_load_explicit(&o->into, memory_order_relaxed) == 0);
		op_done(o);
		return;
	}
	MKV_ASSERT(mkv_op_own(o) == OP_LEFT);			/* not lent to somebody still */
	mkv_op_put_back(o);
}

static unsigned
op_down_reason(const struct leg *l, int status)
{
	if (status == MKV_E_TIMEOUT)
		return (MKV_REASON_TIMED_OUT);
	return (l->reason);
}

static int64_t
op_result_get(struct op *o, const struct leg *l)
{
	if (o->whole && o->object.value_bytes > o->iov_bytes)
		return (MKV_E_TOOBIG);
	return ((int64_t)l->rx_off);
}

static void
op_result_one(struct op *o)
{
	struct leg *l = &o->legs[0];
	int status = o->end_status != 0 ? o->end_status : l->status;

	o->object.reason = op_down_reason(l, status);
	if (status == MKV_E_UNREACHABLE && l->reason == MKV_REASON_SERVER_DOWN && (o->kind == OPK_GET || o->kind == OPK_STAT))
		status = MKV_E_MISS;			/* a cache whose server is gone has nothing */
	if (status == 0 && o->kind == OPK_GET)
		o->result = op_result_get(o, l);
	else if (status == 0 && o->kind == OPK_WARM)
		o->result = l->srv->part_bytes;
	else
		o->result = status;
}

/* The last leg is over. */
static void
op_finish(struct op *o)
{
	if (o->keys != NULL)
		mkv_keys_finish(o);
	else
		op_result_one(o);
	op_complete(o);
}

void
mkv_op_leg_over(struct op *o)
{
	MKV_ASSERT(o->legs_left > 0);
	if (--o->legs_left == 0)
		op_finish(o);
}

void
mkv_op_abort(struct op *o, int status)
{
	if (o->end_status != 0)
		return;					/* it is ending already */
	o->end_status = status;
	o->legs_left++;
	for (unsigned i = 0; i < o->n_legs; i++)
		mkv_leg_end(&o->legs[i], status);
	mkv_op_leg_over(o);
}

static void
op_on_deadline(struct mkv_timer *t, uint64_t now_ns MKV_UNUSED)
{
	mkv_op_abort(MKV_CONTAINER_OF(t, struct op, timer), MKV_E_TIMEOUT);
}

static int
op_make_legs(struct op *o)
{
	static const uint8_t wire_op[OPK_COUNT] = {
		[OPK_PUT] = MKV_WIRE_PUT, [OPK_GET] = MKV_WIRE_GET, [OPK_STAT] = MKV_WIRE_STAT, [OPK_LIST] = MKV_WIRE_LIST,
		[OPK_INFO] = MKV_WIRE_INFO, [OPK_WARM] = MKV_WIRE_PING, [OPK_STREAM] = MKV_WIRE_PUT
	};

	if (o->keys != NULL)
		return (mkv_keys_legs(o));
	o->legs = &o->one;
	o->n_legs = 1;
	mkv_leg_init(&o->one, o, &o->loop->server[o->server], wire_op[o->kind]);
	return (0);
}

void
mkv_op_start(struct op *o)
{
	int r;

	MKV_CHECK_OBJ(o, OP_MAGIC);
	o->timer.fire = op_on_deadline;
	mkv_list_push_tail(&o->loop->live, &o->link);
	mkv_timer_arm(&o->loop->timers, &o->timer, o->deadline_ns);
	o->legs_left = 1;
	if ((r = op_make_legs(o)) != 0) {
		o->end_status = r;			/* memory; no leg was made */
	}
	o->legs_left += o->n_legs;
	for (unsigned i = 0; i < o->n_legs; i++)
		mkv_leg_begin(&o->legs[i]);
	mkv_op_leg_over(o);
}

/*
 * The part of a stream is out: its buffer is the caller's again, and no deadline runs until he brings the next. A caller that has left took the sink
 * with him, and the deadline is what ends the op; one that is there cannot leave while the op is lent.
 */
void
mkv_op_part_done(struct op *o)
{
	struct sink *s = o->sink;

	if (!mkv_op_lend(o))
		return;
	mkv_timer_disarm(&o->loop->timers, &o->timer);
	(void)pthread_mutex_lock(&s->mutex);
	sink_tell(s, 1);
	(void)pthread_mutex_unlock(&s->mutex);
	mkv_op_unlend(o);
}

void
mkv_op_next_part(struct op *o)
{
	MKV_ASSERT(o->kind == OPK_STREAM && o->one.state == LEG_PAUSED);
	mkv_timer_arm(&o->loop->timers, &o->timer, o->deadline_ns);
	o->one.srv->tr->part(&o->one);
}

/*
 * Iovecs of the caller's memory [off, off + bytes), at most max of them; *got: how many bytes they cover. Asked for rising offsets in the normal
 * case: the cursor spares the walk from the beginning.
 */
unsigned
mkv_op_iov_slice(struct op *o, uint64_t off, uint64_t bytes, struct iovec *out, unsigned max, uint64_t *got)
{
	unsigned n = 0;
	uint64_t skip;

	if (off < o->iov_at_off)
		o->iov_at = 0, o->iov_at_off = 0;
	while (o->iov_at < o->n_iov && off - o->iov_at_off >= o->iov[o->iov_at].iov_len)
		o->iov_at_off += o->iov[o->iov_at++].iov_len;
	skip = off - o->iov_at_off;
	*got = 0;
	for (unsigned i = o->iov_at; i < o->n_iov && n < max && *got < bytes; i++, skip = 0) {
		uint64_t len = MKV_MIN(o->iov[i].iov_len - skip, bytes - *got);

		if (len == 0)
			continue;
		out[n++] = (struct iovec){ .iov_base = (char *)o->iov[i].iov_base + skip, .iov_len = len };
		*got += len;
	}
	return (n);
}

int
mkv_op_pieces_fit(const struct op *o, uint64_t bytes, uint64_t part_bytes, unsigned most)
{
	uint64_t in_part = 0;
	unsigned n = 0;

	if (o->n_iov <= most || part_bytes == 0)
		return (1);
	for (unsigned i = 0; i < o->n_iov && bytes > 0; i++) {
		uint64_t left = MKV_MIN(o->iov[i].iov_len, bytes), step;

		bytes -= left;
		for (; left > 0; left -= step) {
			step = MKV_MIN(left, part_bytes - in_part);
			in_part += step;
			if (++n > most)
				return (0);
			if (in_part == part_bytes)
				in_part = n = 0;
		}
	}
	return (1);
}
