/*
 * memkv-front, loop thread: the handshake and the checks of every later frame (docs/internals/crypto.md, proto/wire.h). Owns a connection's keys, nonces and counters;
 * a session lives and dies with its connection and is known to no other process. Results: 0 go on; PROTO, VERSION close; AUTH close, counted as such.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"

#define SESSION_FEATURES	MKV_FEATURE_PARTS
#define SESSION_AGAIN_US	200000u		/* a rail that is away or has its hands full: when to ask again */

static void
session_hello_sent(struct mkv_out *o, int res)
{
	(void)res;		/* a failed send closes the connection by itself */
	mkv_conn_kick(o->owner);
}

static void
session_last_sent(struct mkv_out *o, int res)
{
	(void)res;
	mkv_conn_close(o->owner);
}

static void
session_header(struct mkv_conn *c, struct mkv_hdr *out, uint8_t op, uint32_t body_bytes, int status)
{
	*out = (struct mkv_hdr){ .magic = MKV_WIRE_MAGIC, .version = MKV_WIRE_VERSION, .op = op, .flags = MKV_WIRE_F_REPLY, .request_id = c->hdr.request_id,
		.body_bytes = body_bytes, .key_id = c->hdr.key_id, .status = (uint16_t)-status };
}

/* A last word in clear, then the end. The client takes it for a closed connection with a reason. */
static void
session_say_last(struct mkv_conn *c, uint8_t op, int status)
{
	struct mkv_out *o = &c->hs_out;

	memset(o, 0, sizeof(*o));
	session_header(c, &o->hdr, op, 0, status);
	if (status == MKV_E_UNREACHABLE || status == MKV_E_BUSY)
		o->hdr.deadline_us = SESSION_AGAIN_US;
	o->owner = c;
	o->done = session_last_sent;
	o->sealed = 1;
	o->until_ns = mkv_now_ns() + c->f->conf.handshake_ns;
	c->state = CONN_LAST;
	mkv_conn_send(c, o);
}

/* Behind the rails: returns how many bytes. */
static uint32_t
session_local(const struct mkv_front *f, uint8_t *to)
{
	struct mkv_wire_local w = { 0 };

	if (f->conf.local_path[0] == '\0')
		return (0);
	memcpy(w.host_id, f->conf.host_id, sizeof(w.host_id));
	memcpy(w.path, f->conf.local_path, sizeof(w.path));
	w.path[sizeof(w.path) - 1] = '\0';
	memcpy(to, &w, sizeof(w));
	return (sizeof(w));
}

static void
session_hello_reply(struct mkv_conn *c)
{
	const struct mkv_front *f = c->f;
	struct mkv_wire_hello_reply *b = &c->hs.hello.body;
	uint32_t rdma, bytes;

	memset(&c->hs.hello, 0, sizeof(c->hs.hello));
	b->n_rails = (uint16_t)mkv_doors_list(f, c->hs.hello.rail, &rdma);
	bytes = (uint32_t)(sizeof(*b) + b->n_rails * sizeof(struct mkv_wire_rail));
	bytes += session_local(f, (uint8_t *)&c->hs.hello + sizeof(c->hs.hello.hdr) + bytes);
	session_header(c, &c->hs.hello.hdr, MKV_WIRE_HELLO, bytes, 0);
	b->version = MKV_WIRE_VERSION;
	b->features = SESSION_FEATURES | rdma | (f->conf.local_path[0] != '\0' ? MKV_FEATURE_LOCAL : 0);
	if (c->local && f->conf.regions_bytes != 0)
		b->features |= MKV_FEATURE_REGIONS | (f->conf.lend != NULL && !f->conf.memory_mode ? MKV_FEATURE_STABLE : 0);
	b->front_id = f->conf.front_id;
	b->epoch = f->conf.epoch;
	b->map_version = f->map_version;
	b->part_bytes = f->conf.part_bytes;
	b->credits = f->conf.inflight_max;
	b->value_max = mkv_front_value_max(f);
	memcpy(b->server_id, f->conf.server_id, sizeof(b->server_id));
	memcpy(b->nonce, c->s.nonce_s, sizeof(b->nonce));
}

/* The client wants a rail, whose front does all the rest; also when this one has no room for another session. */
static int
session_other_rail(struct mkv_conn *c, uint16_t rail)
{
	int r = mkv_doors_pass(c, rail);

	if (r == MKV_E_CLOSED)
		mkv_conn_close(c);
	else if (r != 0)
		session_say_last(c, MKV_WIRE_HELLO, r);
	return (0);
}

int
mkv_session_hello(struct mkv_conn *c, const struct mkv_hdr *h, const void *body)
{
	const struct mkv_wire_hello *b = body;
	struct mkv_out *o = &c->hs_out;
	int r;

	if (h->op != MKV_WIRE_HELLO || h->body_bytes != sizeof(*b) || h->session_id != 0)
		return (MKV_E_PROTO);
	if (b->rail != c->f->conf.rail)
		return (session_other_rail(c, b->rail));
	if (c->crowded) {
		session_say_last(c, MKV_WIRE_HELLO, MKV_E_BUSY);
		return (0);
	}
	if (b->version_min > MKV_WIRE_VERSION || b->version_max < MKV_WIRE_VERSION) {
		session_say_last(c, MKV_WIRE_HELLO, MKV_E_VERSION);
		return (0);
	}
	if ((r = mkv_random(c->s.nonce_s, sizeof(c->s.nonce_s))) != 0)
		return (r);
	memcpy(c->s.nonce_c, b->nonce, sizeof(c->s.nonce_c));
	memcpy(c->who.client, b->client_id, sizeof(c->who.client));
	session_hello_reply(c);
	/* The frame as it lies in the receive buffer, header and body in one run. */
	if ((r = mkv_sha256((const uint8_t *)body - MKV_WIRE_HDR_BYTES, MKV_WIRE_HDR_BYTES + h->body_bytes,
	    &c->hs.hello, MKV_WIRE_HDR_BYTES + c->hs.hello.hdr.body_bytes, c->s.transcript)) != 0)
		return (r);
	memset(o, 0, sizeof(*o));
	o->hdr = c->hs.hello.hdr;
	o->body = &c->hs.hello.body;
	o->done = session_hello_sent;
	o->owner = c;
	o->sealed = 1;
	o->until_ns = mkv_now_ns() + c->f->conf.handshake_ns;
	c->state = CONN_CONNECT;
	mkv_conn_send(c, o);
	return (0);
}

static int
session_keys(struct mkv_conn *c, const uint8_t front_key[32])
{
	struct mkv_session *s = &c->s;
	uint8_t k[32];
	int r;

	if ((r = mkv_key_session(front_key, s->nonce_c, s->nonce_s, MKV_DIR_C2S, 0, c->f->conf.front_id, s->transcript, k)) == 0)
		r = mkv_mac_create(&s->mac_in, k);
	if (r == 0 && (r = mkv_key_session(front_key, s->nonce_c, s->nonce_s, MKV_DIR_S2C, 0, c->f->conf.front_id, s->transcript, k)) == 0)
		r = mkv_mac_create(&s->mac_out, k);
	mkv_wipe(k, sizeof(k));
	return (r);
}

static int
session_new_id(uint64_t *id)
{
	int r = 0;

	*id = 0;
	while (r == 0 && *id == 0)
		r = mkv_random(id, sizeof(*id));
	return (r);
}

/* By the kernel's word. A process that is in another namespace has the number 0. */
static void
session_log_local(const struct mkv_conn *c)
{
	uid_t uid;
	pid_t pid;

	if (c->local && mkv_os_peer(c->fd, &uid, &pid) == 0)
		mkv_log(MKV_EV_SESSION_LOCAL, "session=%" PRIx64 " uid=%u client_pid=%d", c->s.id, (unsigned)uid, (int)pid);
}

static void
session_connect_reply(struct mkv_conn *c)
{
	struct mkv_out *o = &c->hs_out;

	memset(&c->hs.connect, 0, sizeof(c->hs.connect));
	c->hs.connect.session_id = c->s.id;
	c->hs.connect.features = SESSION_FEATURES;
	c->hs.connect.credits = c->f->conf.inflight_max;
	memset(o, 0, sizeof(*o));
	session_header(c, &o->hdr, MKV_WIRE_CONNECT, sizeof(c->hs.connect), 0);
	o->body = &c->hs.connect;
	o->done = session_hello_sent;
	o->owner = c;
	o->until_ns = mkv_now_ns() + c->f->conf.handshake_ns;
	mkv_conn_send(c, o);
}

int
mkv_session_connect(struct mkv_conn *c, const struct mkv_hdr *h, const void *body)
{
	const struct mkv_front_key_row *k;
	struct mkv_session *s = &c->s;
	int r;

	if (h->op != MKV_WIRE_CONNECT || h->body_bytes != sizeof(struct mkv_wire_connect) || h->session_id != 0 || h->channel != 0 ||
	    h->counter != 1)
		return (MKV_E_PROTO);
	k = mkv_auth_key(c->f, h->key_id, c->loopback);
	r = k != NULL ? session_keys(c, k->key) : MKV_E_AUTH;
	if (r == 0)
		r = mkv_mac_check(s->mac_in, h, MKV_WIRE_SIGNED_BYTES, body, h->body_bytes, h->mac);
	if (r == MKV_E_AUTH)
		session_say_last(c, MKV_WIRE_CONNECT, MKV_E_AUTH);
	if (r != 0)
		return (r);
	if ((r = session_new_id(&s->id)) != 0)
		return (r);
	s->key_id = h->key_id;
	c->who.session = s->id;
	c->who.key_id = s->key_id;
	s->counter_in = h->counter;
	c->state = CONN_OPEN;
	c->f->n_sessions++;
	mkv_metric_add(c->f->m, MKV_M_front_sessions_opened_total, 0, 1);
	mkv_log(MKV_EV_SESSION_OPEN, "session=%" PRIx64 " key_id=%u", s->id, s->key_id);
	session_log_local(c);
	if (c->local && c->f->conf.regions_bytes != 0)
		mkv_os_pass_rights(c->fd, 1);
	session_connect_reply(c);
	return (0);
}

int
mkv_session_check(struct mkv_conn *c, const struct mkv_hdr *h, const void *body)
{
	struct mkv_session *s = &c->s;
	int r;

	if ((r = mkv_mac_check(s->mac_in, h, MKV_WIRE_SIGNED_BYTES, body, h->body_bytes, h->mac)) != 0)
		return (r);
	/* An ordered channel: a repeated, missing or foreign frame is an attack or a broken client. */
	if (h->counter != s->counter_in + 1 || h->session_id != s->id || h->channel != 0)
		return (MKV_E_AUTH);
	s->counter_in++;
	return (0);
}

void
mkv_session_close(struct mkv_session *s)
{
	mkv_mac_destroy(&s->mac_in);
	mkv_mac_destroy(&s->mac_out);
	mkv_wipe(s, sizeof(*s));
}
