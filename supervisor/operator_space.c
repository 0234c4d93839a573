/*
 * Process: supervisor, loop thread.
 * What memkvctl namespace asks for: list | purge name=NAME | purge hex=NAME | purge default. Names are bytes; hex is for those that are no text. Owns the
 * one such request that is under way; pool.c's map says who is asked.
 *
 *	each drive in service is asked, again in each of its lives, until it has said that the purge is durable -> the answer
 *
 * A drive that is away begins empty when it comes back: it has objects that no log of the others names. One that is about to be let back in begins again.
 * Invariants: what is answered with ok is durable on every drive that serves, and a drive that does not will not bring anything back.
 * Foreign bytes: the words, though from a trusted user; what drives say of namespaces is bounded by the message.
 */
#include "config.h"

#include "supervisor/operator_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/shm/drv.h"
#include "supervisor/sup_priv.h"

struct space_drive {
	uint32_t	asked;			/* epoch of the life that was asked; 0: none yet */
	int		done, away, status;
	uint64_t	objects, bytes;
};

static struct {
	struct mkv_sup	*sup;			/* NULL: nothing is under way */
	struct op_conn	*conn;			/* NULL: who asked is gone */
	uint64_t	id;
	int		purge;
	uint8_t		name[MKV_DRV_NS_MAX];
	size_t		name_bytes;
	struct space_drive drive[CONFIG_DRIVES_MAX];
	json_t		*rows;			/* list: by name */
} space;

/* ---- Names ----------------------------------------------------------------------------------------------------------------- */

/* As text if a terminal can show it and a command line can say it. */
static json_t *
space_text(const uint8_t *name, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (name[i] < ' ' || name[i] == 127)
			return (NULL);
	return (json_stringn(bytes > 0 ? (const char *)name : "", bytes));
}

static void
space_hex(char dst[2 * MKV_DRV_NS_MAX + 1], const uint8_t *name, size_t bytes)
{
	dst[0] = '\0';
	for (size_t i = 0; i < bytes; i++)
		snprintf(dst + 2 * i, 3, "%02x", name[i]);
}

/* 1: it was one. */
static int
space_unhex(uint8_t name[MKV_DRV_NS_MAX], size_t *bytes, const char *hex)
{
	static const char digits[] = "0123456789abcdef";
	size_t n = strlen(hex);

	if (n == 0 || n % 2 != 0 || n / 2 > MKV_DRV_NS_MAX || strspn(hex, "0123456789abcdefABCDEF") != n)
		return (0);
	for (size_t i = 0; i < n; i += 2)
		name[i / 2] = (uint8_t)((strchr(digits, hex[i] | 32) - digits) << 4 | (strchr(digits, hex[i + 1] | 32) - digits));
	*bytes = n / 2;
	return (1);
}

/* ---- The answer ------------------------------------------------------------------------------------------------------------ */

static void
space_end(json_t *answer)
{
	struct op_conn *c = space.conn;

	json_decref(space.rows);
	space.rows = NULL;
	space.sup = NULL;
	space.conn = NULL;
	if (c != NULL)
		operator_answer(c, answer);
	else
		json_decref(answer);
}

static const char *
space_words(const struct space_drive *d)
{
	if (!d->done)
		return ("waiting");
	return (d->away ? "away" : d->status != 0 ? "failed" : space.purge ? "purged" : "listed");
}

/* Whose answer is missing, or NULL. */
static const char *
space_missing(const struct mkv_sup *s, char why[160])
{
	for (uint32_t i = 0; i < s->drive_count; i++) {
		const struct space_drive *d = &space.drive[i];

		if (d->done && d->status == 0)
			continue;
		snprintf(why, 160, "%s: %s; what it has may still be there: ask again", s->proc[s->front_count + i].child.name,
		    d->done ? mkv_err(d->status) : "has not answered yet");
		return (why);
	}
	return (NULL);
}

static json_t *
space_rows(const struct mkv_sup *s, uint64_t *objects, uint64_t *bytes)
{
	json_t *rows = json_array();

	for (uint32_t i = 0; i < s->drive_count; i++) {
		const struct space_drive *d = &space.drive[i];

		if (pool_row(s, i)->state == MKV_DRIVE_REMOVED)
			continue;
		*objects += d->objects;
		*bytes += d->bytes;
		json_array_append_new(rows, json_pack("{s:s,s:s,s:I,s:I}", "name", s->proc[s->front_count + i].child.name, "purge", space_words(d),
		    "objects", (json_int_t)d->objects, "bytes", (json_int_t)d->bytes));
	}
	return (rows);
}

static void
space_answer_purge(const struct mkv_sup *s)
{
	char why[160];
	const char *missing = space_missing(s, why);
	char hex[2 * MKV_DRV_NS_MAX + 1];
	uint64_t objects = 0, bytes = 0;
	json_t *rows = space_rows(s, &objects, &bytes), *answer, *name = space_text(space.name, space.name_bytes);

	mkv_log(MKV_EV_NAMESPACE_PURGED, "objects=%" PRIu64 " bytes=%" PRIu64 " complete=%s", objects, bytes, missing == NULL ? "yes" : "no");
	space_hex(hex, space.name, space.name_bytes);
	answer = json_pack("{s:b,s:o,s:s,s:I,s:I,s:o}", "ok", missing == NULL, "purged", name != NULL ? name : json_string("(not text)"), "hex", hex,
	    "objects", (json_int_t)objects, "bytes", (json_int_t)bytes, "rows", rows);
	if (answer != NULL && missing != NULL)
		json_object_set_new(answer, "error", json_string(missing));
	space_end(answer);
}

static void
space_answer_list(const struct mkv_sup *s)
{
	json_t *rows = json_array(), *missing = json_array(), *v;
	const char *key;

	json_object_foreach(space.rows, key, v)
		json_array_append(rows, v);
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (pool_row(s, i)->state != MKV_DRIVE_REMOVED && (!space.drive[i].done || space.drive[i].away))
			json_array_append_new(missing, json_string(s->proc[s->front_count + i].child.name));
	space_end(json_pack("{s:b,s:o,s:o}", "ok", 1, "rows", rows, "missing", missing));
}

/* ---- Asking ---------------------------------------------------------------------------------------------------------------- */

static void
space_ask(struct mkv_sup *s, uint32_t i)
{
	Mkv__Ctl__Purge purge = MKV__CTL__PURGE__INIT;
	Mkv__Ctl__SpacesAsk ask = MKV__CTL__SPACES_ASK__INIT;
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;

	purge.id = ask.id = space.id;
	if (space.purge) {
		purge.name = (ProtobufCBinaryData){ .len = space.name_bytes, .data = space.name };
		m.body_case = MKV__CTL__CONTROL__BODY_PURGE;
		m.purge = &purge;
	} else {
		m.body_case = MKV__CTL__CONTROL__BODY_SPACES_ASK;
		m.spaces_ask = &ask;
	}
	space.drive[i].asked = sup_drive(s, i)->epoch;
	proc_send(sup_drive(s, i), &m, NULL, 0);
}

/* Something has changed: who is to be asked, and is that all? A list waits for nobody who does not run. */
void
operator_space_step(struct mkv_sup *s)
{
	int open = 0;

	if (space.sup == NULL)
		return;
	for (uint32_t i = 0; i < s->drive_count; i++) {
		struct space_drive *d = &space.drive[i];
		uint8_t state = pool_row(s, i)->state;

		if (d->done)
			continue;
		if ((state != MKV_DRIVE_ONLINE && state != MKV_DRIVE_DRAINING) || (!space.purge && !s->pool[i].ready)) {
			d->done = d->away = 1;
			if (space.purge)
				pool_purged(s, i);
			continue;
		}
		if (s->pool[i].ready && proc_reachable(sup_drive(s, i)) && d->asked != sup_drive(s, i)->epoch)
			space_ask(s, i);
		open = 1;
	}
	if (open || space.sup == NULL)
		return;				/* asking may have ended it: a drive that does not take a message is ended */
	if (space.purge)
		space_answer_purge(s);
	else
		space_answer_list(s);
}

void
operator_space_late(struct op_conn *c)
{
	if (space.conn != c || space.sup == NULL)
		return;
	if (space.purge)
		space_answer_purge(space.sup);
	else
		space_answer_list(space.sup);
}

void
operator_space_gone(struct op_conn *c)
{
	if (space.conn == c)
		space.conn = NULL;
}

/* ---- What drives say ------------------------------------------------------------------------------------------------------- */

void
operator_space_purged(struct proc *p, const Mkv__Ctl__Purged *m)
{
	struct space_drive *d = &space.drive[p->index];

	if (space.sup == NULL || !space.purge || m->id != space.id || d->done)
		return;
	d->done = 1;
	d->status = m->status;
	d->objects = m->objects;
	d->bytes = m->bytes;
	operator_space_step(p->sup);
}

/* Names are bytes; as a key of an object they are in hex. */
static void
space_sum(const Mkv__Ctl__Space *r)
{
	char key[2 * MKV_DRV_NS_MAX + 1];
	json_t *row, *name;

	if (r->name.len > MKV_DRV_NS_MAX)
		return;
	space_hex(key, r->name.data, r->name.len);
	if ((row = json_object_get(space.rows, key)) == NULL) {
		name = space_text(r->name.data, r->name.len);
		row = json_pack("{s:o,s:b,s:s,s:I,s:I}", "namespace", name != NULL ? name : json_string("(not text)"), "text", name != NULL, "hex", key,
		    "objects", (json_int_t)0, "bytes", (json_int_t)0);
		if (row == NULL || json_object_set_new(space.rows, key, row) != 0)
			return;
	}
	json_object_set_new(row, "objects", json_integer(json_integer_value(json_object_get(row, "objects")) + (json_int_t)r->objects));
	json_object_set_new(row, "bytes", json_integer(json_integer_value(json_object_get(row, "bytes")) + (json_int_t)r->bytes));
}

void
operator_space_rows(struct proc *p, const Mkv__Ctl__Spaces *m)
{
	struct space_drive *d = &space.drive[p->index];

	if (space.sup == NULL || space.purge || m->id != space.id || d->done)
		return;
	for (size_t i = 0; i < m->n_rows; i++)
		space_sum(m->rows[i]);
	d->done = m->last;
	operator_space_step(p->sup);
}

/* ---- The request ----------------------------------------------------------------------------------------------------------- */

/* NULL, or why not. */
static const char *
space_parse(const json_t *words, int *purge, uint8_t name[MKV_DRV_NS_MAX], size_t *bytes)
{
	const char *verb = json_string_value(json_array_get(words, 0)), *arg = json_string_value(json_array_get(words, 1));
	size_t n = json_array_size(words);

	*bytes = 0;
	*purge = verb != NULL && strcmp(verb, "purge") == 0;
	if (verb != NULL && strcmp(verb, "list") == 0 && n == 1)
		return (NULL);
	if (!*purge || n != 2 || arg == NULL)
		return ("known are list, purge NAME, purge --hex NAME, purge --default");
	if (strcmp(arg, "default") == 0)
		return (NULL);
	if (strncmp(arg, "hex=", 4) == 0)
		return (space_unhex(name, bytes, arg + 4) ? NULL : "a name of at most 63 bytes is expected, two hexadecimal digits each");
	if (strncmp(arg, "name=", 5) != 0 || arg[5] == '\0' || strlen(arg + 5) > MKV_DRV_NS_MAX)
		return ("a name of at most 63 bytes is expected");
	*bytes = strlen(arg + 5);
	memcpy(name, arg + 5, *bytes);
	return (NULL);
}

const char *
operator_space(struct mkv_sup *s, const json_t *words, struct op_conn *c)
{
	uint8_t name[MKV_DRV_NS_MAX];
	size_t bytes;
	const char *why;
	int purge;

	if ((why = space_parse(words, &purge, name, &bytes)) != NULL)
		return (why);
	if (s->phase != SUP_SERVING)
		return (s->phase == SUP_STARTING ? "the server is starting" : "the server is stopping");
	if (space.sup != NULL && space.conn != NULL)
		return ("another request about namespaces is under way");
	json_decref(space.rows);
	space.sup = s;
	space.conn = c;
	space.id++;
	space.purge = purge;
	space.rows = json_object();
	memcpy(space.name, name, bytes);
	space.name_bytes = bytes;
	memset(space.drive, 0, sizeof(space.drive));
	return (NULL);
}
