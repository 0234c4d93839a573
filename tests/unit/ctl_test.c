/*
 * The control end of a worker, and its whole life: this process plays the supervisor and one neighbour, a forked child is a worker whose room
 * echoes descriptors and tells what it was told.
 */
#include "config.h"
#include "worker/core/ctl.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"
#include "common/shm/metric.h"
#include "common/shm/ring.h"
#include "worker/core/core.h"
#include "worker/core/core_priv.h"

#define LIMIT_MS	10000u
#define CAPACITY	64u

/* ---- the room in the child ---- */

static enum mkv_ioq_kind room_kind;
static int room_never_stops, room_fails_start;
static struct shared {
	_Atomic int	stop_calls, fini_calls, descs;
} *shared;

static int
room_init(struct mkv_worker *w)
{
	return (strcmp(w->name, "drive:7") == 0 && w->index == 7 && w->server_id[15] == 15 ? 0 : MKV_E_INVAL);
}

static int
room_message(struct mkv_worker *w, const Mkv__Ctl__Control *m, int *fds, unsigned n_fds)
{
	char text[64];

	if (n_fds > 0) {			/* keeps it, like a stage */
		close(fds[0]);
		fds[0] = -1;
	}
	snprintf(text, sizeof(text), "got %s", mkv_ctl_name((int)m->body_case));
	mkv_worker_report(w, -1, -1, text);
	return (0);
}

static int
room_start(struct mkv_worker *w)
{
	struct mkv_ioq_opts opts = { .kind = room_kind, .entries = 16, .depth_max = 16, .threads = 1 };
	Mkv__Ctl__Ready ready = MKV__CTL__READY__INIT;
	int r;

	if (room_fails_start)
		return (mkv_worker_fail(w, 1, "the medium is %s", "elsewhere"));
	if ((r = mkv_worker_pump(w, mkv_now_ns() + 30 * MKV_NS_PER_MS, NULL)) != 0)
		return (r);
	mkv_worker_drained_own(w);
	if ((r = mkv_worker_open_queue(w, &opts, 4)) != 0)
		return (r);
	mkv_worker_jail(w, MKV_IOQ_MAY_FILE);
	ready.total_bytes = 42;
	mkv_worker_ready(w, &ready);
	return (0);
}

static void
room_peer_up(struct mkv_worker *w, struct mkv_peer *p)
{
	char text[64];

	snprintf(text, sizeof(text), "up %d:%u epoch %u", (int)p->kind, p->index, p->epoch);
	mkv_worker_report(w, -1, -1, text);
}

static void
room_peer_down(struct mkv_worker *w, struct mkv_peer *p, uint32_t epoch, int restarting)
{
	char text[64];
	struct mkv_desc d = { .op = 1 };

	MKV_ASSERT(mkv_peer_push(w, p, &d) == MKV_E_CLOSED);
	snprintf(text, sizeof(text), "down %d:%u epoch %u restarting %d", (int)p->kind, p->index, epoch, restarting);
	mkv_worker_report(w, 1, -1, text);
}

static int
room_desc(struct mkv_worker *w, struct mkv_peer *p, const struct mkv_desc *d)
{
	struct mkv_desc answer = *d;

	if (d->op == 999)
		return (MKV_E_PEER);
	shared->descs++;
	answer.status = -1;
	return (mkv_peer_push(w, p, &answer) != 0 && d->op == 998 ? MKV_E_PEER : 0);
}

static void
room_stop(struct mkv_worker *w, uint64_t grace_ms MKV_UNUSED)
{
	shared->stop_calls++;
	if (!room_never_stops)
		mkv_worker_stopped(w);
}

static void
room_fini(struct mkv_worker *w)
{
	MKV_ASSERT(w->q == NULL);
	shared->fini_calls++;
}

static const struct mkv_worker_ops room_ops = {
	.program = "memkv-test", .is_drive = 1, .init = room_init, .message = room_message, .start = room_start, .peer_up = room_peer_up,
	.peer_down = room_peer_down, .desc = room_desc, .stop = room_stop, .fini = room_fini
};

/* ---- the supervisor here ---- */

static struct sup {
	int		ctl;
	pid_t		pid;
	int		own_shm, own_wait, own_ring;	/* the child's bell */
	struct mkv_bell	childs_bell;			/* we ring it */
	int		peer_shm, peer_wait, peer_ring;
	struct mkv_ring	out, in;			/* to and from the child */
	int		retire_ring;
	int		spoil_ring;			/* the next pair of rings is damaged before the child sees it */
	struct mkv_metrics *metrics;			/* the child's */
	Mkv__Ctl__Control *last;
} s;

static void
expect_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, LIMIT_MS), 1);
}

/* The next message, in s.last. 0: end of stream. */
static int
next(void)
{
	static uint8_t buf[MKV_CTL_BYTES_MAX];
	unsigned n_fds = 0;
	ssize_t n;

	if (s.last != NULL)
		mkv__ctl__control__free_unpacked(s.last, NULL);
	s.last = NULL;
	expect_readable(s.ctl);
	n = mkv_os_ctl_recv(s.ctl, buf, sizeof(buf), NULL, &n_fds);
	assert_true(n >= 0);
	if (n == 0)
		return (0);
	s.last = mkv__ctl__control__unpack(NULL, (size_t)n, buf);
	assert_non_null(s.last);
	return ((int)s.last->body_case);
}

#define EXPECT(CASE)	assert_int_equal(next(), MKV__CTL__CONTROL__BODY_##CASE)

static void
expect_detail(const char *want)
{
	EXPECT(STATE);
	assert_string_equal(s.last->state->detail, want);
}

static void
expect_bad(uint32_t epoch, const char *what)
{
	EXPECT(RING_BAD);
	assert_int_equal(s.last->ring_bad->peer, MKV__CTL__PEER_KIND__PEER_FRONT);
	assert_int_equal(s.last->ring_bad->index, 2);
	assert_int_equal(s.last->ring_bad->epoch, epoch);
	assert_string_equal(s.last->ring_bad->what, what);
}

static void
say(const Mkv__Ctl__Control *m, const int *fds, unsigned n_fds)
{
	uint8_t buf[4096];

	assert_true(mkv__ctl__control__get_packed_size(m) <= sizeof(buf));
	assert_int_equal(mkv_os_ctl_send(s.ctl, buf, mkv__ctl__control__pack(m, buf), fds, n_fds), 0);
}

static void
say_ping(uint64_t nonce)
{
	Mkv__Ctl__Ping p = MKV__CTL__PING__INIT;
	MKV_CTL_MESSAGE(m, PING, ping, &p);

	p.nonce = nonce;
	say(&m, NULL, 0);
	EXPECT(PONG);
	assert_int_equal(s.last->pong->nonce, nonce);
}

static void
say_configure(const char *key, const char *value)
{
	Mkv__Ctl__Configure c = MKV__CTL__CONFIGURE__INIT;
	Mkv__Ctl__Param p = MKV__CTL__PARAM__INIT, *list = &p;
	uint8_t id[16], secret[32] = { 0 };
	MKV_CTL_MESSAGE(m, CONFIGURE, configure, &c);

	for (unsigned i = 0; i < 16; i++)
		id[i] = (uint8_t)i;
	c.name = (char *)(uintptr_t)"drive:7";
	c.kind = MKV__CTL__KIND__KIND_DRIVE;
	c.index = 7;
	c.epoch = 3;
	c.server_id.data = id;
	c.server_id.len = sizeof(id);
	c.store_secret.data = secret;
	c.store_secret.len = sizeof(secret);
	c.media = (char *)(uintptr_t)"nowhere";
	p.key = (char *)(uintptr_t)key;
	p.value = (char *)(uintptr_t)value;
	c.params = &list;
	c.n_params = 1;
	say(&m, NULL, 0);
}

static void
say_start(void)
{
	Mkv__Ctl__Start b = MKV__CTL__START__INIT;
	MKV_CTL_MESSAGE(m, START, start, &b);

	say(&m, NULL, 0);
}

static void
say_stop(uint64_t grace_ms)
{
	Mkv__Ctl__Stop b = MKV__CTL__STOP__INIT;
	MKV_CTL_MESSAGE(m, STOP, stop, &b);

	b.grace_ms = grace_ms;
	say(&m, NULL, 0);
}

static void
say_metrics(void)
{
	Mkv__Ctl__Metrics b = MKV__CTL__METRICS__INIT;
	MKV_CTL_MESSAGE(m, METRICS, metrics, &b);
	int fd = mkv_os_shm_create("test-metrics", mkv_metrics_bytes(), 0);

	assert_true(fd >= 0);
	assert_int_equal(mkv_metrics_format(fd), 0);
	mkv_metrics_close(&s.metrics);
	assert_int_equal(mkv_metrics_open(&s.metrics, fd, 0), 0);
	say(&m, &fd, 1);
	close(fd);
}

static void
say_bell(int own)
{
	Mkv__Ctl__Bell b = MKV__CTL__BELL__INIT;
	MKV_CTL_MESSAGE(m, BELL, bell, &b);
	int fds[2] = { own ? s.own_shm : s.peer_shm, own ? s.own_wait : s.peer_ring };

	b.own = own;
	b.peer = own ? MKV__CTL__PEER_KIND__PEER_DRIVE : MKV__CTL__PEER_KIND__PEER_FRONT;
	b.index = own ? 7 : 2;
	say(&m, fds, 2);
}

/* A fresh pair of rings between the child and front 2. */
static void
say_ring(uint32_t epoch)
{
	Mkv__Ctl__Ring b = MKV__CTL__RING__INIT;
	MKV_CTL_MESSAGE(m, RING, ring, &b);
	int fds[2];

	for (int i = 0; i < 2; i++) {
		fds[i] = mkv_os_shm_create("test-ring", mkv_ring_bytes(CAPACITY), 0);
		assert_true(fds[i] >= 0);
		assert_int_equal(mkv_ring_format(fds[i], CAPACITY, epoch), 0);
	}
	mkv_ring_close(&s.out);
	mkv_ring_close(&s.in);
	assert_int_equal(mkv_ring_open(&s.in, fds[0], epoch, 0), 0);
	assert_int_equal(mkv_ring_open(&s.out, fds[1], epoch, 1), 0);
	if (s.spoil_ring)
		s.in.shm->magic = 0;
	if (s.retire_ring)
		assert_int_equal(mkv_ring_retire(fds[0], epoch + 1), 0);
	s.spoil_ring = s.retire_ring = 0;
	b.peer = MKV__CTL__PEER_KIND__PEER_FRONT;
	b.index = 2;
	b.epoch = epoch;
	say(&m, fds, 2);
	close(fds[0]);
	close(fds[1]);
}

static void
say_died(uint32_t epoch)
{
	Mkv__Ctl__PeerDied b = MKV__CTL__PEER_DIED__INIT;
	MKV_CTL_MESSAGE(m, PEER_DIED, peer_died, &b);

	b.peer = MKV__CTL__PEER_KIND__PEER_FRONT;
	b.index = 2;
	b.epoch = epoch;
	b.restarting = 1;
	say(&m, NULL, 0);
}

static void
bell_make(int *shm, int *wait, int *ring)
{
	*shm = mkv_os_shm_create("test-bell", 4096, 0);
	assert_true(*shm >= 0);
	assert_int_equal(mkv_bell_format(*shm), 0);
	assert_int_equal(mkv_os_bell_create(wait, ring), 0);
}

static void
spawn(enum mkv_ioq_kind kind)
{
	int pair[2];

	memset(&s, 0, sizeof(s));
	shared->stop_calls = shared->fini_calls = shared->descs = 0;
	room_kind = kind;
	assert_int_equal(mkv_os_ctl_pair(pair), 0);
	bell_make(&s.own_shm, &s.own_wait, &s.own_ring);
	bell_make(&s.peer_shm, &s.peer_wait, &s.peer_ring);
	s.pid = fork();
	if (s.pid == 0) {
		close(pair[0]);
		mkv_log_set_fd(-1);
		exit(mkv_worker_run(pair[1], &room_ops));
	}
	assert_true(s.pid > 0);
	close(pair[1]);
	s.ctl = pair[0];
	assert_int_equal(mkv_bell_open(&s.childs_bell, s.own_shm, dup(s.own_ring)), 0);
	EXPECT(HELLO);
	assert_int_equal(s.last->hello->pid, s.pid);
	assert_string_equal(s.last->hello->version, PACKAGE_VERSION);
}

static void
set_up_to_start(void)
{
	say_configure("log.level", "error");
	say_metrics();
	say_bell(1);
	say_bell(0);
	say_ring(9);
	expect_detail("up 0:2 epoch 9");
}

static void
serve(enum mkv_ioq_kind kind)
{
	spawn(kind);
	set_up_to_start();
	say_start();
	EXPECT(DRAINED);
	assert_true(s.last->drained->own);
	assert_int_equal(s.last->drained->epoch, 3);
	EXPECT(READY);
	assert_int_equal(s.last->ready->total_bytes, 42);
	if (kind != MKV_IOQ_AUTO)
		assert_string_equal(s.last->ready->io, kind == MKV_IOQ_POLL ? "poll" : "io_uring");
}

/* Waits for the child within a limit; its exit code. */
static int
reap(void)
{
	int fd = mkv_os_proc_watch(s.pid), status;

	if (s.last != NULL)
		mkv__ctl__control__free_unpacked(s.last, NULL);
	s.last = NULL;
	assert_true(fd >= 0);
	expect_readable(fd);
	close(fd);
	assert_int_equal(waitpid(s.pid, &status, 0), s.pid);
	s.pid = 0;
	if (s.ctl >= 0)
		close(s.ctl);
	mkv_ring_close(&s.out);
	mkv_ring_close(&s.in);
	mkv_bell_close(&s.childs_bell);
	mkv_metrics_close(&s.metrics);
	close(s.own_shm);
	close(s.own_wait);
	close(s.own_ring);
	close(s.peer_shm);
	close(s.peer_wait);
	close(s.peer_ring);
	return (WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status));
}

/* After a failed test: no child survives it. */
static int
tear_down(void **state MKV_UNUSED)
{
	if (s.pid > 0) {
		kill(s.pid, SIGKILL);
		waitpid(s.pid, NULL, 0);
		s.pid = 0;
	}
	room_never_stops = room_fails_start = 0;
	return (0);
}

static int
have_uring(void)
{
	struct mkv_ioq_opts opts = { .kind = MKV_IOQ_URING, .entries = 8, .depth_max = 8 };
	struct mkv_ioq *q = NULL;
	int r = mkv_ioq_create(&q, &opts);

	mkv_ioq_destroy(&q);
	return (r == 0);
}

static enum mkv_ioq_kind
kind_of(void **state)
{
	enum mkv_ioq_kind kind = *(enum mkv_ioq_kind *)*state;

	if (kind == MKV_IOQ_URING && !have_uring()) {
		print_message("io_uring is refused here\n");
		skip();
	}
	return (kind);
}

/* ---- tests of the socket ---- */

static void
test_messages(void **state MKV_UNUSED)
{
	Mkv__Ctl__Ping p = MKV__CTL__PING__INIT;
	MKV_CTL_MESSAGE(m, PING, ping, &p);
	struct mkv_ctl *a, *b;
	Mkv__Ctl__Control *got;
	int pair[2], fds[MKV_CTL_FDS_MAX], many[8];
	unsigned n_fds, sent = 0;
	char junk[] = "\xff\xff\xff\xff junk";

	assert_int_equal(mkv_os_ctl_pair(pair), 0);
	assert_int_equal(mkv_ctl_open(&a, pair[0]), 0);
	assert_int_equal(mkv_ctl_open(&b, pair[1]), 0);
	assert_int_equal(mkv_ctl_recv(b, &got, fds, &n_fds), MKV_E_AGAIN);
	p.nonce = 77;
	while (mkv_ctl_send(a, &m) == 0)	/* until the queue behind a full socket is full, too */
		p.nonce = 77 + ++sent;
	assert_true(sent > MKV_CTL_QUEUE_MAX);
	assert_int_equal(mkv_ctl_flush(a), MKV_E_AGAIN);
	for (unsigned i = 0; i < sent; i++) {	/* all there, in order */
		if ((i & 15) == 0)
			(void)mkv_ctl_flush(a);
		assert_int_equal(mkv_ctl_recv(b, &got, fds, &n_fds), 1);
		assert_int_equal(got->ping->nonce, 77 + i);
		mkv_ctl_free(&got);
		assert_null(got);
	}
	assert_int_equal(mkv_ctl_recv(b, &got, fds, &n_fds), MKV_E_AGAIN);
	assert_int_equal(mkv_os_ctl_send(pair[0], junk, sizeof(junk), NULL, 0), 0);
	assert_int_equal(mkv_ctl_recv(b, &got, fds, &n_fds), MKV_E_PROTO);
	for (unsigned i = 0; i < 8; i++)
		many[i] = 0;
	assert_int_equal(mkv_os_ctl_send(pair[0], "\x8a\x01\x00", 3, many, 8), 0);
	assert_int_equal(mkv_ctl_recv(b, &got, fds, &n_fds), MKV_E_PROTO);
	mkv_ctl_close(&a);
	assert_null(a);
	assert_int_equal(mkv_ctl_recv(b, &got, fds, &n_fds), 0);
	assert_int_equal(mkv_ctl_send(b, &m), MKV_E_CLOSED);
	mkv_ctl_close(&b);
	mkv_ctl_close(&b);
}

/* A descriptor waits with its message, a duplicate of it, whatever becomes of the caller's meanwhile. */
static void
test_messages_with_descriptors(void **state MKV_UNUSED)
{
	Mkv__Ctl__Ping p = MKV__CTL__PING__INIT;
	MKV_CTL_MESSAGE(m, PING, ping, &p);
	int pair[2], fds[MKV_CTL_FDS_MAX], fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct mkv_ctl *a, *b;
	Mkv__Ctl__Control *got;
	unsigned n_fds, sent = 0;

	assert_int_equal(mkv_os_ctl_pair(pair), 0);
	assert_int_equal(mkv_ctl_open(&a, pair[0]), 0);
	assert_int_equal(mkv_ctl_open(&b, pair[1]), 0);
	for (int r = 0; r == 0; sent++)
		r = mkv_ctl_send_fd(a, &m, sent % 2 == 0 ? fd : -1);
	sent--;					/* the last one was refused */
	close(fd);
	for (unsigned i = 0; i < sent - MKV_CTL_QUEUE_MAX / 2; i++) {	/* the rest goes with its end */
		if ((i & 15) == 0)
			(void)mkv_ctl_flush(a);
		assert_int_equal(mkv_ctl_recv(b, &got, fds, &n_fds), 1);
		assert_int_equal(n_fds, i % 2 == 0);
		if (n_fds == 1)
			assert_int_equal(close(fds[0]), 0);
		mkv_ctl_free(&got);
	}
	mkv_ctl_close(&a);
	mkv_ctl_close(&b);
}

static void
test_table(void **state MKV_UNUSED)
{
#define ALLOWED(CASE, phase, drive, n)	mkv_ctl_allowed(MKV__CTL__CONTROL__BODY_##CASE, phase, drive, n)
	assert_true(ALLOWED(CONFIGURE, MKV_CTL_NEW, 1, 0));
	assert_true(ALLOWED(CONFIGURE, MKV_CTL_SERVE, 0, 0));
	assert_false(ALLOWED(CONFIGURE, MKV_CTL_NEW, 1, 1));
	assert_false(ALLOWED(START, MKV_CTL_NEW, 1, 0));
	assert_true(ALLOWED(START, MKV_CTL_SETUP, 1, 0));
	assert_false(ALLOWED(START, MKV_CTL_SERVE, 1, 0));
	assert_false(ALLOWED(KEY, MKV_CTL_SERVE, 1, 0));
	assert_true(ALLOWED(KEY, MKV_CTL_SERVE, 0, 0));
	assert_true(ALLOWED(ARENA, MKV_CTL_SETUP, 1, 2));
	assert_false(ALLOWED(ARENA, MKV_CTL_SETUP, 0, 2));
	assert_false(ALLOWED(RING, MKV_CTL_NEW, 0, 2));
	assert_false(ALLOWED(RING, MKV_CTL_SERVE, 0, 1));
	assert_true(ALLOWED(DOOR, MKV_CTL_SETUP, 0, 1));
	assert_true(ALLOWED(DOOR, MKV_CTL_SERVE, 0, 0));
	assert_false(ALLOWED(DOOR, MKV_CTL_SERVE, 0, 2));
	assert_false(ALLOWED(DOOR, MKV_CTL_NEW, 0, 0));
	assert_false(ALLOWED(DOOR, MKV_CTL_SERVE, 1, 0));
	assert_true(ALLOWED(REGION, MKV_CTL_SETUP, 1, 1));
	assert_true(ALLOWED(REGION, MKV_CTL_SERVE, 1, 0));
	assert_false(ALLOWED(REGION, MKV_CTL_SERVE, 1, 2));
	assert_false(ALLOWED(REGION, MKV_CTL_SERVE, 0, 1));
	assert_false(ALLOWED(REGION_DONE, MKV_CTL_SERVE, 1, 0));
	assert_true(ALLOWED(REGION_DONE, MKV_CTL_SERVE, 0, 0));
	assert_true(ALLOWED(PING, MKV_CTL_STOPPING, 0, 0));
	assert_false(ALLOWED(READY, MKV_CTL_SERVE, 0, 0));	/* a worker's own words */
	assert_false(ALLOWED(FAIL, MKV_CTL_SERVE, 1, 0));
	assert_false(mkv_ctl_allowed(0, MKV_CTL_SERVE, 1, 0));
	assert_false(mkv_ctl_allowed(9999, MKV_CTL_SERVE, 1, 0));
	assert_string_equal(mkv_ctl_name(MKV__CTL__CONTROL__BODY_RING), "ring");
	assert_string_equal(mkv_ctl_name(9999), "unknown");
}

/* ---- tests of a life ---- */

static void
push(uint16_t op, unsigned n)
{
	struct mkv_desc d = { .op = op };

	for (unsigned i = 0; i < n; i++) {
		d.slot_idx = i;
		assert_int_equal(mkv_ring_push(&s.out, &d), 0);
	}
	(void)mkv_bell_ring(&s.childs_bell);
}

static void
pop(unsigned n)
{
	uint64_t until = mkv_now_ns() + LIMIT_MS * MKV_NS_PER_MS;
	struct mkv_desc d;
	int r = 0;

	for (unsigned i = 0; i < n; i++) {
		while ((r = mkv_ring_pop(&s.in, &d)) == 0 && mkv_now_ns() < until)
			usleep(100);
		assert_int_equal(r, 1);
		assert_int_equal(d.slot_idx, i);
		assert_int_equal(d.status, -1);
	}
}

static void
test_life(void **state)
{
	Mkv__Ctl__PoolMap map = MKV__CTL__POOL_MAP__INIT;
	MKV_CTL_MESSAGE(m, POOL_MAP, pool_map, &map);

	serve(kind_of(state));
	say_ping(123456789);
	for (unsigned i = 0; i < 20; i++) {
		push(1, i % CAPACITY + 1);
		pop(i % CAPACITY + 1);
	}
	usleep(15000);				/* it sleeps now, and is woken by the bell */
	push(1, 1);
	pop(1);
	say(&m, NULL, 0);
	expect_detail("got pool_map");
	say_configure("log.level", "warn");
	expect_detail("got configure");
	say_died(9);
	expect_detail("down 0:2 epoch 9 restarting 1");
	assert_true(s.last->state->readonly);	/* as last reported */
	say_ring(10);
	expect_detail("up 0:2 epoch 10");
	push(1, 3);
	pop(3);
	say_ring(11);				/* without a death in between: the old one goes down first */
	expect_detail("down 0:2 epoch 10 restarting 1");
	expect_detail("up 0:2 epoch 11");
	push(1, 2);
	pop(2);
	say_stop(1000);
	EXPECT(STOPPED);
	assert_int_equal(next(), 0);
	assert_int_equal(reap(), 0);
	assert_int_equal(shared->stop_calls, 1);
	assert_int_equal(shared->fini_calls, 1);
}

/* The bell of a consumer that announced its sleep is rung, and once for many. */
static void
test_bell_of_peer(void **state)
{
	struct mkv_bell ours;

	serve(kind_of(state));
	assert_int_equal(mkv_bell_open(&ours, s.peer_shm, dup(s.peer_wait)), 0);
	mkv_bell_sleep(&ours);
	push(1, 10);
	expect_readable(s.peer_wait);
	pop(10);
	mkv_bell_close(&ours);
	say_stop(1000);
	EXPECT(STOPPED);
	assert_int_equal(reap(), 0);
}

static void
test_damaged_ring(void **state)
{
	serve(kind_of(state));
	s.out.shm->tail += 100000;		/* cannot be */
	(void)mkv_bell_ring(&s.childs_bell);
	expect_bad(9, "incoming");
	expect_detail("down 0:2 epoch 9 restarting 1");
	say_ping(5);
	say_died(9);
	expect_detail("down 0:2 epoch 9 restarting 1");
	say_ring(10);
	expect_detail("up 0:2 epoch 10");
	push(999, 1);				/* the room says that it is damaged */
	expect_bad(10, "incoming");
	expect_detail("down 0:2 epoch 10 restarting 1");
	say_ring(12);
	expect_detail("up 0:2 epoch 12");
	s.in.shm->head += 5000;			/* the other ring: found when the child pushes */
	push(998, 1);				/* and the room refuses what it cannot answer */
	expect_bad(12, "incoming");
	expect_detail("down 0:2 epoch 12 restarting 1");
	s.spoil_ring = 1;
	say_ring(14);				/* before it was opened here */
	expect_bad(14, "new");
	expect_detail("down 0:2 epoch 14 restarting 1");
	assert_int_equal(mkv_metric_get(s.metrics, MKV_M_drive_ring_bad_total, 0), 4);
	say_ring(15);
	expect_detail("up 0:2 epoch 15");
	push(1, 2);				/* no damage of a former ring is taken for its own */
	pop(2);
	say_ping(6);
	say_stop(1000);
	EXPECT(STOPPED);
	assert_int_equal(reap(), 0);
}

/* What the supervisor retired is told, not counted; the pair is closed, also if the far end wrote the epoch itself. */
static void
test_retired_ring(void **state)
{
	serve(kind_of(state));
	s.out.shm->epoch++;
	expect_bad(9, "stale");
	expect_detail("down 0:2 epoch 9 restarting 1");
	say_died(9);
	expect_detail("down 0:2 epoch 9 restarting 1");
	say_ring(10);
	expect_detail("up 0:2 epoch 10");
	s.in.shm->epoch++;			/* found by a push */
	push(1, 1);
	expect_bad(10, "stale");
	expect_detail("down 0:2 epoch 10 restarting 1");
	s.retire_ring = 1;
	say_ring(11);				/* while RING was on its way */
	expect_bad(11, "stale");
	expect_detail("down 0:2 epoch 11 restarting 1");
	assert_int_equal(mkv_metric_get(s.metrics, MKV_M_drive_ring_bad_total, 0), 0);
	say_ring(12);
	expect_detail("up 0:2 epoch 12");
	push(1, 2);
	pop(2);
	say_stop(1000);
	EXPECT(STOPPED);
	assert_int_equal(reap(), 0);
}

static void
test_supervisor_gone(void **state)
{
	for (int when = 0; when < 3; when++) {
		if (when == 2)
			serve(kind_of(state));
		else
			spawn(kind_of(state));
		if (when == 1)
			set_up_to_start();
		close(s.ctl);
		s.ctl = -1;
		assert_int_equal(reap(), 0);
		assert_int_equal(shared->stop_calls, when == 2);
	}
}

static void
test_stop_before_start(void **state)
{
	spawn(kind_of(state));
	say_ping(1);				/* answered from the first moment on */
	say_stop(100);
	EXPECT(STOPPED);
	assert_int_equal(reap(), 0);
	spawn(kind_of(state));
	set_up_to_start();
	say_start();
	say_stop(100);				/* start() is pumping: it leaves */
	assert_int_equal(next(), MKV__CTL__CONTROL__BODY_STOPPED);
	assert_int_equal(reap(), 0);
	assert_int_equal(shared->stop_calls, 0);
	assert_int_equal(shared->fini_calls, 1);
}

static void
expect_fail(const char *part)
{
	EXPECT(FAIL);
	assert_non_null(strstr(s.last->fail->why, part));
	assert_int_equal(reap(), 1);
}

static void
test_refused(void **state)
{
	enum mkv_ioq_kind kind = kind_of(state);
	Mkv__Ctl__Ready ready = MKV__CTL__READY__INIT;
	MKV_CTL_MESSAGE(m, READY, ready, &ready);

	spawn(kind);
	say_start();				/* before CONFIGURE */
	expect_fail("start is not allowed");
	spawn(kind);
	say_configure("log.level", "error");
	say_start();				/* without a bell */
	expect_fail("start");
	spawn(kind);
	say(&m, NULL, 0);
	expect_fail("not allowed");
	spawn(kind);
	assert_int_equal(mkv_os_ctl_send(s.ctl, "\xff\xff\xff", 3, NULL, 0), 0);
	expect_fail("protocol");
	spawn(kind);
	say_configure("drive.queue_depht", "12");
	EXPECT(FAIL);
	assert_true(s.last->fail->final);	/* would fail again */
	assert_non_null(strstr(s.last->fail->why, "drive.queue_depth"));
	assert_int_equal(reap(), 1);
}

static void
test_fails_to_start(void **state)
{
	room_fails_start = 1;
	spawn(kind_of(state));
	set_up_to_start();
	say_start();
	EXPECT(FAIL);
	assert_string_equal(s.last->fail->why, "the medium is elsewhere");
	assert_true(s.last->fail->final);
	assert_int_equal(reap(), 1);
}

static void
test_grace_over(void **state)
{
	uint64_t t0;

	room_never_stops = 1;
	serve(kind_of(state));
	t0 = mkv_now_ns();
	say_stop(200);
	say_ping(9);				/* the loop turns while it waits */
	assert_int_equal(reap(), 1);
	assert_true(mkv_now_ns() - t0 >= 200 * MKV_NS_PER_MS);
	assert_true(mkv_now_ns() - t0 < 5 * MKV_NS_PER_SEC);
}

static enum mkv_ioq_kind kinds[] = { MKV_IOQ_URING, MKV_IOQ_POLL };

#define BOTH(f) \
	{ #f "/io_uring", f, NULL, tear_down, &kinds[0] }, \
	{ #f "/poll", f, NULL, tear_down, &kinds[1] }

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_messages_with_descriptors),
		cmocka_unit_test(test_table),
		BOTH(test_life), BOTH(test_bell_of_peer), BOTH(test_damaged_ring), BOTH(test_retired_ring),
		BOTH(test_supervisor_gone), BOTH(test_stop_before_start),
		BOTH(test_refused), BOTH(test_fails_to_start), BOTH(test_grace_over),
	};

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return (1);
	signal(SIGPIPE, SIG_IGN);
	return (cmocka_run_group_tests(tests, NULL, NULL));
}
