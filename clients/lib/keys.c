/*
 * Lists of keys: copied from the caller, shared out over the servers, merged again.
 *
 * Threads: mkv_keys_set(), mkv_keys_free() on callers' threads; the rest on the op's loop. Owns o->keys and o->idx (one allocation each).
 * Invariants: leg->idx lists places in the caller's list in rising order (NULL: all of them), so the first absent key of a leg is its lowest one;
 * present[] and reasons[] were filled with "absent, timed out" by the caller's thread before the op was handed over, and are touched under
 * mkv_op_lend() only.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "clients/lib/client_priv.h"
#include "common/base/hash.h"

int
mkv_keys_set(struct op *o, const struct mkv_key *keys, unsigned n)
{
	size_t bytes = 0, offs = ((size_t)n + 1) * sizeof(uint32_t);
	struct keyset *ks;
	uint8_t *to;

	if (keys == NULL || n == 0)
		return (MKV_E_INVAL);
	if (n > MKV_WIRE_KEYS_MAX)
		return (MKV_E_TOOBIG);
	for (unsigned i = 0; i < n; i++) {
		if (keys[i].data == NULL || keys[i].bytes == 0 || keys[i].bytes > MEMKV_KEY_MAX)
			return (MKV_E_INVAL);
		bytes += KEY_LEN_BYTES + keys[i].bytes;
	}
	if ((ks = malloc(sizeof(*ks) + offs + bytes)) == NULL)
		return (MKV_E_NOMEM);
	ks->n = n;
	ks->off = (uint32_t *)(ks + 1);
	ks->wire = to = (uint8_t *)ks->off + offs;
	for (unsigned i = 0; i < n; i++) {
		ks->off[i] = (uint32_t)(to - ks->wire);
		*to++ = (uint8_t)keys[i].bytes;
		*to++ = (uint8_t)(keys[i].bytes >> 8);
		memcpy(to, keys[i].data, keys[i].bytes);
		to += keys[i].bytes;
	}
	ks->off[n] = (uint32_t)(to - ks->wire);
	o->keys = ks;
	return (0);
}

void
mkv_keys_free(struct op *o)
{
	free(o->keys);
	free(o->idx);
	o->keys = NULL;
	o->idx = NULL;
}

static unsigned
keys_server(const struct op *o, uint32_t i)
{
	const struct keyset *ks = o->keys;

	return (mkv_client_server_of(o->c, ks->wire + ks->off[i] + KEY_LEN_BYTES, ks->off[i + 1] - ks->off[i] - KEY_LEN_BYTES));
}

static uint8_t
keys_wire_op(const struct op *o)
{
	switch (o->kind) {
	case OPK_DELETE:
		return (MKV_WIRE_DELETE);
	case OPK_TOUCH:
		return (MKV_WIRE_TOUCH);
	case OPK_MATCH:
		return (MKV_WIRE_MATCH);
	default:
		return (MKV_WIRE_EXISTS);
	}
}

/* All on one server: no shares. */
static int
keys_one_leg(struct op *o, unsigned server)
{
	o->legs = &o->one;
	o->n_legs = 1;
	mkv_leg_init(&o->one, o, &o->loop->server[server], keys_wire_op(o));
	o->one.n_idx = o->keys->n;
	return (0);
}

int
mkv_keys_legs(struct op *o)
{
	const struct keyset *ks = o->keys;
	uint32_t count[SERVERS_MAX] = { 0 }, at = 0;
	unsigned n = o->c->cf.n_servers;
	struct leg *by_server[SERVERS_MAX];
	uint8_t *where;

	if (n == 1 || ks->n == 1)
		return (keys_one_leg(o, keys_server(o, 0)));
	o->idx = malloc(ks->n * (sizeof(uint32_t) + 1));
	o->legs = calloc(n, sizeof(*o->legs));
	if (o->idx == NULL || o->legs == NULL)
		return (MKV_E_NOMEM);
	where = (uint8_t *)(o->idx + ks->n);
	for (uint32_t i = 0; i < ks->n; i++) {
		where[i] = (uint8_t)keys_server(o, i);
		count[where[i]]++;
	}
	for (unsigned s = 0; s < n; s++) {
		if (count[s] == 0)
			continue;
		by_server[s] = &o->legs[o->n_legs++];
		mkv_leg_init(by_server[s], o, &o->loop->server[s], keys_wire_op(o));
		by_server[s]->idx = o->idx + at;
		at += count[s];
	}
	for (uint32_t i = 0; i < ks->n; i++)
		by_server[where[i]]->idx[by_server[where[i]]->n_idx++] = i;
	return (0);
}

static uint32_t
keys_place(const struct leg *l, uint32_t i)
{
	return (l->idx == NULL ? i : l->idx[i]);
}

/* The result if the caller's deadline were now. */
static void
keys_set_partial(struct op *o, int64_t result, unsigned reason)
{
	atomic_store_explicit(&o->partial, result, memory_order_relaxed);
	atomic_store_explicit(&o->partial_reason, reason, memory_order_relaxed);
}

/* The leg begins again: what it had told so far does not count. */
void
mkv_keys_forget(struct leg *l)
{
	if (l->wire_op != MKV_WIRE_MATCH && l->n_there > 0)
		atomic_fetch_sub_explicit(&l->op->partial, l->n_there, memory_order_relaxed);
	l->tx_key = l->rx_key = l->n_there = 0;
}

/* Bytes of the keys from rx_key on, to the caller's arrays. Returns how many are there; MKV_E_PEER: they are not such bytes. */
static int
keys_store(const struct leg *l, const uint8_t *b, uint32_t n)
{
	uint8_t *present = l->op->present, *reasons = l->op->reasons;
	uint32_t there = 0, bad = 0;

	for (uint32_t i = 0; i < n; i++) {
		there += b[i] & 1;
		bad |= (b[i] & 1) & (b[i] > 1);
	}
	if (bad)
		return (MKV_E_PEER);
	for (uint32_t i = 0; present != NULL && i < n; i++)
		present[keys_place(l, l->rx_key + i)] = b[i] & 1;
	for (uint32_t i = 0; reasons != NULL && i < n; i++)
		reasons[keys_place(l, l->rx_key + i)] = b[i] >> 1;
	return ((int)there);
}

/* One byte a key: 1 there, else 0 | reason << 1. */
static int
keys_take_bytes(struct leg *l, const uint8_t *b, uint32_t n)
{
	struct op *o = l->op;
	int there;

	if (n > l->n_idx - l->rx_key || (there = keys_store(l, b, n)) < 0)
		return (MKV_E_PEER);
	l->n_there += (uint32_t)there;
	l->rx_key += n;
	keys_set_partial(o, MKV_MAX(atomic_load_explicit(&o->partial, memory_order_relaxed), 0) + there, MKV_REASON_NONE);
	return (0);
}

static unsigned
keys_silence(const struct leg *l)
{
	return (l->status == MKV_E_TIMEOUT || l->status == 0 ? MKV_REASON_TIMED_OUT : MKV_REASON_SERVER_DOWN);
}

/* The prefix ends at the first absent key of any server; one that did not answer has none. */
static int64_t
keys_prefix(const struct op *o, unsigned *reason)
{
	uint32_t first = o->keys->n;

	*reason = MKV_REASON_NONE;
	for (unsigned i = 0; i < o->n_legs; i++) {
		const struct leg *l = &o->legs[i];
		uint32_t there = l->answered ? l->n_there : 0;

		if (there < l->n_idx && keys_place(l, there) < first) {
			first = keys_place(l, there);
			*reason = l->answered ? l->end_reason : keys_silence(l);
		}
	}
	return (first);
}

static int
keys_match_reply(struct leg *l, const struct mkv_wire_keys_reply *kr, int last)
{
	unsigned reason;
	int64_t prefix;

	if (!last || kr->n_there > l->n_idx)
		return (MKV_E_PEER);
	l->n_there = kr->n_there;
	l->end_reason = kr->reason;
	l->answered = 1;
	prefix = keys_prefix(l->op, &reason);
	keys_set_partial(l->op, prefix, reason);
	return (0);
}

int
mkv_keys_reply(struct leg *l, const struct mkv_wire_keys_reply *kr, const uint8_t *bytes, int last)
{
	int r;

	if (l->wire_op == MKV_WIRE_MATCH)
		return (keys_match_reply(l, kr, last));
	if (!mkv_op_lend(l->op))
		return (last ? 0 : MKV_E_PEER);		/* the caller has left: the deadline is about to end this */
	r = keys_take_bytes(l, bytes, kr->n_keys);
	mkv_op_unlend(l->op);
	if (r != 0)
		return (r);
	return (last && (l->rx_key != l->n_idx || kr->n_there != l->n_there) ? MKV_E_PEER : 0);
}

/* A server that did not answer: why, for each of its keys. */
static void
keys_mark(struct leg *l, unsigned reason)
{
	struct op *o = l->op;

	if (o->reasons == NULL && o->present == NULL)
		return;
	if (!mkv_op_lend(o))
		return;
	for (uint32_t i = 0; i < l->n_idx; i++) {
		if (o->present != NULL)
			o->present[keys_place(l, i)] = 0;
		if (o->reasons != NULL)
			o->reasons[keys_place(l, i)] = (uint8_t)reason;
	}
	mkv_op_unlend(o);
}

void
mkv_keys_finish(struct op *o)
{
	unsigned answered = 0;
	int64_t there = 0;
	int status = 0;

	for (unsigned i = 0; i < o->n_legs; i++) {
		struct leg *l = &o->legs[i];

		if (l->status == 0) {
			answered++;
			there += l->n_there;
		} else {
			status = l->status;
			keys_mark(l, keys_silence(l));
		}
	}
	if (o->end_status == MKV_E_CANCELLED || o->end_status == MKV_E_CLOSED || answered == 0) {
		o->result = o->end_status != 0 ? o->end_status : status;
		o->object.reason = o->end_status == MKV_E_TIMEOUT ? MKV_REASON_TIMED_OUT : MKV_REASON_NONE;
	} else {
		o->result = o->kind == OPK_MATCH ? keys_prefix(o, &o->object.reason) : there;
	}
	if (o->result == MKV_E_UNREACHABLE)
		o->object.reason = MKV_REASON_SERVER_DOWN;
}
