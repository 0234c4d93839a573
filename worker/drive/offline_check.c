/*
 * memkv drive check and repair. One process, one thread; owns the store while it looks.
 *
 * check: the engine's own recovery in memory, then every page and record, with --data every byte; nothing is written. repair: the same recovery made
 * durable, what has lost its record or its bytes dropped, a checkpoint, a clean mark. A server's start does the first half by itself; repair finds
 * before it what would be misses later.
 *
 * Pieces of striped values are known to their journal records by the server's secret alone: where a store has pieces, repair needs server.state.
 */
#include "config.h"

#include "worker/drive/offline_priv.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/units.h"

#define CHECK_SHOW_NS	(500 * MKV_NS_PER_MS)
#define CHECK_LINES_MAX	200u			/* of damage that are listed one by one */

struct check {
	const struct offline *o;
	const char	*path;
	uint64_t	until_ns;	/* a medium that is in use may become free */
	struct probe	p;
	struct offline_store s;
	struct mkv_inspect in;
	struct mkv_engine_info info;
	uint8_t		secret[32];
	int		has_secret;
	unsigned	lines;
	uint64_t	shown_ns;
	int		shown;
};

static void
check_clear_line(struct check *c)
{
	if (c->shown)
		fputs("\r\033[K", stderr);
	c->shown = 0;
}

static void
check_progress(void *arg, uint64_t done, uint64_t of)
{
	struct check *c = arg;
	uint64_t now = mkv_now_ns();
	char size[32];

	if (c->o->quiet || !isatty(STDERR_FILENO) || now - c->shown_ns < CHECK_SHOW_NS)
		return;
	c->shown_ns = now;
	c->shown = 1;
	fprintf(stderr, "\r%s: %llu of %llu objects, %s of values\033[K", c->path, (unsigned long long)done, (unsigned long long)of,
	    mkv_size_human(size, sizeof(size), c->in.data_bytes));
	fflush(stderr);
}

static void
check_bad(void *arg, const char *what, const uint8_t *key, size_t key_bytes, uint64_t off)
{
	struct check *c = arg;
	char text[4 * MKV_DRV_KEY_MAX + 1], *to = text;

	check_clear_line(c);
	if (c->o->json || c->lines++ >= CHECK_LINES_MAX)
		return;
	for (size_t i = 0; i < key_bytes && i < MKV_DRV_KEY_MAX; i++) {
		if (key[i] < ' ' || key[i] >= 127 || key[i] == '\\')
			to += sprintf(to, "\\x%02x", key[i]);
		else
			*to++ = (char)key[i];
	}
	*to = '\0';
	printf("  at %llu: %s%s%s\n", (unsigned long long)off, key_bytes > 0 ? text : "", key_bytes > 0 ? ": " : "", what);
	if (c->lines == CHECK_LINES_MAX)
		printf("  and more, which are counted only\n");
}

/* ---- the server's secret ---- */

static int
check_state_path(const struct offline *o, char path[PATH_MAX])
{
	const char *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	int n;

	if (o->data_dir != NULL)
		n = snprintf(path, PATH_MAX, "%s/server.state", o->data_dir);
	else if (geteuid() == 0)
		n = snprintf(path, PATH_MAX, "/var/lib/memkv/server.state");
	else if (xdg != NULL && xdg[0] == '/')
		n = snprintf(path, PATH_MAX, "%s/memkv/server.state", xdg);
	else
		n = snprintf(path, PATH_MAX, "%s/.local/share/memkv/server.state", home != NULL ? home : "");
	return (n < PATH_MAX ? 0 : -1);
}

static int
check_unhex(uint8_t *dst, size_t bytes, const char *hex)
{
	unsigned v;

	if (strspn(hex, "0123456789abcdef") != 2 * bytes)
		return (-1);
	for (size_t i = 0; i < bytes; i++) {
		(void)sscanf(hex + 2 * i, "%2x", &v);
		dst[i] = (uint8_t)v;
	}
	return (0);
}

/* The state file of the server that this store belongs to. */
static void
check_secret(struct check *c)
{
	char path[PATH_MAX], line[512], hex[65];
	uint8_t id[16];
	int ours = 0;
	FILE *f = check_state_path(c->o, path) == 0 ? fopen(path, "re") : NULL;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		if (sscanf(line, "server_id %32s", hex) == 1)
			ours = check_unhex(id, sizeof(id), hex) == 0 && memcmp(id, c->p.sb.server_id, sizeof(id)) == 0;
		else if (sscanf(line, "store_secret %64s", hex) == 1)
			c->has_secret = ours && check_unhex(c->secret, sizeof(c->secret), hex) == 0;
	}
	if (f != NULL)
		fclose(f);
}

/* ---- the work ---- */

static int
check_open(struct check *c, int look_only)
{
	char why[512] = "";
	int r = offline_open(&c->s, c->path, why, sizeof(why));

	if (r == 0) {
		c->s.opts.extent_bytes = c->p.sb.extent_bytes;
		c->s.opts.look_only = look_only;
		memcpy(c->s.opts.store_secret, c->secret, sizeof(c->secret));
		if ((r = offline_engine(&c->s, c->path, why, sizeof(why))) == 0) {
			mkv_engine_info(c->s.e, &c->info);
			return (0);
		}
		offline_close(&c->s);
	}
	offline_say(c->o, "%s", why);
	return (r);
}

static int
check_inspect(struct check *c, int repair, int data)
{
	int r;

	memset(&c->in, 0, sizeof(c->in));
	c->in.repair = repair;
	c->in.data = data;
	c->in.progress = check_progress;
	c->in.bad = check_bad;
	c->in.arg = c;
	r = mkv_engine_inspect(c->s.e, &c->in);
	check_clear_line(c);
	if (r != 0)
		offline_say(c->o, "%s: %s", c->path, mkv_err(r));
	return (r);
}

static int
check_damaged(const struct check *c)
{
	return (c->info.damaged_blocks > 0 || c->info.lost_objects > 0 || c->info.superblock_bad || c->in.bad_pages > 0 || c->in.bad_records > 0 ||
	    c->in.bad_data > 0);
}

static void
check_json(const struct check *c, const char *result)
{
	struct offline_json j = { .to = stdout };

	js_open(&j, NULL, '{');
	js_text(&j, "media", c->path);
	js_text(&j, "result", result);
	js_u64(&j, "objects", c->in.objects);
	js_u64(&j, "pages", c->in.pages);
	js_u64(&j, "data_bytes", c->in.data_bytes);
	js_u64(&j, "damaged_blocks", c->info.damaged_blocks);
	js_u64(&j, "torn_records", c->info.torn_records);
	js_u64(&j, "superblocks_bad", c->info.superblock_bad);
	js_u64(&j, "pages_bad", c->in.bad_pages);
	js_u64(&j, "objects_lost", c->info.lost_objects + c->in.bad_records);
	js_u64(&j, "objects_bad_data", c->in.bad_data);
	js_u64(&j, "dropped", c->in.dropped);
	js_close(&j, '}');
	fputc('\n', stdout);
}

static void
check_found(const struct check *c)
{
	if (c->info.superblock_bad)
		printf("  one superblock is damaged, the other is good\n");
	if (c->info.damaged_blocks > 0)
		printf("  %u blocks of journal or checkpoint are damaged, %u objects were known to them alone\n", c->info.damaged_blocks, c->info.lost_objects);
	else if (c->info.lost_objects > 0)
		printf("  %u objects have lost their place\n", c->info.lost_objects);
	if (c->in.bad_pages > 0)
		printf("  %llu metadata pages are damaged\n", (unsigned long long)c->in.bad_pages);
	if (c->in.bad_records > 0)
		printf("  %llu objects have lost their record\n", (unsigned long long)c->in.bad_records);
	if (c->in.bad_data > 0)
		printf("  %llu objects have wrong bytes\n", (unsigned long long)c->in.bad_data);
}

static int
check_report(const struct check *c)
{
	char size[32];
	int damaged = check_damaged(c);

	if (c->o->json) {
		check_json(c, damaged ? "damaged" : "good");
		return (damaged ? OFFLINE_CORRUPT : OFFLINE_DONE);
	}
	printf("%s: %s, %llu objects in %llu pages", c->path, damaged ? "damaged" : "good", (unsigned long long)c->in.objects,
	    (unsigned long long)c->in.pages);
	if (c->o->data)
		printf(", %s of values read", mkv_size_human(size, sizeof(size), c->in.data_bytes));
	printf("%s\n", c->p.sb.clean ? "" : ", not closed in order");
	check_found(c);
	if (c->info.torn_records > 0)
		printf("  %u records of the last moment before the crash are not complete, as may be; they were not acknowledged\n", c->info.torn_records);
	if (damaged)
		printf("  memkv drive repair makes it a store again; what is lost will be misses\n");
	return (damaged ? OFFLINE_CORRUPT : OFFLINE_DONE);
}

static int
repair_report(const struct check *c)
{
	int damaged = check_damaged(c);

	if (c->o->json) {
		check_json(c, damaged ? "repaired" : "good");
		return (OFFLINE_DONE);
	}
	printf("%s: %s, %llu objects\n", c->path, damaged ? "repaired" : "nothing to repair, closed in order",
	    (unsigned long long)(c->in.objects - c->in.bad_data));
	check_found(c);
	if (c->in.dropped > 0)
		printf("  %llu objects were dropped\n", (unsigned long long)c->in.dropped);
	return (OFFLINE_DONE);
}

static int
check_begin(struct check *c)
{
	probe_settled(&c->p, c->path, NULL, c->until_ns);
	if (c->p.state == PROBE_STORE)
		return (OFFLINE_DONE);
	if (c->p.state == PROBE_IN_USE)
		offline_say(c->o, "%s: %s: stop the server that has it first", c->path, c->p.what);
	else if (c->p.state == PROBE_DAMAGED)
		offline_say(c->o, "%s: %s: what it holds cannot be found again; memkv setup --force makes a new store", c->path, c->p.what);
	else
		offline_say(c->o, "%s: %s: no store of memkv", c->path, c->p.what);
	return (c->p.state == PROBE_DAMAGED ? OFFLINE_CORRUPT : OFFLINE_FAILED);
}

static int
check_one(struct check *c)
{
	int status = check_begin(c), r;

	if (status != OFFLINE_DONE)
		return (status);
	if (check_open(c, 1) != 0)
		return (OFFLINE_FAILED);
	r = check_inspect(c, 0, (int)c->o->data);
	offline_close(&c->s);
	return (r != 0 ? OFFLINE_FAILED : check_report(c));
}

/* First a look without a write: are there pieces? Then for good. */
static int
repair_one(struct check *c)
{
	int status = check_begin(c), r;

	if (status != OFFLINE_DONE)
		return (status);
	check_secret(c);
	if (check_open(c, 1) != 0)
		return (OFFLINE_FAILED);
	c->lines = CHECK_LINES_MAX;			/* told the second time */
	r = check_inspect(c, 0, 0);
	offline_close(&c->s);
	c->lines = 0;
	if (r != 0)
		return (OFFLINE_FAILED);
	if (c->in.pieces > 0 && !c->has_secret) {
		offline_say(c->o, "%s has pieces of values that lie on several drives: name the directory of its server's state with --data-dir", c->path);
		return (OFFLINE_USAGE);
	}
	if (check_open(c, 0) != 0)
		return (OFFLINE_FAILED);
	r = check_inspect(c, 1, (int)c->o->data);
	if (r == 0 && (r = offline_engine_close(&c->s)) != 0)
		offline_say(c->o, "%s: what was repaired cannot be made durable: %s", c->path, c->s.readonly[0] != '\0' ? c->s.readonly : mkv_err(r));
	offline_close(&c->s);
	return (r != 0 ? OFFLINE_FAILED : repair_report(c));
}

static int
check_all(const struct offline *o, int (*one)(struct check *))
{
	struct check *c = calloc(1, sizeof(*c));
	uint64_t until = mkv_now_ns() + PROBE_SETTLE_NS;
	int worst = OFFLINE_DONE, status;

	if (c == NULL) {
		offline_say(o, "%s", mkv_err(MKV_E_NOMEM));
		return (OFFLINE_FAILED);
	}
	for (unsigned i = 0; i < o->n_media; i++) {
		memset(c, 0, sizeof(*c));
		c->o = o;
		c->path = o->media[i];
		c->until_ns = until;
		status = one(c);
		worst = MKV_MAX(worst, status);
	}
	free(c);
	return (worst);
}

int
offline_check(const struct offline *o)
{
	return (check_all(o, check_one));
}

int
offline_repair(const struct offline *o)
{
	return (check_all(o, repair_one));
}
