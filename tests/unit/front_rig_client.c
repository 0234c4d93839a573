/*
 * See front_rig.h: the client's side of the rig. It writes frames byte for byte, so it can also write wrong ones.
 */
#include "config.h"

#include "tests/unit/front_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"

static struct rig_client *rig_clients[64];

void
rig_client_open(struct rig *r, struct rig_client *c)
{
	int fds[2];
	unsigned i = 0;

	memset(c, 0, sizeof(*c));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	c->rig = r;
	c->fd = fds[0];
	c->next_id = 1;
	c->deadline_us = RIG_PATIENCE_MS * 1000;
	c->out_room = 1 << 16;
	c->in_room = MKV_WIRE_PART_MAX + MKV_WIRE_BODY_MAX + 4096;
	c->out = malloc(c->out_room);
	c->in = malloc(c->in_room);
	c->f.payload = malloc(MKV_WIRE_PART_MAX);
	while (rig_clients[i] != NULL)
		i++;
	rig_clients[i] = c;
	(void)mkv_front_adopt(r->f, fds[1], r->from);
}

void
rig_client_close(struct rig_client *c)
{
	for (unsigned i = 0; i < MKV_ARRAY_LEN(rig_clients); i++)
		if (rig_clients[i] == c)
			rig_clients[i] = NULL;
	close(c->fd);
	free(c->out);
	free(c->in);
	free(c->f.payload);
	mkv_mac_destroy(&c->c2s);
	mkv_mac_destroy(&c->s2c);
	rig_pump(c->rig);
}

static int
client_pump(struct rig_client *c)
{
	ssize_t n;
	int busy = 0;

	if (c->out_at < c->out_bytes && (n = send(c->fd, c->out + c->out_at, c->out_bytes - c->out_at, MSG_NOSIGNAL)) > 0) {
		c->out_at += (size_t)n;
		busy = 1;
	}
	if (c->out_at == c->out_bytes)
		c->out_at = c->out_bytes = 0;
	if (c->deaf || c->closed || c->in_bytes == c->in_room)
		return (busy);
	n = recv(c->fd, c->in + c->in_bytes, c->in_room - c->in_bytes, 0);
	if (n > 0) {
		c->in_bytes += (size_t)n;
		return (1);
	}
	if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
		c->closed = 1;
	return (busy);
}

int
rig_clients_pump(const struct rig *r)
{
	int busy = 0;

	for (unsigned i = 0; i < MKV_ARRAY_LEN(rig_clients); i++)
		if (rig_clients[i] != NULL && rig_clients[i]->rig == r)
			busy |= client_pump(rig_clients[i]);
	return (busy);
}

void
rig_write(struct rig_client *c, const void *p, size_t n)
{
	if (c->out_bytes + n > c->out_room) {
		c->out_room = 2 * (c->out_bytes + n);
		c->out = realloc(c->out, c->out_room);
	}
	memcpy(c->out + c->out_bytes, p, n);
	c->out_bytes += n;
}

void
rig_frame_make(struct rig_client *c, struct mkv_hdr *h, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, size_t pay_bytes)
{
	memset(h, 0, sizeof(*h));
	memcpy(h->magic, "MKV\1", 4);
	h->version = MKV_WIRE_VERSION;
	h->op = (uint8_t)op;
	h->flags = (uint16_t)(flags | (pay_bytes != 0 ? MKV_WIRE_F_PAYLOAD : 0));
	h->session_id = c->session;
	h->counter = ++c->counter;
	h->request_id = id;
	h->body_bytes = (uint32_t)body_bytes;
	h->deadline_us = c->deadline_us;
	h->payload_bytes = pay_bytes;
	if (c->c2s != NULL)
		mkv_mac_sign(c->c2s, h, MKV_WIRE_SIGNED_BYTES, body, body_bytes, h->mac);
}

uint64_t
rig_send(struct rig_client *c, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, const void *pay, size_t pay_bytes)
{
	struct mkv_hdr h;

	if (id == 0)
		id = c->next_id++;
	rig_frame_make(c, &h, op, flags, id, body, body_bytes, pay_bytes);
	rig_write(c, &h, sizeof(h));
	if (body_bytes != 0)
		rig_write(c, body, body_bytes);
	if (pay_bytes != 0)
		rig_write(c, pay, pay_bytes);
	return (id);
}

uint64_t
rig_send_fd(struct rig_client *c, unsigned op, const void *body, size_t body_bytes, int fd)
{
	_Alignas(struct cmsghdr) char ctl[CMSG_SPACE(sizeof(fd))] = { 0 };
	uint64_t id = c->next_id++;
	struct iovec v[2];
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2, .msg_control = ctl, .msg_controllen = sizeof(ctl) };
	struct cmsghdr *cm = CMSG_FIRSTHDR(&m);
	struct mkv_hdr h;

	while (c->out_bytes != 0)
		rig_pump(c->rig);
	rig_frame_make(c, &h, op, 0, id, body, body_bytes, 0);
	v[0] = (struct iovec){ &h, sizeof(h) };
	v[1] = (struct iovec){ (void *)(uintptr_t)body, body_bytes };
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(cm), &fd, sizeof(fd));
	assert_int_equal(sendmsg(c->fd, &m, MSG_NOSIGNAL), sizeof(h) + body_bytes);
	return (id);
}

static int
client_take(struct rig_client *c)
{
	struct rig_frame *f = &c->f;
	size_t all, pay;

	if (c->in_bytes < sizeof(f->hdr))
		return (0);
	memcpy(&f->hdr, c->in, sizeof(f->hdr));
	pay = (f->hdr.flags & MKV_WIRE_F_REMOTE) ? 0 : f->hdr.payload_bytes;	/* else it is there already */
	all = sizeof(f->hdr) + f->hdr.body_bytes + pay;
	if (c->in_bytes < all)
		return (0);
	memcpy(f->body, c->in + sizeof(f->hdr), f->hdr.body_bytes);
	memcpy(f->payload, c->in + sizeof(f->hdr) + f->hdr.body_bytes, pay);
	memmove(c->in, c->in + all, c->in_bytes - all);
	c->in_bytes -= all;
	if (c->s2c != NULL && f->hdr.counter != 0) {
		assert_int_equal(mkv_mac_check(c->s2c, &f->hdr, MKV_WIRE_SIGNED_BYTES, f->body, f->hdr.body_bytes, f->hdr.mac), 0);
		assert_int_equal(f->hdr.counter, c->counter_in + 1);
		c->counter_in++;
	}
	return (1);
}

static int
client_next(struct rig_client *c)
{
	int r;

	while ((r = client_take(c)) && c->f.hdr.op == MKV_WIRE_DETACH && c->f.hdr.request_id == 0)
		c->detached++;
	return (r);
}

int
rig_recv(struct rig_client *c, unsigned ms)
{
	uint64_t until = mkv_now_ns() + ms * MKV_NS_PER_MS;

	for (;;) {
		if (client_next(c))
			return (1);
		rig_pump(c->rig);
		if (client_next(c))
			return (1);
		if (c->closed)
			return (-1);
		if (mkv_now_ns() >= until)
			return (0);
		usleep(100);
	}
}

/* HELLO is on its way: the front that has the connection passes it on. */
static void
client_passed(struct rig_client *c)
{
	uint64_t before = mkv_metric_get(c->rig->m, MKV_M_front_rail_passed_total, 0);

	for (unsigned i = 0; i < RIG_PATIENCE_MS && mkv_metric_get(c->rig->m, MKV_M_front_rail_passed_total, 0) == before; i++)
		rig_pump_ms(c->rig, 1);
	assert_int_equal(mkv_metric_get(c->rig->m, MKV_M_front_rail_passed_total, 0), before + 1);
	c->rig = c->rail_rig;
}

void
rig_client_handshake(struct rig_client *c)
{
	struct { struct mkv_hdr h; struct mkv_wire_hello b; } hello;
	struct mkv_wire_connect conn = { 0 };
	struct mkv_wire_hello_reply *rep = (void *)c->f.body;
	uint8_t transcript[32], k[32], reply[sizeof(struct mkv_hdr) + MKV_WIRE_HELLO_MAX];
	size_t bytes;

	memset(&hello, 0, sizeof(hello));
	rig_frame_make(c, &hello.h, MKV_WIRE_HELLO, 0, c->next_id++, NULL, 0, 0);
	hello.h.body_bytes = sizeof(hello.b);
	hello.b.version_min = hello.b.version_max = MKV_WIRE_VERSION;
	hello.b.rail = c->rail;
	memset(hello.b.nonce, 7, sizeof(hello.b.nonce));
	rig_write(c, &hello, sizeof(hello));
	if (c->rail_rig != NULL)
		client_passed(c);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.status, 0);
	bytes = sizeof(*rep) + rep->n_rails * sizeof(struct mkv_wire_rail) + ((rep->features & MKV_FEATURE_LOCAL) != 0 ? sizeof(struct mkv_wire_local) : 0);
	assert_int_equal(c->f.hdr.body_bytes, bytes);
	memcpy(reply, &c->f.hdr, sizeof(c->f.hdr));
	memcpy(reply + sizeof(c->f.hdr), c->f.body, bytes);
	assert_int_equal(mkv_sha256(&hello, sizeof(hello), reply, sizeof(c->f.hdr) + bytes, transcript), 0);
	assert_int_equal(mkv_key_session(c->rig->key, hello.b.nonce, rep->nonce, MKV_DIR_C2S, 0, rep->front_id, transcript, k), 0);
	assert_int_equal(mkv_mac_create(&c->c2s, k), 0);
	assert_int_equal(mkv_key_session(c->rig->key, hello.b.nonce, rep->nonce, MKV_DIR_S2C, 0, rep->front_id, transcript, k), 0);
	assert_int_equal(mkv_mac_create(&c->s2c, k), 0);
	c->counter = 0;
	{
		struct mkv_hdr h;

		rig_frame_make(c, &h, MKV_WIRE_CONNECT, 0, c->next_id++, &conn, sizeof(conn), 0);
		h.key_id = RIG_KEY_ID;
		mkv_mac_sign(c->c2s, &h, MKV_WIRE_SIGNED_BYTES, &conn, sizeof(conn), h.mac);
		rig_write(c, &h, sizeof(h));
		rig_write(c, &conn, sizeof(conn));
	}
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.status, 0);
	c->session = c->f.hdr.session_id;
	assert_true(c->session != 0);
}

/* ---- Bodies and whole operations ------------------------------------------------------------------------------------------- */

static size_t
pad8(uint8_t *b, size_t n)
{
	while (n % 8 != 0)
		b[n++] = 0;
	return (n);
}

size_t
rig_put_body(uint8_t *b, const void *key, size_t key_bytes, const void *val, size_t bytes, uint64_t off, uint64_t total, uint32_t flags)
{
	struct mkv_wire_put w = { .value_bytes = total, .part_off = off, .put_id = 99, .flags = flags, .key_bytes = (uint16_t)key_bytes };
	size_t n = sizeof(w);

	w.n_crcs = flags & MKV_WIRE_PUT_NO_CRC ? 0 : mkv_crc_chunks(bytes);
	memcpy(b, &w, sizeof(w));
	memcpy(b + n, key, key_bytes);
	n = pad8(b, n + key_bytes);
	if (w.n_crcs != 0)
		mkv_crc_chunk_list(val, bytes, (uint32_t *)(void *)(b + n));
	return (pad8(b, n + 4 * w.n_crcs));
}

size_t
rig_get_body(uint8_t *b, const void *key, size_t key_bytes, uint64_t off, uint64_t len)
{
	struct mkv_wire_get w = { .off = off, .len = len, .key_bytes = (uint16_t)key_bytes };

	memcpy(b, &w, sizeof(w));
	memcpy(b + sizeof(w), key, key_bytes);
	return (pad8(b, sizeof(w) + key_bytes));
}

size_t
rig_keys_body(uint8_t *b, const char *fmt, unsigned from, unsigned n)
{
	struct mkv_wire_keys w = { .n_keys = n };
	size_t at = sizeof(w);

	memcpy(b, &w, sizeof(w));
	for (unsigned i = 0; i < n; i++) {
		char key[64];
		int k;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		k = snprintf(key, sizeof(key), fmt, from + i);
#pragma GCC diagnostic pop
		b[at++] = (uint8_t)k;
		b[at++] = 0;
		memcpy(b + at, key, (size_t)k);
		at += (size_t)k;
	}
	return (pad8(b, at));
}

int
rig_put(struct rig_client *c, const char *key, const void *val, size_t bytes)
{
	uint32_t part = c->rig->f->conf.part_bytes;
	uint64_t off = 0, id = c->next_id++;
	uint8_t body[4096];

	do {
		size_t n = MKV_MIN(bytes - off, (size_t)part);
		int more = off + n < bytes;
		size_t b = rig_put_body(body, key, off == 0 ? strlen(key) : 0, (const uint8_t *)val + off, n, off,
		    more ? MKV_WIRE_SIZE_UNKNOWN : bytes, 0);

		rig_send(c, MKV_WIRE_PUT, more ? MKV_WIRE_F_MORE : 0, id, body, b, (const uint8_t *)val + off, n);
		off += n;
	} while (off < bytes);
	if (rig_recv(c, RIG_PATIENCE_MS) != 1)
		return (MKV_E_CLOSED);
	assert_int_equal(c->f.hdr.request_id, id);
	return (-(int)c->f.hdr.status);
}

int
rig_get(struct rig_client *c, const char *key, uint64_t off, uint64_t len, uint8_t *out, size_t *got)
{
	uint8_t body[1024];
	size_t b = rig_get_body(body, key, strlen(key), off, len);
	uint64_t id = rig_send(c, MKV_WIRE_GET, 0, 0, body, b, NULL, 0), at = off;

	*got = 0;
	for (;;) {
		struct mkv_wire_object *o = (void *)c->f.body;
		uint32_t *crc = (void *)(o + 1);
		uint64_t left, p = 0;

		if (rig_recv(c, RIG_PATIENCE_MS) != 1)
			return (MKV_E_CLOSED);
		assert_int_equal(c->f.hdr.request_id, id);
		if (c->f.hdr.status != 0)
			return (-(int)c->f.hdr.status);
		left = c->f.hdr.payload_bytes;
		assert_int_equal(o->off, at);
		for (uint32_t i = 0; i < o->n_crcs; i++) {
			uint64_t n = MKV_MIN(left, MKV_CRC_CHUNK - (at + p) % MKV_CRC_CHUNK);

			assert_int_equal(mkv_crc32c(0, c->f.payload + p, n), crc[i]);
			p += n;
			left -= n;
		}
		assert_int_equal(left, 0);
		memcpy(out + *got, c->f.payload, p);
		*got += p;
		at += p;
		if (!(c->f.hdr.flags & MKV_WIRE_F_MORE))
			return (0);
	}
}

void
rig_fill(uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1103515245 + 12345;
		p[i] = (uint8_t)(seed >> 16);
	}
}

void
rig_client_join(struct rig *r, struct rig_client *c, uint16_t rail)
{
	rig_client_open(r, c);
	c->rail = rail;
	rig_client_handshake(c);
}

void
rig_with(const struct rig_conf *conf, void (*fn)(struct rig *, struct rig_client *))
{
	struct rig r;
	struct rig_client c;

	rig_open(&r, conf);
	rig_client_open(&r, &c);
	rig_client_handshake(&c);
	fn(&r, &c);
	rig_client_close(&c);
	rig_close(&r);
}

void
rig_put_get(struct rig_client *c, const char *key, size_t n)
{
	uint8_t *in = malloc(n + 1), *out = calloc(1, n + 1);
	size_t got;

	assert_non_null(in);
	assert_non_null(out);
	rig_fill(in, n, (uint32_t)n);
	assert_int_equal(rig_put(c, key, in, n), 0);
	assert_int_equal(rig_get(c, key, 0, UINT64_MAX, out, &got), 0);
	assert_int_equal(got, n);
	assert_memory_equal(in, out, n);
	free(in);
	free(out);
}
