/*
 * common/rdma over the real verbs, between two soft-RoCE devices of the lab's guest: rdma_probe DEVICE DEVICE [TEST]. One process plays both ends, but for
 * the far end that is killed. Prints what it did; exit status 0: all was right.
 */
#include "config.h"

#include <sys/socket.h>
#include <sys/wait.h>

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/rdma/dc.h"
#include "common/rdma/mem.h"
#include "tests/lib/rnd.h"

#define MIB		(1024u * 1024u)
#define AREA_BYTES	(16u * MIB)
#define LIMIT_NS	(60 * MKV_NS_PER_SEC)	/* for one wait, on a slow machine; none takes so long */
#define RECVS		64u
#define SENDS		256u
#define FENCES		24u

#define CHECK(e)	do { if (!(e)) { fprintf(stderr, "rdma_probe: line %d: not so: %s\n", __LINE__, #e); exit(1); } } while (0)

extern char **environ;

struct side {
	struct mkv_rdma_dev *dev;
	struct mkv_rdma_hub *hub;
	struct mkv_rdma_mem *mem;
	struct mkv_rdma_qp *qp;
	uint8_t		*area;
	uint32_t	lkey, rkey;
	uint64_t	next_done, closed;	/* cookies count up; those that came back closed */
	unsigned	msgs, broken, keep;	/* keep: so many receives stay here */
	uint8_t		last[4096];
	uint32_t	last_bytes;
	char		why[256];
};

static const struct mkv_verbs *verbs;
static const char *names[2];

static void
on_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx)
{
	struct side *s = mkv_rdma_qp_owner(qp);

	s->msgs++;
	s->last_bytes = rx->bytes;
	memcpy(s->last, rx->buf, rx->bytes);
	if (s->keep > 0)
		s->keep--;
	else
		mkv_rdma_rx_back(s->hub, rx);
}

static void
on_done(struct mkv_rdma_qp *qp, void *cookie, int status)
{
	struct side *s = mkv_rdma_qp_owner(qp);

	CHECK((uint64_t)(uintptr_t)cookie == s->next_done);
	CHECK(status == 0 || status == MKV_E_CLOSED);
	CHECK(status != 0 || s->closed == 0);		/* after one that was closed none is good */
	s->next_done++;
	s->closed += status != 0;
}

static void
on_broken(struct mkv_rdma_qp *qp, const char *why)
{
	struct side *s = mkv_rdma_qp_owner(qp);

	CHECK(s->closed == 0);
	s->broken++;
	snprintf(s->why, sizeof(s->why), "%s", why);
}

static const struct mkv_rdma_qp_ops ops = { on_recv, on_done, on_broken };

static void
side_open(struct side *s, const char *device)
{
	struct mkv_rdma_conf c = { .device = device, .gid_index = -1, .traffic_class = -1, .service_level = -1 };
	struct mkv_rdma_hub_conf hc = { .recvs = RECVS, .recv_bytes = 4096, .sends_max = 4 * SENDS };
	char why[512] = "";

	memset(s, 0, sizeof(*s));
	if (mkv_rdma_dev_open(&s->dev, verbs, &c, why, sizeof(why)) != 0 || mkv_rdma_hub_open(&s->hub, s->dev, &hc, why, sizeof(why)) != 0) {
		fprintf(stderr, "rdma_probe: %s\n", why);
		exit(1);
	}
	s->area = aligned_alloc(4096, AREA_BYTES);
	CHECK(s->area != NULL);
	memset(s->area, 0, AREA_BYTES);
	if (mkv_rdma_mem_add(&s->mem, s->dev, s->area, AREA_BYTES, MKV_RDMA_READABLE | MKV_RDMA_WRITABLE, why, sizeof(why)) != 0) {
		fprintf(stderr, "rdma_probe: %s\n", why);
		exit(1);
	}
	CHECK(mkv_rdma_mem_keys(s->mem, s->area, &s->lkey, &s->rkey) == AREA_BYTES);
}

static void
side_close(struct side *s)
{
	mkv_rdma_mem_drop(&s->mem);
	mkv_rdma_hub_close(&s->hub);
	mkv_rdma_dev_close(&s->dev);
	free(s->area);
}

static void
side_qp(struct side *s)
{
	struct mkv_rdma_qp_conf c = { .sends = SENDS, .send_bytes = 4096, .msgs = 32, .remote_read = 1, .remote_write = 1, .ops = &ops, .owner = s };

	s->next_done = s->closed = 0;
	s->msgs = s->broken = s->keep = 0;
	s->why[0] = '\0';
	CHECK(mkv_rdma_qp_create(&s->qp, s->hub, &c) == 0);
}

static struct mkv_rdma_peer
side_peer(const struct side *s)
{
	struct mkv_rdma_peer p = { .qpn = mkv_rdma_qp_number(s->qp), .psn = mkv_rdma_qp_psn(s->qp), .mtu_bytes = s->dev->mtu_bytes,
		.rd_atomic_in = s->dev->rd_atomic_in, .rd_atomic_out = s->dev->rd_atomic_out };

	memcpy(p.gid, s->dev->gid.raw, 16);
	return (p);
}

static void
pair_up(struct side *a, struct side *b)
{
	struct mkv_rdma_peer pa, pb;

	side_qp(a);
	side_qp(b);
	pa = side_peer(a);
	pb = side_peer(b);
	CHECK(mkv_rdma_qp_connect(a->qp, &pb) == 0 && mkv_rdma_qp_connect(b->qp, &pa) == 0);
}

static unsigned
turn(struct side *s)
{
	mkv_rdma_hub_flush(s->hub);
	return (mkv_rdma_hub_poll(s->hub, 64));
}

static void
pump_tell(const struct side *a, const struct side *b)
{
	const struct side *s[2] = { a, b };

	for (int i = 0; i < 2; i++) {
		if (s[i]->qp != NULL)
			fprintf(stderr, "rdma_probe: %s: ready %d idle %d done %" PRIu64 " closed %" PRIu64 " messages %u broken %u up %d: %s\n", s[i]->dev->name,
			    mkv_rdma_qp_ready(s[i]->qp), mkv_rdma_qp_idle(s[i]->qp), s[i]->next_done, s[i]->closed, s[i]->msgs, s[i]->broken,
			    mkv_rdma_dev_is_up(s[i]->dev), s[i]->why);
	}
}

/* Sleeps on the descriptors, as a loop does: so a wake-up that is lost shows as a wait without end. */
#define PUMP_UNTIL(a, b, cond) do {							\
	uint64_t pump_end = mkv_now_ns() + LIMIT_NS;					\
	while (!(cond)) {								\
		if (mkv_now_ns() >= pump_end)						\
			pump_tell(a, b);						\
		CHECK(mkv_now_ns() < pump_end);						\
		if (turn(a) + turn(b) == 0 && !(cond))					\
			pump_sleep(a, b);						\
	}										\
} while (0)

static void
pump_sleep(struct side *a, struct side *b)
{
	struct pollfd p[3] = { { mkv_rdma_hub_fd(a->hub), POLLIN, 0 }, { mkv_rdma_hub_fd(b->hub), POLLIN, 0 }, { mkv_rdma_dev_event_fd(a->dev), POLLIN, 0 } };

	if (!mkv_rdma_hub_arm(a->hub) || !mkv_rdma_hub_arm(b->hub))
		return;
	CHECK(poll(p, 3, (int)(LIMIT_NS / MKV_NS_PER_MS)) > 0);
	if (p[0].revents != 0)
		mkv_rdma_hub_woken(a->hub);
	if (p[1].revents != 0)
		mkv_rdma_hub_woken(b->hub);
}

static void
end_pair(struct side *a, struct side *b)
{
	mkv_rdma_qp_fail(a->qp);
	mkv_rdma_qp_fail(b->qp);
	PUMP_UNTIL(a, b, mkv_rdma_qp_idle(a->qp) && mkv_rdma_qp_idle(b->qp));
	mkv_rdma_qp_destroy(&a->qp);
	mkv_rdma_qp_destroy(&b->qp);
}

static void
fill(uint8_t *p, size_t n, uint64_t seed)
{
	struct rnd r;

	rnd_init(&r, seed);
	rnd_fill(&r, p, n);
}

/* WRITEs of many sizes, a SEND behind them: when it is there, so are they. Then they are READ back. */
static void
test_bytes(struct side *a, struct side *b)
{
	static const uint32_t size[] = { 8, 64, 4096, 4104, 65536, MIB, 3 * MIB + 8, 8 * MIB };
	uint8_t msg[4096];
	uint64_t n = 0;

	for (unsigned i = 0; i < MKV_ARRAY_LEN(size); i++) {
		uint32_t piece = MKV_MAX(8u, (size[i] / 5) & ~7u), at, len;
		struct iovec iov[2] = { { msg, 1000 }, { msg + 1000, i % 2 == 0 ? 56 : 3096 } };

		pair_up(a, b);
		n = 0;
		memset(b->area, 0x55, AREA_BYTES);
		fill(a->area, size[i], 7 + i);
		fill(msg, sizeof(msg), 70 + i);
		for (at = 0; at < size[i]; at += len) {
			len = MKV_MIN(piece, size[i] - at);
			mkv_rdma_qp_write(a->qp, a->area + at, a->lkey, (uintptr_t)b->area + 64 + at, b->rkey, len, 0, (void *)(uintptr_t)n++);
		}
		mkv_rdma_qp_send(a->qp, iov, 2, MKV_RDMA_SIGNAL, (void *)(uintptr_t)n++);
		PUMP_UNTIL(a, b, b->msgs == 1);
		CHECK(memcmp(a->area, b->area + 64, size[i]) == 0 && b->area[63] == 0x55 && b->area[64 + size[i]] == 0x55);
		CHECK(b->last_bytes == 1000 + iov[1].iov_len && memcmp(b->last, msg, b->last_bytes) == 0);
		PUMP_UNTIL(a, b, a->next_done == n);
		memset(a->area, 0, size[i]);
		for (at = 0; at < size[i]; at += len) {
			len = MKV_MIN(piece, size[i] - at);
			mkv_rdma_qp_read(a->qp, a->area + at, a->lkey, (uintptr_t)b->area + 64 + at, b->rkey, len, 0, (void *)(uintptr_t)n++);
		}
		PUMP_UNTIL(a, b, a->next_done == n);
		CHECK(memcmp(a->area, b->area + 64, size[i]) == 0 && a->closed == 0);
		end_pair(a, b);
	}
	printf("bytes: %u sizes written, announced by a message and read back\n", (unsigned)MKV_ARRAY_LEN(size));
}

/* Batches of WRITEs: how many doorbells and completions they take. */
static void
test_batches(struct side *a, struct side *b)
{
	struct mkv_rdma_count before = *mkv_rdma_hub_count(a->hub), c;
	uint64_t n = 0;

	pair_up(a, b);
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = 0; i < 64; i++)
			mkv_rdma_qp_write(a->qp, a->area + i * 4096, a->lkey, (uintptr_t)b->area + i * 4096, b->rkey, 4096, 0, (void *)(uintptr_t)n++);
		PUMP_UNTIL(a, b, a->next_done == n);
	}
	c = *mkv_rdma_hub_count(a->hub);
	CHECK(c.wrs - before.wrs == n && c.doorbells - before.doorbells == 50 && c.completions - before.completions <= 5 * 50);
	end_pair(a, b);
	printf("batches: %" PRIu64 " writes, %" PRIu64 " doorbells, %" PRIu64 " completions\n", n, c.doorbells - before.doorbells,
	    c.completions - before.completions);
}

/*
 * The owner of the memory shuts its end in the middle: what lies there when that call has returned does not change any more. It is told how long the call takes, since
 * a loop waits for it: on a soft device it destroys the queue pair, as its ERR alone does not wait for the packet in hand.
 */
static void
test_fence(struct side *a, struct side *b)
{
	uint64_t n = 0, end, began, took, most = 0, all = 0;
	uint8_t *copy = malloc(AREA_BYTES);
	unsigned cut = 0;

	CHECK(copy != NULL);
	for (unsigned round = 0; round < FENCES; round++) {
		pair_up(a, b);
		n = 0;
		memset(b->area, 0, AREA_BYTES);
		memset(a->area, 0xa0 + (int)round, AREA_BYTES);
		for (unsigned i = 0; i < 16; i++)
			mkv_rdma_qp_write(a->qp, a->area + i * MIB, a->lkey, (uintptr_t)b->area + i * MIB, b->rkey, MIB, 0, (void *)(uintptr_t)n++);
		mkv_rdma_hub_flush(a->hub);
		end = mkv_now_ns() + LIMIT_NS;
		while (((volatile uint8_t *)b->area)[round % 8 * MIB + 5] == 0)
			CHECK(mkv_now_ns() < end);
		began = mkv_now_ns();
		mkv_rdma_qp_fail(b->qp);
		took = mkv_now_ns() - began;
		CHECK(mkv_rdma_qp_fenced(b->qp));
		most = MKV_MAX(most, took);
		all += took;
		memcpy(copy, b->area, AREA_BYTES);
		cut += b->area[AREA_BYTES - 1] == 0;
		/* On a slow machine all may have arrived: one more, which must not. */
		mkv_rdma_qp_write(a->qp, a->area, a->lkey, (uintptr_t)b->area + 15 * MIB, b->rkey, MIB, 0, (void *)(uintptr_t)n++);
		PUMP_UNTIL(a, b, mkv_rdma_qp_idle(a->qp));
		CHECK(memcmp(copy, b->area, AREA_BYTES) == 0);
		CHECK(a->broken == 1 && a->next_done == n && a->closed > 0 && b->broken == 0);
		end_pair(a, b);
	}
	free(copy);
	CHECK(cut > 0);
	printf("fence: %u of %u cut in the middle, by a call of %" PRIu64 " us, %" PRIu64 " at most: %s\n", cut, FENCES, all / FENCES / 1000, most / 1000, a->why);
}

/* Receives run out at the far end, which keeps them. */
static void
test_rnr(struct side *a, struct side *b)
{
	struct iovec iov = { (void *)(uintptr_t)"hello", 6 };
	uint64_t n = 0;

	side_close(b);
	side_open(b, names[1]);			/* a hub of its own: what it keeps is lost to it */
	pair_up(a, b);
	b->keep = RECVS;
	while (n < RECVS + 1) {
		if (mkv_rdma_qp_send_room(a->qp) > 0)
			mkv_rdma_qp_send(a->qp, &iov, 1, MKV_RDMA_SIGNAL, (void *)(uintptr_t)n++);
		turn(a);
		turn(b);
	}
	PUMP_UNTIL(a, b, mkv_rdma_qp_idle(a->qp));
	CHECK(a->broken == 1 && a->closed == 1 && a->next_done == n && b->msgs == RECVS);
	CHECK(strstr(a->why, "posts no receives") != NULL);
	end_pair(a, b);
	printf("no receives: %s\n", a->why);
	side_close(b);
	side_open(b, names[1]);
}

/* Foreign keys: what is not ours to write is not written, and the sentence says so. */
static void
test_keys(struct side *a, struct side *b)
{
	uint64_t n = 0;

	pair_up(a, b);
	memset(b->area, 0x11, 4096);
	mkv_rdma_qp_write(a->qp, a->area, a->lkey, (uintptr_t)b->area, b->rkey ^ 0x5a5a00, 4096, 0, (void *)(uintptr_t)n++);
	mkv_rdma_qp_write(a->qp, a->area, a->lkey, (uintptr_t)b->area, b->rkey, 4096, 0, (void *)(uintptr_t)n++);
	PUMP_UNTIL(a, b, mkv_rdma_qp_idle(a->qp));
	CHECK(a->broken == 1 && a->closed == 2 && a->next_done == n && b->area[0] == 0x11);
	CHECK(strstr(a->why, "does not let us at that memory") != NULL);
	end_pair(a, b);
	printf("wrong key: %s\n", a->why);
}

struct told {
	struct mkv_rdma_peer peer;
	uint64_t	area;
	uint32_t	rkey;
};

/* The far end as a process of its own: tells its numbers on descriptor 3, and waits to be killed. */
static int
far_end(void)
{
	struct told mine, theirs;
	struct side s;

	side_open(&s, names[1]);
	side_qp(&s);
	mine = (struct told){ side_peer(&s), (uintptr_t)s.area, s.rkey };
	CHECK(write(3, &mine, sizeof(mine)) == sizeof(mine) && read(3, &theirs, sizeof(theirs)) == sizeof(theirs));
	CHECK(mkv_rdma_qp_connect(s.qp, &theirs.peer) == 0);
	CHECK(write(3, "!", 1) == 1);
	for (;;)
		pause();
}

static pid_t
far_end_start(int *fd)
{
	char *argv[] = { (char *)(uintptr_t)"rdma_probe", (char *)(uintptr_t)names[0], (char *)(uintptr_t)names[1], (char *)(uintptr_t)"far-end", NULL };
	posix_spawn_file_actions_t fa;
	pid_t pid;
	int sv[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	CHECK(posix_spawn_file_actions_init(&fa) == 0 && posix_spawn_file_actions_adddup2(&fa, sv[1], 3) == 0);
	CHECK(posix_spawn(&pid, "/proc/self/exe", &fa, NULL, argv, environ) == 0);
	posix_spawn_file_actions_destroy(&fa);
	close(sv[1]);
	*fd = sv[0];
	return (pid);
}

static void
test_killed(struct side *a, struct side *b)
{
	struct told mine = { 0 }, theirs;
	uint64_t n = 0;
	pid_t pid;
	char ok;
	int fd;

	pid = far_end_start(&fd);
	side_qp(a);
	CHECK(read(fd, &theirs, sizeof(theirs)) == sizeof(theirs));
	mine.peer = side_peer(a);
	CHECK(write(fd, &mine, sizeof(mine)) == sizeof(mine) && read(fd, &ok, 1) == 1);
	CHECK(mkv_rdma_qp_connect(a->qp, &theirs.peer) == 0);
	for (unsigned i = 0; i < 16; i++)
		mkv_rdma_qp_write(a->qp, a->area + i * MIB, a->lkey, theirs.area + i * MIB, theirs.rkey, MIB, i == 0 ? MKV_RDMA_SIGNAL : 0,
		    (void *)(uintptr_t)n++);
	PUMP_UNTIL(a, b, a->next_done > 0);
	CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
	/* All may have arrived while it was dying. */
	mkv_rdma_qp_write(a->qp, a->area, a->lkey, theirs.area, theirs.rkey, MIB, 0, (void *)(uintptr_t)n++);
	PUMP_UNTIL(a, b, mkv_rdma_qp_idle(a->qp));
	CHECK(a->broken == 1 && a->closed > 0 && a->next_done == n);
	CHECK(strstr(a->why, "does not answer") != NULL || strstr(a->why, "does not let us") != NULL);
	mkv_rdma_qp_destroy(&a->qp);
	close(fd);
	printf("far end killed: %s\n", a->why);
}

static int
saw(struct side *s, enum mkv_rdma_event what)
{
	enum mkv_rdma_event e;
	int found = 0;

	while ((e = mkv_rdma_dev_event(s->dev, NULL)) != MKV_RDMA_EV_NONE)
		found |= e == what;
	return (found);
}

/* Our own port goes down under load, and comes back: the old queue pair is lost, a new one works. */
static void
test_port(struct side *a, struct side *b)
{
	uint64_t n = 0;
	int down = 0, up = 0;

	pair_up(a, b);
	saw(a, MKV_RDMA_EV_NONE);
	for (unsigned i = 0; i < 16; i++)
		mkv_rdma_qp_write(a->qp, a->area + i * MIB, a->lkey, (uintptr_t)b->area + i * MIB, b->rkey, MIB, 0, (void *)(uintptr_t)n++);
	mkv_rdma_hub_flush(a->hub);
	CHECK(system("ip link set nic0 down") == 0);
	/* All may have arrived before it was down, and a queue pair with nothing to do notices nothing. */
	mkv_rdma_qp_write(a->qp, a->area, a->lkey, (uintptr_t)b->area, b->rkey, MIB, 0, (void *)(uintptr_t)n++);
	PUMP_UNTIL(a, b, mkv_rdma_qp_idle(a->qp) && (down |= saw(a, MKV_RDMA_EV_PORT_DOWN)));
	CHECK(a->broken == 1 && a->closed > 0 && a->next_done == n && !mkv_rdma_dev_is_up(a->dev));
	printf("port down: %s\n", a->why);
	end_pair(a, b);
	CHECK(system("ip link set nic0 up && ip route replace local 10.77.0.1 dev nic0 table 1000 && "
	    "ip route replace 10.77.0.0/24 dev nic0 src 10.77.0.1 table 1000") == 0);
	PUMP_UNTIL(a, b, mkv_rdma_dev_is_up(a->dev) && (up |= saw(a, MKV_RDMA_EV_PORT_UP)));
	test_bytes(a, b);
	printf("port up: works again\n");
}

/* Queue pairs come and go, some in the middle of transfers. */
static void
test_cycles(struct side *a, struct side *b)
{
	for (unsigned i = 0; i < 100; i++) {
		uint64_t n = 0;

		pair_up(a, b);
		for (unsigned k = 0; k < 1 + i % 70; k++)
			mkv_rdma_qp_write(a->qp, a->area, a->lkey, (uintptr_t)b->area, b->rkey, 65536, 0, (void *)(uintptr_t)n++);
		if (i % 3 != 0)
			mkv_rdma_hub_flush(a->hub);
		if (i % 2 == 0)
			PUMP_UNTIL(a, b, a->next_done > 0);
		end_pair(a, b);
		CHECK(a->next_done == n && a->broken == 0);
	}
	printf("cycles: 100 queue pairs made and destroyed at each end\n");
}

/* In milliseconds; whether it is connected must be as expected. */
static double
lookup(struct side *a, struct side *b, const struct mkv_rdma_peer *to, int there)
{
	uint64_t t0, t1;

	side_qp(a);
	t0 = mkv_now_ns();
	CHECK((mkv_rdma_qp_connect(a->qp, to) == 0) == there);
	t1 = mkv_now_ns();
	mkv_rdma_qp_fail(a->qp);
	PUMP_UNTIL(a, b, mkv_rdma_qp_idle(a->qp));
	mkv_rdma_qp_destroy(&a->qp);
	return ((double)(t1 - t0) / MKV_NS_PER_MS);
}

#define LOOKUPS	9u

/* How long the kernel looks for the hardware address of a far end: of one that is there, not known yet and known; of one that is not there. */
static void
test_lookup(struct side *a, struct side *b)
{
	struct mkv_rdma_peer p;
	double new[LOOKUPS], known[LOOKUPS], none[LOOKUPS];

	side_qp(b);
	p = side_peer(b);
	for (unsigned i = 0; i < LOOKUPS; i++) {
		CHECK(system("ip neigh flush dev nic0") == 0);
		new[i] = lookup(a, b, &p, 1);
		known[i] = lookup(a, b, &p, 1);
	}
	p.gid[15] = 250;			/* of 10.77.0.0/24; nobody has it */
	for (unsigned i = 0; i < LOOKUPS; i++)
		none[i] = lookup(a, b, &p, 0);
	mkv_rdma_qp_destroy(&b->qp);
	for (unsigned i = 0; i < LOOKUPS; i++)
		printf("lookup: %.1f ms not known yet, %.1f ms known, %.1f ms nobody there\n", new[i], known[i], none[i]);
}

int
main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void	(*run)(struct side *a, struct side *b);
	} test[] = { { "bytes", test_bytes }, { "batches", test_batches }, { "keys", test_keys }, { "rnr", test_rnr }, { "fence", test_fence },
		{ "killed", test_killed }, { "cycles", test_cycles }, { "lookup", test_lookup }, { "port", test_port } };
	struct side a, b;
	char why[512];

	CHECK(argc >= 3);
	setvbuf(stdout, NULL, _IOLBF, 0);
	names[0] = argv[1];
	names[1] = argv[2];
	if ((verbs = mkv_verbs_load(why, sizeof(why))) == NULL) {
		fprintf(stderr, "rdma_probe: %s\n", why);
		return (1);
	}
	if (argc > 3 && strcmp(argv[3], "far-end") == 0)
		return (far_end());
	side_open(&a, names[0]);
	side_open(&b, names[1]);
	printf("%s port %u GID %d MTU %u %u Mbit/s rd_atomic %u/%u class %u level %u odp %d\n", a.dev->name, a.dev->port, a.dev->gid_index,
	    (unsigned)a.dev->mtu_bytes, (unsigned)a.dev->speed_mbit, a.dev->rd_atomic_out, a.dev->rd_atomic_in, a.dev->traffic_class, a.dev->service_level,
	    a.dev->odp);
	puts(mkv_rdma_dc_try(a.hub, why, sizeof(why)) ? "DC can be used" : why);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(test); i++)
		if (argc == 3 || strcmp(argv[3], test[i].name) == 0)
			test[i].run(&a, &b);
	side_close(&a);
	side_close(&b);
	puts("all right");
	return (0);
}
