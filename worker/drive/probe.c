/*
 * Looking at a medium: size, superblocks, signatures, users. Offline commands, their one thread; owns descriptors only while it looks. Nothing is
 * changed, no lock is kept. What comes from a medium may be anything. The platform's part is probe_linux.c.
 */
#include "config.h"

#include "worker/drive/probe_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define PROBE_PIECE	(64u << 10)
#define PROBE_BEHIND	(64ull << 20)		/* zeros that were written, so many of them, are as good as data */

static const char *const probe_names[PROBE_STATES] = {
	[PROBE_MISSING] = "missing", [PROBE_EMPTY] = "empty", [PROBE_STORE] = "store", [PROBE_DAMAGED] = "damaged",
	[PROBE_FOREIGN] = "foreign", [PROBE_IN_USE] = "in-use", [PROBE_UNUSABLE] = "unusable",
};

const char *
probe_state_name(enum probe_state s)
{
	return (probe_names[s]);
}

static void
probe_end(struct probe *p, enum probe_state s, const char *what)
{
	p->state = s;
	snprintf(p->what, sizeof(p->what), "%s", what);
}

/* Readers past the page cache see what a running server wrote. */
static int
probe_open(const char *path, int direct)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (direct ? O_DIRECT : 0));

	if (fd < 0 && direct && errno == EINVAL)
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return (fd);
}

static int
probe_read_fd(int fd, uint8_t *buf, uint32_t bytes, uint64_t off)
{
	for (uint32_t at = 0; at < bytes;) {
		ssize_t n = pread(fd, buf + at, bytes - at, (off_t)(off + at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return (n < 0 ? mkv_err_from_errno(errno) : MKV_E_IO);
		at += (uint32_t)n;
	}
	return (0);
}

int
probe_read(const struct probe *p, void *buf, uint32_t bytes, uint64_t off)
{
	int fd = probe_open(p->real, 1), r;

	if (fd < 0)
		return (mkv_err_from_errno(errno));
	r = probe_read_fd(fd, buf, bytes, off);
	close(fd);
	return (r);
}

/* Does somebody hold it as a server does? */
static int
probe_busy(const struct probe *p)
{
	int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (p->is_block ? O_EXCL : 0), fd = open(p->real, flags), busy;

	if (fd < 0)
		return (errno == EBUSY);
	busy = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
	close(fd);
	return (busy);
}

/* Does something lie behind the first MiB of a file? What was reserved and never written holds nothing, whatever its size. */
static int
probe_behind(int fd, uint64_t bytes)
{
	static const uint8_t zero[PROBE_PIECE];
	uint64_t at = PROBE_HEAD_BYTES, looked = 0, from, to;
	uint8_t piece[PROBE_PIECE];
	ssize_t n;

	for (; at < bytes && mkv_os_next_data(fd, at, &from, &to); at = to)
		for (to = MKV_MIN(to, bytes), at = from; at < to; at += (uint64_t)n) {
			n = pread(fd, piece, (size_t)MKV_MIN(to - at, (uint64_t)PROBE_PIECE), (off_t)at);
			if (n <= 0 || memcmp(piece, zero, (size_t)n) != 0 || (looked += (uint64_t)n) > PROBE_BEHIND)
				return (1);
		}
	return (0);
}

/* Superblocks first: a store may well hold bytes that look like a signature. */
static void
probe_content(struct probe *p, int fd, const uint8_t *head)
{
	const struct mkv_sb *sb[2] = { (const void *)(head + MKV_SB_OFF_A), (const void *)(head + MKV_SB_OFF_B) };
	const char *what;
	char sign[PROBE_TEXT_BYTES] = "", text[MKV_FEATURES_TEXT];
	int best = -1;

	for (int i = 0; i < 2; i++) {
		p->copy[i] = mkv_layout_check_sb(sb[i]);
		if (p->copy[i] == MKV_SB_GOOD && (best < 0 || sb[i]->generation > sb[best]->generation))
			best = i;
	}
	if (best >= 0) {
		p->sb = *sb[best];
		p->content = PROBE_STORE;
		snprintf(p->what, sizeof(p->what), "a memkv store%s", p->copy[!best] != MKV_SB_GOOD ? ", one superblock damaged" : "");
		return;
	}
	if (mkv_layout_unfinished(head, PROBE_HEAD_BYTES)) {
		p->content = PROBE_EMPTY;
		snprintf(p->what, sizeof(p->what), "nothing but the beginning of a memkv store");
		return;
	}
	if (p->copy[0] == MKV_SB_VERSION || p->copy[1] == MKV_SB_VERSION) {
		p->content = PROBE_DAMAGED;
		snprintf(p->what, sizeof(p->what), "a memkv store of another version (%s)", mkv_layout_features(sb[p->copy[0] != MKV_SB_VERSION], text, sizeof(text)));
		return;
	}
	if (p->copy[0] == MKV_SB_DAMAGED || p->copy[1] == MKV_SB_DAMAGED) {
		p->content = PROBE_DAMAGED;
		snprintf(p->what, sizeof(p->what), "a memkv store whose superblocks are both damaged");
		return;
	}
	probe_signature(fd, sign, sizeof(sign));
	what = sign[0] != '\0' ? sign : mkv_layout_foreign(head, PROBE_HEAD_BYTES);
	if (what == NULL && !p->is_block && probe_behind(fd, p->bytes))
		what = "data behind a first MiB of zeros";
	p->content = what != NULL ? PROBE_FOREIGN : PROBE_EMPTY;
	snprintf(p->what, sizeof(p->what), "%s", what != NULL ? what : "nothing known");
}

/* The first MiB; of a shorter medium what there is, then zeros. */
static int
probe_head(struct probe *p, uint8_t *head)
{
	uint32_t bytes = (uint32_t)MKV_MIN(p->bytes & ~4095ull, PROBE_HEAD_BYTES);
	int fd, r = 0;

	memset(head, 0, PROBE_HEAD_BYTES);
	if (bytes > 0 && (r = probe_read(p, head, bytes, 0)) != 0)
		return (r);
	if ((fd = probe_open(p->real, 0)) < 0)
		return (mkv_err_from_errno(errno));
	if (p->bytes % 4096 != 0 && p->bytes < PROBE_HEAD_BYTES)
		r = probe_read_fd(fd, head + bytes, (uint32_t)p->bytes - bytes, bytes);
	if (r == 0)
		probe_content(p, fd, head);
	close(fd);
	return (r);
}

/* 0; else p says why it ends here. */
static int
probe_find(struct probe *p, const char *path)
{
	struct mkv_os_medium m;
	struct stat st;
	int fd, r;

	if (strlen(path) > PROBE_MEDIA_MAX)
		return (probe_end(p, PROBE_UNUSABLE, "its path is too long for a configuration (255 bytes)"), -1);
	if (realpath(path, p->real) == NULL || stat(p->real, &st) != 0)
		return (probe_end(p, errno == ENOENT ? PROBE_MISSING : PROBE_UNUSABLE, strerror(errno)), -1);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return (probe_end(p, PROBE_UNUSABLE, "it is neither a block device nor a file"), -1);
	p->is_block = S_ISBLK(st.st_mode);
	p->dev = p->is_block ? st.st_rdev : st.st_dev;
	p->ino = p->is_block ? 0 : st.st_ino;
	if ((fd = probe_open(p->real, 0)) < 0)
		return (probe_end(p, PROBE_UNUSABLE, strerror(errno)), -1);
	r = mkv_os_medium_query(fd, &m);
	close(fd);
	if (r != 0)
		return (probe_end(p, PROBE_UNUSABLE, mkv_err(r)), -1);
	p->bytes = m.bytes;
	p->sector_bytes = m.sector_bytes;
	return (0);
}

void
probe_medium(struct probe *p, const char *path, uint8_t *head)
{
	char users[PROBE_TEXT_BYTES / 2] = "", content[PROBE_TEXT_BYTES / 2 - 2];	/* together, with "; " between them, they fit */
	uint8_t *mem = head;
	int r;

	memset(p, 0, sizeof(*p));
	snprintf(p->path, sizeof(p->path), "%s", path);
	if (probe_find(p, path) != 0)
		return;
	if (mem == NULL && posix_memalign((void **)&mem, MKV_BLOCK, PROBE_HEAD_BYTES) != 0)
		return (probe_end(p, PROBE_UNUSABLE, mkv_err(MKV_E_NOMEM)));
	r = probe_head(p, mem);
	if (head == NULL)
		free(mem);
	if (p->is_block)
		probe_users(p, users, sizeof(users));
	p->busy = probe_busy(p);
	if (r != 0) {
		snprintf(p->what, sizeof(p->what), "it cannot be read: %s", mkv_err(r));
		p->state = PROBE_UNUSABLE;
		return;
	}
	p->state = p->content;
	if (users[0] == '\0' && !p->busy)
		return;
	p->state = PROBE_IN_USE;
	snprintf(content, sizeof(content), "%.*s", (int)sizeof(content) - 1, p->what);
	snprintf(p->what, sizeof(p->what), "%s; %s", content, users[0] != '\0' ? users :
	    p->content == PROBE_STORE ? "a running server has it" : "another process or the kernel has it");
}

void
probe_settled(struct probe *p, const char *path, uint8_t *head, uint64_t until_ns)
{
	for (probe_medium(p, path, head); p->state == PROBE_IN_USE && p->busy && mkv_now_ns() < until_ns; probe_medium(p, path, head))
		(void)nanosleep(&(struct timespec){ .tv_nsec = PROBE_AGAIN_NS }, NULL);
}
