/*
 * Clients (sim.h): each has a connection and one request at a time; what it does is chosen by the seed, and what comes back is held against the
 * model. They speak proto/wire.h by hand.
 */
#include "config.h"

#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "proto/wire.h"
#include "tests/sim/net.h"

#define LIST_KEYS	6u
#define LATE_NS		(700 * MS)		/* a slow socket, and the way */
#define VALUE_BYTES	(4u << 20)
#define PURGE_RATE	8u			/* purges for 1000 operations */
#define SCRIPT_DEADLINE_NS	(2 * SEC)

enum client_state { CL_IDLE, CL_HELLO, CL_CONNECT, CL_READY, CL_WAIT, CL_DONE };

struct client {
	unsigned	index;
	enum client_state state;
	int		conn;
	uint32_t	gen;			/* of the connection */
	uint64_t	session, counter, counter_in, next_id;
	struct mkv_mac	*c2s, *s2c;
	uint8_t		hello[sizeof(struct mkv_hdr) + sizeof(struct mkv_wire_hello)];
	/* The request under way. */
	unsigned	op, n_keys, key[LIST_KEYS], version[LIST_KEYS];
	uint64_t	id, start, deadline_ns, ttl_ms, off, len;
	uint64_t	seed, bytes, put_id;
	uint32_t	flags;
	unsigned	tries;
	int		retry;			/* the put is to be sent again, as it was */
	int		suspects;		/* what it read did not match: it is to be reported */
	unsigned	bad_key;
	uint64_t	bad_off;
	uint8_t		*value, *got;
	uint64_t	got_bytes;
	uint64_t	gate;			/* of the timer for answers that do not come */
	unsigned	todo;			/* of a script: the next row to look at */
	const struct sim_do *now;		/* what is under way; NULL: as chance says, or sent again */
	int		waited;
	uint64_t	sent;
};

static struct client client[SIM_CLIENTS];
static unsigned	ops_left;
static int	read_all;		/* what is left are the keys to be read, each once */
static const struct sim_do *script;	/* NULL: chance */
static unsigned	script_rows;

static void	client_next(void *arg, uint64_t gen);

/* ---- Frames ----------------------------------------------------------------------------------------------------------------- */

static void
client_frame(struct client *c, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, const void *pay, size_t pay_bytes)
{
	struct mkv_hdr h = { .magic = { 'M', 'K', 'V', 1 }, .version = MKV_WIRE_VERSION, .op = (uint8_t)op };

	h.flags = (uint16_t)(flags | (pay_bytes ? MKV_WIRE_F_PAYLOAD : 0));
	h.session_id = c->session;
	h.counter = ++c->counter;
	h.request_id = id;
	h.body_bytes = (uint32_t)body_bytes;
	h.deadline_us = (uint32_t)(c->deadline_ns > sim->now ? MKV_MAX((c->deadline_ns - sim->now) / US, 1u) : 1);
	h.payload_bytes = pay_bytes;
	h.key_id = op == MKV_WIRE_CONNECT ? SIM_KEY_ID : 0;
	SIM_CHECK(mkv_mac_sign(c->c2s, &h, MKV_WIRE_SIGNED_BYTES, body, body_bytes, h.mac) == 0, "no MAC");
	net_send(c->conn, &h, sizeof(h));
	if (body_bytes > 0)
		net_send(c->conn, body, body_bytes);
	if (pay_bytes > 0)
		net_send(c->conn, pay, pay_bytes);
}

static size_t
pad8(uint8_t *b, size_t n)
{
	while (n % 8 != 0)
		b[n++] = 0;
	return (n);
}

/* ---- Connection ------------------------------------------------------------------------------------------------------------- */

static void
client_drop(struct client *c)
{
	if (c->conn >= 0)
		net_close(c->conn);
	c->conn = -1;
	c->gen++;
	mkv_mac_destroy(&c->c2s);
	mkv_mac_destroy(&c->s2c);
	c->state = CL_IDLE;
}

static void	client_on_news(void *arg);

static void
client_hello(struct client *c)
{
	struct mkv_hdr h = { .magic = { 'M', 'K', 'V', 1 }, .version = MKV_WIRE_VERSION, .op = MKV_WIRE_HELLO, .counter = 1, .request_id = 1,
	    .body_bytes = sizeof(struct mkv_wire_hello), .deadline_us = 1000000 };
	struct mkv_wire_hello b = { .version_min = MKV_WIRE_VERSION, .version_max = MKV_WIRE_VERSION };

	rnd_fill(&sim->rnd, b.nonce, sizeof(b.nonce));
	memcpy(c->hello, &h, sizeof(h));
	memcpy(c->hello + sizeof(h), &b, sizeof(b));
	net_send(c->conn, c->hello, sizeof(c->hello));
	c->state = CL_HELLO;
	c->next_id = 2;
}

static void
client_on_hello(struct client *c, const struct mkv_hdr *h, const uint8_t *body)
{
	const struct mkv_wire_hello_reply *rep = (const void *)body;
	const struct mkv_wire_hello *hello = (const void *)(c->hello + sizeof(*h));
	struct mkv_wire_connect conn = { 0 };
	uint8_t whole[sizeof(*h) + sizeof(*rep)], transcript[32], k[32];

	SIM_CHECK(h->status == 0 && h->body_bytes == sizeof(*rep), "client %u: hello is refused", c->index);
	memcpy(whole, h, sizeof(*h));
	memcpy(whole + sizeof(*h), body, sizeof(*rep));
	SIM_CHECK(mkv_sha256(c->hello, sizeof(c->hello), whole, sizeof(whole), transcript) == 0, "no hash");
	for (int dir = 0; dir < 2; dir++) {
		SIM_CHECK(mkv_key_session(sim->key, hello->nonce, rep->nonce, dir == 0 ? MKV_DIR_C2S : MKV_DIR_S2C, 0, rep->front_id, transcript, k) == 0 &&
		    mkv_mac_create(dir == 0 ? &c->c2s : &c->s2c, k) == 0, "no session key");
	}
	c->counter = 0;
	c->counter_in = 0;
	c->session = 0;
	c->deadline_ns = sim->now + SEC;
	c->state = CL_CONNECT;
	client_frame(c, MKV_WIRE_CONNECT, 0, c->next_id++, &conn, sizeof(conn), NULL, 0);
}

/* ---- Outcomes --------------------------------------------------------------------------------------------------------------- */

static int
client_writes(const struct client *c)
{
	return (c->op == MKV_WIRE_PUT || c->op == MKV_WIRE_DELETE);
}

static void
client_end_writes(struct client *c, enum model_state state)
{
	for (unsigned i = 0; client_writes(c) && i < c->n_keys; i++)
		model_end(c->key[i], c->version[i], state);
}

static void
client_pause(struct client *c)
{
	sim_in(sim_chance(1, 20) ? sim_between(1 * MS, 200 * MS) : sim_between(1 * US, 2 * MS), client_next, c, c->gen);
}

/* No answer, or one that says nothing: the put may be sent again. */
static void
client_unknown(struct client *c)
{
	client_end_writes(c, MV_UNKNOWN);
	if (c->op == MKV_WIRE_TOUCH && c->ttl_ms != 0)
		for (unsigned i = 0; i < c->n_keys; i++)
			model_touch_end(c->key[i], c->start, c->ttl_ms, 0);
	c->retry = c->op == MKV_WIRE_PUT && c->tries < 3 && sim_chance(script != NULL ? 1 : 2, 3);
	c->now = NULL;
}

static const char *
op_name(unsigned op)
{
	const struct mkv_wire_op_row *row = mkv_wire_op_row(op);

	return (row != NULL ? row->label : "?");
}

static int
client_status_fits(const struct client *c, int status)
{
	switch (status) {
	case MKV_E_BUSY:
	case MKV_E_RETRY:
		return (1);
	case MKV_E_TIMEOUT:
		/* Nothing died, nothing hung, there is room: what did it wait for? A wake-up that was lost shows only here. */
		return (sim->now - c->start < SEC || sim->harm_ns + 2 * SEC > c->start || (c->op == MKV_WIRE_PUT && sim->c.evict));
	case MKV_E_MISS:
		return (c->op == MKV_WIRE_GET || c->op == MKV_WIRE_STAT || c->op == MKV_WIRE_REPORT);
	case MKV_E_EXISTS:
		return (c->op == MKV_WIRE_PUT && (c->flags & MKV_WIRE_PUT_IF_ABSENT));
	case MKV_E_STALE:			/* a reservation of a drive that was started again */
		return (c->op == MKV_WIRE_PUT && sim->c.memory_mode);
	case MKV_E_NOSPACE:
		return (c->op == MKV_WIRE_PUT && !sim->c.evict);
	case MKV_E_CORRUPT:
		return (model.lossy);
	case MKV_E_CANCELLED:
		return (c->now != NULL && c->now->how == DO_ABORT);
	default:
		return (0);
	}
}

static void
client_put_answer(struct client *c, int status)
{
	unsigned k = c->key[0], v = c->version[0];

	if (status == MKV_E_EXISTS) {
		/* Without an id nobody knows its own put again, which a front may send to the next life of a drive. */
		model_end(k, v, c->put_id == 0 ? MV_UNKNOWN : MV_NOT);
		model_check_there(k, c->start, UINT64_MAX, "put if absent found something");
		return;
	}
	model_end(k, v, MV_DONE);
	if ((c->flags & MKV_WIRE_PUT_IF_ABSENT) == 0 || c->tries > 0)
		return;
	model.key[k].v[v].if_absent = 1;
	model_check_absent(k, v);
}

static void
client_get_answer(struct client *c, int status, const struct mkv_wire_object *o)
{
	uint64_t want;

	if (status == MKV_E_MISS) {
		model_check_miss(c->key[0], c->start, op_name(c->op));
		return;
	}
	if (c->op == MKV_WIRE_REPORT) {
		model_check_there(c->key[0], c->start, UINT64_MAX, "report");
		return;
	}
	if (c->op == MKV_WIRE_STAT) {
		model_check_there(c->key[0], c->start, o->value_bytes, "stat");
		return;
	}
	want = c->off < o->value_bytes ? MKV_MIN(c->len, o->value_bytes - c->off) : 0;
	SIM_CHECK(c->got_bytes == want, "get: %llu bytes of %llu came", (unsigned long long)c->got_bytes, (unsigned long long)want);
	model_check_hit(c->key[0], c->start, o->value_bytes, c->off, c->got, want, "get");
}

static void
client_keys_answer(struct client *c, const uint8_t *body, uint32_t body_bytes)
{
	const struct mkv_wire_keys_reply *r = (const void *)body;
	const uint8_t *b = body + sizeof(*r);

	if (c->op == MKV_WIRE_MATCH) {
		for (unsigned i = 0; i < r->n_there && i < c->n_keys; i++)
			model_check_there(c->key[i], c->start, UINT64_MAX, "match");
		if (r->n_there < c->n_keys)
			model_check_miss(c->key[r->n_there], c->start, "match");
		return;
	}
	SIM_CHECK(r->n_keys == c->n_keys && body_bytes >= sizeof(*r) + c->n_keys, "%s: %u answers for %u keys", op_name(c->op), r->n_keys, c->n_keys);
	for (unsigned i = 0; i < c->n_keys; i++) {
		int there = b[i] & 1;

		if (c->op == MKV_WIRE_DELETE)
			continue;
		if (there)
			model_check_there(c->key[i], c->start, UINT64_MAX, op_name(c->op));
		else
			model_check_miss(c->key[i], c->start, op_name(c->op));
		if (c->op == MKV_WIRE_TOUCH && c->ttl_ms != 0)
			model_touch_end(c->key[i], c->start, c->ttl_ms, there);
	}
	/* Each is gone now, and those that were not there were not. */
	for (unsigned i = 0; c->op == MKV_WIRE_DELETE && i < c->n_keys; i++)
		model_deleted(c->key[i], c->version[i], b[i] & 1);
}

static unsigned
client_key_of(unsigned ns, const uint8_t *name, unsigned bytes)
{
	for (unsigned i = ns; i < model.keys; i += MODEL_NS)
		if (model.key[i].name_bytes == bytes && memcmp(model.key[i].name, name, bytes) == 0)
			return (i);
	sim_fail("list: a key that nobody wrote");
}

static void
client_list_answer(struct client *c, const uint8_t *body, uint32_t body_bytes)
{
	const struct mkv_wire_list_reply *r = (const void *)body;
	uint32_t at = sizeof(*r);

	for (uint32_t i = 0; i < r->n_rows; i++) {
		const struct mkv_wire_list_row *row = (const void *)(body + at);
		unsigned k = client_key_of(c->key[0] % MODEL_NS, row->key, row->key_bytes);

		SIM_CHECK(at + row->row_bytes <= body_bytes, "list: rows do not fit");
		model_check_there(k, c->start, row->value_bytes, "list");
		at += row->row_bytes;
	}
}

static void
client_answer(struct client *c, const struct mkv_hdr *h, const uint8_t *body)
{
	int status = -(int)h->status;
	const struct mkv_wire_object *o = (const void *)body;

	sim_trace("client %u: %s of key %u: %s reason %u", c->index, op_name(c->op), c->key[0], mkv_err(status), h->reason);
	SIM_CHECK(status == 0 || client_status_fits(c, status), "client %u: %s answered with %s", c->index, op_name(c->op), mkv_err(status));
	c->retry = 0;
	if (status != 0 && status != MKV_E_MISS && status != MKV_E_EXISTS)
		client_unknown(c);
	else if (c->op == MKV_WIRE_PUT)
		client_put_answer(c, status);
	else if (c->op == MKV_WIRE_GET || c->op == MKV_WIRE_STAT || c->op == MKV_WIRE_REPORT)
		client_get_answer(c, status, o);
	else if (c->op == MKV_WIRE_LIST)
		client_list_answer(c, body, h->body_bytes);
	else if (c->op != MKV_WIRE_INFO)
		client_keys_answer(c, body, h->body_bytes);
	c->state = CL_READY;
	c->gate++;
	client_pause(c);
}

/* ---- What comes ------------------------------------------------------------------------------------------------------------- */

/* How many bytes have a CRC; bad: one of them does not match. */
static uint64_t
client_crcs(const struct mkv_hdr *h, const uint8_t *body, const uint8_t *pay, uint64_t at, int *bad)
{
	const struct mkv_wire_object *o = (const void *)body;
	const uint32_t *crc = (const void *)(o + 1);
	uint64_t p = 0;

	*bad = 0;
	for (uint32_t i = 0; i < o->n_crcs && p < h->payload_bytes; i++) {
		uint64_t n = MKV_MIN(h->payload_bytes - p, MKV_CRC_CHUNK - (at + p) % MKV_CRC_CHUNK);

		*bad |= mkv_crc32c(0, pay + p, n) != crc[i];
		p += n;
	}
	return (p);
}

/* A part of a value goes behind what came before; not 0: some of its bytes do not match their CRCs. */
static int
client_part(struct client *c, const struct mkv_hdr *h, const uint8_t *body, const uint8_t *pay)
{
	const struct mkv_wire_object *o = (const void *)body;
	uint64_t at = c->off + c->got_bytes;
	int bad;

	SIM_CHECK(h->body_bytes >= sizeof(*o), "get: a short answer");
	SIM_CHECK(o->off == at && c->got_bytes + h->payload_bytes <= VALUE_BYTES, "get: a part of another place");
	SIM_CHECK(client_crcs(h, body, pay, at, &bad) == h->payload_bytes, "get: not all bytes have a CRC");
	if (bad)
		return (bad);
	memcpy(c->got + c->got_bytes, pay, h->payload_bytes);
	c->got_bytes += h->payload_bytes;
	return (0);
}

static void
client_take(struct client *c, const struct mkv_hdr *h, const uint8_t *body, const uint8_t *pay)
{
	if (c->state == CL_HELLO) {
		client_on_hello(c, h, body);
		return;
	}
	SIM_CHECK(h->counter == ++c->counter_in && mkv_mac_check(c->s2c, h, MKV_WIRE_SIGNED_BYTES, body, h->body_bytes, h->mac) == 0,
	    "client %u: an answer with a wrong MAC or counter", c->index);
	if (c->state == CL_CONNECT) {
		SIM_CHECK(h->status == 0, "client %u: connect is refused", c->index);
		c->session = h->session_id;
		c->state = CL_READY;
		client_pause(c);
		return;
	}
	SIM_CHECK(c->state == CL_WAIT && h->request_id == c->id, "client %u: an answer that nobody asked for", c->index);
	if (c->op == MKV_WIRE_GET && h->status == 0 && client_part(c, h, body, pay) != 0) {
		SIM_CHECK(model.lossy, "client %u: bytes do not match their CRC", c->index);
		sim_trace("client %u: the CRC shows damage", c->index);
		SIM_CHECK(!sim->scrubbed, "client %u: damage of key %u that the scrubber passed over", c->index, c->key[0]);
		c->suspects = !read_all;
		c->bad_key = c->key[0];
		c->bad_off = c->off + c->got_bytes;
		client_drop(c);
		client_pause(c);
		return;
	}
	if ((h->flags & MKV_WIRE_F_MORE) == 0)
		client_answer(c, h, body);
}

static void
client_on_news(void *arg)
{
	struct client *c = arg;

	while (c->conn >= 0) {
		uint8_t body[MKV_WIRE_BODY_MAX];
		struct mkv_hdr h;
		const uint8_t *p;
		size_t has = net_has(c->conn);
		uint8_t *pay;

		if (has < sizeof(h))
			break;
		p = net_peek(c->conn);
		memcpy(&h, p, sizeof(h));
		SIM_CHECK(mkv_wire_hdr_check(&h, 1, c->state > CL_CONNECT) == 0, "client %u: a frame that is none", c->index);
		if (has < sizeof(h) + h.body_bytes + h.payload_bytes)
			break;
		memcpy(body, p + sizeof(h), h.body_bytes);
		pay = (uint8_t *)(uintptr_t)(p + sizeof(h) + h.body_bytes);
		net_take(c->conn, sizeof(h) + h.body_bytes + h.payload_bytes);
		client_take(c, &h, body, pay);
	}
	if (c->conn < 0 || !net_ended(c->conn))
		return;
	sim_trace("client %u: connection ended", c->index);
	if (c->state == CL_WAIT)
		client_unknown(c);
	c->gate++;
	client_drop(c);
	sim_in(sim_chance(1, 2) ? sim_between(10 * US, 300 * US) : sim_between(1 * MS, 10 * MS), client_next, c, c->gen);
}

/* The answer must have come. */
static void
client_late(void *arg, uint64_t gate)
{
	struct client *c = arg;

	if (c->gate != gate || c->state != CL_WAIT)
		return;
	sim_fail("client %u: %s of key %u has no answer, %.3f s after its deadline", c->index, op_name(c->op), c->key[0],
	    (double)(sim->now - c->deadline_ns) / 1e9);
}

/* ---- What is asked ---------------------------------------------------------------------------------------------------------- */

static unsigned
client_pick(int writes)
{
	unsigned k = sim_below(model.keys);

	/* Mostly one writer at a time, but where a seed wants them to meet. */
	if (sim_chance(sim->c.pct_collide, 100))
		return (sim_below(MKV_MIN(model.keys, 3u)));
	for (unsigned i = 0; i < 4 && writes && model.key[k].busy > 0; i++)
		k = sim_below(model.keys);
	return (k);
}

static uint64_t
client_size(void)
{
	unsigned pct = sim_below(100);

	if (pct < sim->c.pct_multi)
		return (sim_between(SIM_EXTENT + 1, sim->c.value_max));
	if (pct < sim->c.pct_multi + sim->c.pct_large)
		return (sim_between(0, SIM_EXTENT));
	return (sim_chance(1, 10) ? 0 : sim_between(1, 20000));
}

/* The next part. */
static void
client_send_part(struct client *c)
{
	const struct model_key *k = &model.key[c->key[0]];
	uint64_t off = c->sent;
	size_t n = MKV_MIN(c->bytes - off, SIM_EXTENT), b = sizeof(struct mkv_wire_put);
	int more = off + n < c->bytes;
	struct mkv_wire_put w = { .value_bytes = more ? MKV_WIRE_SIZE_UNKNOWN : c->bytes, .part_off = off, .put_id = c->put_id, .ttl_ms = c->ttl_ms,
	    .flags = c->flags };
	uint8_t body[4096];

	w.n_crcs = c->flags & MKV_WIRE_PUT_NO_CRC ? 0 : mkv_crc_chunks(n);
	if (off == 0) {
		w.ns_bytes = (uint16_t)k->ns_bytes;
		w.key_bytes = (uint16_t)k->name_bytes;
		memcpy(body + b, k->ns, k->ns_bytes);
		memcpy(body + b + k->ns_bytes, k->name, k->name_bytes);
		b += k->ns_bytes + k->name_bytes;
	}
	b = pad8(body, b);
	memcpy(body, &w, sizeof(w));
	if (w.n_crcs != 0) {
		mkv_crc_chunk_list(c->value + off, n, (uint32_t *)(void *)(body + b));
		b = pad8(body, b + 4 * w.n_crcs);
	}
	client_frame(c, MKV_WIRE_PUT, more ? MKV_WIRE_F_MORE : 0, c->id, body, b, c->value + off, n);
	c->sent += n;
}

/* It leaves, and nobody will tell it what became of its request. */
static void
client_hang_up(struct client *c)
{
	int told = c->now != NULL;

	client_unknown(c);
	c->retry &= !told;
	c->gate++;
	client_drop(c);
	client_pause(c);
}

/* Parts of a script's put, with pauses; perhaps not all of them. */
static void
client_parts(void *arg, uint64_t gate)
{
	struct client *c = arg;
	const struct sim_do *d = c->now;
	struct mkv_wire_put w = { .put_id = c->put_id };

	if (c->gate != gate || c->state != CL_WAIT)
		return;
	if (d->how == DO_ALL || c->sent < d->parts * SIM_EXTENT) {
		client_send_part(c);
		if (c->sent < c->bytes)
			sim_in(d->pause_us * US, client_parts, c, gate);
		return;
	}
	sim_trace("client %u: %s after %u parts", c->index, d->how == DO_ABORT ? "aborts" : "hangs up", d->parts);
	if (d->how == DO_ABORT)
		client_frame(c, MKV_WIRE_PUT, MKV_WIRE_F_ABORT, c->id, &w, sizeof(w), NULL, 0);
	else
		client_hang_up(c);
}

static void
client_send_put(struct client *c)
{
	value_fill(c->value, c->bytes, c->seed);
	c->sent = 0;
	if (c->now != NULL && (c->now->pause_us != 0 || c->now->how != DO_ALL)) {
		client_parts(c, c->gate);
		return;
	}
	do
		client_send_part(c);
	while (c->sent < c->bytes);
}

static void
client_put(struct client *c)
{
	struct model_key *k;

	c->n_keys = 1;
	if (c->now == NULL && c->retry) {
		/* A write of its own: the first one may still be on its way. */
		c->tries++;
		c->version[0] = model_begin(c->key[0], c->seed, c->bytes, c->ttl_ms, (c->flags & MKV_WIRE_PUT_ACCEPTED) || sim->c.accepted,
	    (c->flags & MKV_WIRE_PUT_PIN) != 0);
		client_send_put(c);
		return;
	}
	c->tries = 0;
	c->key[0] = client_pick(1);
	k = &model.key[c->key[0]];
	c->flags = (sim_chance(sim->c.pct_absent, 100) ? MKV_WIRE_PUT_IF_ABSENT : 0) | (sim_chance(1, 10) ? MKV_WIRE_PUT_OVERWRITE : 0) |
	    (sim_chance(1, 10) ? MKV_WIRE_PUT_NO_CRC : 0) | (sim_chance(sim->c.pct_accepted, 100) ? MKV_WIRE_PUT_ACCEPTED : 0) |
	    (sim_chance(sim->c.pct_pin, 100) ? MKV_WIRE_PUT_PIN : 0);
	c->ttl_ms = sim_chance(sim->c.pct_ttl, 100) ? sim_between(1, 20000) : 0;
	c->seed = model.next_seed++;
	c->bytes = client_size();
	if (sim_chance(sim->c.pct_same, 100) && k->v[k->n - 1].seed != 0) {
		c->seed = k->v[k->n - 1].seed;
		c->bytes = k->v[k->n - 1].bytes;
	}
	c->put_id = sim_chance(1, 20) ? 0 : rnd_u64(&sim->rnd) | 1;
	if (c->now != NULL) {
		c->key[0] = c->now->key;
		c->flags = c->now->flags;
		c->ttl_ms = c->now->ttl_ms;
		c->bytes = c->now->bytes;
		c->seed = model.next_seed++;
		c->put_id |= 1;
	}
	c->version[0] = model_begin(c->key[0], c->seed, c->bytes, c->ttl_ms, (c->flags & MKV_WIRE_PUT_ACCEPTED) || sim->c.accepted,
	    (c->flags & MKV_WIRE_PUT_PIN) != 0);
	client_send_put(c);
}

/* What is reported: the part that did not match; else, for no reason, anything. */
static void
client_suspect(struct client *c, struct mkv_wire_get *w)
{
	if (c->suspects) {
		c->key[0] = c->bad_key;
		w->off = c->bad_off;
		w->len = SIM_EXTENT;
	} else if (sim_chance(1, 2)) {
		w->off = sim_below(VALUE_BYTES);
		w->len = sim_below(2 * SIM_EXTENT);
	}
	c->suspects = 0;
}

static void
client_get(struct client *c)
{
	struct mkv_wire_get w = { 0 };
	const struct model_key *k;
	uint8_t body[256];
	size_t b = sizeof(w);

	c->n_keys = 1;
	c->key[0] = c->now != NULL ? c->now->key : read_all ? ops_left : client_pick(0);
	if (c->op == MKV_WIRE_REPORT)
		client_suspect(c, &w);
	k = &model.key[c->key[0]];
	c->off = c->got_bytes = 0;
	c->len = VALUE_BYTES;
	if (c->op == MKV_WIRE_GET && !read_all && c->now == NULL && sim_chance(1, 3)) {
		c->off = sim_below((uint32_t)MKV_MAX(k->v[k->n - 1].bytes, 1u));
		c->len = sim_chance(1, 2) ? sim_below(300000) : VALUE_BYTES;
	}
	if (c->op == MKV_WIRE_GET) {
		w.off = c->off;
		w.len = c->len;
	}
	w.ns_bytes = (uint16_t)k->ns_bytes;
	w.key_bytes = (uint16_t)k->name_bytes;
	memcpy(body, &w, sizeof(w));
	memcpy(body + b, k->ns, k->ns_bytes);
	memcpy(body + b + k->ns_bytes, k->name, k->name_bytes);
	b = pad8(body, b + k->ns_bytes + k->name_bytes);
	client_frame(c, c->op, 0, c->id, body, b, NULL, 0);
}

/* Keys of one namespace, no one twice. */
static void
client_keys(struct client *c)
{
	unsigned n = 1 + (sim_chance(1, 2) ? sim_below(LIST_KEYS) : 0), first = client_pick(client_writes(c));
	struct mkv_wire_keys w = { 0 };
	uint8_t body[1024];
	size_t b = sizeof(w);

	c->n_keys = 0;
	c->ttl_ms = c->op == MKV_WIRE_TOUCH && sim_chance(1, 2) ? sim_between(1, 20000) : 0;
	if (c->now != NULL) {
		first = c->now->key;
		n = 1;
	}
	for (unsigned i = first; c->n_keys < n && i < model.keys; i += MODEL_NS)
		c->key[c->n_keys++] = i;
	w.n_keys = c->n_keys;
	w.ttl_ms = c->ttl_ms;
	w.ns_bytes = (uint16_t)model.key[first].ns_bytes;
	memcpy(body, &w, sizeof(w));
	memcpy(body + b, model.key[first].ns, w.ns_bytes);
	b += w.ns_bytes;
	for (unsigned i = 0; i < c->n_keys; i++) {
		const struct model_key *k = &model.key[c->key[i]];

		body[b++] = (uint8_t)k->name_bytes;
		body[b++] = 0;
		memcpy(body + b, k->name, k->name_bytes);
		b += k->name_bytes;
		if (c->op == MKV_WIRE_DELETE)
			c->version[i] = model_begin(c->key[i], 0, 0, 0, 0, 0);
		if (c->ttl_ms != 0)
			model_touch_begin(c->key[i], c->ttl_ms);
	}
	b = pad8(body, b);
	client_frame(c, c->op, 0, c->id, body, b, NULL, 0);
}

static void
client_list(struct client *c)
{
	struct mkv_wire_list w = { .max_rows = 1 + sim_below(40) };
	const struct model_key *k;
	uint8_t body[128];
	size_t b = sizeof(w);

	c->n_keys = 1;
	c->key[0] = client_pick(0);
	k = &model.key[c->key[0]];
	w.ns_bytes = (uint16_t)k->ns_bytes;
	memcpy(body, &w, sizeof(w));
	memcpy(body + b, k->ns, k->ns_bytes);
	b = pad8(body, b + k->ns_bytes);
	client_frame(c, c->op, 0, c->id, body, b, NULL, 0);
}

static unsigned
client_choose(void)
{
	unsigned pct = sim_below(100);

	if (pct < 42)
		return (MKV_WIRE_PUT);
	if (pct < 72)
		return (MKV_WIRE_GET);
	if (pct < 80)
		return (MKV_WIRE_DELETE);
	if (pct < 85)
		return (MKV_WIRE_TOUCH);
	if (pct < 89)
		return (MKV_WIRE_EXISTS);
	if (pct < 93)
		return (MKV_WIRE_MATCH);
	if (pct < 96)
		return (MKV_WIRE_STAT);
	return (pct < 98 ? MKV_WIRE_LIST : pct < 99 ? MKV_WIRE_INFO : MKV_WIRE_REPORT);
}

static void
client_ask(struct client *c)
{
	if (c->now != NULL)
		c->op = c->now->op;
	else
		c->op = c->retry ? MKV_WIRE_PUT : read_all ? MKV_WIRE_GET : c->suspects ? MKV_WIRE_REPORT : client_choose();
	c->id = c->next_id++;
	c->start = sim->now;
	if (script != NULL)
		c->deadline_ns = sim->now + (c->now != NULL && c->now->deadline_us != 0 ? c->now->deadline_us * US : SCRIPT_DEADLINE_NS);
	else
		c->deadline_ns = sim->now + (!read_all && sim_chance(1, 8) ? sim_between(1 * MS, 50 * MS) : sim_between(1 * SEC, 10 * SEC));
	c->state = CL_WAIT;
	sim->stat_ops++;
	sim_at(c->deadline_ns + LATE_NS, client_late, c, ++c->gate);
	switch (c->op) {
	case MKV_WIRE_PUT:
		client_put(c);
		break;
	case MKV_WIRE_GET:
	case MKV_WIRE_STAT:
	case MKV_WIRE_REPORT:
		client_get(c);
		break;
	case MKV_WIRE_LIST:
		client_list(c);
		break;
	case MKV_WIRE_INFO:
		c->n_keys = 0;
		client_frame(c, c->op, 0, c->id, NULL, 0, NULL, 0);
		break;
	default:
		client_keys(c);
		break;
	}
	sim_trace("client %u: asks %s of key %u (%u keys) %llu bytes flags %u ttl %llu%s", c->index, op_name(c->op), c->key[0], c->n_keys,
	    (unsigned long long)(c->op == MKV_WIRE_PUT ? c->bytes : 0), c->flags, (unsigned long long)c->ttl_ms, c->retry ? " again" : "");
	c->retry = 0;
}

/* c->now is the next row of the script, or NULL: there is none. 0: not yet. */
static int
client_told(struct client *c)
{
	const struct sim_do *d = NULL;

	for (; c->todo < script_rows && d == NULL; c->todo += d == NULL)
		d = script[c->todo].client == c->index ? &script[c->todo] : NULL;
	c->now = d;
	if (d == NULL || c->state != CL_READY)
		return (1);
	if (d->wait_us != 0 && !c->waited) {
		c->waited = 1;
		sim_in(d->wait_us * US, client_next, c, c->gen);
		return (0);
	}
	c->waited = 0;
	if (d->op != DO_PURGE)
		return (1);
	/* Not before all drives are there; nobody is told of its end. */
	if (purge_idle() && server_all_up()) {
		purge_begin(d->key % MODEL_NS);
		c->todo++;
	}
	client_pause(c);
	return (0);
}

static void
client_next(void *arg, uint64_t gen)
{
	struct client *c = arg;

	if (c->gen != (uint32_t)gen || (c->state != CL_IDLE && c->state != CL_READY))
		return;
	if (script != NULL && !c->retry && !client_told(c))
		return;
	if (!c->retry && (script != NULL ? c->now == NULL : ops_left == 0)) {
		if (c->state == CL_READY)
			client_drop(c);
		c->state = CL_DONE;
		return;
	}
	if (c->state == CL_READY) {
		if (script != NULL)
			c->todo += c->now != NULL;
		else if (!c->retry)
			ops_left--;
		if (!read_all && script == NULL && sim_chance(PURGE_RATE, 1000))
			purge_begin(sim_below(MODEL_NS));
		client_ask(c);
		if (!sim->resting && sim_chance(sim->c.hangups, 1000))
			client_hang_up(c);
		return;
	}
	c->conn = net_connect(sim_below(sim->c.fronts), client_on_news, c);
	if (c->conn < 0) {
		client_pause(c);
		return;
	}
	client_hello(c);
}

/* ---- All of them ------------------------------------------------------------------------------------------------------------ */

void
clients_create(void)
{
	for (unsigned i = 0; i < SIM_CLIENTS; i++) {
		struct client *c = &client[i];
		uint8_t *value = c->value, *got = c->got;

		memset(c, 0, sizeof(*c));
		c->index = i;
		c->conn = -1;
		c->state = CL_DONE;
		/* Kept from seed to seed: what they hold is written before it is read. */
		c->value = value != NULL ? value : malloc(VALUE_BYTES + 8);
		c->got = got != NULL ? got : malloc(VALUE_BYTES + 8);
		SIM_CHECK(c->value != NULL && c->got != NULL, "no memory");
	}
}

void
clients_destroy(void)
{
	for (unsigned i = 0; i < SIM_CLIENTS; i++)
		client_drop(&client[i]);
}

static void
clients_begin(unsigned ops, int all)
{
	ops_left = ops;
	read_all = all;
	script = NULL;
	for (unsigned i = 0; i < sim->c.clients; i++) {
		client[i].state = CL_IDLE;
		client[i].now = NULL;
		client[i].todo = 0;
		client[i].waited = client[i].retry = 0;
		client_pause(&client[i]);
	}
}

void
clients_start(unsigned ops)
{
	clients_begin(ops, 0);
}

void
clients_read_all(void)
{
	clients_begin(model.keys, 1);
}

void
clients_script(const struct sim_do *s, unsigned n)
{
	clients_begin(0, 0);
	script = s;
	script_rows = n;
}

int
clients_done(void)
{
	for (unsigned i = 0; i < sim->c.clients; i++)
		if (client[i].state != CL_DONE)
			return (0);
	return (1);
}
