/*
 * Calls on one key, and mkv_submit(): arguments to ops.
 *
 * Callers' threads. Owns nothing: an op is handed over, or put back on the way out. errno is the caller's and is kept.
 * Fails: MKV_E_INVAL for what the header does not allow; the rest is the op's result.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "clients/lib/client_priv.h"
#include "common/base/clock.h"

/* An op of this kind for a synchronous call; NULL with *err. */
static struct op *
call_begin(struct mkv_client *c, enum op_kind kind, uint64_t deadline_us, int *err)
{
	uint64_t until;
	struct op *o;

	if ((*err = mkv_client_enter(c)) != 0)
		return (NULL);
	if ((until = mkv_client_deadline(deadline_us)) == 0) {
		*err = MKV_E_INVAL;
		return (NULL);
	}
	if ((o = mkv_op_take(c, until, 1, err)) != NULL)
		o->kind = kind;
	return (o);
}

static int
call_give_up(struct op *o, int err)
{
	mkv_op_put_back(o);
	return (err);
}

/* ---- put ---- */

static int
call_put(struct mkv_client *c, const void *key, size_t key_bytes, const struct iovec *iov, unsigned n, const struct mkv_put_opts *opts,
    uint64_t deadline_us, struct mkv_object *obj)
{
	struct op *o;
	int r;

	if ((o = call_begin(c, OPK_PUT, deadline_us, &r)) == NULL)
		return (r);
	if ((r = mkv_op_set_key(o, key, key_bytes)) != 0 || (r = mkv_op_set_put(o, opts)) != 0 || (r = mkv_op_set_iov(o, iov, n)) != 0)
		return (call_give_up(o, r));
	return ((int)mkv_op_run(o, obj));
}

int
mkv_putv(struct mkv_client *c, const void *key, size_t key_bytes, const struct iovec *iov, unsigned iov_count, const struct mkv_put_opts *opts,
    uint64_t deadline_us, struct mkv_object *obj)
{
	int saved = errno, r = call_put(c, key, key_bytes, iov, iov_count, opts, deadline_us, obj);

	errno = saved;
	return (r);
}

int
mkv_put(struct mkv_client *c, const void *key, size_t key_bytes, const void *value, size_t value_bytes, const struct mkv_put_opts *opts,
    uint64_t deadline_us, struct mkv_object *obj)
{
	struct iovec v = { .iov_base = (void *)(uintptr_t)value, .iov_len = value_bytes };

	return (mkv_putv(c, key, key_bytes, &v, 1, opts, deadline_us, obj));
}

/* ---- get, stat ---- */

static int64_t
call_get(struct mkv_client *c, const void *key, size_t key_bytes, uint64_t off, void *buf, size_t len, int whole, uint64_t deadline_us,
    struct mkv_object *obj)
{
	struct iovec v = { .iov_base = buf, .iov_len = len };
	struct op *o;
	int r;

	if ((o = call_begin(c, OPK_GET, deadline_us, &r)) == NULL)
		return (r);
	if ((r = mkv_op_set_key(o, key, key_bytes)) != 0 || (r = mkv_op_set_ns(o, NULL)) != 0 || (r = mkv_op_set_iov(o, &v, 1)) != 0)
		return (call_give_up(o, r));
	o->off = off;
	o->len = len;
	o->whole = whole;
	return (mkv_op_run(o, obj));
}

int64_t
mkv_get(struct mkv_client *c, const void *key, size_t key_bytes, void *buf, size_t buf_bytes, uint64_t deadline_us, struct mkv_object *obj)
{
	int saved = errno;
	int64_t r = call_get(c, key, key_bytes, 0, buf, buf_bytes, 1, deadline_us, obj);

	errno = saved;
	return (r);
}

int64_t
mkv_get_range(struct mkv_client *c, const void *key, size_t key_bytes, uint64_t off, void *buf, size_t len, uint64_t deadline_us,
    struct mkv_object *obj)
{
	int saved = errno;
	int64_t r = off > MEMKV_VALUE_MAX ? MKV_E_INVAL : call_get(c, key, key_bytes, off, buf, len, 0, deadline_us, obj);

	errno = saved;
	return (r);
}

static int
call_stat(struct mkv_client *c, const void *key, size_t key_bytes, uint64_t deadline_us, struct mkv_object *obj)
{
	struct op *o;
	int r;

	if ((o = call_begin(c, OPK_STAT, deadline_us, &r)) == NULL)
		return (r);
	if ((r = mkv_op_set_key(o, key, key_bytes)) != 0 || (r = mkv_op_set_ns(o, NULL)) != 0)
		return (call_give_up(o, r));
	return ((int)mkv_op_run(o, obj));
}

int
mkv_stat(struct mkv_client *c, const void *key, size_t key_bytes, uint64_t deadline_us, struct mkv_object *obj)
{
	int saved = errno, r = call_stat(c, key, key_bytes, deadline_us, obj);

	errno = saved;
	return (r);
}

/* ---- key lists ---- */

#define LIST_FLAGS	((unsigned)MKV_NO_TOUCH)

struct list_args {
	enum op_kind	kind;
	const struct mkv_key *keys;
	unsigned	n, flags, lease_ms;
	uint64_t	ttl_ms, deadline_us;
	uint8_t		*present, *reasons;
};

/* Until a server says otherwise: not there, because it did not answer in time. */
static void
list_prepare(uint8_t *present, uint8_t *reasons, unsigned n)
{
	if (present != NULL)
		memset(present, 0, n);
	if (reasons != NULL)
		memset(reasons, MKV_REASON_TIMED_OUT, n);
}

static int
list_fill(struct op *o, const struct list_args *a)
{
	int r;

	if ((a->flags & ~LIST_FLAGS) != 0 || a->lease_ms > 60000)
		return (MKV_E_INVAL);
	if ((r = mkv_op_set_ns(o, NULL)) != 0 || (r = mkv_keys_set(o, a->keys, a->n)) != 0)
		return (r);
	o->flags = a->flags;
	o->lease_ms = a->lease_ms;
	o->ttl_ms = a->ttl_ms;
	o->present = a->present;
	o->reasons = a->reasons;
	list_prepare(a->present, a->reasons, a->n);
	return (0);
}

static int
call_list(struct mkv_client *c, const struct list_args *a, unsigned *reason)
{
	struct mkv_object obj = { .size = sizeof(obj) };
	struct op *o;
	int r;

	if ((o = call_begin(c, a->kind, a->deadline_us, &r)) == NULL)
		return (r);
	if ((r = list_fill(o, a)) != 0)
		return (call_give_up(o, r));
	r = (int)mkv_op_run(o, &obj);
	if (reason != NULL)
		*reason = obj.reason;
	return (r);
}

int
mkv_exists_batch(struct mkv_client *c, const struct mkv_key *keys, unsigned n, unsigned flags, uint64_t deadline_us, uint8_t *present,
    uint8_t *reason)
{
	struct list_args a = { .kind = OPK_EXISTS, .keys = keys, .n = n, .flags = flags, .deadline_us = deadline_us, .present = present,
		.reasons = reason };
	int saved = errno, r = call_list(c, &a, NULL);

	errno = saved;
	return (r);
}

int
mkv_delete_batch(struct mkv_client *c, const struct mkv_key *keys, unsigned n, uint64_t deadline_us, uint8_t *deleted, uint8_t *reason)
{
	struct list_args a = { .kind = OPK_DELETE, .keys = keys, .n = n, .deadline_us = deadline_us, .present = deleted, .reasons = reason };
	int saved = errno, r = call_list(c, &a, NULL);

	errno = saved;
	return (r);
}

int
mkv_match(struct mkv_client *c, const struct mkv_key *keys, unsigned n, unsigned lease_ms, unsigned flags, uint64_t deadline_us, unsigned *reason)
{
	struct list_args a = { .kind = OPK_MATCH, .keys = keys, .n = n, .flags = flags, .lease_ms = lease_ms, .deadline_us = deadline_us };
	int saved = errno, r = call_list(c, &a, reason);

	errno = saved;
	return (r);
}

static int
call_one(struct mkv_client *c, enum op_kind kind, const void *key, size_t key_bytes, uint64_t ttl_ms, uint64_t deadline_us)
{
	struct mkv_key k = { .data = key, .bytes = key_bytes };
	struct list_args a = { .kind = kind, .keys = &k, .n = 1, .ttl_ms = ttl_ms, .deadline_us = deadline_us };
	int saved = errno, r = call_list(c, &a, NULL);

	errno = saved;
	return (r);
}

int
mkv_exists(struct mkv_client *c, const void *key, size_t key_bytes, uint64_t deadline_us)
{
	return (call_one(c, OPK_EXISTS, key, key_bytes, 0, deadline_us));
}

int
mkv_delete(struct mkv_client *c, const void *key, size_t key_bytes, uint64_t deadline_us)
{
	int r = call_one(c, OPK_DELETE, key, key_bytes, 0, deadline_us);

	return (r == 1 ? 0 : r == 0 ? MKV_E_MISS : r);
}

int
mkv_touch(struct mkv_client *c, const void *key, size_t key_bytes, uint64_t ttl_ms, uint64_t deadline_us)
{
	int r = call_one(c, OPK_TOUCH, key, key_bytes, ttl_ms, deadline_us);

	return (r == 1 ? 0 : r == 0 ? MKV_E_MISS : r);
}

/* ---- asynchronous ---- */

static int
submit_put(struct op *o, const struct mkv_request *r)
{
	struct mkv_put_opts p = { .size = sizeof(p), .flags = r->flags, .ttl_ms = r->ttl_ms, .parent = r->parent, .parent_bytes = r->parent_bytes,
		.namespace_ = r->namespace_ };
	int e;

	if ((e = mkv_op_set_key(o, r->keys->data, r->keys->bytes)) != 0 || (e = mkv_op_set_put(o, &p)) != 0)
		return (e);
	return (mkv_op_set_iov(o, r->iov, r->n_iov));
}

static int
submit_get(struct op *o, const struct mkv_request *r)
{
	int e;

	if ((r->flags & ~LIST_FLAGS) != 0 || r->off > MEMKV_VALUE_MAX)
		return (MKV_E_INVAL);
	if ((e = mkv_op_set_key(o, r->keys->data, r->keys->bytes)) != 0 || (e = mkv_op_set_ns(o, r->namespace_)) != 0)
		return (e);
	o->flags = r->flags;
	if (r->op == MKV_OP_STAT)
		return (0);
	if ((e = mkv_op_set_iov(o, r->iov, r->n_iov)) != 0)
		return (e);
	o->off = r->off;
	o->len = r->len;
	o->whole = r->len == MEMKV_SIZE_ANY && r->off == 0;
	return (0);
}

static int
submit_list(struct op *o, const struct mkv_request *r)
{
	struct list_args a = { .kind = o->kind, .keys = r->keys, .n = r->n_keys, .flags = r->flags, .lease_ms = r->lease_ms, .ttl_ms = r->ttl_ms,
		.present = r->present, .reasons = r->reasons };
	int e;

	if ((e = list_fill(o, &a)) != 0)
		return (e);
	return (mkv_op_set_ns(o, r->namespace_));
}

static int
submit_fill(struct op *o, const struct mkv_request *r)
{
	o->kind = (enum op_kind)r->op;
	o->user = r->user;
	switch (r->op) {
	case MKV_OP_PUT:
		return (r->n_keys == 1 ? submit_put(o, r) : MKV_E_INVAL);
	case MKV_OP_GET:
	case MKV_OP_STAT:
		return (r->n_keys == 1 ? submit_get(o, r) : MKV_E_INVAL);
	case MKV_OP_EXISTS:
	case MKV_OP_DELETE:
	case MKV_OP_TOUCH:
	case MKV_OP_MATCH:
		return (submit_list(o, r));
	}
	return (MKV_E_INVAL);
}

static int
call_submit(struct mkv_client *c, const struct mkv_request *from, uint64_t *id)
{
	struct mkv_request r;
	uint64_t until;
	struct op *o;
	int e;

	if ((e = mkv_client_enter(c)) != 0)
		return (e);
	memset(&r, 0, sizeof(r));
	memcpy(&r, from, MKV_MIN(from->size, sizeof(r)));
	if ((until = mkv_client_deadline(r.deadline_us)) == 0 || r.keys == NULL)
		return (MKV_E_INVAL);
	if ((o = mkv_op_take(c, until, 0, &e)) == NULL)
		return (e);
	if ((e = submit_fill(o, &r)) != 0)
		return (call_give_up(o, e));
	if (id != NULL)
		*id = atomic_load_explicit(&o->id, memory_order_relaxed);
	mkv_op_submit(o, NULL);
	return (0);
}

int
mkv_submit(struct mkv_client *c, const struct mkv_request *r, uint64_t *id)
{
	int saved = errno, e = r == NULL ? MKV_E_INVAL : call_submit(c, r, id);

	errno = saved;
	return (e);
}
