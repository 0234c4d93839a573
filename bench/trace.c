/*
 * Reading a trace, and what can be said about it before it runs. Foreign bytes: every field is checked, nothing is assumed of the order of
 * lines but that time does not run backwards.
 */
#include "config.h"
#include "bench/trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <memkv/memkv.h>

#include "common/base/assert.h"

#define TRACE_LINE_MAX		(4u << 20)
#define TRACE_TICK_MS		3000u		/* what a tick without a successor is taken to last; no tick lasts longer */

static int
trace_grow(void **p, uint64_t *room, uint64_t want, size_t each)
{
	uint64_t n = *room;
	void *q;

	if (want <= n)
		return (0);
	n = MKV_MAX(MKV_MAX(n * 2, want), 1024);
	q = realloc(*p, n * each);
	if (q == NULL)
		return (MKV_ERR_NOMEM);
	*p = q;
	*room = n;
	return (0);
}

static int
trace_bad(char *why, size_t why_bytes, const char *path, uint64_t line, const char *what)
{
	snprintf(why, why_bytes, "%s:%llu: %s", path, (unsigned long long)line, what);
	return (MKV_ERR_INVAL);
}

/* One line becomes one request. NULL, or what is wrong with it. *err: MKV_ERR_NOMEM if that is it. */
static const char *
trace_line(struct mkv_trace *t, const json_t *j, int *err)
{
	json_t *at = json_object_get(j, "timestamp"), *ids = json_object_get(j, "hash_ids"), *id;
	struct mkv_trace_request *r;
	size_t i, n = json_array_size(ids);

	if (!json_is_number(at) || json_number_value(at) < 0 || json_number_value(at) > 1e12)
		return ("\"timestamp\" must be milliseconds, not negative");
	if (!json_is_array(ids) || n == 0 || n > MKV_TRACE_BLOCKS_MAX)
		return ("\"hash_ids\" must be a list of 1 to 65536 block ids");
	*err = MKV_ERR_NOMEM;
	if (trace_grow((void **)&t->req, &t->room_req, t->n_req + 1, sizeof(*t->req)) != 0 ||
	    trace_grow((void **)&t->id, &t->room_ids, t->n_ids + n, sizeof(*t->id)) != 0)
		return ("no memory for so long a trace; --limit cuts it");
	*err = 0;
	r = &t->req[t->n_req];
	*r = (struct mkv_trace_request){ .at_us = (uint64_t)(json_number_value(at) * 1000), .first = t->n_ids, .n = (unsigned)n };
	if (t->n_req > 0 && r->at_us < r[-1].at_us)
		return ("\"timestamp\" runs backwards");
	json_array_foreach(ids, i, id) {
		if (!json_is_integer(id) || json_integer_value(id) < 0)
			return ("\"hash_ids\" holds something that is no block id");
		t->id[r->first + i] = (uint64_t)json_integer_value(id);
	}
	t->n_ids += n;
	t->n_req++;
	return (NULL);
}

/* Requests that share a tick are spread evenly over it: an open loop must not invent bursts that the trace only has by rounding. */
static void
trace_spread(struct mkv_trace *t)
{
	uint64_t base = t->n_req > 0 ? t->req[0].at_us : 0, end, tick;

	for (uint64_t i = 0; i < t->n_req; i = end) {
		end = i + 1;
		while (end < t->n_req && t->req[end].at_us == t->req[i].at_us)
			end++;
		tick = end < t->n_req ? t->req[end].at_us - t->req[i].at_us : TRACE_TICK_MS * 1000u;
		tick = MKV_MIN(tick, TRACE_TICK_MS * 1000u);
		for (uint64_t k = end; k-- > i;)
			t->req[k].at_us += (k - i) * tick / (end - i);
	}
	for (uint64_t i = 0; i < t->n_req; i++)
		t->req[i].at_us -= base;
}

/* Distinct ids and the hits of a cache without limit. Ids are hashed into an open table of twice their number. */
static int
trace_measure(struct mkv_trace *t)
{
	uint64_t room = 1024, *seen, h;
	int prefix;

	while (room < t->n_ids * 2)
		room *= 2;
	seen = calloc(room, sizeof(*seen));			/* id + 1; 0 is free */
	if (seen == NULL)
		return (MKV_ERR_NOMEM);
	for (uint64_t r = 0; r < t->n_req; r++) {
		prefix = 1;
		for (unsigned i = 0; i < t->req[r].n; i++) {
			uint64_t id = t->id[t->req[r].first + i];

			for (h = (id * 0x9e3779b97f4a7c15ull) >> 20 & (room - 1); seen[h] != 0 && seen[h] != id + 1; h = (h + 1) & (room - 1))
				continue;
			prefix = prefix && seen[h] != 0;
			t->ceiling_hits += (uint64_t)prefix;
			t->distinct += seen[h] == 0;
			seen[h] = id + 1;
		}
	}
	free(seen);
	return (0);
}

static int
trace_read(struct mkv_trace *t, FILE *f, const char *path, uint64_t limit, char *why, size_t why_bytes)
{
	char *line = NULL;
	const char *bad;
	size_t room = 0;
	ssize_t n;
	int r = 0;
	json_t *j;

	for (uint64_t at = 1; r == 0 && (limit == 0 || t->n_req < limit) && (n = getline(&line, &room, f)) >= 0; at++) {
		if (n > (ssize_t)TRACE_LINE_MAX) {
			r = trace_bad(why, why_bytes, path, at, "longer than 4 MiB");
			break;
		}
		if (line[strspn(line, " \t\r\n")] == '\0')
			continue;
		j = json_loadb(line, (size_t)n, 0, NULL);
		bad = j == NULL ? "no JSON object" : trace_line(t, j, &r);
		json_decref(j);
		if (bad != NULL) {
			n = r;
			r = trace_bad(why, why_bytes, path, at, bad);
			r = n != 0 ? (int)n : r;
		}
	}
	if (r == 0 && ferror(f)) {				/* a directory, say */
		snprintf(why, why_bytes, "%s: %s", path, strerror(errno));
		r = MKV_ERR_SYSTEM;
	}
	free(line);
	return (r);
}

int
mkv_trace_load(struct mkv_trace *t, const char *path, uint64_t limit, char *why, size_t why_bytes)
{
	FILE *f;
	int r;

	memset(t, 0, sizeof(*t));
	f = fopen(path, "re");
	if (f == NULL) {
		snprintf(why, why_bytes, "%s: %s", path, strerror(errno));
		return (MKV_ERR_SYSTEM);
	}
	r = trace_read(t, f, path, limit, why, why_bytes);
	fclose(f);
	if (r == 0 && t->n_req == 0)
		return (trace_bad(why, why_bytes, path, 1, "no request in it"));
	if (r == 0 && (r = trace_measure(t)) != 0)
		snprintf(why, why_bytes, "%s: no memory to count its blocks", path);
	if (r == 0)
		trace_spread(t);
	return (r);
}

void
mkv_trace_free(struct mkv_trace *t)
{
	free(t->req);
	free(t->id);
	memset(t, 0, sizeof(*t));
}
