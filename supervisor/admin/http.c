/*
 * Process: supervisor, loop thread. HTTP on libwebsockets, whose sockets live on our libuv loop.
 * Owns: the context, and for each request the body until it is sent or the connection ends.
 * Foreign bytes: whatever libwebsockets lets through; methods and paths are compared with a table, nothing else is looked at. Connections,
 * header times and idle times are bounded, so a client that stalls holds one slot for a while and no more.
 * What can fail: the port at start; later a single connection.
 */
#include "config.h"

#include "supervisor/admin/admin_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libwebsockets.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "supervisor/sup_priv.h"

#define HTTP_CHUNK		16384u
#define HTTP_CONNS_MAX		128u
#define HTTP_HEADER_S		5u
#define HTTP_IDLE_S		30

struct admin {
	struct lws_context *context;
	struct mkv_sup	*sup;
	void		*loops[1];
};

struct http_req {			/* libwebsockets keeps it beside the connection, zeroed */
	struct admin_answer a;
	size_t		sent;
	int		head;
};

static void
http_free(struct http_req *q)
{
	free(q->a.body);
	memset(q, 0, sizeof(*q));
}

/* Status line and headers. 0, or -1 to close the connection. */
static int
http_headers(struct lws *wsi, struct http_req *q)
{
	unsigned char buf[LWS_PRE + 1024], *start = buf + LWS_PRE, *p = start, *end = buf + sizeof(buf) - 1;
	static const char nocache[] = "no-store", allow[] = "GET, HEAD";

	if (lws_add_http_header_status(wsi, (unsigned)q->a.status, &p, end) != 0 ||
	    lws_add_http_header_by_token(wsi, WSI_TOKEN_HTTP_CONTENT_TYPE, (const unsigned char *)q->a.type, (int)strlen(q->a.type), &p, end) != 0 ||
	    lws_add_http_header_by_token(wsi, WSI_TOKEN_HTTP_CACHE_CONTROL, (const unsigned char *)nocache, sizeof(nocache) - 1, &p, end) != 0)
		return (-1);
	if (q->a.status == 405 &&
	    lws_add_http_header_by_token(wsi, WSI_TOKEN_HTTP_ALLOW, (const unsigned char *)allow, sizeof(allow) - 1, &p, end) != 0)
		return (-1);
	if (lws_add_http_header_content_length(wsi, q->a.bytes, &p, end) != 0)
		return (-1);
	return (lws_finalize_write_http_header(wsi, start, &p, end) != 0 ? -1 : 0);
}

static int
http_begin(struct lws *wsi, struct http_req *q, struct mkv_sup *s, const char *path)
{
	int get = lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) > 0;

	http_free(q);
	q->head = lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI) > 0;
	if (get || q->head || lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_COLON_PATH) > 0)
		admin_route(s, path, &q->a);
	else
		admin_say(&q->a, 405, "only GET and HEAD\n");
	if (q->a.body == NULL || http_headers(wsi, q) != 0)
		return (-1);
	if (q->head) {
		http_free(q);
		return (lws_http_transaction_completed(wsi) ? -1 : 0);
	}
	lws_callback_on_writable(wsi);
	return (0);
}

/* The next piece of the body. */
static int
http_more(struct lws *wsi, struct http_req *q)
{
	static unsigned char buf[LWS_PRE + HTTP_CHUNK];		/* one loop thread */
	size_t n = MKV_MIN(q->a.bytes - q->sent, HTTP_CHUNK);
	int last = q->sent + n == q->a.bytes;

	if (q->a.body == NULL)
		return (0);
	memcpy(buf + LWS_PRE, q->a.body + q->sent, n);
	if (lws_write(wsi, buf + LWS_PRE, n, last ? LWS_WRITE_HTTP_FINAL : LWS_WRITE_HTTP) != (int)n)
		return (-1);
	q->sent += n;
	if (!last) {
		lws_callback_on_writable(wsi);
		return (0);
	}
	http_free(q);
	return (lws_http_transaction_completed(wsi) ? -1 : 0);
}

static int
http_callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t bytes)
{
	struct admin *a = lws_context_user(lws_get_context(wsi));

	switch (reason) {
	case LWS_CALLBACK_HTTP:
		return (http_begin(wsi, user, a->sup, in));
	case LWS_CALLBACK_HTTP_WRITEABLE:
		return (http_more(wsi, user));
	case LWS_CALLBACK_HTTP_BODY:
	case LWS_CALLBACK_HTTP_BODY_COMPLETION:
		return (0);			/* of a request that was answered with 405 */
	case LWS_CALLBACK_CLOSED_HTTP:
	case LWS_CALLBACK_HTTP_DROP_PROTOCOL:
		if (user != NULL)
			http_free(user);
		return (0);
	default:
		return (lws_callback_http_dummy(wsi, reason, user, in, bytes));
	}
}

static const struct lws_protocols http_protocols[] = {
	{ .name = "http", .callback = http_callback, .per_session_data_size = sizeof(struct http_req) },
	{ .name = NULL },
};

static void
http_log(int level, const char *line)
{
	mkv_log(level & LLL_ERR ? MKV_EV_ADMIN_FAILED : MKV_EV_NOTE, "text=%.*s", (int)strcspn(line, "\n"), line);
}

static void
http_info(struct lws_context_creation_info *info, struct admin *a)
{
	const struct mkv_sup *s = a->sup;

	memset(info, 0, sizeof(*info));
	info->iface = s->conf->admin.host;
	info->port = s->conf->admin.port;
	info->protocols = http_protocols;
	info->foreign_loops = a->loops;
	info->user = a;
	info->pcontext = &a->context;
	info->fd_limit_per_thread = HTTP_CONNS_MAX;
	info->timeout_secs = HTTP_HEADER_S;
	info->keepalive_timeout = HTTP_IDLE_S;
	info->options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_FAIL_UPON_UNABLE_TO_BIND | LWS_SERVER_OPTION_DISABLE_IPV6 |
	    LWS_SERVER_OPTION_HTTP_HEADERS_SECURITY_BEST_PRACTICES_ENFORCE;
	if (strchr(s->conf->admin.host, ':') != NULL)
		info->options &= ~(uint64_t)LWS_SERVER_OPTION_DISABLE_IPV6;
	if (s->params->network_tls_cert[0] == '\0')
		return;
	info->options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
	info->ssl_cert_filepath = s->params->network_tls_cert;
	info->ssl_private_key_filepath = s->params->network_tls_key;
}

int
admin_open(struct admin **out, struct mkv_sup *s, char *why, unsigned why_bytes)
{
	struct lws_context_creation_info info;
	struct lws_vhost *vh;
	struct admin *a = calloc(1, sizeof(*a));

	*out = NULL;
	lws_set_log_level(LLL_ERR, http_log);
	if (a != NULL) {
		a->sup = s;
		a->loops[0] = s->loop;
		http_info(&info, a);
		a->context = lws_create_context(&info);
	}
	vh = a != NULL && a->context != NULL ? lws_get_vhost_by_name(a->context, "default") : NULL;
	if (vh == NULL) {
		snprintf(why, why_bytes, "admin port %s:%u cannot be opened; set admin.address to another one, or admin.enabled: false",
		    s->conf->admin.host, s->conf->admin.port);
		free(a);
		return (MKV_E_SYSTEM);
	}
	s->admin_port = (uint16_t)lws_get_vhost_listen_port(vh);
	mkv_log(MKV_EV_ADMIN_LISTEN, "address=%s:%u tls=%d", s->conf->admin.host, s->admin_port, s->params->network_tls_cert[0] != '\0');
	*out = a;
	return (0);
}

void
admin_close(struct admin *a)
{
	if (a != NULL && a->context != NULL)
		lws_context_destroy(a->context);
}

/* The library gives up its sockets with the loop's help and may want a second call for the rest; it clears a->context when nothing is left. */
void
admin_free(struct admin **ap)
{
	struct admin *a = *ap;

	if (a == NULL)
		return;
	*ap = NULL;
	if (a->context != NULL)
		lws_context_destroy(a->context);
	free(a);
}
