/*
 * Process: supervisor, loop thread (and before the loop runs).
 * Owns: the lock of the data directory and server.state. The file is text, one fact a line, closed by its CRC32C:
 *
 *	memkv-state 2
 *	server_id HEX / store_secret HEX / epoch N / map_version N
 *	drive UUID STATE SINCE WEIGHT FORMER ADDED SIZE FACTOR MEDIA		(UUID "-" if not known yet; rows in order of their numbers)
 *	crc HEX
 *
 * Invariants: written to a temporary file, flushed, renamed, directory flushed, mode 0600; so there is always one whole file, old or new.
 * What can fail: the file system. A damaged file is refused, not replaced: it holds the secret without which the drives' index means nothing.
 */
#include "config.h"

#include "supervisor/state_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/crc.h"
#include "common/base/err.h"

#define STATE_FILE	"server.state"
#define STATE_TMP	"server.state.new"
#define STATE_LOCK	"server.lock"
#define STATE_HEAD	"memkv-state 2\n"
#define STATE_BYTES_MAX	(64u * 1024)

static void
state_hex(char *dst, const uint8_t *src, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		sprintf(dst + 2 * i, "%02x", src[i]);
}

static int
state_unhex(uint8_t *dst, const char *src, unsigned bytes)
{
	unsigned v;

	if (strspn(src, "0123456789abcdef") < 2 * bytes)
		return (MKV_E_CORRUPT);
	for (unsigned i = 0; i < bytes; i++) {
		(void)sscanf(src + 2 * i, "%2x", &v);
		dst[i] = (uint8_t)v;
	}
	return (0);
}

/* mkdir -p; new ones are for us alone. */
static int
state_mkdirs(const char *dir)
{
	char path[STATE_MEDIA_MAX];

	if (strlen(dir) >= sizeof(path))
		return (ENAMETOOLONG);
	strcpy(path, dir);
	for (char *p = path + 1; *p != '\0'; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(path, 0755) != 0 && errno != EEXIST)
			return (errno);
		*p = '/';
	}
	return (mkdir(path, 0700) != 0 && errno != EEXIST ? errno : 0);
}

static int
state_lock(struct state *s, char *why, unsigned why_bytes)
{
	char pid[32] = "";
	ssize_t n;

	s->lock_fd = openat(s->dir_fd, STATE_LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock_fd == -1) {
		snprintf(why, why_bytes, "data directory \"%s\": cannot open %s: %s", s->dir, STATE_LOCK, strerror(errno));
		return (MKV_E_SYSTEM);
	}
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		n = pread(s->lock_fd, pid, sizeof(pid) - 1, 0);
		pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
		snprintf(why, why_bytes, "data directory \"%s\" is in use by another server (pid %s); set server.data_dir to another one",
		    s->dir, pid[0] != '\0' ? pid : "unknown");
		return (MKV_E_LOCKED);
	}
	s->unclean = pread(s->lock_fd, pid, 1, 0) == 1;
	n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	/* That there is something counts, and a length needs no room on a full disk; the number is a courtesy. */
	if (ftruncate(s->lock_fd, 0) != 0 || ftruncate(s->lock_fd, n) != 0 || pwrite(s->lock_fd, pid, (size_t)n, 0) != n)
		pid[0] = '\0';
	return (0);
}

static int
state_parse_drive(struct state *s, const char *line)
{
	struct state_drive *d;
	struct mkv_map_row row = { .state = 0 };
	unsigned state, added;
	uint64_t size;
	double factor;
	char uuid[33];
	int at = 0;

	if (s->drive_count == STATE_DRIVES_MAX)
		return (MKV_E_CORRUPT);
	if (sscanf(line, "drive %32s %u %" SCNu64 " %lf %lf %u %" SCNu64 " %lf %n", uuid, &state, &row.since, &row.weight, &row.former, &added, &size,
	    &factor, &at) != 8 || at == 0 || strlen(line + at) >= STATE_MEDIA_MAX || state >= MKV_DRIVE_STATES)
		return (MKV_E_CORRUPT);
	d = &s->drive[s->drive_count++];
	row.state = (uint8_t)state;
	row.known = strcmp(uuid, "-") != 0;
	*d = (struct state_drive){ .row = row, .added = added != 0, .max_size = size, .factor = factor };
	strcpy(d->media, line + at);
	if (row.known && state_unhex(d->row.uuid, uuid, sizeof(d->row.uuid)) != 0)
		return (MKV_E_CORRUPT);
	d->saved = d->row;
	return (0);
}

static int
state_parse_line(struct state *s, const char *line)
{
	if (strncmp(line, "server_id ", 10) == 0)
		return (state_unhex(s->server_id, line + 10, sizeof(s->server_id)));
	if (strncmp(line, "store_secret ", 13) == 0)
		return (state_unhex(s->store_secret, line + 13, sizeof(s->store_secret)));
	if (sscanf(line, "epoch %" SCNu32, &s->epoch_saved) == 1) {
		s->epoch = s->epoch_saved;
		return (0);
	}
	if (sscanf(line, "map_version %" SCNu64, &s->map_version) == 1) {
		s->map_saved = s->map_version;
		return (0);
	}
	if (strncmp(line, "drive ", 6) == 0)
		return (state_parse_drive(s, line));
	return (MKV_E_CORRUPT);
}

/* text is cut up. */
static int
state_parse(struct state *s, char *text, size_t bytes)
{
	char *crc_line, *save = NULL;
	uint32_t crc;
	int r = 0;

	text[bytes] = '\0';
	if (strlen(text) != bytes || strncmp(text, STATE_HEAD, strlen(STATE_HEAD)) != 0)
		return (MKV_E_CORRUPT);
	crc_line = strstr(text, "\ncrc ");
	if (crc_line == NULL || sscanf(crc_line, "\ncrc %8" SCNx32, &crc) != 1)
		return (MKV_E_CORRUPT);
	if (mkv_crc32c(0, text, (size_t)(crc_line + 1 - text)) != crc)
		return (MKV_E_CORRUPT);
	*crc_line = '\0';
	for (char *l = strtok_r(text + strlen(STATE_HEAD), "\n", &save); l != NULL && r == 0; l = strtok_r(NULL, "\n", &save))
		r = state_parse_line(s, l);
	return (r);
}

static int
state_read(struct state *s, int fd)
{
	char *text = malloc(STATE_BYTES_MAX + 1);
	ssize_t n;
	int r;

	if (text == NULL)
		return (MKV_E_NOMEM);
	n = pread(fd, text, STATE_BYTES_MAX, 0);
	r = n < 0 ? mkv_err_from_errno(errno) : state_parse(s, text, (size_t)n);
	mkv_wipe(text, STATE_BYTES_MAX);
	free(text);
	return (r);
}

static int
state_new(struct state *s)
{
	int r;

	if ((r = mkv_random(s->server_id, sizeof(s->server_id))) != 0)
		return (r);
	return (mkv_random(s->store_secret, sizeof(s->store_secret)));
}

static int
state_load(struct state *s, char *why, unsigned why_bytes)
{
	int fd = openat(s->dir_fd, STATE_FILE, O_RDONLY | O_CLOEXEC), r;

	if (fd == -1 && errno == ENOENT)
		return (state_new(s));
	if (fd == -1) {
		snprintf(why, why_bytes, "%s/%s: %s", s->dir, STATE_FILE, strerror(errno));
		return (MKV_E_SYSTEM);
	}
	r = state_read(s, fd);
	close(fd);
	if (r != 0)
		snprintf(why, why_bytes, "%s/%s is damaged (%s). It holds the secret of the stored keys: restore it from a copy, or, to begin "
		    "with empty drives, move it away together with the drive files", s->dir, STATE_FILE, mkv_err(r));
	return (r);
}

int
state_open(struct state *s, const char *dir, char *why, unsigned why_bytes)
{
	int e, r;

	memset(s, 0, sizeof(*s));
	s->dir_fd = s->lock_fd = -1;
	e = state_mkdirs(dir);
	if (e == 0) {
		strcpy(s->dir, dir);
		s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (s->dir_fd == -1) {
		snprintf(why, why_bytes, "data directory \"%s\": %s; set server.data_dir to one that this user may write", dir,
		    strerror(e != 0 ? e : errno));
		return (MKV_E_SYSTEM);
	}
	if ((r = state_lock(s, why, why_bytes)) != 0 || (r = state_load(s, why, why_bytes)) != 0)
		state_close(s, !s->unclean && r != MKV_E_LOCKED);
	return (r);
}

void
state_close(struct state *s, int clean)
{
	/* An empty lock file says so to the next server; a number that stays behind costs it a short wait at most. */
	if (s->lock_fd != -1 && clean && ftruncate(s->lock_fd, 0) != 0)
		s->unclean = 1;
	if (s->lock_fd != -1)
		close(s->lock_fd);
	if (s->dir_fd != -1)
		close(s->dir_fd);
	mkv_wipe(s, sizeof(*s));
	s->dir_fd = s->lock_fd = -1;
}

/* The whole file as text; its length, or 0 when it does not fit. */
static size_t
state_print(const struct state *s, char *text, size_t max)
{
	char id[33], secret[65], uuid[33];
	size_t n;

	state_hex(id, s->server_id, sizeof(s->server_id));
	state_hex(secret, s->store_secret, sizeof(s->store_secret));
	n = (size_t)snprintf(text, max, STATE_HEAD "server_id %s\nstore_secret %s\nepoch %" PRIu32 "\nmap_version %" PRIu64 "\n", id, secret,
	    s->epoch_saved, s->map_saved);
	for (uint32_t i = 0; i < s->drive_count && n < max; i++) {
		const struct state_drive *d = &s->drive[i];

		state_hex(uuid, d->saved.uuid, sizeof(d->saved.uuid));
		n += (size_t)snprintf(text + n, max - n, "drive %s %u %" PRIu64 " %.17g %.17g %d %" PRIu64 " %.17g %s\n", d->saved.known ? uuid : "-",
		    d->saved.state, d->saved.since, d->saved.weight, d->saved.former, d->added, d->max_size, d->factor, d->media);
	}
	if (n < max)
		n += (size_t)snprintf(text + n, max - n, "crc %08" PRIx32 "\n", mkv_crc32c(0, text, n));
	mkv_wipe(secret, sizeof(secret));
	return (n < max ? n : 0);
}

/* 0 or errno. What was begun is removed: on a full disk it would be in the way of the next try. */
static int
state_write_file(const struct state *s, const char *text, size_t bytes)
{
	int fd = openat(s->dir_fd, STATE_TMP, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), e = 0;
	ssize_t n;

	if (fd == -1)
		return (errno);
	n = write(fd, text, bytes);
	if (n != (ssize_t)bytes)
		e = n == -1 ? errno : ENOSPC;
	else if (fsync(fd) != 0)
		e = errno;
	close(fd);
	if (e == 0 && (renameat(s->dir_fd, STATE_TMP, s->dir_fd, STATE_FILE) != 0 || fsync(s->dir_fd) != 0))
		e = errno;
	if (e != 0)
		(void)unlinkat(s->dir_fd, STATE_TMP, 0);
	return (e);
}

int
state_save(const struct state *s, char *why, unsigned why_bytes)
{
	char *text = malloc(STATE_BYTES_MAX);
	int e = ENOMEM;
	size_t n;

	if (text != NULL) {
		n = state_print(s, text, STATE_BYTES_MAX);
		e = n == 0 ? EFBIG : state_write_file(s, text, n);
		mkv_wipe(text, STATE_BYTES_MAX);
		free(text);
	}
	if (e != 0)
		snprintf(why, why_bytes, "%s/%s cannot be written: %s", s->dir, STATE_FILE, strerror(e));
	return (e != 0 ? mkv_err_from_errno(e) : 0);
}

void
state_take_map(struct state *s)
{
	s->map_saved = s->map_version;
	for (uint32_t i = 0; i < s->drive_count; i++)
		s->drive[i].saved = s->drive[i].row;
}

/* A row that nobody misses: its drive was never opened, a mistyped name for one, and was removed. Without these so many mistakes would fill the map. */
static struct state_drive *
state_drive_free(struct state *s)
{
	for (uint32_t i = 0; i < s->drive_count; i++) {
		struct state_drive *d = &s->drive[i];

		if (d->row.state == MKV_DRIVE_REMOVED && !d->row.known && !d->saved.known)
			return (d);
	}
	return (NULL);
}

struct state_drive *
state_drive(struct state *s, const char *media)
{
	struct state_drive *d;
	uint64_t since = 0;

	for (uint32_t i = 0; i < s->drive_count; i++)
		if (strcmp(s->drive[i].media, media) == 0)
			return (&s->drive[i]);
	if (strlen(media) >= STATE_MEDIA_MAX)
		return (NULL);
	if (s->drive_count < STATE_DRIVES_MAX)
		d = &s->drive[s->drive_count++];
	else if ((d = state_drive_free(s)) != NULL)
		since = d->row.since;			/* never goes back for a number */
	else
		return (NULL);
	memset(d, 0, sizeof(*d));
	strcpy(d->media, media);
	d->row.since = since;
	return (d);
}
