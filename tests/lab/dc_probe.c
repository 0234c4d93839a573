/*
 * What only a NIC can tell of DC: dc_probe DEVICE DEVICE [WHAT]. One process plays both ends by common/rdma; the devices may be one and the same. It judges little:
 * it prints what it saw, for docs/operate/dc-bringup.md. Exit status 0: all of it ran to its end and no byte was wrong; 1: not so; 77: there is no DC.
 * With fake0 and fake1 it runs on tests/lib/fakeverbs, which shows that the program is right, and nothing else.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/rdma/dc.h"
#include "common/rdma/mem.h"
#include "tests/lib/fakeverbs.h"

#define MIB		(1024u * 1024u)
#define AREA_BYTES	(16u * MIB)
#define LIMIT_NS	(120 * MKV_NS_PER_SEC)	/* for one wait */
#define RECVS		64u
#define RECV_BYTES	4096u
#define SENDS		64u
#define POOL		8u

#define CHECK(e)	do { if (!(e)) { fprintf(stderr, "dc_probe: line %d: not so: %s\n", __LINE__, #e); exit(1); } } while (0)

struct side {
	struct mkv_rdma_dev *dev;
	struct mkv_rdma_hub *hub;
	struct mkv_rdma_mem *mem;
	uint8_t		*area;
	uint32_t	lkey, rkey;
};

struct end {				/* an initiator or a target */
	struct side	*s;
	struct mkv_rdma_qp *qp;
	unsigned	msgs, out, closed, broken;
	struct mkv_rdma_rx *kept[RECVS];
	unsigned	keep, n_kept;
	void		(*on_msg)(struct end *e);
	char		why[200];
};

static struct side a, b;
static unsigned wrong;			/* what must not be */
static unsigned rounds = 100;

static void
on_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx)
{
	struct end *e = mkv_rdma_qp_owner(qp);

	e->msgs++;
	if (e->on_msg != NULL)
		e->on_msg(e);
	if (e->n_kept < e->keep)
		e->kept[e->n_kept++] = rx;
	else
		mkv_rdma_rx_back(e->s->hub, rx);
}

static void
on_done(struct mkv_rdma_qp *qp, void *cookie, int status)
{
	struct end *e = mkv_rdma_qp_owner(qp);

	(void)cookie;
	e->out--;
	e->closed += status != 0;
}

static void
on_broken(struct mkv_rdma_qp *qp, const char *why)
{
	struct end *e = mkv_rdma_qp_owner(qp);

	e->broken++;
	snprintf(e->why, sizeof(e->why), "%s", why);
}

static const struct mkv_rdma_qp_ops ops = { on_recv, on_done, on_broken };

static void
side_open(struct side *s, const struct mkv_verbs *v, const char *device)
{
	struct mkv_rdma_conf c = { .device = device, .gid_index = -1, .traffic_class = -1, .service_level = -1 };
	struct mkv_rdma_hub_conf hc = { .recvs = RECVS, .recv_bytes = RECV_BYTES, .sends_max = (POOL + 4) * SENDS };
	char why[512] = "";

	if (mkv_rdma_dev_open(&s->dev, v, &c, why, sizeof(why)) != 0 || mkv_rdma_hub_open(&s->hub, s->dev, &hc, why, sizeof(why)) != 0) {
		fprintf(stderr, "dc_probe: %s\n", why);
		exit(1);
	}
	CHECK((s->area = aligned_alloc(4096, AREA_BYTES)) != NULL);
	memset(s->area, 0, AREA_BYTES);
	CHECK(mkv_rdma_mem_add(&s->mem, s->dev, s->area, AREA_BYTES, MKV_RDMA_READABLE | MKV_RDMA_WRITABLE, why, sizeof(why)) == 0);
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

static struct mkv_rdma_dct
listen_at(struct end *e, struct side *s)
{
	struct mkv_rdma_qp_conf c = { .remote_read = 1, .remote_write = 1, .ops = &ops, .owner = e };
	struct mkv_rdma_dct to = { .lid = s->dev->lid };

	*e = (struct end){ .s = s };
	CHECK(mkv_rdma_target_create(&e->qp, s->hub, &c) == 0);
	memcpy(to.gid, s->dev->gid.raw, sizeof(to.gid));
	to.dctn = mkv_rdma_qp_number(e->qp);
	to.key = mkv_rdma_target_key(e->qp);
	return (to);
}

static void
aim(struct end *e, struct side *s, const struct mkv_rdma_dct *to)
{
	struct mkv_rdma_qp_conf c = { .sends = SENDS, .send_bytes = RECV_BYTES, .msgs = 4, .ops = &ops, .owner = e };

	if (e->qp == NULL) {
		*e = (struct end){ .s = s };
		CHECK(mkv_rdma_initiator_create(&e->qp, s->hub, &c) == 0);
	}
	CHECK(mkv_rdma_initiator_aim(e->qp, to) == 0);
}

static void
turn(void)
{
	mkv_rdma_hub_flush(a.hub);
	mkv_rdma_hub_flush(b.hub);
	mkv_rdma_hub_poll(a.hub, 64);
	mkv_rdma_hub_poll(b.hub, 64);
}

#define WAIT_FOR(cond) do {								\
	uint64_t wait_end = mkv_now_ns() + LIMIT_NS;					\
	while (!(cond)) {								\
		CHECK(mkv_now_ns() < wait_end);						\
		turn();									\
	}										\
} while (0)

static void
end_close(struct end *e)
{
	if (e->qp == NULL)
		return;
	while (e->n_kept > 0)
		mkv_rdma_rx_back(e->s->hub, e->kept[--e->n_kept]);
	mkv_rdma_qp_fail(e->qp);
	WAIT_FOR(mkv_rdma_qp_idle(e->qp));
	mkv_rdma_qp_destroy(&e->qp);
}

static void
put(struct end *e, uint32_t off, uint32_t bytes, uint32_t rkey, unsigned flags)
{
	e->out++;
	mkv_rdma_qp_write(e->qp, a.area + off, a.lkey, (uintptr_t)b.area + off, rkey, bytes, flags, NULL);
}

static void
get(struct end *e, uint32_t off, uint32_t bytes, uint32_t rkey)
{
	e->out++;
	mkv_rdma_qp_read(e->qp, a.area + off, a.lkey, (uintptr_t)b.area + off, rkey, bytes, 0, NULL);
}

static void
say(struct end *e, uint32_t bytes)
{
	struct iovec iov = { a.area, bytes };

	e->out++;
	mkv_rdma_qp_send(e->qp, &iov, 1, 0, NULL);
}

/* Writes and is told that it arrived. */
static int
works(struct end *e, uint8_t fill)
{
	memset(a.area, fill, 4096);
	put(e, 0, 4096, b.rkey, MKV_RDMA_SIGNAL);
	WAIT_FOR(e->out == 0);
	return (e->broken == 0 && b.area[4095] == fill);
}

static const char *
fault(const struct end *e)
{
	static const char *const name[] = { "none", "path", "rnr", "access", "other" };

	return (name[mkv_rdma_qp_fault(e->qp)]);
}

static void
judge(int good, const char *what)
{
	printf("  %s: %s\n", what, good ? "yes" : "NO");
	wrong += !good;
}

/* What was queued on `in` goes wrong: how it shows, after how long, and whom else it harms. Then it is mended. */
static void
watch(const char *what, struct end *in, struct end *other, const struct mkv_rdma_dct *to)
{
	uint64_t t0 = mkv_now_ns(), t1;
	int e;

	WAIT_FOR(in->broken > 0 || in->out == 0);
	t1 = mkv_now_ns();
	printf("%s: %s after %.3f ms, fault %s: %s\n", what, in->broken ? "broke" : "DID NOT BREAK", (double)(t1 - t0) / 1e6, fault(in), in->why);
	mkv_rdma_qp_fail(in->qp);
	WAIT_FOR(mkv_rdma_qp_idle(in->qp));
	judge(works(other, 0x31), "another initiator to the same target works on");
	t0 = mkv_now_ns();
	e = mkv_rdma_initiator_reset(in->qp);
	t1 = mkv_now_ns();
	printf("  made anew in %.3f ms: %s\n", (double)(t1 - t0) / 1e6, e == 0 ? "yes" : "NO");
	CHECK(e == 0);
	in->broken = in->closed = 0;
	aim(in, in->s, to);
	judge(works(in, 0x32), "and works");
}

/* ---- what there is to see ---- */

static unsigned order_bad;
static uint8_t order_fill;

static void
order_look(struct end *e)
{
	(void)e;
	for (uint32_t i = 0; i < 4 * 65536; i += 64)
		if (b.area[i] != order_fill) {
			order_bad++;
			return;
		}
}

static void
see_order(void)
{
	struct end in = { 0 }, to;
	struct mkv_rdma_dct d = listen_at(&to, &b);

	order_bad = 0;
	to.on_msg = order_look;
	aim(&in, &a, &d);
	for (unsigned i = 0; i < 2 * rounds; i++) {
		order_fill = (uint8_t)(i + 1);
		memset(a.area, order_fill, 4 * 65536);
		for (uint32_t k = 0; k < 4; k++)
			put(&in, k * 65536, 65536, b.rkey, 0);
		say(&in, 64);
		WAIT_FOR(to.msgs == i + 1 && in.out == 0);
	}
	memset(b.area, 0x44, AREA_BYTES);
	for (uint32_t i = 0; i < SENDS; i++)
		get(&in, i * (AREA_BYTES / SENDS), AREA_BYTES / SENDS, b.rkey);
	WAIT_FOR(in.out == 0);
	printf("order: %u times four WRITEs of 64 KiB and a message; with the message a WRITE was missing %u times\n", 2 * rounds, order_bad);
	judge(order_bad == 0, "data before the message");
	judge(in.broken == 0 && memcmp(a.area, b.area, AREA_BYTES) == 0, "64 READs at once");
	end_close(&in);
	end_close(&to);
}

static void
see_two_targets(void)
{
	struct end in = { 0 }, to[2];
	struct mkv_rdma_dct d[2];

	for (unsigned i = 0; i < 2; i++)
		d[i] = listen_at(&to[i], &b);
	for (unsigned i = 0; i < 20; i++) {
		aim(&in, &a, &d[i % 3 == 0]);
		say(&in, 8);
		WAIT_FOR(in.out == 0 && to[0].msgs + to[1].msgs == i + 1);
	}
	printf("targets: two of one hub got %u and %u messages of 13 and 7\n", to[0].msgs, to[1].msgs);
	judge(to[0].msgs == 13 && to[1].msgs == 7, "a completion names its target");
	end_close(&in);
	end_close(&to[0]);
	end_close(&to[1]);
}

static void
see_keys(void)
{
	struct end in = { 0 }, other = { 0 }, to;
	struct mkv_rdma_dct d = listen_at(&to, &b), bad = d;

	aim(&other, &a, &d);
	for (unsigned i = 0; i < 3; i++) {
		bad.key = d.key ^ 1;
		aim(&in, &a, &bad);
		memset(b.area + MIB, 0, 4096);
		memset(a.area + MIB, 0x55, 4096);
		if (i == 0)
			put(&in, MIB, 4096, b.rkey, 0);
		else if (i == 1)
			get(&in, MIB, 4096, b.rkey);
		else
			say(&in, 64);
		watch(i == 0 ? "access key wrong, WRITE" : i == 1 ? "access key wrong, READ" : "access key wrong, message", &in, &other, &d);
		judge(b.area[MIB] == 0 && to.msgs == 0, "nothing arrived");
	}
	aim(&in, &a, &d);
	put(&in, MIB, 4096, b.rkey ^ 0xff00, 0);
	watch("rkey wrong", &in, &other, &d);
	memset(b.area + AREA_BYTES - 4096, 0, 4096);
	in.out++;
	mkv_rdma_qp_write(in.qp, a.area, a.lkey, (uintptr_t)b.area + AREA_BYTES - 2048, b.rkey, 4096, 0, NULL);
	watch("range that ends outside", &in, &other, &d);
	judge(b.area[AREA_BYTES - 2048] == 0, "nothing of it arrived");
	end_close(&in);
	end_close(&other);
	end_close(&to);
}

static void
see_rnr(void)
{
	struct end in = { 0 }, other = { 0 }, to;
	struct mkv_rdma_dct d = listen_at(&to, &b);

	aim(&in, &a, &d);
	aim(&other, &a, &d);
	to.keep = RECVS;
	for (unsigned i = 0; i < RECVS; i++) {
		say(&other, 8);
		WAIT_FOR(other.out == 0);
	}
	WAIT_FOR(to.n_kept == RECVS);
	say(&in, 8);
	watch("no receive", &in, &other, &d);
	while (to.n_kept > 0)
		mkv_rdma_rx_back(b.hub, to.kept[--to.n_kept]);
	to.keep = 0;
	turn();
	say(&in, 8);
	WAIT_FOR(in.out == 0);
	judge(in.broken == 0 && to.msgs == RECVS + 1, "with receives again a message arrives");
	end_close(&in);
	end_close(&other);
	end_close(&to);
}

static void
see_long(void)
{
	struct mkv_rdma_hub_conf hc = { .recvs = 4, .recv_bytes = 64, .sends_max = 1 };
	struct end in = { 0 }, other = { 0 }, to;
	struct mkv_rdma_hub *was = b.hub;
	struct mkv_rdma_dct d;
	char why[256];

	CHECK(mkv_rdma_hub_open(&b.hub, b.dev, &hc, why, sizeof(why)) == 0);
	d = listen_at(&to, &b);
	aim(&in, &a, &d);
	aim(&other, &a, &d);
	for (unsigned i = 0; i < 6; i++) {
		say(&in, 128);
		watch("message longer than its receive", &in, &other, &d);
		say(&other, 8);
		WAIT_FOR(other.out == 0);
	}
	turn();
	printf("  at the target: %" PRIu64 " failed receives, %u messages that fit of 6, broken %u\n", mkv_rdma_hub_count(b.hub)->bad_recvs, to.msgs, to.broken);
	judge(to.msgs == 6, "the target and its receives are there for others");
	end_close(&in);
	end_close(&other);
	end_close(&to);
	mkv_rdma_hub_close(&b.hub);
	b.hub = was;
}

static void
see_gone(void)
{
	struct end in = { 0 }, other = { 0 }, to, to2;
	struct mkv_rdma_dct d = listen_at(&to, &b), d2 = listen_at(&to2, &b);

	aim(&other, &a, &d2);
	aim(&in, &a, &d);
	CHECK(works(&in, 0x21));
	end_close(&to);
	put(&in, 0, 4096, b.rkey, 0);
	watch("target destroyed (nominal 0.47 s, four times that allowed)", &in, &other, &d2);
	end_close(&in);
	end_close(&other);
	end_close(&to2);
}

/* The last byte of each page: quick enough to look at all of them while something is landing. */
static void
fence_look(uint8_t last[AREA_BYTES / 4096])
{
	for (uint32_t i = 0; i < AREA_BYTES / 4096; i++)
		last[i] = *(volatile uint8_t *)&b.area[i * 4096 + 4095];
}

/* The target is failed while WRITEs of several initiators are on their way; what is in memory when the call returns is what is there a moment later. */
static void
see_fence(void)
{
	static uint8_t seen[AREA_BYTES / 4096], then[AREA_BYTES / 4096];
	struct end in[POOL], to;
	uint64_t t0, took, most = 0, sum = 0;
	unsigned late = 0, cut = 0, refused = 0;

	memset(in, 0, sizeof(in));
	for (unsigned r = 0; r < rounds; r++) {
		struct mkv_rdma_dct d = listen_at(&to, &b);

		memset(b.area, 0, AREA_BYTES);
		memset(a.area, (int)r + 1, AREA_BYTES);
		for (unsigned i = 0; i < POOL; i++) {
			aim(&in[i], &a, &d);
			for (unsigned k = 0; k < 2 * SENDS / POOL; k++)
				put(&in[i], (i * 2 + k % 2) * MIB, MIB, b.rkey, 0);
		}
		mkv_rdma_hub_flush(a.hub);
		for (t0 = mkv_now_ns(); mkv_now_ns() - t0 < r % 20 * 100 * MKV_NS_PER_US;)
			;
		t0 = mkv_now_ns();
		mkv_rdma_qp_fail(to.qp);
		took = mkv_now_ns() - t0;
		fence_look(seen);
		for (t0 = mkv_now_ns(); mkv_now_ns() - t0 < 50 * MKV_NS_PER_MS;)
			;
		fence_look(then);
		late += memcmp(seen, then, sizeof(seen)) != 0;
		cut += memchr(then, 0, sizeof(then)) != NULL;
		most = MKV_MAX(most, took);
		sum += took;
		refused += !mkv_rdma_qp_idle(to.qp);
		WAIT_FOR(mkv_rdma_qp_idle(to.qp));
		mkv_rdma_qp_destroy(&to.qp);
		for (unsigned i = 0; i < POOL; i++) {
			mkv_rdma_qp_fail(in[i].qp);
			WAIT_FOR(mkv_rdma_qp_idle(in[i].qp));
			CHECK(mkv_rdma_initiator_reset(in[i].qp) == 0);
		}
	}
	printf("fence: %u targets destroyed under %u WRITEs of 1 MiB: %.3f ms each, %.3f at most; something was cut off in %u, pages came after the call had returned "
	    "in %u\n", rounds, 2 * SENDS, (double)sum / 1e6 / rounds, (double)most / 1e6, cut, late);
	judge(late == 0, "destroying a target is a fence");
	judge(refused == 0, "it was destroyed each time, at once");
	for (unsigned i = 0; i < POOL; i++)
		end_close(&in[i]);
}

static double
turns_us(struct end *in, const struct mkv_rdma_dct *d, unsigned n_targets, uint32_t bytes)
{
	unsigned n = 20 * rounds;
	uint64_t t0 = mkv_now_ns();

	for (unsigned i = 0; i < n; i++) {
		aim(in, &a, &d[i % n_targets]);
		put(in, 0, bytes, b.rkey, MKV_RDMA_SIGNAL);
		WAIT_FOR(in->out == 0);
	}
	return ((double)(mkv_now_ns() - t0) / 1e3 / n);
}

static void
see_turns(void)
{
	struct end in = { 0 }, to[4];
	struct mkv_rdma_dct d[4];

	for (unsigned i = 0; i < 4; i++)
		d[i] = listen_at(&to[i], &b);
	for (uint32_t bytes = 64; bytes <= MIB; bytes *= 128)
		printf("turns: a WRITE of %u bytes to one target %.2f us, to four in turn %.2f us\n", bytes, turns_us(&in, d, 1, bytes), turns_us(&in, d, 4, bytes));
	judge(in.broken == 0, "none broke");
	end_close(&in);
	for (unsigned i = 0; i < 4; i++)
		end_close(&to[i]);
}

int
main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void	(*run)(void);
	} see[] = { { "order", see_order }, { "targets", see_two_targets }, { "keys", see_keys }, { "rnr", see_rnr }, { "long", see_long }, { "gone", see_gone },
		{ "fence", see_fence }, { "turns", see_turns } };
	const struct mkv_verbs *v;
	char why[512] = "";

	if (argc < 3) {
		fprintf(stderr, "usage: dc_probe DEVICE DEVICE [order|targets|keys|rnr|long|gone|fence|turns]\n");
		return (1);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	wrong = 0;
	if (strncmp(argv[1], "fake", 4) == 0) {
		fv_start(2);
		fv_dc(FV_DC_YES);
		fv_quirks(FV_RNR_AT_ONCE);
		rounds = 5;
		v = fv_verbs();
	} else if ((v = mkv_verbs_load(why, sizeof(why))) == NULL) {
		fprintf(stderr, "dc_probe: %s\n", why);
		return (1);
	}
	side_open(&a, v, argv[1]);
	side_open(&b, v, argv[2]);
	if (mkv_rdma_dc_try(a.hub, why, sizeof(why)) && mkv_rdma_dc_try(b.hub, why, sizeof(why))) {
		printf("%s to %s: DC can be used; MTU %u, rd_atomic %u\n", argv[1], argv[2], (unsigned)a.dev->mtu_bytes, a.dev->rd_atomic_out);
		for (unsigned i = 0; i < MKV_ARRAY_LEN(see); i++)
			if (argc == 3 || strcmp(argv[3], see[i].name) == 0)
				see[i].run();
		printf("%u wrong\n", wrong);
	} else {
		puts(why);
		wrong = 77;
	}
	side_close(&a);
	side_close(&b);
	return (wrong == 77 ? 77 : wrong != 0);
}
