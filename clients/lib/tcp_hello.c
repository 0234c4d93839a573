/*
 * The handshake of a connection (proto/wire.h): HELLO in clear, then CONNECT both ways, each side proving that it has the key.
 *
 * The loop's thread. Owns the connection's keys from here to its end; secrets are wiped from the stack.
 * Fails: MKV_E_AUTH (the server does not accept our key, or cannot prove its own), MKV_E_VERSION, MKV_E_PROTO, MKV_E_CONFIG (the same server under
 * two names): all end the connection and count as a failure of the server. A refusal is not signed, so it is taken as a reason to show, not as the
 * truth.
 */
#include "config.h"

#include <string.h>

#include "clients/lib/tcp_priv.h"
#include "common/base/clock.h"

void
mkv_conn_header(struct mkv_hdr *h, uint8_t op, uint64_t id, uint64_t deadline_us)
{
	*h = (struct mkv_hdr){ .magic = MKV_WIRE_MAGIC, .version = MKV_WIRE_VERSION, .op = op, .request_id = id,
		.deadline_us = (uint32_t)MKV_MAX(1, MKV_MIN(deadline_us, MKV_WIRE_DEADLINE_MAX_US)) };
}

static uint64_t
hello_deadline_us(const struct conn *c)
{
	return (c->srv->loop->c->cf.connect_timeout_ns / MKV_NS_PER_US);
}

static uint32_t
hello_features(const struct conn *c)
{
	const struct conf *cf = &c->srv->loop->c->cf;

	return (MKV_FEATURE_PARTS | (mkv_rail_wanted(cf) ? MKV_FEATURE_RDMA_RC : 0) | (c->local && cf->local_window > 0 ? MKV_FEATURE_REGIONS : 0));
}

void
mkv_conn_say_hello(struct conn *c)
{
	struct mkv_hdr *h = (struct mkv_hdr *)c->tx_buf;
	struct mkv_wire_hello *b = (struct mkv_wire_hello *)(h + 1);

	if (mkv_random(c->nonce, sizeof(c->nonce)) != 0) {
		mkv_conn_fail(c, MKV_E_SYSTEM);
		return;
	}
	mkv_conn_header(h, MKV_WIRE_HELLO, 1, hello_deadline_us(c));
	h->body_bytes = sizeof(*b);
	memset(b, 0, sizeof(*b));
	b->version_min = b->version_max = MKV_WIRE_VERSION;
	b->rail = mkv_rails_number(c);
	b->features = hello_features(c);
	memcpy(b->client_id, c->srv->loop->c->client_id, sizeof(b->client_id));
	memcpy(b->nonce, c->nonce, sizeof(b->nonce));
	memcpy(c->transcript_in, c->tx_buf, sizeof(c->transcript_in));
	c->state = CONN_HELLO;
	mkv_conn_tx_raw(c, sizeof(*h) + sizeof(*b));
	mkv_conn_rx_start(c);
}

static int
hello_keys(struct conn *c, const struct mkv_wire_hello_reply *r, const uint8_t transcript[32])
{
	const struct conf *cf = &c->srv->loop->c->cf;
	uint8_t front[MKV_KEY_BYTES], key[MKV_KEY_BYTES];
	int e;

	if ((e = mkv_key_front(cf->cred, r->front_id, front)) == 0 &&
	    (e = mkv_key_session(front, c->nonce, r->nonce, MKV_DIR_C2S, 0, r->front_id, transcript, key)) == 0 &&
	    (e = mkv_mac_create(&c->mac_tx, key)) == 0 &&
	    (e = mkv_key_session(front, c->nonce, r->nonce, MKV_DIR_S2C, 0, r->front_id, transcript, key)) == 0)
		e = mkv_mac_create(&c->mac_rx, key);
	mkv_wipe(front, sizeof(front));
	mkv_wipe(key, sizeof(key));
	return (e);
}

static void
say_connect(struct conn *c)
{
	struct mkv_hdr *h = (struct mkv_hdr *)c->tx_buf;
	struct mkv_wire_connect *b = (struct mkv_wire_connect *)(h + 1);

	mkv_conn_header(h, MKV_WIRE_CONNECT, 2, hello_deadline_us(c));
	h->key_id = c->srv->loop->c->cf.key_id;
	h->body_bytes = sizeof(*b);
	memset(b, 0, sizeof(*b));
	b->features = hello_features(c);
	mkv_conn_seal(c, h, (const uint8_t *)b);
	c->state = CONN_AUTH;
	mkv_conn_tx_raw(c, sizeof(*h) + sizeof(*b));
}

static int
hello_status(const struct mkv_hdr *h)
{
	int status = -(int)h->status;

	return (status == 0 || !mkv_err_known(status) ? MKV_E_PROTO : status);
}

/* Kept until the server has proven itself. */
static void
hello_local(struct conn *c, const struct mkv_wire_hello_reply *r, uint32_t body_bytes, const uint8_t *body)
{
	const size_t at = sizeof(*r) + r->n_rails * sizeof(struct mkv_wire_rail);

	c->has_told = (r->features & MKV_FEATURE_LOCAL) != 0 && body_bytes >= at + sizeof(c->told);
	if (c->has_told)
		memcpy(&c->told, body + at, sizeof(c->told));
}

int
mkv_conn_heard_hello(struct conn *c, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_wire_hello_reply r;
	int e;

	if (h->op != MKV_WIRE_HELLO || h->request_id != 1 || c->tx_busy)
		return (MKV_E_PROTO);
	if (h->status != 0)
		return (hello_status(h));
	if (h->body_bytes < sizeof(r))
		return (MKV_E_PROTO);
	memcpy(&r, body, sizeof(r));
	if (r.version != MKV_WIRE_VERSION)
		return (MKV_E_VERSION);
	if (r.part_bytes == 0 || r.part_bytes > MKV_WIRE_PART_MAX || r.part_bytes % MKV_CRC_CHUNK != 0 || r.credits == 0)
		return (MKV_E_PROTO);
	if (r.n_rails > MKV_WIRE_RAILS_MAX || h->body_bytes < sizeof(r) + r.n_rails * sizeof(struct mkv_wire_rail))
		return (MKV_E_PROTO);
	/* Header and body lie in one run in the receive buffer. */
	if ((e = mkv_sha256(c->transcript_in, sizeof(c->transcript_in), body - MKV_WIRE_HDR_BYTES, MKV_WIRE_HDR_BYTES + h->body_bytes,
	    c->transcript)) != 0 || (e = hello_keys(c, &r, c->transcript)) != 0)
		return (e);
	memcpy(c->nonce_s, r.nonce, sizeof(c->nonce_s));
	c->front_id = r.front_id;
	if (!c->local)
		mkv_rails_told(c, body + sizeof(r), r.n_rails);
	hello_local(c, &r, h->body_bytes, body);
	c->ref.on = (r.features & hello_features(c) & MKV_FEATURE_REGIONS) != 0;
	c->ref.stable = (r.features & MKV_FEATURE_STABLE) != 0;
	c->part_bytes = r.part_bytes;
	c->credits = r.credits;
	memcpy(c->server_id, r.server_id, sizeof(c->server_id));
	say_connect(c);
	return (0);
}

int
mkv_conn_heard_auth(struct conn *c, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_wire_connect r;
	int e;

	if (h->op != MKV_WIRE_CONNECT || h->request_id != 2 || c->tx_busy)
		return (MKV_E_PROTO);
	if (h->status != 0)
		return (hello_status(h));
	if (h->body_bytes != sizeof(r) || h->counter != 1)
		return (MKV_E_PROTO);
	if ((e = mkv_mac_check(c->mac_rx, h, MKV_WIRE_SIGNED_BYTES, body, h->body_bytes, h->mac)) != 0)
		return (e);
	memcpy(&r, body, sizeof(r));
	if (r.session_id == 0)
		return (MKV_E_PROTO);
	c->session_id = r.session_id;
	c->rx_counter = 1;
	if (r.credits != 0)
		c->credits = r.credits;
	if ((e = mkv_local_check(c)) != 0 || (e = mkv_client_identity(c->srv->loop->c, c->srv->idx, c->server_id)) != 0)
		return (e);
	mkv_local_told(c, c->has_told ? &c->told : NULL);
	mkv_conn_ready(c);
	return (0);
}
