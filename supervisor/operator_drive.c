/*
 * Process: supervisor, loop thread.
 * What memkvctl drive asks for, in words: list | locate KEY [namespace=NS] | add MEDIA [size=SIZE] [weight=N] | drain ID [now] | remove ID [now] |
 * replace OLD NEW [size=SIZE] [weight=N]. ID is a number, drive:N, a uuid or a medium. Owns nothing; the map is pool.c's.
 * Foreign bytes: the words, though from a trusted user.
 */
#include "config.h"

#include "supervisor/operator_priv.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/units.h"
#include "supervisor/budget_priv.h"
#include "supervisor/sup_priv.h"

#define WORDS_MAX	8u

struct drive_words {
	const char	*word[WORDS_MAX];	/* without the options */
	unsigned	n;
	const char	*ns;
	uint64_t	size;
	double		weight;
	int		now;
};

MKV_PRINTF(1, 2) static json_t *
drive_refuse(const char *fmt, ...)
{
	char why[CONFIG_PATH_MAX + 160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return (json_pack("{s:b,s:s%}", "ok", 0, "error", why, strlen(why)));
}

static json_t *
drive_option(struct drive_words *w, const char *v)
{
	if (strcmp(v, "now") == 0 && w->n >= 2)
		w->now = 1;
	else if (strncmp(v, "size=", 5) == 0) {
		if (mkv_size_parse(v + 5, &w->size) != 0)
			return (drive_refuse("%.100s: a size such as 64GiB is expected", v));
	} else if (strncmp(v, "weight=", 7) == 0) {
		w->weight = strtod(v + 7, NULL);
		if (!(w->weight > 0) || w->weight > 1e6)
			return (drive_refuse("%.100s: a number above zero is expected", v));
	} else if (strncmp(v, "namespace=", 10) == 0)
		w->ns = v + 10;
	else if (w->n < WORDS_MAX)
		w->word[w->n++] = v;
	else
		return (drive_refuse("%.100s: too many words", v));
	return (NULL);
}

static json_t *
drive_parse(struct drive_words *w, const json_t *words)
{
	json_t *v, *bad;
	size_t i;

	*w = (struct drive_words){ .ns = "", .weight = 1.0 };
	json_array_foreach((json_t *)(uintptr_t)words, i, v) {
		if (!json_is_string(v))
			return (drive_refuse("%s", "words are expected"));
		if ((bad = drive_option(w, json_string_value(v))) != NULL)
			return (bad);
	}
	return (NULL);
}

static void
drive_hex(char dst[33], const uint8_t uuid[16])
{
	for (unsigned i = 0; i < 16; i++)
		snprintf(dst + 2 * i, 3, "%02x", uuid[i]);
}

/* With or without the hyphens that memkv drive and memkv setup write. */
static int
drive_uuid_is(const uint8_t uuid[16], const char *id)
{
	char hex[33];
	size_t n = 0;

	drive_hex(hex, uuid);
	for (; *id != '\0'; id++) {
		if (*id == '-')
			continue;
		if (*id != hex[n])		/* the NUL at its end as well */
			return (0);
		n++;
	}
	return (n == 32);
}

/* -1: none. */
static int
drive_named(const struct mkv_sup *s, const char *id)
{
	const char *number = strncmp(id, "drive:", 6) == 0 ? id + 6 : id;
	char *end;
	unsigned long n = strtoul(number, &end, 10);

	if (end != number && *end == '\0')
		return (n < s->drive_count ? (int)n : -1);
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (strcmp(s->conf->drive[i].media, id) == 0 || (pool_row(s, i)->known && drive_uuid_is(pool_row(s, i)->uuid, id)))
			return ((int)i);
	return (-1);
}

/* ---- Rows ------------------------------------------------------------------------------------------------------------------ */

static json_t *
drive_row(const struct mkv_sup *s, uint32_t i)
{
	const struct mkv_map_row *r = pool_row(s, i);
	const struct proc *p = &s->proc[s->front_count + i];
	const char *words = proc_words(p);
	json_t *media = json_string(s->conf->drive[i].media), *detail = json_string(words);
	char hex[33] = "";

	if (r->known)
		drive_hex(hex, r->uuid);
	return (json_pack("{s:i,s:s,s:s,s:o,s:s,s:I,s:I,s:I,s:f,s:b,s:I,s:b,s:o}", "id", (int)i, "name", p->child.name, "state",
	    mkv_drive_state_name(pool_state(s, i)), "media", media != NULL ? media : json_string("(not text)"), "uuid", hex, "total_bytes",
	    (json_int_t)mkv_metric_get(p->metrics, MKV_M_drive_total_bytes, 0), "used_bytes",
	    (json_int_t)mkv_metric_get(p->metrics, MKV_M_drive_used_bytes, 0), "objects", (json_int_t)mkv_metric_get(p->metrics, MKV_M_drive_objects, 0),
	    "weight", r->weight, "readonly", p->readonly, "since_version", (json_int_t)r->since, "configured", !s->state.drive[i].added, "detail",
	    detail != NULL ? detail : json_string("(not text)")));
}

static json_t *
drive_list(struct mkv_sup *s, int only)
{
	json_t *rows = json_array();

	for (uint32_t i = 0; i < s->drive_count; i++)
		if (only < 0 || (uint32_t)only == i)
			json_array_append_new(rows, drive_row(s, i));
	return (json_pack("{s:b,s:I,s:b,s:o}", "ok", 1, "map_version", (json_int_t)s->state.map_version, "served", pool_served(s), "rows", rows));
}

static json_t *
drive_locate(struct mkv_sup *s, const struct drive_words *w)
{
	json_t *rows, *answer;
	int former, home = pool_locate(s, w->ns, w->word[1], &former);

	if (home < 0)
		return (drive_refuse("%s", "no drive takes keys"));
	rows = json_array();
	json_array_append_new(rows, drive_row(s, (uint32_t)home));
	if (former >= 0)
		json_array_append_new(rows, drive_row(s, (uint32_t)former));
	answer = json_pack("{s:b,s:i,s:o}", "ok", 1, "home", home, "rows", rows);
	if (answer != NULL && former >= 0)
		json_object_set_new(answer, "former", json_integer(former));
	return (answer);
}

/* ---- Changes --------------------------------------------------------------------------------------------------------------- */

static json_t *
drive_drain(struct mkv_sup *s, const struct drive_words *w, uint32_t i)
{
	const char *why;

	if (w->now && !pool_others(s, i) && pool_state(s, i) == MKV_DRIVE_ONLINE)
		return (drive_refuse("%s", "no other drive is online to take its keys"));
	if (w->now)
		pool_remove(s, i);
	else if ((why = pool_drain(s, i)) != NULL)
		return (drive_refuse("%s", why));
	return (drive_list(s, (int)i));
}

static json_t *
drive_remove(struct mkv_sup *s, const struct drive_words *w, uint32_t i)
{
	enum mkv_drive_state state = pool_row(s, i)->state;

	if (state == MKV_DRIVE_ONLINE && !w->now)
		return (drive_refuse("%s", "it is in service: drain it first, or give up what it holds (--now)"));
	if (state == MKV_DRIVE_ONLINE && !pool_others(s, i))
		return (drive_refuse("%s", "no other drive is online to take its keys"));
	pool_remove(s, i);
	return (drive_list(s, (int)i));
}

/* A file that is there says itself how large it is, a drive that was removed above all. */
static void
drive_size(const struct mkv_sup *s, const char *media, struct drive_words *w)
{
	struct stat st;

	if (w->size == 0 && s->params->storage_mode == MKV_STORAGE_FILE && media[0] == '/' && stat(media, &st) == 0 && S_ISREG(st.st_mode))
		w->size = (uint64_t)st.st_size;
}

static json_t *
drive_check_add(const struct mkv_sup *s, const char *media, const struct drive_words *w)
{
	int memory = s->params->storage_mode == MKV_STORAGE_MEMORY;
	char least[32], why[512];

	if (strlen(media) >= CONFIG_PATH_MAX || strpbrk(media, "\n\r") != NULL)
		return (drive_refuse("%s", "that is no name of a medium"));
	if (!memory && media[0] != '/')
		return (drive_refuse("%.200s: the whole path of the medium is expected", media));
	if (s->params->storage_mode != MKV_STORAGE_DIRECT && w->size < config_drive_least(s->params))
		return (drive_refuse("%.200s: say how large it is to be, %s at least (--size)", media,
		    mkv_size_human(least, sizeof(least), config_drive_least(s->params))));
	if (budget_pool(s, w->size, 1, why, sizeof(why)) != 0)
		return (drive_refuse("%s", why));
	return (NULL);
}

/* A process for the row. NULL, or why not. */
static json_t *
drive_make(struct mkv_sup *s, uint32_t i, struct proc **out)
{
	struct proc *p = sup_drive(s, i);
	char why[640];

	if (i >= s->drive_count) {
		proc_init(s, s->front_count + i, SUP_DRIVE, i);
		peers_init_drive(s, i);
		s->drive_count = s->config->derived.drive_count = i + 1;
		s->proc_count = s->front_count + s->drive_count;
		if (heritage_add(p, why, sizeof(why)) != 0) {
			s->pool[i].wanted = 0;
			return (drive_refuse("%.500s", why));
		}
	}
	*out = p;
	return (NULL);
}

static json_t *
drive_add(struct mkv_sup *s, const char *media, struct drive_words *w, uint32_t *idx, struct proc **p)
{
	const char *why;
	json_t *bad;

	drive_size(s, media, w);
	if ((bad = drive_check_add(s, media, w)) != NULL)
		return (bad);
	if (pool_add(s, media, w->size, w->weight, idx, &why) != 0)
		return (drive_refuse("%s", why));
	return (drive_make(s, *idx, p));
}

static json_t *
drive_replace(struct mkv_sup *s, struct drive_words *w, struct proc **p)
{
	int old = drive_named(s, w->word[1]);
	uint32_t idx;
	json_t *bad;

	if (old < 0)
		return (drive_refuse("no drive is called %.200s", w->word[1]));
	if ((bad = drive_add(s, w->word[2], w, &idx, p)) != NULL)
		return (bad);
	s->pool[idx].replaces = (uint32_t)old + 1;
	return (NULL);
}

json_t *
operator_drive(struct mkv_sup *s, const json_t *words, struct proc **p)
{
	struct drive_words w;
	json_t *bad = drive_parse(&w, words);
	const char *verb = w.n > 0 ? w.word[0] : "list";
	uint32_t idx;
	int i;

	if (bad != NULL)
		return (bad);
	if (strcmp(verb, "list") == 0 && w.n <= 1)
		return (drive_list(s, -1));
	if (strcmp(verb, "locate") == 0 && w.n == 2)
		return (drive_locate(s, &w));
	if (s->phase != SUP_SERVING)
		return (drive_refuse("%s", s->phase == SUP_STARTING ? "the server is starting" : "the server is stopping"));
	if (strcmp(verb, "add") == 0 && w.n == 2)
		return (drive_add(s, w.word[1], &w, &idx, p));
	if (strcmp(verb, "replace") == 0 && w.n == 3)
		return (drive_replace(s, &w, p));
	if ((strcmp(verb, "drain") != 0 && strcmp(verb, "remove") != 0) || w.n != 2)
		return (drive_refuse("%s", "known are list, locate KEY, add MEDIA, drain ID, remove ID, replace OLD NEW"));
	if ((i = drive_named(s, w.word[1])) < 0)
		return (drive_refuse("no drive is called %.200s", w.word[1]));
	return (verb[0] == 'd' ? drive_drain(s, &w, (uint32_t)i) : drive_remove(s, &w, (uint32_t)i));
}
