/*
 * Carriers of messages beside the queue pair, for the client by hand of front_rail_up.h: the tether, and datagrams over a network that loses, repeats and reorders
 * what the test tells it to. The socket is a real one on loopback.
 */
#ifndef MKV_TESTS_FRONT_CTL_UP_H
#define MKV_TESTS_FRONT_CTL_UP_H

#include "tests/unit/front_rail_up.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include "common/base/udp.h"
#include "tests/lib/rnd.h"

#define T_CUT		100000u			/* segments of a request */
#define T_PART		(1u << 20)		/* of a value, in the rig */
#define T_WAY_MAX	64u

struct t_way {				/* one direction of the network: what waits to be overtaken */
	unsigned	n;
	uint8_t		msg[T_WAY_MAX][4096];
	uint32_t	bytes[T_WAY_MAX];
};

struct t_net {
	struct sockaddr_storage from;
	int		udp;
	struct mkv_addr	server;
	unsigned	lose, repeat, turn;	/* of 1,000 datagrams each way */
	struct rnd	rnd;
	struct t_way	there, back;
	unsigned	came;			/* datagrams from the server, lost ones too */
};

static uint32_t t_num_dcis;			/* 0: payload goes by RC */
static uint16_t t_loose;			/* MKV_WIRE_CONTROL_LOOSE: ATTACH says that the tether will be closed */

static inline uint64_t
t_count(const struct t *t, enum mkv_metric m)
{
	return (mkv_metric_get(t->r.m, m, 0));
}

/* ---- The network ----------------------------------------------------------------------------------------------------------- */

static inline int
net_luck(struct t_net *net, unsigned of_1000)
{
	return (rnd_below(&net->rnd, 1000) < of_1000);
}

/* Puts a datagram on a way: not at all, once or twice. */
static inline void
net_in(struct t_net *net, struct t_way *w, const void *buf, uint32_t bytes)
{
	for (unsigned i = 1 + (unsigned)net_luck(net, net->repeat); i > 0 && w->n < T_WAY_MAX; i--) {
		if (net_luck(net, net->lose))
			continue;
		memcpy(w->msg[w->n], buf, bytes);
		w->bytes[w->n++] = bytes;
	}
}

/* What arrives next, any of those that wait if the way turns them around; NULL: nothing. */
static inline const uint8_t *
net_out(struct t_net *net, struct t_way *w, uint32_t *bytes)
{
	static uint8_t buf[4096];
	unsigned i;

	if (w->n == 0 || (net->turn != 0 && net_luck(net, net->turn)))
		return (NULL);
	i = net_luck(net, net->turn) ? rnd_below(&net->rnd, w->n) : 0;
	memcpy(buf, w->msg[i], w->bytes[i]);
	*bytes = w->bytes[i];
	w->n--;
	memmove(w->msg[i], w->msg[i + 1], (w->n - i) * sizeof(w->msg[0]));
	memmove(&w->bytes[i], &w->bytes[i + 1], (w->n - i) * sizeof(w->bytes[0]));
	return (buf);
}

static inline void
net_pump(struct t *t)
{
	struct t_net *net = t->net;
	uint8_t buf[4096];
	const uint8_t *p;
	uint32_t bytes;
	ssize_t n;

	while ((p = net_out(net, &net->there, &bytes)) != NULL)
		assert_int_equal(sendto(net->udp, p, bytes, 0, (struct sockaddr *)&net->server.ss, net->server.bytes), bytes);
	while ((n = recv(net->udp, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		net->came++;
		net_in(net, &net->back, buf, (uint32_t)n);
	}
	while ((p = net_out(net, &net->back, &bytes)) != NULL) {
		assert_true(bytes <= MKV_UDP_SAFE);
		if (mkv_window_take(&t->seen, t_take(t, p, bytes)->h.counter))
			t->n_msg++;
	}
}

static inline void
net_open(struct t *t)
{
	static const uint8_t loopback[16] = { [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 };
	struct t_net *net = t->net = calloc(1, sizeof(*net));

	rnd_init(&net->rnd, 1);
	mkv_addr_make(&net->server, loopback, 0);
	net->from = net->server.ss;
	t->r.from = &net->from;
	assert_true((net->udp = mkv_udp_bind(&net->server)) >= 0);
	t->udp_port = (uint16_t)mkv_udp_port(net->udp);
	assert_true(mkv_rail_listen(t->rail, loopback, 0) >= 0);
}

static inline void
net_close(struct t *t)
{
	close(t->net->udp);
	free(t->net);
}

/* ---- Carriers -------------------------------------------------------------------------------------------------------------- */

static inline void
t_by_tether(struct t *t, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, size_t pay_bytes)
{
	struct mkv_hdr h;

	rig_frame_make(&t->c, &h, op, flags, id, body, body_bytes, pay_bytes);
	rig_write(&t->c, &h, sizeof(h));
	rig_write(&t->c, body, body_bytes);
}

static inline uint32_t
t_datagram(struct t *t, uint8_t buf[4096], unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, size_t pay_bytes)
{
	struct mkv_hdr h = t_header(t, op, flags, id, body, body_bytes, pay_bytes);

	memcpy(buf, &h, sizeof(h));
	if (body_bytes != 0)
		memcpy(buf + sizeof(h), body, body_bytes);
	return ((uint32_t)(sizeof(h) + body_bytes));
}

static inline void
t_by_datagram(struct t *t, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, size_t pay_bytes)
{
	_Alignas(8) uint8_t buf[4096];

	net_in(t->net, &t->net->there, buf, t_datagram(t, buf, op, flags, id, body, body_bytes, pay_bytes));
}

/* Answers by the tether that belong to the channel's requests. */
static inline void
tether_pump(struct t *t)
{
	while (rig_recv(&t->c, 0) == 1) {
		struct t_msg *m = &t->msg[t->n_msg++ % T_MSGS];

		m->h = t->c.f.hdr;
		assert_true(m->h.body_bytes <= sizeof(m->body));
		memcpy(m->body, t->c.f.body, m->h.body_bytes);
		m->by_tether = 1;
	}
}

static inline void
datagrams_pump(struct t *t)
{
	net_pump(t);
	mkv_rail_readable(t->rail);
	tether_pump(t);
}

static const struct t_carrier t_tether = { .control = MKV_WIRE_CONTROL_TCP, .send = t_by_tether, .pump = tether_pump };
static const struct t_carrier t_datagrams = { .control = MKV_WIRE_CONTROL_UDP, .open = net_open, .send = t_by_datagram, .pump = datagrams_pump, .close = net_close };
static const struct t_carrier *const t_both[] = { &t_tether, &t_datagrams };

static inline struct t *
ctl_opened(const struct t_carrier *by)
{
	struct t *t = calloc(1, sizeof(*t));

	t_open_rail(t, t_num_dcis, by);
	t->next_id = 1000;
	t->loose = t_loose;
	t_attach(t, 1);
	if (t->net != NULL)
		mkv_addr_set_port(&t->net->server, ((const struct mkv_wire_attach *)(const void *)t->c.f.body)->udp_port);
	return (t);
}

/* ---- Messages -------------------------------------------------------------------------------------------------------------- */

static inline void
t_silence(struct t *t)
{
	assert_null(t_next_in(t, 20));
}

/* The next answer, which is that of this request. */
static inline struct t_msg *
t_answer(struct t *t, uint64_t id)
{
	struct t_msg *m = t_next(t);

	assert_non_null(m);
	assert_int_equal(m->h.request_id, id);
	return (m);
}

struct t_ask {				/* a request that can be sent again */
	unsigned	op, flags;
	uint64_t	id;
	_Alignas(8) uint8_t body[3900];
	size_t		bytes, pay;
};

static inline void
t_say(struct t *t, const struct t_ask *a, unsigned more_flags)
{
	(void)t_send(t, a->op, a->flags | more_flags, a->id, a->body, a->bytes, a->pay);
}

static inline void
t_make_put(struct t *t, struct t_ask *a, const char *key, uint32_t off, uint32_t n)
{
	*a = (struct t_ask){ .op = MKV_WIRE_PUT, .flags = MKV_WIRE_F_REMOTE, .id = t->next_id++, .pay = n };
	a->bytes = t_put_body(t, a->body, key, off, n, 0, n, 0, T_CUT);
}

static inline void
t_make_get(struct t *t, struct t_ask *a, const char *key, uint64_t at, uint32_t off, uint32_t room)
{
	*a = (struct t_ask){ .op = MKV_WIRE_GET, .flags = MKV_WIRE_F_REMOTE, .id = t->next_id++ };
	a->bytes = t_get_body(t, a->body, key, at, off, room, T_CUT);
}

static inline void
t_make_cancel(struct t *t, struct t_ask *a, uint64_t of)
{
	struct mkv_wire_cancel w = { .request_id = of };

	*a = (struct t_ask){ .op = MKV_WIRE_CANCEL, .flags = t->by == &t_tether ? MKV_WIRE_F_REMOTE : 0, .id = t->next_id++,
		.bytes = sizeof(w) };
	memcpy(a->body, &w, sizeof(w));
}

/* The answer to a, which is sent until one comes; others are let go by. */
static inline struct t_msg *
t_call(struct t *t, const struct t_ask *a)
{
	struct t_msg *m;

	t_say(t, a, 0);
	for (unsigned tries = 0; tries < 500; tries++) {
		while ((m = t_next_in(t, t->net != NULL && (t->net->lose != 0 || t->net->turn != 0) ? 10 : T_ROUNDS)) != NULL)
			if (m->h.request_id == a->id) {
				t->acked = t->next_id;
				return (m);
			}
		t_say(t, a, MKV_WIRE_F_RESEND);
	}
	fail_msg("no answer");
	return (NULL);
}

static inline void
t_put_get(struct t *t, const char *key, uint32_t n, uint32_t seed)
{
	uint8_t *want = malloc(n);
	struct t_ask a;

	rig_fill(want, n, seed);
	memcpy(t->mem + 100, want, n);
	t_make_put(t, &a, key, 100, n);
	assert_int_equal(t_call(t, &a)->h.status, 0);
	memset(t->mem, T_POISON, 2 * n + 200);
	t_make_get(t, &a, key, 0, 77, n + 10);
	assert_int_equal(t_call(t, &a)->h.payload_bytes, n);
	assert_memory_equal(t->mem + 77, want, n);
	for (uint32_t i = 0; i < 77; i++)
		assert_int_equal(t->mem[i], T_POISON);
	for (uint32_t i = 77 + n; i < 2 * n + 200; i++)
		assert_int_equal(t->mem[i], T_POISON);
	free(want);
}

/* Part at `at` of the value "long", the first n bytes of memory, by the tether; the parts of one value have one number. */
static inline void
t_part(struct t *t, uint64_t id, unsigned flags, uint32_t at, uint32_t n)
{
	const uint32_t step = MKV_MIN(T_PART, n - at);
	const int more = at + step < n;
	_Alignas(8) uint8_t body[4000];
	size_t b = t_put_body(t, body, "long", at, step, at, n, more, T_CUT);

	t_by_tether(t, MKV_WIRE_PUT, MKV_WIRE_F_REMOTE | flags | (more ? MKV_WIRE_F_MORE : 0), id, body, b, step);
}

/* All of them: each is told of when it is here. */
static inline void
t_put_parts(struct t *t, uint64_t id, unsigned flags, uint32_t n, void (*between)(struct t *t))
{
	for (uint32_t at = 0; at < n; at += T_PART) {
		const struct t_msg *m;

		t_part(t, id, flags, at, n);
		m = t_answer(t, id);
		assert_int_equal(m->h.status, 0);
		assert_int_equal((m->h.flags & MKV_WIRE_F_MORE) != 0, at + T_PART < n);
		assert_true(m->by_tether);
		if (between != NULL)
			between(t);
	}
}

/* The first n bytes of memory as a value. */
static inline void
t_store(struct t *t, const char *key, uint32_t n)
{
	struct t_ask a;

	rig_fill(t->mem, n, 3);
	t_make_put(t, &a, key, 0, n);
	assert_int_equal(t_call(t, &a)->h.status, 0);
	t->acked = 0;
}

#endif
