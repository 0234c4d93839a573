/*
 * Calls that ask servers rather than keys: warm, list, info.
 *
 * Callers' threads. Owns the reply of the op it has in hand. Foreign bytes: rows and structs are checked before they are used.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "clients/lib/client_priv.h"
#include "clients/lib/rail.h"
#include "common/base/clock.h"

#define LIST_ROWS	1000u

/* Ask one server; the op is done when it comes back, NULL with *err if not. */
static struct op *
ask(struct mkv_client *c, enum op_kind kind, unsigned server, uint64_t deadline_us, int *err)
{
	uint64_t until;
	struct op *o;

	if ((*err = mkv_client_enter(c)) != 0)
		return (NULL);
	if (server >= c->cf.n_servers || (until = mkv_client_deadline(deadline_us)) == 0) {
		*err = MKV_E_INVAL;
		return (NULL);
	}
	if ((o = mkv_op_take(c, until, 1, err)) == NULL)
		return (NULL);
	o->kind = kind;
	o->server = server;
	o->object.server = (int)server;
	return (o);
}

/* ---- warm ---- */

static int
warm_all(struct mkv_client *c, uint64_t deadline_us)
{
	struct op *ops[SERVERS_MAX];
	int err = 0, last = MKV_E_TIMEOUT, good = 0, twice = 0;
	unsigned n = 0;
	uint64_t until;
	struct sink s;

	if ((err = mkv_client_enter(c)) != 0)
		return (err);
	if ((until = mkv_client_deadline(deadline_us)) == 0)
		return (MKV_E_INVAL);
	for (; n < c->cf.n_servers; n++)
		if ((ops[n] = ask(c, OPK_WARM, n, deadline_us, &last)) == NULL)
			break;
	mkv_sink_init(&s, n);
	for (unsigned i = 0; i < n; i++)
		mkv_op_submit(ops[i], &s);
	mkv_sink_wait(&s, ops, n, until);
	mkv_sink_fini(&s);
	for (unsigned i = 0; i < n; i++) {
		err = ops[i] == NULL ? MKV_E_TIMEOUT : (int)MKV_MIN(ops[i]->result, 0);
		good += err == 0;
		twice |= err == MKV_E_CONFIG || atomic_load_explicit(&c->state[i].refused, memory_order_relaxed);
		last = err != 0 ? err : last;
		if (ops[i] != NULL)
			mkv_op_put_back(ops[i]);
	}
	if (twice || good == 0)
		return (twice ? MKV_E_CONFIG : last);
	if ((err = mkv_rails_settle(c, until)) == 0)
		mkv_fabric_warm(c);
	return (err);
}

int
mkv_warm(struct mkv_client *c, uint64_t deadline_us)
{
	int saved = errno, r = warm_all(c, deadline_us);

	errno = saved;
	return (r);
}

/* ---- list ---- */

static int
list_rows(const struct op *o, unsigned n_rows, mkv_list_fn *fn, void *arg, int *stopped)
{
	struct mkv_wire_in in = { .p = (const uint8_t *)o->reply + sizeof(struct mkv_wire_list_reply),
		.end = (const uint8_t *)o->reply + o->reply_bytes };
	struct mkv_list_entry e = { .server = (int)o->server };
	const struct mkv_wire_list_row *w;
	int r = 0;

	for (; n_rows > 0 && r == 0; n_rows--) {
		if ((size_t)(in.end - in.p) < sizeof(*w))
			return (MKV_E_PEER);
		w = (const struct mkv_wire_list_row *)in.p;
		if (w->row_bytes % 8 != 0 || w->row_bytes < sizeof(*w) + w->key_bytes || w->key_bytes == 0 || w->key_bytes > MEMKV_KEY_MAX ||
		    mkv_wire_take(&in, w->row_bytes) == NULL)
			return (MKV_E_PEER);
		e.key = w->key;
		e.key_bytes = w->key_bytes;
		e.value_bytes = w->value_bytes;
		e.put_wall_ms = w->put_wall_ms;
		e.expires_wall_ms = w->expires_wall_ms;
		*stopped = (r = fn(arg, &e)) != 0;
	}
	return (r);
}

/* One page: 0 with the next cursor (0: that was all), the callback's word, or an error. */
static int
list_page(struct mkv_client *c, unsigned server, const void *prefix, size_t prefix_bytes, uint64_t *cursor, mkv_list_fn *fn, void *arg,
    uint64_t deadline_us, int *stopped)
{
	struct mkv_wire_list_reply w;
	unsigned reason;
	int64_t partial;
	struct op *o;
	int r;

	if ((o = ask(c, OPK_LIST, server, deadline_us, &r)) == NULL)
		return (r);
	o->key_bytes = (uint16_t)prefix_bytes;
	if (prefix_bytes > 0)
		memcpy(o->key, prefix, prefix_bytes);
	o->off = *cursor;
	o->len = LIST_ROWS;
	if ((r = mkv_op_set_ns(o, NULL)) != 0) {
		mkv_op_put_back(o);
		return (r);
	}
	if ((o = mkv_op_run_keep(o, &partial, &reason)) == NULL)
		return ((int)partial);
	if ((r = (int)o->result) == 0 && o->reply_bytes < sizeof(w))
		r = MKV_E_PEER;
	if (r == 0) {
		memcpy(&w, o->reply, sizeof(w));
		*cursor = w.cursor;
		r = list_rows(o, w.n_rows, fn, arg, stopped);
	}
	mkv_op_put_back(o);
	return (r);
}

static int
list_all(struct mkv_client *c, const void *prefix, size_t prefix_bytes, mkv_list_fn *fn, void *arg, uint64_t deadline_us)
{
	int r, stopped = 0, err = 0;
	uint64_t cursor;

	if ((r = mkv_client_enter(c)) != 0)
		return (r);
	if (fn == NULL || prefix_bytes > MEMKV_KEY_MAX || (prefix == NULL && prefix_bytes > 0))
		return (MKV_E_INVAL);
	for (unsigned i = 0; i < c->cf.n_servers; i++) {
		cursor = 0;
		do {
			r = list_page(c, i, prefix, prefix_bytes, &cursor, fn, arg, deadline_us, &stopped);
			if (stopped)
				return (r);
		} while (r == 0 && cursor != 0);
		err = r != 0 ? r : err;			/* the others are listed all the same */
	}
	return (err);
}

int
mkv_list(struct mkv_client *c, const void *prefix, size_t prefix_bytes, mkv_list_fn *fn, void *arg, uint64_t deadline_us)
{
	int saved = errno, r = list_all(c, prefix, prefix_bytes, fn, arg, deadline_us);

	errno = saved;
	return (r);
}

/* ---- info ---- */

static void
info_copy(struct mkv_server_info *to, const struct mkv_wire_info *w)
{
	memcpy(to->server_id, w->server_id, sizeof(to->server_id));
	to->total_bytes = w->total_bytes;
	to->used_bytes = w->used_bytes;
	to->objects = w->objects;
	to->uptime_ms = w->uptime_ms;
	to->drives_total = w->drives_total;
	to->drives_online = w->drives_online;
	memcpy(to->version, w->version, sizeof(to->version));
	to->version[sizeof(to->version) - 1] = '\0';
}

/* "1 dc, 2 rc" */
static void
info_rails(const struct server_state *st, char *dst, size_t bytes)
{
	unsigned n = atomic_load_explicit(&st->n_rails, memory_order_relaxed);
	size_t at = 0;

	dst[0] = '\0';
	for (unsigned k = 0; k < 2 * n && at < bytes; k++)
		if (atomic_load_explicit(&st->rail_live[k / 2][k % 2], memory_order_relaxed) > 0)
			at += (size_t)snprintf(dst + at, bytes - at, "%s%u %s", at > 0 ? ", " : "", k / 2 + 1, k % 2 ? "dc" : "rc");
}

static void
info_transport(struct mkv_client *c, unsigned server, struct mkv_server_info *to)
{
	struct server_state *st = &c->state[server];
	int live = atomic_load_explicit(&st->live, memory_order_relaxed) > 0;
	int local = atomic_load_explicit(&st->local, memory_order_relaxed) > 0;

	(void)snprintf(to->transport, sizeof(to->transport), "%s", local ? "local" : live ? "rdma" : "tcp");
	info_rails(st, to->rails, sizeof(to->rails));
	(void)pthread_mutex_lock(&c->mutex);
	if (!live && !local)
		(void)snprintf(to->transport_why, sizeof(to->transport_why), "%.*s", (int)sizeof(to->transport_why) - 1, st->rail_why);
	(void)pthread_mutex_unlock(&c->mutex);
}

static int
info_ask(struct mkv_client *c, unsigned server, uint64_t deadline_us, struct mkv_server_info *info)
{
	struct mkv_wire_info w;
	unsigned reason;
	int64_t partial;
	struct op *o;
	int r;

	if ((o = ask(c, OPK_INFO, server, deadline_us, &r)) == NULL)
		return (r);
	memcpy(info->name, c->cf.server[server].name, sizeof(info->name));
	if ((o = mkv_op_run_keep(o, &partial, &reason)) == NULL)
		return ((int)partial);
	if ((r = (int)o->result) == 0 && o->reply_bytes < sizeof(w))
		r = MKV_E_PEER;
	if (r == 0) {
		memcpy(&w, o->reply, sizeof(w));
		info_copy(info, &w);
		info_transport(c, server, info);
	}
	mkv_op_put_back(o);
	return (r);
}

int
mkv_server_info(struct mkv_client *c, unsigned server, uint64_t deadline_us, struct mkv_server_info *out)
{
	struct mkv_server_info info;
	int saved = errno, r;

	if (out == NULL)
		return (MKV_E_INVAL);
	memset(&info, 0, sizeof(info));
	r = info_ask(c, server, deadline_us, &info);
	info.status = r;
	info.size = MKV_MIN(out->size == 0 ? sizeof(info) : out->size, sizeof(info));
	memcpy(out, &info, info.size);
	errno = saved;
	return (r);
}
