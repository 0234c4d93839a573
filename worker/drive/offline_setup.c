/*
 * memkv setup: look at all media, refuse or format them, print a configuration. One process; one child process a medium that is formatted, so that
 * they work side by side and the end of one is the end of one.
 *
 *   look at everything -> any refusal: say all of them, change nothing
 *   -> files: reserve their space, all of it, or give it all back
 *   -> format, OFFLINE_AT_ONCE children at a time, their progress by pipes -> configuration
 *
 * Owns the files it made until they are formatted: what fails before that is removed again. A child that dies without a word is a failure.
 */
#include "config.h"

#include "worker/drive/offline_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "common/base/units.h"

#define SETUP_AT_ONCE	16u
#define SETUP_FILE	(1ull << 30)		/* as a server makes it by default */
#define SETUP_EXTENT	(4u << 20)
#define SETUP_NEW	"%s.new"		/* --config-out before it is whole */
#define SETUP_SHOW_NS	(200 * MKV_NS_PER_MS)

struct setup_drive {
	struct probe	p;
	int		keep;			/* --idempotent: ours and right as it is */
	int		made;			/* we created this file */
	int		erase;
	pid_t		pid;			/* of the child; 0: not started or ended */
	int		fd;			/* its reports */
	char		line[1024];		/* of them, what has come of the next */
	size_t		have;
	unsigned	pct;
	int		done, failed;
	uint64_t	bytes, data_bytes;
	char		uuid[37], why[512];
};

struct setup {
	const struct offline *o;
	struct setup_drive *d;
	unsigned	n, next, running;
	int		is_file;
	uint32_t	extent_bytes;
	uint64_t	file_bytes, shown_ns;
};

/* ---- what may be used ---- */

static void
setup_refuse(struct setup_drive *d, const char *why, const char *what_to_do)
{
	snprintf(d->why, sizeof(d->why), "%.*s: %.*s: %s", 200, d->p.path, 200, why, what_to_do);
	d->failed = 1;
}

/* Ours, and as it would be if it were formatted now? */
static int
setup_fits(const struct setup *s, const struct setup_drive *d)
{
	if (d->p.content != PROBE_STORE || d->p.sb.total_bytes != (d->p.bytes & ~4095ull))
		return (0);
	if (s->o->extent_bytes != 0 && d->p.sb.extent_bytes != s->extent_bytes)
		return (0);
	return (d->p.is_block || s->o->file_bytes == 0 || d->p.bytes == s->file_bytes);
}

static void
setup_judge_store(struct setup *s, struct setup_drive *d)
{
	if (s->o->idempotent && setup_fits(s, d))
		d->keep = 1;
	else if (s->o->force)
		d->erase = 1;
	else if (s->o->idempotent)
		setup_refuse(d, d->p.what, "its size or --shard-size is not what was asked for; --force formats it anew, and all it holds is lost");
	else
		setup_refuse(d, d->p.what, "--idempotent takes it as it is, --force formats it anew, and all it holds is lost");
}

static void
setup_judge(struct setup *s, struct setup_drive *d)
{
	switch (d->p.state) {
	case PROBE_MISSING:
		if (strncmp(d->p.path, "/dev/", 5) == 0)
			setup_refuse(d, "there is no such device", "`memkv setup` without --drives shows those that are there");
		break;
	case PROBE_EMPTY:
		break;
	case PROBE_IN_USE:
		if (s->o->idempotent && d->p.busy && setup_fits(s, d))
			d->keep = 1;		/* a server runs on it: nothing is to be done */
		else
			setup_refuse(d, d->p.what, "unmount it, switch it off or stop who uses it; --force does not help here");
		break;
	case PROBE_STORE:
		setup_judge_store(s, d);
		break;
	case PROBE_DAMAGED:
	case PROBE_FOREIGN:
		if (s->o->force)
			d->erase = 1;
		else
			setup_refuse(d, d->p.what, "--force formats it, and all it holds is lost");
		break;
	default:
		setup_refuse(d, d->p.what, "it cannot be used");
		break;
	}
	if (!d->failed && d->p.partitions > 0 && !s->o->force && !d->keep)
		setup_refuse(d, "it has partitions", "--force formats the whole device, and all it holds is lost");
}

/* How large a file is to be: as --file-size says; without it, what is there and can hold a store keeps its size. */
static uint64_t
setup_file_bytes(const struct setup *s, const struct setup_drive *d)
{
	struct mkv_layout_want w = { .total_bytes = d->p.bytes & ~4095ull, .extent_bytes = s->extent_bytes };
	struct mkv_sb sb = { 0 };
	char why[200];

	return (s->o->file_bytes == 0 && mkv_layout_plan(&sb, &w, why, sizeof(why)) == 0 ? w.total_bytes : s->file_bytes);
}

/* Before anything is erased: can there be a store on it at all? */
static void
setup_judge_size(const struct setup *s, struct setup_drive *d)
{
	struct mkv_layout_want w = { .total_bytes = (d->p.is_block ? d->p.bytes : setup_file_bytes(s, d)) & ~4095ull, .extent_bytes = s->extent_bytes };
	struct mkv_sb sb = { 0 };
	char why[200];

	if (d->failed || d->keep)
		return;
	if (d->p.sector_bytes > MKV_BLOCK) {
		snprintf(why, sizeof(why), "its sectors have %u bytes", d->p.sector_bytes);
		setup_refuse(d, why, "sectors of at most 4096 bytes are supported");
	} else if (mkv_layout_plan(&sb, &w, why, sizeof(why)) != 0)
		setup_refuse(d, why, "take a larger one, or a smaller --shard-size");
}

/* A configuration has one line for a name, and names no medium by nothing. */
static void
setup_judge_name(struct setup_drive *d)
{
	const char *c = d->p.path;

	while ((unsigned char)*c >= ' ' && *c != 0x7f)
		c++;
	if (d->failed || (*c == '\0' && c > d->p.path))
		return;
	if (*c == '\0')
		setup_refuse(d, "(nothing): a medium without a name", "name a device or a file");
	else
		setup_refuse(d, "its name has a control character, which a configuration cannot hold", "give it another name, or a symbolic link");
}

/* The same medium twice, under whatever names. */
static void
setup_judge_twice(struct setup *s, unsigned i)
{
	for (unsigned k = 0; k < i && !s->d[i].failed; k++) {
		const struct probe *a = &s->d[i].p, *b = &s->d[k].p;
		int same = strcmp(a->path, b->path) == 0 || (a->bytes > 0 && a->dev == b->dev && a->ino == b->ino && a->is_block == b->is_block);

		if (same)
			setup_refuse(&s->d[i], "it is named twice", "name each medium once");
	}
}

/* Is it one of the drives, under whatever name? What is not there yet has only its name. */
static int
setup_is_drive(const struct setup *s, const char *path)
{
	struct stat a, b;

	for (unsigned i = 0; i < s->n; i++) {
		const char *drive = s->d[i].p.path;

		if (strcmp(drive, path) == 0 || (stat(path, &a) == 0 && stat(drive, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino))
			return (1);
	}
	return (0);
}

/* The configuration, or what it is before it is whole, would be written over a store. */
static int
setup_config_hits(const struct setup *s)
{
	char tmp[PATH_MAX];

	if (s->o->config_out == NULL)
		return (0);
	if (snprintf(tmp, sizeof(tmp), SETUP_NEW, s->o->config_out) >= (int)sizeof(tmp))
		tmp[0] = '\0';
	if (!setup_is_drive(s, s->o->config_out) && !setup_is_drive(s, tmp))
		return (0);
	offline_say(s->o, "--config-out %s: it, or " SETUP_NEW " where it is written first, is one of the drives: give the configuration a file of its own",
	    s->o->config_out, s->o->config_out);
	offline_say(s->o, "nothing was changed");
	return (1);
}

static int
setup_look(struct setup *s)
{
	uint64_t until = s->o->idempotent ? 0 : mkv_now_ns() + PROBE_SETTLE_NS;
	int bad = 0, files = 0;
	void *head;

	if (posix_memalign(&head, MKV_BLOCK, PROBE_HEAD_BYTES) != 0)
		return (OFFLINE_FAILED);
	for (unsigned i = 0; i < s->n; i++) {
		probe_settled(&s->d[i].p, s->o->media[i], head, until);
		setup_judge(s, &s->d[i]);
		setup_judge_name(&s->d[i]);
		setup_judge_twice(s, i);
		setup_judge_size(s, &s->d[i]);
		files += !s->d[i].p.is_block && s->d[i].p.state != PROBE_UNUSABLE;
		bad += s->d[i].failed;
	}
	free(head);
	for (unsigned i = 0; i < s->n; i++) {
		if (s->d[i].failed)
			offline_say(s->o, "%s", s->d[i].why);
	}
	s->is_file = files > 0;
	if (bad == 0 && setup_config_hits(s))
		return (OFFLINE_USAGE);
	if (bad == 0 && files > 0 && files < (int)s->n) {
		offline_say(s->o, "files and block devices do not go together in one server: name one kind");
		return (OFFLINE_USAGE);
	}
	if (bad > 0)
		offline_say(s->o, "nothing was changed");
	return (bad > 0 ? OFFLINE_FAILED : OFFLINE_DONE);
}

/* ---- files ---- */

static int
setup_reserve_one(struct setup *s, struct setup_drive *d)
{
	uint64_t bytes = setup_file_bytes(s, d);
	struct statvfs fs;
	struct stat st;
	char need[32], left[32];
	int fd = open(d->p.path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | O_CREAT | (d->p.state == PROBE_MISSING ? O_EXCL : 0), 0600), r;

	if (fd < 0) {
		snprintf(d->why, sizeof(d->why), "%s cannot be made: %s", d->p.path, strerror(errno));
		return (-1);
	}
	d->made = d->p.state == PROBE_MISSING;
	/* What is there already counts: only a file that is to be formatted anew may shrink. */
	if (fstat(fd, &st) == 0 && (uint64_t)st.st_size > bytes && ftruncate(fd, (off_t)bytes) != 0)
		r = mkv_err_from_errno(errno);
	else
		r = mkv_os_preallocate(fd, bytes);
	if (r == MKV_E_NOSPACE && fstatvfs(fd, &fs) == 0)
		snprintf(d->why, sizeof(d->why), "%s needs %s and its filesystem has %s left: choose a smaller --file-size, or another place", d->p.path,
		    mkv_size_human(need, sizeof(need), bytes), mkv_size_human(left, sizeof(left), (uint64_t)fs.f_bavail * fs.f_frsize));
	else if (r == MKV_E_UNSUPPORTED)
		snprintf(d->why, sizeof(d->why), "%s: its filesystem cannot reserve space for a file: choose another place", d->p.path);
	else if (r != 0)
		snprintf(d->why, sizeof(d->why), "%s: its space cannot be reserved: %s", d->p.path, mkv_err(r));
	close(fd);
	return (r != 0 ? -1 : 0);
}

static int
setup_reserve(struct setup *s)
{
	int status = OFFLINE_DONE;

	for (unsigned i = 0; i < s->n && status == OFFLINE_DONE; i++) {
		if (s->d[i].keep || setup_reserve_one(s, &s->d[i]) == 0)
			continue;
		offline_say(s->o, "%s", s->d[i].why);
		status = OFFLINE_FAILED;
	}
	if (status == OFFLINE_DONE && setup_config_hits(s))	/* by another name of a file that was not there before */
		status = OFFLINE_USAGE;
	for (unsigned i = 0; i < s->n && status != OFFLINE_DONE; i++) {
		if (s->d[i].made)
			(void)unlink(s->d[i].p.path);
	}
	return (status);
}

/* ---- formatting ---- */

static void
setup_child_progress(void *arg, unsigned pct)
{
	(void)dprintf(*(int *)arg, "P %u\n", pct);
}

static void
setup_child(const struct setup *s, const struct setup_drive *d, int fd)
{
	struct offline_format f = { .path = d->p.path, .extent_bytes = s->extent_bytes, .erase = d->erase, .progress = setup_child_progress, .arg = &fd };
	char uuid[37];
	int r = offline_format(&f);

	offline_uuid_text(uuid, f.uuid);
	if (r == 0)
		(void)dprintf(fd, "D %s %llu %llu\n", uuid, (unsigned long long)f.bytes, (unsigned long long)f.data_bytes);
	else
		(void)dprintf(fd, "E %s\n", f.why);
	_exit(r == 0 ? 0 : 1);
}

static void
setup_start(struct setup *s, struct setup_drive *d)
{
	int p[2];

	d->fd = -1;
	if (pipe(p) != 0 || fcntl(p[0], F_SETFD, FD_CLOEXEC) != 0 || (d->pid = fork()) < 0) {
		setup_refuse(d, "no process for it", strerror(errno));
		d->pid = 0;
		return;
	}
	if (d->pid == 0) {
		close(p[0]);
		setup_child(s, d, p[1]);
	}
	close(p[1]);
	d->fd = p[0];
	s->running++;
}

/* A report of a child: another process of ours, but checked all the same. */
static void
setup_report(struct setup_drive *d, const char *line)
{
	unsigned long long bytes, data;

	if (sscanf(line, "P %u", &d->pct) == 1)
		return;
	if (sscanf(line, "D %36s %llu %llu", d->uuid, &bytes, &data) == 3) {
		d->bytes = bytes;
		d->data_bytes = data;
		d->done = 1;
	} else if (strncmp(line, "E ", 2) == 0)
		snprintf(d->why, sizeof(d->why), "%.*s", (int)sizeof(d->why) - 1, line + 2);
}

static void
setup_end(struct setup *s, struct setup_drive *d)
{
	char size[32], data[32];
	int status = 0;

	close(d->fd);
	d->fd = -1;
	while (waitpid(d->pid, &status, 0) < 0 && errno == EINTR)
		continue;
	d->pid = 0;
	s->running--;
	d->failed = !d->done || status != 0;
	if (d->failed) {
		if (d->why[0] == '\0')
			snprintf(d->why, sizeof(d->why), "%s: the process that formatted it died", d->p.path);
		offline_say(s->o, "%s", d->why);
		if (d->made)
			(void)unlink(d->p.path);
	} else if (!s->o->quiet) {
		if (s->shown_ns != 0)
			fputs("\r\033[K", stderr);
		offline_say(s->o, "%s: formatted, %s, %s of it for values", d->p.path, mkv_size_human(size, sizeof(size), d->bytes),
		    mkv_size_human(data, sizeof(data), d->data_bytes));
	}
}

static void
setup_take(struct setup *s, struct setup_drive *d)
{
	ssize_t n = read(d->fd, d->line + d->have, sizeof(d->line) - 1 - d->have);
	char *end;

	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0) {
		setup_end(s, d);
		return;
	}
	d->have += (size_t)n;
	d->line[d->have] = '\0';
	while ((end = strchr(d->line, '\n')) != NULL) {
		*end++ = '\0';
		setup_report(d, d->line);
		d->have = strlen(end);
		memmove(d->line, end, d->have + 1);
	}
	if (d->have == sizeof(d->line) - 1)
		d->have = 0;			/* no report is so long */
}

/* last: what it came to is shown, however soon after the line before. */
static void
setup_show(struct setup *s, int last)
{
	unsigned done = 0, of = 0, pct = 0;
	uint64_t now = mkv_now_ns();

	if (s->o->quiet || !isatty(STDERR_FILENO) || (!last && now - s->shown_ns < SETUP_SHOW_NS))
		return;
	s->shown_ns = now;
	for (unsigned i = 0; i < s->n; i++) {
		if (s->d[i].keep)
			continue;
		of++;
		done += s->d[i].done;
		pct += s->d[i].done ? 100 : s->d[i].pct;
	}
	if (of > 0)
		fprintf(stderr, "\rformatting: %u of %u done, %u %%\033[K%s", done, of, pct / of, last ? "\n" : "\r");
}

static int
setup_format(struct setup *s)
{
	struct pollfd pfd[OFFLINE_DRIVES_MAX];
	struct setup_drive *of[OFFLINE_DRIVES_MAX];
	unsigned failed = 0;

	fflush(stdout);
	for (;;) {
		nfds_t n = 0;

		for (; s->next < s->n && s->running < SETUP_AT_ONCE; s->next++) {
			if (!s->d[s->next].keep)
				setup_start(s, &s->d[s->next]);
		}
		for (unsigned i = 0; i < s->n; i++) {
			if (s->d[i].pid == 0)
				continue;
			of[n] = &s->d[i];
			pfd[n++] = (struct pollfd){ .fd = s->d[i].fd, .events = POLLIN };
		}
		if (n == 0)
			break;
		(void)poll(pfd, n, 200);
		for (nfds_t i = 0; i < n; i++) {
			if (pfd[i].revents != 0)
				setup_take(s, of[i]);
		}
		setup_show(s, 0);
	}
	setup_show(s, 1);
	for (unsigned i = 0; i < s->n; i++)
		failed += (unsigned)s->d[i].failed;
	if (failed > 0)
		offline_say(s->o, "%u of %u failed; what was formatted stays: the same command with --idempotent goes on from here", failed, s->n);
	return (failed > 0 ? OFFLINE_FAILED : OFFLINE_DONE);
}

/* ---- the configuration ---- */

/* A YAML scalar in single quotes. */
static void
setup_yaml(FILE *to, const char *s)
{
	fputc('\'', to);
	for (; *s != '\0'; s++) {
		if (*s == '\'')
			fputc('\'', to);
		fputc(*s, to);
	}
	fputc('\'', to);
}

static void
setup_config_rdma(FILE *to, const struct setup *s)
{
	char name[64], *list, *at, *one;

	if (s->o->rdma == NULL && !probe_rdma(0, name, sizeof(name)))
		return;
	fprintf(to, "rdma:\n  devices:\n");
	if (s->o->rdma == NULL) {
		for (unsigned i = 0; probe_rdma(i, name, sizeof(name)); i++)
			fprintf(to, "    - %s\n", name);
		return;
	}
	if ((list = at = strdup(s->o->rdma)) == NULL)
		return;
	while ((one = strsep(&at, ",")) != NULL)
		fprintf(to, "    - %s\n", one);
	free(list);
}

static void
setup_config(FILE *to, const struct setup *s)
{
	char size[32];

	fprintf(to, "# Made by memkv setup (memkv %s). memkv config --show-defaults lists every key.\nstorage:\n  mode: %s\n  block_size: %s\n  drives:\n",
	    PACKAGE_VERSION, s->is_file ? "file" : "direct", mkv_size_format(size, sizeof(size), s->extent_bytes));
	for (unsigned i = 0; i < s->n; i++) {
		const struct setup_drive *d = &s->d[i];

		fprintf(to, "    - media: ");
		setup_yaml(to, d->p.path);
		if (s->is_file)
			fprintf(to, "\n      max_size: %s", mkv_size_format(size, sizeof(size), d->bytes));
		fprintf(to, "\t# uuid %s\n", d->uuid);
	}
	setup_config_rdma(to, s);
}

static char *
setup_config_text(const struct setup *s)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	if (f == NULL)
		return (NULL);
	setup_config(f, s);
	if (fclose(f) != 0) {
		free(text);
		return (NULL);
	}
	return (text);
}

/* It appears whole or not at all. */
static int
setup_config_file(const struct setup *s, const char *text)
{
	char tmp[PATH_MAX];
	size_t n = strlen(text);
	int fd = -1, bad = snprintf(tmp, sizeof(tmp), SETUP_NEW, s->o->config_out) >= (int)sizeof(tmp);

	bad = bad || (fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644)) < 0;
	bad = bad || write(fd, text, n) != (ssize_t)n || fsync(fd) != 0;
	if (fd >= 0)
		bad |= close(fd) != 0;
	if (!bad && rename(tmp, s->o->config_out) == 0)
		return (OFFLINE_DONE);
	offline_say(s->o, "%s cannot be written: %s; the drives are formatted: --idempotent prints the configuration again", s->o->config_out,
	    strerror(errno));
	if (fd >= 0)
		(void)unlink(tmp);
	return (OFFLINE_FAILED);
}

static void
setup_json(const struct setup *s, const char *text)
{
	struct offline_json j = { .to = stdout };

	js_open(&j, NULL, '{');
	js_open(&j, "drives", '[');
	for (unsigned i = 0; i < s->n; i++) {
		const struct setup_drive *d = &s->d[i];

		js_open(&j, NULL, '{');
		js_text(&j, "media", d->p.path);
		js_text(&j, "uuid", d->uuid);
		js_u64(&j, "bytes", d->bytes);
		js_u64(&j, "data_bytes", d->data_bytes);
		js_bool(&j, "formatted", !d->keep);
		js_close(&j, '}');
	}
	js_close(&j, ']');
	js_text(&j, "mode", s->is_file ? "file" : "direct");
	js_u64(&j, "block_size", s->extent_bytes);
	js_text(&j, "config", text);
	js_close(&j, '}');
	fputc('\n', stdout);
}

static int
setup_print(struct setup *s)
{
	char *text;
	int status = OFFLINE_DONE;

	for (unsigned i = 0; i < s->n; i++) {
		struct setup_drive *d = &s->d[i];

		if (!d->keep)
			continue;
		offline_uuid_text(d->uuid, d->p.sb.uuid);
		d->bytes = d->p.sb.total_bytes;
		d->data_bytes = d->p.sb.data_units * d->p.sb.unit_bytes;
		if (!s->o->quiet)
			offline_say(s->o, "%s: is a store already and stays as it is", d->p.path);
	}
	if ((text = setup_config_text(s)) == NULL) {
		offline_say(s->o, "%s", mkv_err(MKV_E_NOMEM));
		return (OFFLINE_FAILED);
	}
	if (s->o->config_out != NULL)
		status = setup_config_file(s, text);
	if (s->o->json)
		setup_json(s, text);
	else if (s->o->config_out == NULL)
		fputs(text, stdout);
	free(text);
	return (status);
}

/* ---- the command ---- */

/* Kept stores decide the block size that is printed: they must agree. */
static int
setup_extent(struct setup *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		if (!s->d[i].keep || s->d[i].p.sb.extent_bytes == s->extent_bytes)
			continue;
		if (s->o->extent_bytes == 0) {
			s->extent_bytes = s->d[i].p.sb.extent_bytes;
			continue;
		}
		offline_say(s->o, "%s: its blocks have %u bytes, others have %u: one server has one size; --shard-size and --force make them alike",
		    s->d[i].p.path, s->d[i].p.sb.extent_bytes, s->extent_bytes);
		return (OFFLINE_FAILED);
	}
	return (OFFLINE_DONE);
}

static int
setup_check(const struct setup *s)
{
	struct mkv_layout_want w = { .total_bytes = s->file_bytes & ~4095ull, .extent_bytes = s->extent_bytes };
	char name[64], have[512] = "", why[256], *list, *at, *one;
	struct mkv_sb sb = { 0 };
	int bad = 0;

	if (s->n > OFFLINE_DRIVES_MAX) {
		offline_say(s->o, "%u drives: a server has at most %u", s->n, OFFLINE_DRIVES_MAX);
		return (OFFLINE_USAGE);
	}
	if (mkv_layout_plan(&sb, &w, why, sizeof(why)) != 0) {
		offline_say(s->o, "--file-size or --shard-size: %s", why);
		return (OFFLINE_USAGE);
	}
	for (unsigned i = 0; probe_rdma(i, name, sizeof(name)); i++)
		snprintf(have + strlen(have), sizeof(have) - strlen(have), "%s%s", i ? ", " : "", name);
	if (s->o->rdma == NULL || (list = at = strdup(s->o->rdma)) == NULL)
		return (OFFLINE_DONE);
	while ((one = strsep(&at, ",")) != NULL) {
		int known = 0;

		for (unsigned i = 0; probe_rdma(i, name, sizeof(name)); i++)
			known |= strcmp(one, name) == 0;
		if (!known)
			offline_say(s->o, "there is no RDMA device \"%s\"; there are: %s", one, have[0] != '\0' ? have : "none");
		bad |= !known;
	}
	free(list);
	return (bad ? OFFLINE_USAGE : OFFLINE_DONE);
}

static int
setup_run(struct setup *s)
{
	int status;

	if ((status = setup_check(s)) != 0 || (status = setup_look(s)) != 0 || (status = setup_extent(s)) != 0)
		return (status);
	if (s->is_file && (status = setup_reserve(s)) != 0)
		return (status);
	if ((status = setup_format(s)) != 0)
		return (status);
	return (setup_print(s));
}

int
offline_setup(const struct offline *o)
{
	struct setup s = { .o = o, .n = o->n_media, .extent_bytes = o->extent_bytes ? (uint32_t)MKV_MIN(o->extent_bytes, UINT32_MAX) : SETUP_EXTENT,
		.file_bytes = (o->file_bytes ? o->file_bytes : SETUP_FILE) & ~4095ull };
	int status;

	if (o->n_media == 0) {
		if (!o->quiet)
			offline_say(o, "no --drives given; this is what there is. Name the empty ones: memkv setup --drives DEVICE,DEVICE");
		return (offline_list(o));
	}
	if ((s.d = calloc(s.n, sizeof(*s.d))) == NULL) {
		offline_say(o, "%s", mkv_err(MKV_E_NOMEM));
		return (OFFLINE_FAILED);
	}
	status = setup_run(&s);
	free(s.d);
	return (status);
}
