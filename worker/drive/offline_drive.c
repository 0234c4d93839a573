/*
 * memkv drive list, info, clear-failures, wipe. One process, one thread; owns nothing between media. list and info only look and need no lock: what
 * a running server writes meanwhile shows as what it was a moment ago. The other two take the lock.
 */
#include "config.h"

#include "worker/drive/offline_priv.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/base/os.h"
#include "common/base/units.h"

/* What a look at one medium needs. */
struct look {
	const struct offline *o;
	struct probe	p;
	uint8_t		*head;
	struct mkv_fail_row *rows;
	struct mkv_fail_sum sum;
	struct mkv_ckpt_head ckpt;		/* newest; magic 0: none found */
	uint64_t	until_ns;		/* wipe: a medium that is in use may become free; else 0 */
	int		all;			/* list: also what is neither empty nor ours */
	unsigned	shown, missing;
};

static int
look_init(struct look *l, const struct offline *o)
{
	memset(l, 0, sizeof(*l));
	l->o = o;
	l->rows = calloc(MKV_FAIL_ROWS, sizeof(*l->rows));
	if (posix_memalign((void **)&l->head, MKV_BLOCK, PROBE_HEAD_BYTES) != 0)
		l->head = NULL;
	if (l->rows != NULL && l->head != NULL)
		return (OFFLINE_DONE);
	offline_say(o, "%s", mkv_err(MKV_E_NOMEM));
	return (OFFLINE_FAILED);
}

static void
look_fini(struct look *l)
{
	free(l->rows);
	free(l->head);
}

/* Both heads of both checkpoint areas: the newest that is whole. */
static void
look_checkpoint(struct look *l)
{
	const struct mkv_sb *sb = &l->p.sb;
	const struct mkv_ckpt_head *h = (const void *)l->head;

	for (uint32_t k = 0; k < 4; k++) {
		uint64_t off = sb->ckpt_off[k / 2] + (k % 2 ? (uint64_t)(sb->ckpt_blocks - 1) * MKV_BLOCK : 0);

		if (probe_read(&l->p, l->head, MKV_BLOCK, off) != 0 || h->magic != MKV_CKPT_HEAD_MAGIC || h->tag != mkv_block_tag(sb->uuid) ||
		    !mkv_block_good(h, offsetof(struct mkv_ckpt_head, crc)))
			continue;
		if (l->ckpt.magic == 0 || h->id > l->ckpt.id)
			l->ckpt = *h;
	}
}

static void
look_at(struct look *l, const char *path)
{
	memset(&l->sum, 0, sizeof(l->sum));
	l->ckpt.magic = 0;
	probe_settled(&l->p, path, l->head, l->until_ns);
	if (l->p.content != PROBE_STORE)
		return;
	(void)offline_failures(&l->p, l->rows, &l->sum);
	look_checkpoint(l);
}

/* ---- list ---- */

static void
list_json(struct look *l)
{
	struct offline_json j = { .to = stdout };
	char uuid[37];

	js_open(&j, NULL, '{');
	js_text(&j, "media", l->p.path);
	js_text(&j, "kind", l->p.is_block ? "device" : "file");
	js_u64(&j, "bytes", l->p.bytes);
	js_text(&j, "state", probe_state_name(l->p.state));
	js_text(&j, "found", l->p.what);
	if (l->p.model[0] != '\0')
		js_text(&j, "model", l->p.model);
	if (l->p.content == PROBE_STORE) {
		offline_uuid_text(uuid, l->p.sb.uuid);
		js_text(&j, "uuid", uuid);
		js_u64(&j, "failures", l->sum.events);
	}
	js_close(&j, '}');
	fputc('\n', stdout);
}

static void
list_one(void *arg, const char *path)
{
	struct look *l = arg;
	char size[32], fail[64] = "";

	look_at(l, path);
	l->missing += l->p.state == PROBE_MISSING || l->p.state == PROBE_UNUSABLE;
	if (l->o->json) {
		list_json(l);
		return;
	}
	if (l->shown++ == 0)
		printf("%-24s %10s  %-8s  %s\n", "MEDIUM", "SIZE", "STATE", "FOUND");
	if (l->p.content == PROBE_STORE && l->sum.events > 0)
		snprintf(fail, sizeof(fail), "; %llu failures recorded", (unsigned long long)l->sum.events);
	if (l->p.state == PROBE_DAMAGED || l->p.state == PROBE_FOREIGN)
		snprintf(fail, sizeof(fail), " (memkv setup wants --force for it)");
	printf("%-24s %10s  %-8s  %s%s%s%s\n", l->p.path, mkv_size_human(size, sizeof(size), l->p.bytes), probe_state_name(l->p.state), l->p.what, fail,
	    l->p.model[0] != '\0' ? "; " : "", l->p.model);
}

int
offline_list(const struct offline *o)
{
	struct look l;
	int status = look_init(&l, o);

	if (status == OFFLINE_DONE && o->n_media > 0) {
		for (unsigned i = 0; i < o->n_media; i++)
			list_one(&l, o->media[i]);
	} else if (status == OFFLINE_DONE) {
		probe_each(list_one, &l);
		if (l.shown == 0 && !o->json)
			offline_say(o, "no block devices that could hold a store; files are as good: memkv setup --drives /path/of/a/file");
	}
	look_fini(&l);
	return (status != OFFLINE_DONE ? status : o->n_media > 0 && l.missing > 0 ? OFFLINE_FAILED : OFFLINE_DONE);
}

/* ---- info ---- */

static void
info_json_failures(struct offline_json *j, const struct look *l)
{
	const struct mkv_fail_row *f;
	uint64_t at = 0;

	js_open(j, "failures", '[');
	while ((f = mkv_fail_next(l->rows, &l->sum, &at)) != NULL) {
		js_open(j, NULL, '{');
		js_text(j, "what", mkv_fail_label(f->what));
		js_u64(j, "offset", f->off);
		js_u64(j, "bytes", f->bytes);
		js_u64(j, "count", f->count);
		js_text(j, "error", mkv_err_name(f->err));
		js_u64(j, "first_ms", f->first_ms);
		js_u64(j, "last_ms", f->last_ms);
		js_u64(j, "detail", f->arg);
		js_close(j, '}');
	}
	js_close(j, ']');
}

static void
info_json(const struct look *l)
{
	struct offline_json j = { .to = stdout };
	const struct mkv_sb *sb = &l->p.sb;
	char text[40];

	js_open(&j, NULL, '{');
	js_text(&j, "media", l->p.path);
	js_text(&j, "state", probe_state_name(l->p.state));
	js_text(&j, "found", l->p.what);
	js_u64(&j, "bytes", l->p.bytes);
	if (l->p.content == PROBE_STORE) {
		offline_uuid_text(text, sb->uuid);
		js_text(&j, "uuid", text);
		offline_uuid_text(text, sb->server_id);
		js_text(&j, "server_id", text);
		js_u64(&j, "format", sb->version);
		js_u64(&j, "created_ms", sb->created_ms);
		js_u64(&j, "epoch", sb->epoch);
		js_u64(&j, "mount", sb->mount);
		js_bool(&j, "clean", (int)sb->clean);
		js_u64(&j, "superblocks_good", (unsigned)(l->p.copy[0] == MKV_SB_GOOD) + (l->p.copy[1] == MKV_SB_GOOD));
		js_u64(&j, "data_bytes", sb->data_units * sb->unit_bytes);
		js_u64(&j, "unit_bytes", sb->unit_bytes);
		js_u64(&j, "block_size", sb->extent_bytes);
		js_u64(&j, "objects_max", sb->objects_max);
		js_u64(&j, "journal_bytes", (uint64_t)sb->journal_blocks * MKV_BLOCK);
		js_u64(&j, "objects", l->ckpt.magic != 0 ? l->ckpt.items : 0);
		js_u64(&j, "failure_events", l->sum.events);
		info_json_failures(&j, l);
	}
	js_close(&j, '}');
	fputc('\n', stdout);
}

static void
info_failures(const struct look *l)
{
	const struct mkv_fail_row *f;
	char first[32], last[32];
	uint64_t at = 0;

	if (l->sum.damaged > 0)
		printf("  registry       %u of its blocks are damaged\n", l->sum.damaged);
	if (l->sum.rows == 0) {
		printf("  failures       none recorded\n");
		return;
	}
	printf("  failures       %llu, oldest place first\n", (unsigned long long)l->sum.events);
	while ((f = mkv_fail_next(l->rows, &l->sum, &at)) != NULL) {
		offline_time_text(first, f->first_ms);
		offline_time_text(last, f->last_ms);
		printf("    %-10s at %llu, %u bytes: %s (%s), %u times, first %s, last %s\n", mkv_fail_label(f->what), (unsigned long long)f->off, f->bytes,
		    mkv_fail_text(f->what), mkv_err(f->err), f->count, first, last);
	}
}

static void
info_store(const struct look *l)
{
	static const uint8_t nobody[16];
	const struct mkv_sb *sb = &l->p.sb;
	char uuid[37], server[37], made[32], a[32], b[32], c[32];

	offline_uuid_text(uuid, sb->uuid);
	offline_uuid_text(server, sb->server_id);
	offline_time_text(made, sb->created_ms);
	printf("  uuid           %s\n  server         %s\n  format         %u, made %s\n", uuid,
	    memcmp(sb->server_id, nobody, 16) == 0 ? "none yet: the first one that opens it" : server, sb->version, made);
	printf("  for values     %s in blocks of %s, units of %s\n", mkv_size_human(a, sizeof(a), sb->data_units * sb->unit_bytes),
	    mkv_size_human(b, sizeof(b), sb->extent_bytes), mkv_size_human(c, sizeof(c), sb->unit_bytes));
	printf("  journal        %s\n", mkv_size_human(a, sizeof(a), (uint64_t)sb->journal_blocks * MKV_BLOCK));
	if (l->ckpt.magic != 0)
		printf("  objects        %llu in its last checkpoint, at most %u\n", (unsigned long long)l->ckpt.items, sb->objects_max);
	else
		printf("  objects        no checkpoint yet, at most %u\n", sb->objects_max);
	printf("  opened         %u times, last in epoch %u, %s\n", sb->mount, sb->epoch,
	    sb->clean ? "closed in order" : l->p.busy ? "in use" : "not closed in order: the next start recovers");
	printf("  superblocks    %s\n", l->p.copy[0] == MKV_SB_GOOD && l->p.copy[1] == MKV_SB_GOOD ? "both good" :
	    "one is damaged: the next start, or memkv drive repair, writes it again");
	info_failures(l);
}

int
offline_info(const struct offline *o)
{
	struct look l;
	int status = look_init(&l, o), bad = 0;
	char size[32];

	for (unsigned i = 0; status == OFFLINE_DONE && i < o->n_media; i++) {
		look_at(&l, o->media[i]);
		bad |= l.p.content != PROBE_STORE;
		if (o->json) {
			info_json(&l);
			continue;
		}
		printf("%s: %s, %s%s%s\n", l.p.path, l.p.what, mkv_size_human(size, sizeof(size), l.p.bytes), l.p.model[0] != '\0' ? ", " : "", l.p.model);
		if (l.p.content == PROBE_STORE)
			info_store(&l);
	}
	look_fini(&l);
	return (status != OFFLINE_DONE ? status : bad ? OFFLINE_FAILED : OFFLINE_DONE);
}

/* ---- clear-failures ---- */

static int
clear_one(struct look *l, const char *path)
{
	struct offline_store s;
	char why[512];
	int r;

	look_at(l, path);
	if (l->p.content != PROBE_STORE) {
		offline_say(l->o, "%s: %s: no registry to clear", path, l->p.what);
		return (-1);
	}
	if (offline_open(&s, path, why, sizeof(why)) != 0) {
		offline_say(l->o, "%s", why);
		return (-1);
	}
	if (s.bytes < l->p.sb.total_bytes) {		/* the registry may lie beyond its end */
		offline_say(l->o, "%s was formatted with %llu bytes and has %llu now: give it its size back, or begin anew with memkv setup --force", path,
		    (unsigned long long)l->p.sb.total_bytes, (unsigned long long)s.bytes);
		offline_close(&s);
		return (-1);
	}
	if ((r = offline_zero(&s, MKV_FAILREG_BLOCKS * MKV_BLOCK, MKV_FAILREG_OFF)) == 0)
		r = offline_flush(&s);
	offline_close(&s);
	if (r != 0) {
		offline_say(l->o, "%s cannot be written: %s", path, mkv_err(r));
		return (-1);
	}
	if (!l->o->quiet)
		printf("%s: %llu failures cleared\n", path, (unsigned long long)l->sum.events);
	return (0);
}

int
offline_clear_failures(const struct offline *o)
{
	struct look l;
	int status = look_init(&l, o), bad = 0;

	for (unsigned i = 0; status == OFFLINE_DONE && i < o->n_media; i++)
		bad |= clear_one(&l, o->media[i]);
	look_fini(&l);
	return (status != OFFLINE_DONE ? status : bad ? OFFLINE_FAILED : OFFLINE_DONE);
}

/* ---- wipe ---- */

static int
wipe_asked(const struct offline *o, const struct probe *p)
{
	char answer[16] = "";

	if (o->yes)
		return (1);
	if (!isatty(STDIN_FILENO)) {
		offline_say(o, "%s: %s: --yes wipes it without a question", p->path, p->what);
		return (0);
	}
	fprintf(stderr, "%s: %s. Everything in it is lost when it is wiped. Type yes to go on: ", p->path, p->what);
	if (fgets(answer, sizeof(answer), stdin) != NULL && strcmp(answer, "yes\n") == 0)
		return (1);
	offline_say(o, "%s: left as it is", p->path);
	return (0);
}

/* Values lie behind: of a file they go as well, so that it is told from somebody else's. Its blocks stay. 0 or MKV_E_*. */
static int
wipe_rest(const struct look *l, const struct offline_store *s)
{
	if (l->p.is_block || s->bytes <= PROBE_HEAD_BYTES)
		return (0);
	return (mkv_os_zero(s->fd, PROBE_HEAD_BYTES, s->bytes - PROBE_HEAD_BYTES));
}

/* The whole first MiB: superblocks, pool map, registry. A server finds it empty then. */
static int
wipe_one(struct look *l, const char *path)
{
	struct offline_store s;
	char why[512];
	int r, rest = 0;

	look_at(l, path);
	if (l->p.content != PROBE_STORE && l->p.content != PROBE_DAMAGED) {
		offline_say(l->o, "%s: %s: only stores of memkv are wiped (memkv setup --force formats anything)", path, l->p.what);
		return (-1);
	}
	if (l->p.state == PROBE_IN_USE) {
		offline_say(l->o, "%s: %s: stop the server that has it first", path, l->p.what);
		return (-1);
	}
	if (!wipe_asked(l->o, &l->p))
		return (-1);
	if (offline_open(&s, path, why, sizeof(why)) != 0) {
		offline_say(l->o, "%s", why);
		return (-1);
	}
	if ((r = offline_zero(&s, MKV_MIN(PROBE_HEAD_BYTES, s.bytes), 0)) == 0 && (r = offline_flush(&s)) == 0)
		rest = wipe_rest(l, &s);
	offline_close(&s);
	if (r != 0) {
		offline_say(l->o, "%s cannot be written: %s", path, mkv_err(r));
		return (-1);
	}
	if (rest == MKV_E_NOSPACE)
		offline_say(l->o, "%s: its space is not reserved any more, for its filesystem is full; memkv setup reserves it again", path);
	else if (rest != 0)
		offline_say(l->o, "%s: its filesystem cannot zero what lies behind the first MiB (%s): a server takes it as empty, memkv setup wants --force", path,
		    mkv_err(rest));
	if (!l->o->quiet)
		printf("%s: wiped\n", path);
	return (0);
}

int
offline_wipe(const struct offline *o)
{
	struct look l;
	int status = look_init(&l, o), bad = 0;

	l.until_ns = mkv_now_ns() + PROBE_SETTLE_NS;
	for (unsigned i = 0; status == OFFLINE_DONE && i < o->n_media; i++)
		bad |= wipe_one(&l, o->media[i]);
	look_fini(&l);
	return (status != OFFLINE_DONE ? status : bad ? OFFLINE_FAILED : OFFLINE_DONE);
}
