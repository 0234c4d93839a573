/*
 * Process: supervisor, loop thread. Which path is answered by what. No state.
 */
#include "config.h"

#include "supervisor/admin/admin_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "supervisor/sup_priv.h"

#define TYPE_TEXT	"text/plain; charset=utf-8"
#define TYPE_JSON	"application/json"
#define TYPE_METRICS	"text/plain; version=0.0.4; charset=utf-8"

void
admin_say(struct admin_answer *a, int status, const char *text)
{
	a->status = status;
	a->type = TYPE_TEXT;
	a->body = strdup(text);
	a->bytes = a->body != NULL ? strlen(text) : 0;
}

static void
route_health(struct mkv_sup *s, struct admin_answer *a)
{
	int unhealthy = 0;

	a->type = TYPE_JSON;
	a->body = admin_health(s, &a->bytes, &unhealthy);
	a->status = unhealthy ? 503 : 200;
}

static void
route_ready(struct mkv_sup *s, struct admin_answer *a)
{
	if (sup_serving(s))
		admin_say(a, 200, "ok\n");
	else
		admin_say(a, 503, "not ready\n");
}

static void
route_status(struct mkv_sup *s, struct admin_answer *a)
{
	a->status = 200;
	a->type = TYPE_JSON;
	a->body = admin_status(s, &a->bytes);
}

static void
route_metrics(struct mkv_sup *s, struct admin_answer *a)
{
	a->status = 200;
	a->type = TYPE_METRICS;
	a->body = admin_metrics(s, &a->bytes);
}

static const struct {
	const char	*path;
	void		(*run)(struct mkv_sup *s, struct admin_answer *a);
} routes[] = {
	{ "/v1/health", route_health },
	{ "/v1/ready", route_ready },
	{ "/v1/status", route_status },
	{ "/v1/metrics", route_metrics },
};

void
admin_route(struct mkv_sup *s, const char *path, struct admin_answer *a)
{
	mkv_metric_add(s->metrics, MKV_M_supervisor_admin_requests_total, 0, 1);
	for (size_t i = 0; i < MKV_ARRAY_LEN(routes); i++)
		if (strcmp(routes[i].path, path) == 0) {
			routes[i].run(s, a);
			return;
		}
	admin_say(a, 404, "not found; there are /v1/health /v1/ready /v1/status /v1/metrics\n");
}
