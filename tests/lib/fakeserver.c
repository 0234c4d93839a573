/*
 * A server that can misbehave, for the tests of libmemkv. See fakeserver.h.
 *
 * The test's process: one thread accepts, one thread serves each connection with blocking calls. Owns the threads and the store (fakestore.c).
 * It is a test's helper: bytes that do not fit end the connection, memory that is not there ends the test.
 */
#include "config.h"
#include "tests/lib/fakeserver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/clock.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "proto/wire.h"
#include "tests/lib/fakeserver_priv.h"

const struct fakerail_ops *fakerail;

/* ---- bytes ---- */

static void
freeze(struct fconn *c)
{
	while ((c->f->frozen || (c->local && c->f->local_frozen)) && !c->f->p->quit && !c->over)
		(void)usleep(500);
}

static int
take_bytes(struct fconn *c, void *to, size_t bytes)
{
	uint8_t *p = to;
	ssize_t n;

	while (bytes > 0) {
		freeze(c);
		n = c->local ? fakeregion_recv(c, p, bytes) : recv(c->fd, p, bytes, 0);
		if (n <= 0)
			return (-1);
		p += n;
		bytes -= (size_t)n;
	}
	return (0);
}

static int
give_bytes(struct fconn *c, const void *from, size_t bytes)
{
	const uint8_t *p = from;
	ssize_t n;

	while (bytes > 0) {
		freeze(c);
		n = send(c->fd, p, bytes, MSG_NOSIGNAL);
		if (n <= 0)
			return (-1);
		p += n;
		bytes -= (size_t)n;
	}
	return (0);
}

static int
give_payload(struct fconn *c, const uint8_t *p, size_t bytes)
{
	size_t piece = c->f->piece_bytes, sent = 0, n;

	while (sent < bytes) {
		if (c->f->stall_after != 0 && sent >= c->f->stall_after) {
			while (c->f->stall_after != 0 && !c->f->p->quit && !c->over)
				(void)usleep(500);
		}
		n = piece == 0 ? bytes - sent : MKV_MIN(piece, bytes - sent);
		if (c->f->stall_after != 0 && sent < c->f->stall_after)
			n = MKV_MIN(n, c->f->stall_after - sent);
		if (give_bytes(c, p + sent, n) != 0)
			return (-1);
		sent += n;
		if (piece != 0 && sent < bytes)
			(void)usleep(c->f->piece_us);
	}
	return (0);
}

/* ---- replies ---- */

static int
next_lie(struct fconn *c)
{
	int lie = c->f->lie;

	if (lie == FAKE_TRUTH)
		return (FAKE_TRUTH);
	if (atomic_fetch_sub(&c->f->lies, 1) > 0)
		return (lie);
	c->f->lies = 0;
	return (FAKE_TRUTH);
}

static void
header(struct mkv_hdr *h, const struct mkv_hdr *q, int status, unsigned reason, uint32_t body_bytes, uint64_t payload_bytes)
{
	memset(h, 0, sizeof(*h));
	memcpy(h->magic, "MKV\1", 4);
	h->version = MKV_WIRE_VERSION;
	h->op = q->op;
	h->flags = MKV_WIRE_F_REPLY | (payload_bytes > 0 ? MKV_WIRE_F_PAYLOAD : 0);
	h->request_id = q->request_id;
	h->body_bytes = body_bytes;
	h->payload_bytes = payload_bytes;
	h->status = (uint16_t)-status;
	h->reason = (uint16_t)reason;
}

static void
lie_before_mac(struct mkv_hdr *h, int lie)
{
	h->counter += lie == FAKE_BAD_COUNTER ? 5 : 0;
	h->magic[0] = lie == FAKE_BAD_MAGIC ? 'X' : h->magic[0];
	h->request_id = lie == FAKE_NO_ID ? 0 : h->request_id + (lie == FAKE_BAD_ID ? 1ull << 40 : 0);
	h->session_id += lie == FAKE_BAD_SESSION;
	if (lie == FAKE_BAD_OP)
		h->op = h->op == MKV_WIRE_PUT ? MKV_WIRE_GET : MKV_WIRE_PUT;
	if (lie == FAKE_BIG_BODY || lie == FAKE_SHORT_BODY)
		h->body_bytes = lie == FAKE_BIG_BODY ? 1u << 20 : 0;
}

static int
reply_now(struct fconn *c, struct mkv_hdr *h, const void *body, const uint8_t *payload)
{
	int lie = c->is_rail || h->op == MKV_WIRE_CONNECT ? FAKE_TRUTH : next_lie(c);
	uint32_t body_bytes = h->body_bytes;

	c->replies++;
	if (c->is_rail)
		return (fakerail->reply(c->rail, h, body, payload));
	h->session_id = SESSION_ID;
	h->counter = ++c->counter_out;
	lie_before_mac(h, lie);
	if (fakeregion_place(c, h, body, payload) != 0)
		return (-1);
	if (lie == FAKE_SHORT_BODY)
		body_bytes = 0;
	(void)mkv_mac_sign(c->out, h, MKV_WIRE_SIGNED_BYTES, body, body_bytes, h->mac);
	if (lie == FAKE_BAD_MAC)
		h->mac[3] ^= 1;
	if (lie == FAKE_CUT_HEADER) {
		(void)give_bytes(c, h, 40);
		return (-1);
	}
	if (give_bytes(c, h, sizeof(*h)) != 0 || give_bytes(c, body, body_bytes) != 0)
		return (-1);
	if (lie == FAKE_CUT_PAYLOAD) {
		(void)give_bytes(c, payload, h->payload_bytes / 2);
		return (-1);
	}
	if ((h->flags & MKV_WIRE_F_REMOTE) == 0 && h->payload_bytes > 0 && give_payload(c, payload, h->payload_bytes) != 0)
		return (-1);
	c->f->answered[h->op % 32] += (h->flags & MKV_WIRE_F_MORE) == 0;
	return (0);
}

int
fake_reply(struct fconn *c, struct mkv_hdr *h, const void *body, const uint8_t *payload)
{
	int r;

	if (c->f->delay_us > 0)
		(void)usleep(c->f->delay_us);
	(void)pthread_mutex_lock(&c->out_lock);
	r = reply_now(c, h, body, payload);
	(void)pthread_mutex_unlock(&c->out_lock);
	return (r);
}

static int
reply_status(struct fconn *c, const struct mkv_hdr *q, int status, unsigned reason)
{
	struct mkv_hdr h;

	header(&h, q, status, reason, 0, 0);
	h.deadline_us = (uint32_t)c->f->hint_us;
	return (fake_reply(c, &h, NULL, NULL));
}

static void
object_body(struct mkv_wire_object *w, const struct fake_obj *o)
{
	memset(w, 0, sizeof(*w));
	w->value_bytes = o->bytes;
	w->put_wall_ms = 1234567;
	w->put_id = o->put_id;
	w->flags = o->pin ? MKV_WIRE_PUT_PIN : 0;
}

/* ---- put ---- */

static int
put_whole(struct fconn *c, const struct mkv_hdr *q, const struct mkv_wire_put *w, const char *ns, const uint8_t *key, size_t key_bytes,
    uint8_t *value, size_t bytes)
{
	struct fake_priv *p = c->f->p;
	struct mkv_wire_object *b = (struct mkv_wire_object *)c->reply;
	struct mkv_hdr h;
	struct fake_obj *old;
	int exists;

	(void)pthread_mutex_lock(&p->store.lock);
	old = *fakestore_find(&p->store, ns, key, key_bytes);
	exists = old != NULL && (w->flags & MKV_WIRE_PUT_IF_ABSENT) && old->put_id != w->put_id;
	if (exists)
		free(value);
	else
		fakestore_put(&p->store, ns, key, key_bytes, value, bytes, w->put_id, (w->flags & MKV_WIRE_PUT_PIN) != 0);
	object_body(b, *fakestore_find(&p->store, ns, key, key_bytes));
	(void)pthread_mutex_unlock(&p->store.lock);
	if (exists)
		return (reply_status(c, q, MKV_E_EXISTS, 0));
	header(&h, q, 0, 0, sizeof(*b), 0);
	return (fake_reply(c, &h, b, NULL));
}

static int
put_crcs_good(const struct mkv_wire_put *w, const uint32_t *crcs, const uint8_t *payload, size_t bytes)
{
	if (w->n_crcs == 0)
		return (bytes == 0 || (w->flags & MKV_WIRE_PUT_NO_CRC) != 0);
	if (w->n_crcs != mkv_crc_chunks(bytes))
		return (0);
	for (uint32_t i = 0; i < w->n_crcs; i++)
		if (mkv_crc32c(0, payload + i * MKV_CRC_CHUNK, MKV_MIN(bytes - i * MKV_CRC_CHUNK, MKV_CRC_CHUNK)) != crcs[i])
			return (0);
	return (1);
}

static struct part_put *
part_find(struct fconn *c, uint64_t id)
{
	for (unsigned i = 0; i < PARTS_MAX; i++)
		if (c->part[i].id == id)
			return (&c->part[i]);
	return (NULL);
}

static void
part_free(struct part_put *pp)
{
	free(pp->value);
	memset(pp, 0, sizeof(*pp));
}

static int
put_part(struct fconn *c, const struct mkv_hdr *q, const struct mkv_wire_put *w, struct part_put *pp)
{
	int last = !(q->flags & MKV_WIRE_F_MORE), r;
	struct part_put done;

	c->f->parts++;
	if (q->flags & MKV_WIRE_F_ABORT) {
		c->f->aborts++;
		part_free(pp);
		return (0);
	}
	if (pp->refused) {
		if (last)
			part_free(pp);
		return (0);
	}
	if (w->part_off != pp->bytes || (last && w->value_bytes != pp->bytes + q->payload_bytes))
		return (-1);
	if ((pp->value = realloc(pp->value, pp->bytes + q->payload_bytes + 1)) == NULL)
		return (-1);
	memcpy(pp->value + pp->bytes, c->payload, q->payload_bytes);
	pp->bytes += q->payload_bytes;
	if (!last && c->f->early != 0) {
		pp->refused = 1;
		return (reply_status(c, q, c->f->early, 0));
	}
	if (!last)
		return (0);
	done = *pp;
	memset(pp, 0, sizeof(*pp));
	r = put_whole(c, q, &done.first, done.ns, done.key, done.first.key_bytes, done.value, done.bytes);
	return (r);
}

static int
serve_put(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	struct mkv_wire_put w;
	struct part_put *pp;
	const uint8_t *at = body + sizeof(w);
	char ns[64] = "";
	size_t pad;
	uint8_t *v;

	if (q->body_bytes < sizeof(w))
		return (-1);
	memcpy(&w, body, sizeof(w));
	pad = MKV_ALIGN_UP(sizeof(w) + w.ns_bytes + w.key_bytes + w.parent_bytes, 8);
	if (pad + w.n_crcs * 4 > q->body_bytes)
		return (-1);
	if (!(q->flags & MKV_WIRE_F_ABORT) && !put_crcs_good(&w, (const uint32_t *)(body + pad), c->payload, q->payload_bytes))
		return (reply_status(c, q, MKV_E_CORRUPT, 0));
	c->f->last_put_id = w.put_id;
	c->f->last_ttl_ms = w.ttl_ms;
	c->f->last_flags = w.flags;
	if ((pp = part_find(c, q->request_id)) != NULL)
		return (put_part(c, q, &w, pp));
	if (q->flags & MKV_WIRE_F_ABORT)
		return (0);
	c->f->last_parent_bytes = w.parent_bytes;
	memcpy(ns, at, w.ns_bytes);
	if (q->flags & MKV_WIRE_F_MORE) {
		if ((w.value_bytes != MKV_WIRE_SIZE_UNKNOWN && w.value_bytes < w.part_off + q->payload_bytes) || (pp = part_find(c, 0)) == NULL)
			return (-1);
		pp->id = q->request_id;
		pp->first = w;
		memcpy(pp->ns, ns, sizeof(ns));
		memcpy(pp->key, at + w.ns_bytes, w.key_bytes);
		return (put_part(c, q, &w, pp));
	}
	if (w.value_bytes != q->payload_bytes || (v = malloc(q->payload_bytes + 1)) == NULL)
		return (-1);
	memcpy(v, c->payload, q->payload_bytes);
	return (put_whole(c, q, &w, ns, at + w.ns_bytes, w.key_bytes, v, q->payload_bytes));
}

/* ---- get, stat, report ---- */

static uint32_t
part_crcs(uint32_t *out, uint64_t off, const uint8_t *p, size_t bytes)
{
	uint32_t n = 0;
	size_t step;

	for (; bytes > 0; bytes -= step, p += step, off += step) {
		step = MKV_MIN(bytes, MKV_CRC_CHUNK - off % MKV_CRC_CHUNK);
		out[n++] = mkv_crc32c(0, p, step);
	}
	return (n);
}

static int
give_part(struct fconn *c, const struct mkv_hdr *q, struct mkv_wire_object *w, const uint8_t *value, uint64_t off, size_t bytes, int more)
{
	uint32_t *crcs = (uint32_t *)(w + 1);
	int lie = c->f->lies > 0 ? c->f->lie : FAKE_TRUTH;
	struct mkv_hdr h;

	w->off = off;
	w->n_crcs = part_crcs(crcs, off, value + off, bytes);
	if (w->n_crcs % 2 != 0)
		crcs[w->n_crcs] = 0;
	if (lie == FAKE_BAD_CRC && w->n_crcs > 0)
		crcs[w->n_crcs / 2] ^= 0x10;
	if (lie == FAKE_BAD_OFFSET)
		w->off += 8;
	if (lie == FAKE_TOO_FEW_BYTES)
		w->value_bytes += 100;
	if (lie == FAKE_TOO_MANY_BYTES)
		w->value_bytes -= MKV_MIN(w->value_bytes, 100);
	header(&h, q, 0, 0, (uint32_t)MKV_ALIGN_UP(sizeof(*w) + w->n_crcs * 4, 8), bytes);
	h.flags |= more ? MKV_WIRE_F_MORE : 0;
	return (fake_reply(c, &h, w, value + off));
}

static int
serve_get(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	struct fake_priv *p = c->f->p;
	struct mkv_wire_object *b = (struct mkv_wire_object *)c->reply;
	struct mkv_wire_get w;
	char ns[64] = "";
	uint8_t *copy = NULL;
	struct fake_obj *o;
	struct mkv_hdr h;
	uint64_t end, at;
	int r = 0;

	memcpy(&w, body, sizeof(w));
	memcpy(ns, body + sizeof(w), w.ns_bytes);
	(void)pthread_mutex_lock(&p->store.lock);
	if ((o = *fakestore_find(&p->store, ns, body + sizeof(w) + w.ns_bytes, w.key_bytes)) != NULL) {
		object_body(b, o);
		copy = malloc(o->bytes + 1);
		memcpy(copy, o->value, o->bytes);
	}
	(void)pthread_mutex_unlock(&p->store.lock);
	if (o == NULL)
		return (reply_status(c, q, MKV_E_MISS, MKV_REASON_NEVER));
	header(&h, q, 0, 0, sizeof(*b), 0);
	end = MKV_MIN(b->value_bytes, w.off + w.len);
	if (q->op == MKV_WIRE_REPORT) {
		c->f->report_off = w.off;
		c->f->report_len = w.len;
		r = reply_status(c, q, c->f->report_bad == 0 ? 0 : c->f->report_bad == 1 ? MKV_E_MISS : MKV_E_CORRUPT,
		    c->f->report_bad == 0 ? 0 : c->f->report_bad == 1 ? MKV_REASON_CORRUPT : MKV_REASON_WRITER_CRC);
	} else if (q->op == MKV_WIRE_STAT || w.off >= end)
		r = fake_reply(c, &h, b, NULL);
	for (at = w.off; q->op == MKV_WIRE_GET && at < end && r == 0; at += p->part_bytes)
		r = give_part(c, q, b, copy, at, MKV_MIN(end - at, p->part_bytes), end - at > p->part_bytes);
	free(copy);
	return (r);
}

/* ---- key lists ---- */

static int
list_take(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	struct mkv_wire_keys w;
	uint32_t bytes;

	memcpy(&w, body, sizeof(w));
	c->f->last_ttl_ms = w.ttl_ms;
	if (c->list_n == 0) {
		memset(c->list_ns, 0, sizeof(c->list_ns));
		memcpy(c->list_ns, body + sizeof(w), w.ns_bytes);
	}
	bytes = q->body_bytes - (uint32_t)sizeof(w) - w.ns_bytes;
	if ((c->list = realloc(c->list, c->list_bytes + bytes + 8)) == NULL)
		return (-1);
	body += sizeof(w) + w.ns_bytes;
	for (uint32_t i = 0; i < w.n_keys; i++) {
		uint16_t n;

		memcpy(&n, body, 2);
		memcpy(c->list + c->list_bytes, body, n + 2u);
		c->list_bytes += n + 2u;
		body += n + 2;
	}
	c->list_n += w.n_keys;
	return (0);
}

static int
list_one(struct fconn *c, int op, const uint8_t *key, uint16_t bytes)
{
	struct fake_obj **o = fakestore_find(&c->f->p->store, c->list_ns, key, bytes);
	int there = *o != NULL;

	if (there && op == MKV_WIRE_DELETE)
		fakestore_drop(&c->f->p->store, o);
	return (there ? 1 : MKV_REASON_NEVER << 1);
}

/* Answers in parts of at most 60000 keys. */
static int
list_answer(struct fconn *c, const struct mkv_hdr *q)
{
	struct mkv_wire_keys_reply *b = (struct mkv_wire_keys_reply *)c->reply;
	uint8_t *all = malloc(c->list_n + 1), *key = c->list;
	uint32_t there = 0, prefix = 0, n;
	struct mkv_hdr h;
	int r = 0;

	(void)pthread_mutex_lock(&c->f->p->store.lock);
	for (uint32_t i = 0; i < c->list_n; i++) {
		uint16_t bytes;

		memcpy(&bytes, key, 2);
		all[i] = (uint8_t)list_one(c, q->op, key + 2, bytes);
		there += all[i] & 1;
		prefix += prefix == i && (all[i] & 1);
		key += bytes + 2;
	}
	(void)pthread_mutex_unlock(&c->f->p->store.lock);
	memset(b, 0, sizeof(*b));
	b->n_there = q->op == MKV_WIRE_MATCH ? prefix : there;
	b->reason = prefix < c->list_n ? MKV_REASON_NEVER : 0;
	for (uint32_t at = 0; at < c->list_n && r == 0; at += n) {
		n = q->op == MKV_WIRE_MATCH ? c->list_n : MKV_MIN(c->list_n - at, 60000u);
		b->n_keys = q->op == MKV_WIRE_MATCH ? 0 : n;
		memset(b + 1, 0, MKV_ALIGN_UP(b->n_keys, 8));
		memcpy(b + 1, all + at, b->n_keys);
		header(&h, q, 0, 0, (uint32_t)(sizeof(*b) + MKV_ALIGN_UP(b->n_keys, 8)), 0);
		h.flags |= at + n < c->list_n ? MKV_WIRE_F_MORE : 0;
		r = fake_reply(c, &h, b, NULL);
	}
	free(all);
	c->list_n = c->list_bytes = 0;
	return (r);
}

/* ---- list, info ---- */

static int
serve_list(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	struct mkv_wire_list_reply *b = (struct mkv_wire_list_reply *)c->reply;
	struct mkv_wire_list_row *row = (struct mkv_wire_list_row *)(b + 1);
	struct mkv_wire_list w;
	const uint8_t *prefix;
	uint64_t at = 0;
	struct mkv_hdr h;
	char ns[64] = "";

	memcpy(&w, body, sizeof(w));
	memcpy(ns, body + sizeof(w), w.ns_bytes);
	prefix = body + sizeof(w) + w.ns_bytes;
	memset(b, 0, sizeof(*b));
	(void)pthread_mutex_lock(&c->f->p->store.lock);
	for (struct fake_obj *o = c->f->p->store.head; o != NULL; o = o->next, at++) {
		if (at < w.cursor || strcmp(o->ns, ns) != 0 || o->key_bytes < w.prefix_bytes || memcmp(o->key, prefix, w.prefix_bytes) != 0)
			continue;
		if (b->n_rows == 3) {			/* small pages: cursors are used */
			b->cursor = at;
			break;
		}
		memset(row, 0, sizeof(*row));
		row->key_bytes = (uint16_t)o->key_bytes;
		row->row_bytes = (uint16_t)MKV_ALIGN_UP(sizeof(*row) + o->key_bytes, 8);
		row->value_bytes = o->bytes;
		memcpy(row->key, o->key, o->key_bytes);
		row = (struct mkv_wire_list_row *)((uint8_t *)row + row->row_bytes);
		b->n_rows++;
	}
	(void)pthread_mutex_unlock(&c->f->p->store.lock);
	header(&h, q, 0, 0, (uint32_t)((uint8_t *)row - (uint8_t *)b), 0);
	return (fake_reply(c, &h, b, NULL));
}

static int
serve_info(struct fconn *c, const struct mkv_hdr *q)
{
	struct mkv_wire_info *b = (struct mkv_wire_info *)c->reply;
	struct mkv_hdr h;

	memset(b, 0, sizeof(*b));
	memcpy(b->server_id, c->f->p->id, 16);
	b->total_bytes = 1u << 30;
	b->objects = fake_objects(c->f);
	b->drives_total = b->drives_online = 1;
	memcpy(b->version, "fake", 5);
	header(&h, q, 0, 0, sizeof(*b), 0);
	return (fake_reply(c, &h, b, NULL));
}

/* ---- sessions ---- */

static int
serve_attach(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	struct mkv_wire_attach *b = (struct mkv_wire_attach *)c->reply;
	struct mkv_hdr h;
	int status;

	if (c->f->attach_mute)
		return (0);
	if ((status = c->f->attach_status) == 0)
		status = fakerail == NULL ? MKV_E_UNSUPPORTED : fakerail->attach(c, (const struct mkv_wire_attach *)(const void *)body, b);
	header(&h, q, status, 0, status == 0 ? sizeof(*b) : 0, 0);
	return (fake_reply(c, &h, b, NULL));
}

int
fake_serve(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	if (q->op < 32)
		c->f->requests[q->op]++;
	c->f->local_requests += (unsigned)c->local;
	if (q->flags & MKV_WIRE_F_RESEND)
		c->f->resends++;
	c->f->last_ack = q->ack_below;
	if (c->f->mute)
		return (0);
	if (c->f->hang_up > 0) {
		c->f->hang_up--;
		return (-1);
	}
	if (c->f->statuses > 0 && q->op != MKV_WIRE_CANCEL) {
		c->f->statuses--;
		return (reply_status(c, q, c->f->status, 0));
	}
	switch ((enum mkv_wire_op)q->op) {
	case MKV_WIRE_PUT:
		return (serve_put(c, q, body));
	case MKV_WIRE_GET:
	case MKV_WIRE_STAT:
	case MKV_WIRE_REPORT:
		return (serve_get(c, q, body));
	case MKV_WIRE_EXISTS:
	case MKV_WIRE_DELETE:
	case MKV_WIRE_TOUCH:
	case MKV_WIRE_MATCH:
		if (list_take(c, q, body) != 0)
			return (-1);
		return (q->flags & MKV_WIRE_F_MORE ? 0 : list_answer(c, q));
	case MKV_WIRE_LIST:
		return (serve_list(c, q, body));
	case MKV_WIRE_INFO:
		return (serve_info(c, q));
	case MKV_WIRE_PING:
	case MKV_WIRE_CANCEL:
		return (reply_status(c, q, 0, 0));
	case MKV_WIRE_ATTACH:
		return (serve_attach(c, q, body));
	case MKV_WIRE_REGION:
		return (fakeregion_serve(c, q, body));
	default:
		return (-1);
	}
}

static int
shake_hello(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	struct fake_priv *p = c->f->p;
	struct {
		struct mkv_hdr h;
		struct mkv_wire_hello_reply b;
		struct mkv_wire_rail rail[MKV_WIRE_RAILS_MAX];
		struct mkv_wire_local local;
	} r;
	uint8_t front[32], *transcript = c->transcript, key[32];
	uint32_t bytes;

	if (q->op != MKV_WIRE_HELLO || q->body_bytes != sizeof(struct mkv_wire_hello))
		return (-1);
	if (((const struct mkv_wire_hello *)body)->rail != 0)
		c->f->rail_hellos++;
	if ((c->f->rail_deaf << 1 >> ((const struct mkv_wire_hello *)body)->rail & 1) != 0)
		return (0);
	memcpy(c->transcript_in, q, sizeof(*q));
	memcpy(c->transcript_in + sizeof(*q), body, q->body_bytes);
	memcpy(c->nonce_c, ((const struct mkv_wire_hello *)body)->nonce, 32);
	memset(&r, 0, sizeof(r));
	r.b.n_rails = (uint16_t)(fakerail == NULL ? 0 : fakerail->list(c->f, r.rail));
	bytes = (uint32_t)(sizeof(r.b) + r.b.n_rails * sizeof(r.rail[0]));
	if (c->f->local != 0) {
		fake_hello_local(c->f, (uint8_t *)&r + sizeof(r.h) + bytes);
		r.b.features |= MKV_FEATURE_LOCAL;
		bytes += (uint32_t)sizeof(r.local) - (c->f->local == 5 ? 8 : 0);
	}
	r.b.features |= c->local && c->f->regions ? MKV_FEATURE_REGIONS : 0;
	r.b.features |= c->local && c->f->regions_stable ? MKV_FEATURE_STABLE : 0;
	header(&r.h, q, 0, 0, bytes, 0);
	if ((c->f->rail_down << 1 >> ((const struct mkv_wire_hello *)body)->rail & 1) != 0) {
		header(&r.h, q, MKV_E_UNREACHABLE, 0, 0, 0);
		(void)give_bytes(c, &r.h, sizeof(r.h));
		return (-1);
	}
	r.b.version = MKV_WIRE_VERSION;
	r.b.front_id = FRONT_ID;
	r.b.part_bytes = p->part_bytes;
	r.b.credits = p->credits;
	r.b.value_max = MKV_WIRE_VALUE_MAX;
	memcpy(r.b.server_id, p->id, 16);
	r.b.server_id[0] ^= c->local && c->f->local_stranger;
	(void)mkv_random(r.b.nonce, 32);
	memcpy(c->nonce_s, r.b.nonce, 32);
	bytes += (uint32_t)sizeof(r.h);
	if (mkv_sha256(c->transcript_in, sizeof(c->transcript_in), &r, bytes, transcript) != 0 || mkv_key_front(p->cred, FRONT_ID, front) != 0 ||
	    mkv_key_session(front, c->nonce_c, r.b.nonce, MKV_DIR_C2S, 0, FRONT_ID, transcript, key) != 0 || mkv_mac_create(&c->in, key) != 0 ||
	    mkv_key_session(front, c->nonce_c, r.b.nonce, MKV_DIR_S2C, 0, FRONT_ID, transcript, key) != 0 || mkv_mac_create(&c->out, key) != 0)
		return (-1);
	return (give_bytes(c, &r, bytes));
}

static int
shake_connect(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	struct mkv_wire_connect b = { .session_id = SESSION_ID, .credits = c->f->p->credits };
	struct mkv_hdr h;

	if (q->op != MKV_WIRE_CONNECT || q->counter != 1)
		return (-1);
	if (c->f->refuse_key || q->key_id != c->f->p->key_id ||
	    mkv_mac_check(c->in, q, MKV_WIRE_SIGNED_BYTES, body, q->body_bytes, q->mac) != 0) {
		header(&h, q, MKV_E_AUTH, 0, 0, 0);
		(void)give_bytes(c, &h, sizeof(h));
		return (-1);
	}
	c->counter_in = 1;
	c->f->sessions++;
	header(&h, q, 0, 0, sizeof(b), 0);
	return (fake_reply(c, &h, &b, NULL));
}

/* One frame: header and body checked, payload taken. */
static int
take_frame(struct fconn *c, struct mkv_hdr *q, int in_session)
{
	if (take_bytes(c, q, sizeof(*q)) != 0 || mkv_wire_hdr_check(q, 0, in_session) != 0 || take_bytes(c, c->body, q->body_bytes) != 0)
		return (-1);
	if (!in_session)
		return (0);
	if (mkv_mac_check(c->in, q, MKV_WIRE_SIGNED_BYTES, c->body, q->body_bytes, q->mac) != 0 || q->counter != c->counter_in + 1 ||
	    q->session_id != SESSION_ID)
		return (-1);
	c->counter_in++;
	return (q->payload_bytes == 0 || (q->flags & MKV_WIRE_F_REMOTE) ? 0 : take_bytes(c, c->payload, q->payload_bytes));
}

static int
serve_frame(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	if ((q->flags & MKV_WIRE_F_REMOTE) == 0)
		return (fake_serve(c, q, body));
	return (c->local ? fakeregion_frame(c, q, body) : fakerail->frame(c, q, body));
}

static void *
fconn_main(void *arg)
{
	struct fconn *c = arg;
	struct mkv_hdr q;

	if (take_frame(c, &q, 0) == 0 && shake_hello(c, &q, (uint8_t *)c->body) == 0 && take_frame(c, &q, 0) == 0 &&
	    shake_connect(c, &q, (uint8_t *)c->body) == 0)
		while (take_frame(c, &q, 1) == 0 && serve_frame(c, &q, (uint8_t *)c->body) == 0)
			continue;
	(void)shutdown(c->fd, SHUT_RDWR);
	if (fakerail != NULL)
		fakerail->end(c);
	c->over = 1;
	return (NULL);
}

void
fake_fconn_clean(struct fconn *c)
{
	mkv_mac_destroy(&c->in);
	mkv_mac_destroy(&c->out);
	for (unsigned i = 0; i < PARTS_MAX; i++)
		free(c->part[i].value);
	fakeregion_clean(c);
	free(c->list);
	free(c->payload);
	free(c);
}

static void
fconn_free(struct fconn *c)
{
	(void)pthread_join(c->thread, NULL);
	(void)close(c->fd);
	fake_fconn_clean(c);
}

/* ---- the server ---- */

void
fake_add(struct fake *f, int fd, int local)
{
	struct fake_priv *p = f->p;
	struct fconn *c = calloc(1, sizeof(*c));
	unsigned i;

	MKV_ASSERT(c != NULL);
	c->f = f;
	c->fd = fd;
	c->local = local;
	c->payload = malloc(MKV_WIRE_PART_MAX);
	(void)pthread_mutex_init(&c->out_lock, NULL);
	f->connections++;
	f->local_connections += (unsigned)local;
	(void)pthread_mutex_lock(&p->lock);
	for (i = 0; i < CONNS_MAX && p->conn[i] != NULL && !p->conn[i]->over; i++)
		continue;
	MKV_ASSERT(i < CONNS_MAX);
	if (p->conn[i] != NULL)
		fconn_free(p->conn[i]);
	p->conn[i] = c;
	MKV_ASSERT(pthread_create(&c->thread, NULL, fconn_main, c) == 0);
	(void)pthread_mutex_unlock(&p->lock);
}

int
fake_open(struct fake *f, const struct fake_opts *opts)
{
	static const struct fake_opts none;
	struct fake_priv *p = calloc(1, sizeof(*p));

	opts = opts == NULL ? &none : opts;
	memset(f, 0, sizeof(*f));
	f->p = p;
	mkv_crc_init();
	if (p == NULL || mkv_auth_init() != 0 || (opts->auth_key == NULL ? mkv_key_dev(p->cred) : mkv_key_parse(opts->auth_key, p->cred)) != 0)
		return (-1);
	p->key_id = opts->auth_key == NULL ? MKV_KEY_ID_DEV : mkv_key_id(p->cred);
	p->part_bytes = opts->part_bytes == 0 ? MKV_WIRE_PART_MAX : opts->part_bytes;
	p->credits = opts->credits == 0 ? 256 : opts->credits;
	if (opts->server_id != 0)
		memset(p->id, opts->server_id, 16);
	else
		(void)mkv_random(p->id, 16);
	(void)pthread_mutex_init(&p->lock, NULL);
	fakestore_init(&p->store);
	p->local_fd = -1;
	if (opts->local_path != NULL)
		(void)snprintf(p->local_path, sizeof(p->local_path), "%s", opts->local_path);
	if (fake_listen(p, opts->port) != 0 || (opts->local_path != NULL && fake_local_back(f) != 0))
		return (-1);
	return (pthread_create(&p->thread, NULL, fake_main, f) == 0 ? 0 : -1);
}

void
fake_store(struct fake *f, const char *ns, const void *key, size_t key_bytes, const void *value, size_t bytes)
{
	uint8_t *copy = malloc(bytes + 1);

	MKV_ASSERT(copy != NULL);
	memcpy(copy, value, bytes);
	(void)pthread_mutex_lock(&f->p->store.lock);
	fakestore_put(&f->p->store, ns, key, key_bytes, copy, bytes, 0, 0);
	(void)pthread_mutex_unlock(&f->p->store.lock);
}

size_t
fake_load(struct fake *f, const char *ns, const void *key, size_t key_bytes, void *value, size_t room, int *there)
{
	struct fake_obj *o;
	size_t n = 0;

	(void)pthread_mutex_lock(&f->p->store.lock);
	o = *fakestore_find(&f->p->store, ns, key, key_bytes);
	*there = o != NULL;
	if (o != NULL) {
		n = o->bytes;
		memcpy(value, o->value, MKV_MIN(n, room));
	}
	(void)pthread_mutex_unlock(&f->p->store.lock);
	return (n);
}

unsigned
fake_objects(struct fake *f)
{
	unsigned n;

	(void)pthread_mutex_lock(&f->p->store.lock);
	n = f->p->store.n;
	(void)pthread_mutex_unlock(&f->p->store.lock);
	return (n);
}

unsigned
fake_port(const struct fake *f)
{
	return (f->p->port);
}

void
fake_drop_all(struct fake *f)
{
	(void)pthread_mutex_lock(&f->p->lock);
	for (unsigned i = 0; i < CONNS_MAX; i++)
		if (f->p->conn[i] != NULL)
			fakeregion_leave(f->p->conn[i]);
	for (unsigned i = 0; i < CONNS_MAX; i++)
		if (f->p->conn[i] != NULL)
			(void)shutdown(f->p->conn[i]->fd, SHUT_RDWR);
	(void)pthread_mutex_unlock(&f->p->lock);
}

void
fake_close(struct fake *f)
{
	struct fake_priv *p = f->p;

	p->quit = 1;
	(void)pthread_join(p->thread, NULL);
	if (p->local_fd >= 0)
		fake_local_away(f);
	fake_drop_all(f);
	for (unsigned i = 0; i < CONNS_MAX; i++)
		if (p->conn[i] != NULL)
			fconn_free(p->conn[i]);
	fakeregion_late();
	fakestore_fini(&p->store);
	(void)close(p->fd);
	while (p->n_local_old > 0)
		(void)close(p->local_old[--p->n_local_old]);
	(void)pthread_mutex_destroy(&p->lock);
	free(p);
	f->p = NULL;
}
