/*
 * Regions at a drive: an engine on a real file reads straight into memory that this process may not touch (its mapping of it is PROT_NONE: whoever looks dies), writes from there, and
 * what the front and the supervisor are told. Skipped where io_uring is refused.
 */
#include "config.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/crc.h"
#include "common/base/os.h"
#include "common/base/params.h"
#include "tests/crash/media_pass.h"
#include "tests/unit/engine_up.h"
#include "tests/unit/region_memory.h"
#include "worker/core/core_priv.h"
#include "worker/core/ctl.h"
#include "worker/drive/drive.h"

#define MIB	(1ull << 20)
#define CHUNK	65536u
#define ROOM	(4 * MIB)
#define FRONT	3u
#define EPOCH	9u
#define BUF	1u			/* slot whose memory takes the rest */

static struct mkv_worker w;
static struct drive d;
static struct mkv_peer front = { .kind = MKV__CTL__PEER_KIND__PEER_FRONT, .index = FRONT };
static struct mkv_params params;
static struct mkv_engine_ops ops;
static struct rig *r;
static int supervisor;

void	__real_mkv_worker_region_done(struct mkv_worker *worker, Mkv__Ctl__RegionDone *answer);
void	__wrap_mkv_worker_region_done(struct mkv_worker *worker, Mkv__Ctl__RegionDone *answer);

/* Who hears that this drive does not have it, or not any more, can rely on that. INVAL: the number is taken, by one that stays. */
void
__wrap_mkv_worker_region_done(struct mkv_worker *worker, Mkv__Ctl__RegionDone *answer)
{
	for (unsigned i = 0; i < MKV_DRV_REGIONS_MAX && (answer->drop || (answer->status != 0 && answer->status != MKV_E_INVAL)); i++)
		assert_false(d.region[i].id == answer->region && d.region[i].refs == 0);
	__real_mkv_worker_region_done(worker, answer);
}

static void *
on_region(void *arg, uint32_t client, uint32_t id, uint64_t off, uint64_t bytes, int *buf_idx)
{
	(void)arg;
	return (drive_region(&d, client, id, off, bytes, buf_idx));
}

static void
on_region_done(void *arg, uint32_t client, uint32_t id)
{
	(void)arg;
	drive_region_done(&d, client, id);
}

/* Writes of a region's memory fail, as a device says that protects what it moves. Said with the next pump. */
static struct media_pass pass;
static struct mkv_mio *failed;
static unsigned writes_to_fail;

static int
of_region(const uint8_t *p)
{
	for (unsigned i = 0; i < MKV_DRV_REGIONS_MAX; i++)
		if (d.region[i].id != 0 && p >= d.region[i].base && p < d.region[i].base + d.region[i].bytes)
			return (1);
	return (0);
}

static void
pass_write(struct mkv_media *m, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int idx)
{
	if (writes_to_fail == 0 || !of_region(buf)) {
		media_pass_write(m, mio, buf, bytes, off, idx);
		return;
	}
	writes_to_fail--;
	mio->next = failed;
	failed = mio;
}

static int
pass_pump(struct mkv_media *m, uint64_t until_ns)
{
	struct mkv_mio *mio = failed, *next;

	failed = NULL;
	for (; mio != NULL; mio = next) {
		next = mio->next;
		mio->done(mio, MKV_E_IO);
		until_ns = 0;
	}
	return (media_pass_pump(m, until_ns));
}

static struct mkv_media *
pass_wrap(struct rig *rig, struct mkv_media *in)
{
	(void)rig;
	(void)media_pass(&pass, in);
	pass.ops.write = pass_write;
	pass.ops.pump = pass_pump;
	return (&pass.m);
}

static int
up_with(enum rig_kind kind)
{
	int fds[2];

	mkv_crc_init();
	memset(&w, 0, sizeof(w));
	memset(&d, 0, sizeof(d));
	mkv_params_defaults(&params);
	params.storage_mode = MKV_STORAGE_FILE;
	assert_int_equal(mkv_os_ctl_pair(fds), 0);
	assert_int_equal(mkv_ctl_open(&w.ctl, fds[0]), 0);
	supervisor = fds[1];
	w.params = &params;
	d.w = &w;
	d.client[0] = (struct drive_client){ .peer = &front, .epoch = EPOCH };
	r = rig_create(kind, 64 * MIB, 1);
	assert_int_equal(mkv_metrics_open_private(&r->o.metrics), 0);
	ops = *r->o.ops;
	ops.region = on_region;
	ops.region_done = on_region_done;
	r->o.ops = &ops;
	r->wrap = pass_wrap;
	writes_to_fail = 0;
	return (0);
}

static int
up(void **state)
{
	(void)state;
	return (up_with(RIG_URING));
}

static int
up_threads(void **state)
{
	(void)state;
	return (up_with(RIG_THREADS));
}

static int
down(void **state)
{
	(void)state;
	drive_regions_gone(&d, 0);
	assert_int_equal(d.regions, 0);
	if (r != NULL) {
		mkv_metrics_close(&r->o.metrics);
		rig_destroy(&r);
	}
	mkv_ctl_close(&w.ctl);
	close(supervisor);
	return (0);
}

/* The queue's table is there; an engine, or the test is skipped. */
static void
engine(void)
{
	int err = rig_open(r);

	if (err == MKV_E_UNSUPPORTED) {
		mkv_metrics_close(&r->o.metrics);
		rig_destroy(&r);
		skip();
	}
	assert_int_equal(err, 0);
	w.q = r->q;
	if ((err = mkv_ioq_register_buffers(w.q, NULL, 0, DRIVE_BUF_SLOTS)) == MKV_E_NOMEM)
		skip();
	assert_int_equal(err, 0);
	d.buffers = 1;
}

static int
tell(uint32_t id, uint64_t bytes, int fd, uint32_t epoch)
{
	Mkv__Ctl__Region m = MKV__CTL__REGION__INIT;

	m.front = FRONT;
	m.epoch = epoch;
	m.region = id;
	m.bytes = bytes;
	m.drop = fd < 0;
	return (drive_region_message(&d, &m, fd));
}

/* What the supervisor was told, of this one; 1: nothing. */
static int
told(uint32_t id, int drop)
{
	uint8_t buf[256];
	unsigned n_fds = 0;
	ssize_t n = mkv_os_ctl_recv(supervisor, buf, sizeof(buf), NULL, &n_fds);
	Mkv__Ctl__Control *m;
	int status;

	if (n == MKV_E_AGAIN)
		return (1);
	m = mkv__ctl__control__unpack(NULL, (size_t)n, buf);
	assert_non_null(m);
	assert_int_equal(m->body_case, MKV__CTL__CONTROL__BODY_REGION_DONE);
	assert_int_equal(m->region_done->front, FRONT);
	assert_int_equal(m->region_done->region, id);
	assert_int_equal(m->region_done->drop, drop);
	status = m->region_done->status;
	mkv__ctl__control__free_unpacked(m, NULL);
	return (status);
}

static int
offer(uint32_t id, const struct memory *m)
{
	assert_int_equal(tell(id, m->bytes, m->fd, EPOCH), 0);
	return (told(id, 0));
}

static int
drop(uint32_t id)
{
	assert_int_equal(tell(id, 0, -1, EPOCH), 0);
	return (told(id, 1));
}

/* From here on nobody but the medium can. */
static void
untouchable(void)
{
	for (unsigned i = 0; i < MKV_DRV_REGIONS_MAX; i++)
		if (d.region[i].id != 0)
			assert_int_equal(mprotect(d.region[i].base, d.region[i].bytes, PROT_NONE), 0);
}

static void
get_req(struct mkv_drv_req *q, const char *key, uint64_t off, uint64_t len, uint32_t id, uint64_t at)
{
	rig_req(q, MKV_DRV_GET, key);
	q->off = off;
	q->len = len;
	rig_bufs(q, BUF, 4096);
	q->flags = MKV_DRV_F_DIRECT;
	q->bufs[1] = q->bufs[0];
	q->n_bufs = 2;
	q->bufs[0] = (struct mkv_drv_buf){ .off = at, .bytes = (uint32_t)(len / 4096 * 4096), .region = id };
}

/* The value lies at `at`, but for what is no whole block; its CRCs are those of its bytes. */
static void
put_req(struct mkv_drv_req *q, const struct memory *m, const char *key, uint64_t n, uint64_t seed, uint64_t at)
{
	uint64_t whole = n / 4096 * 4096, rest = n - whole;

	rig_put_req(r, q, 2, key, n, seed);
	memcpy(m->p + at, rig_mem(r, 2), whole);
	memset(rig_mem(r, BUF), 0, 4096);
	memcpy(rig_mem(r, BUF), rig_mem(r, 2) + whole, rest);
	memset(rig_mem(r, 2), 0, n);
	rig_bufs(q, BUF, 4096);
	q->flags = MKV_DRV_F_DIRECT;
	q->bufs[1] = q->bufs[0];
	q->bufs[1].bytes = (uint32_t)rest;
	q->n_bufs = rest != 0 ? 2 : 1;
	q->bufs[0] = (struct mkv_drv_buf){ .off = at, .bytes = (uint32_t)whole, .region = 1 };
}

static uint64_t
count(enum mkv_metric metric)
{
	return (mkv_metric_get(r->o.metrics, metric, 0));
}

static int
ask(const struct mkv_drv_req *q, const struct mkv_drv_rep **rep)
{
	rig_submit(r, 2, q);
	*rep = rig_wait(r, 2);
	assert_non_null(*rep);
	return ((*rep)->status);
}

static void
guarded(const struct memory *m, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++)
		assert_int_equal(m->p[i], GUARD);
}

/* The value's bytes [off, off + len): whole blocks at `at`, the rest in the buffer, and nothing else anywhere. */
static void
delivered(struct memory *m, const struct mkv_drv_rep *rep, uint64_t at, uint64_t off, uint64_t len, uint64_t seed)
{
	uint64_t whole = len / 4096 * 4096;

	assert_int_equal(rep->len, len);
	assert_int_equal(rep->skip, 0);
	assert_int_equal(rep->n_crcs, mkv_crc_chunks(len));
	assert_true(rig_value_is(m->p + at, off, whole, seed));
	assert_true(rig_value_is(rig_mem(r, BUF), off + whole, len - whole, seed));
	guarded(m, 0, at);
	guarded(m, at + whole, m->bytes);
	memset(m->p, GUARD, m->bytes);
}

static void
test_sizes(void **state)
{
	struct memory m = memory_of(ROOM);
	const struct mkv_drv_rep *rep;
	struct mkv_drv_req q;
	unsigned k = 0;

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), 0);
	untouchable();
	for (uint32_t n = 1; n <= 8193; n += n < 4 || (n > 4093 && n < 4099) || n > 8190 ? 1 : 613, k++) {
		char key[16];

		snprintf(key, sizeof(key), "k%u", n);
		assert_int_equal(rig_put(r, key, n, n, 0), 0);
		get_req(&q, key, 0, CHUNK, 1, 4096 * (k % 7));
		assert_int_equal(ask(&q, &rep), 0);
		delivered(&m, rep, 4096 * (k % 7), 0, n, n);
	}
	assert_int_equal(rig_put(r, "l", 1000001, 5, 0), 0);
	for (uint64_t off = 0; off < 1000001; off += 3 * CHUNK) {
		get_req(&q, "l", off, MIB, 1, 8192);
		assert_int_equal(ask(&q, &rep), 0);
		delivered(&m, rep, 8192, off, 1000001 - off, 5);
		get_req(&q, "l", off, CHUNK, 1, 0);
		assert_int_equal(ask(&q, &rep), 0);
		delivered(&m, rep, 0, off, MKV_MIN(CHUNK, 1000001 - off), 5);
	}
	get_req(&q, "l", 16 * CHUNK, CHUNK, 1, 0);	/* behind its end */
	assert_int_equal(ask(&q, &rep), 0);
	assert_int_equal(rep->len, 0);
	get_req(&q, "l", 0, 1000001, 1, 0);		/* exactly its room */
	assert_int_equal(ask(&q, &rep), 0);
	delivered(&m, rep, 0, 0, 1000001, 5);
	assert_int_equal(d.region[0].refs, 0);
	memory_free(&m);
}

/* What would need the processor, or memory that is not this front's. */
static void
test_refused(void **state)
{
	struct memory m = memory_of(ROOM);
	const struct mkv_drv_rep *rep;
	struct mkv_drv_req q;

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), 0);
	untouchable();
	assert_int_equal(rig_put(r, "k", MIB, 1, 0), 0);
	get_req(&q, "k", 0, CHUNK + 4096, 1, 0);	/* ends inside of a chunk */
	assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
	get_req(&q, "k", 4096, CHUNK, 1, 0);		/* begins there */
	assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
	get_req(&q, "k", 0, CHUNK, 2, 0);
	assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
	get_req(&q, "k", 0, CHUNK, 1, ROOM - CHUNK + 4096);
	assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
	get_req(&q, "k", 0, CHUNK, 1, UINT64_MAX - 4095);
	assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
	get_req(&q, "k", 0, CHUNK, 1, 0);
	q.bufs[0].bytes -= 4096;			/* less than it may have to take */
	assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
	get_req(&q, "k", 0, CHUNK, 1, 0);
	q.n_bufs = 1;
	assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
	get_req(&q, "k", 0, CHUNK, 1, 0);
	q.bufs[1].region = 1;
	assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
	get_req(&q, "k", 0, CHUNK, 1, 0);
	q.flags = 0;
	assert_int_equal(ask(&q, &rep), MKV_E_PROTO);
	get_req(&q, "k", 0, CHUNK, 1, 0);
	q.op = MKV_DRV_BATCH;
	assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
	guarded(&m, 0, ROOM);
	assert_int_equal(d.region[0].refs, 0);
	get_req(&q, "nobody", 0, CHUNK, 1, 0);
	assert_int_equal(ask(&q, &rep), MKV_E_MISS);
	get_req(&q, "k", 0, CHUNK, 1, 0);
	assert_int_equal(ask(&q, &rep), 0);
	delivered(&m, rep, 0, 0, CHUNK, 1);
	memory_free(&m);
}

/* Its bytes are in memory that another can change: nobody follows such a read, and it follows none. */
static void
test_alone(void **state)
{
	struct memory m = memory_of(ROOM);
	struct mkv_drv_req q, plain;

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), 0);
	untouchable();
	assert_int_equal(rig_put(r, "k", MIB, 1, 0), 0);
	get_req(&q, "k", 0, MIB, 1, 0);
	rig_req(&plain, MKV_DRV_GET, "k");
	plain.len = MIB;
	for (unsigned first = 0; first < 2; first++) {
		rig_bufs(&plain, 4, MIB);
		rig_submit(r, 3 + first, first ? &plain : &q);
		rig_submit(r, 4 - first, first ? &q : &plain);
		assert_int_equal(rig_wait(r, 3)->status, 0);
		assert_int_equal(rig_wait(r, 4)->status, 0);
		assert_true(rig_value_is(m.p, 0, MIB, 1));
		assert_true(rig_value_is(rig_mem(r, 4), 0, MIB, 1));
		memset(m.p, GUARD, ROOM);
	}
	assert_int_equal(count(MKV_M_drive_coalesced_reads_total), 0);
	memory_free(&m);
}

/* DROP is answered behind the last request that is at work there; new ones are refused meanwhile. */
static void
test_dropped(void **state)
{
	struct memory m = memory_of(ROOM);
	const struct mkv_drv_rep *rep;
	struct mkv_drv_req q;

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), 0);
	assert_int_equal(offer(2, &m), 0);
	assert_int_equal(d.regions, 2);
	untouchable();
	assert_int_equal(rig_put(r, "k", MIB, 1, 0), 0);
	get_req(&q, "k", 0, MIB, 1, 0);
	rig_submit(r, 3, &q);
	assert_int_equal(drop(1), 1);
	assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
	if (!r->slot[3].done)
		assert_int_equal(told(1, 1), 1);
	assert_int_equal(rig_wait(r, 3)->status, 0);
	assert_int_equal(told(1, 1), 0);
	assert_int_equal(drop(2), 0);
	assert_int_equal(d.regions, 0);
	for (unsigned i = 0; i < DRIVE_BUF_SLOTS; i++)
		assert_int_equal(d.slot_region[i], 0);
	assert_int_equal(drop(7), 0);				/* nothing touches what is not there */
	memory_free(&m);
}

/* Their front died with requests under way: the memory goes with the last one. */
static void
test_front_died(void **state)
{
	struct memory m = memory_of(ROOM);
	struct mkv_drv_req q;

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), 0);
	assert_int_equal(rig_put(r, "k", MIB, 1, 0), 0);
	get_req(&q, "k", 0, MIB, 1, 0);
	rig_submit(r, 3, &q);
	d.client[0].dying = 1;
	mkv_engine_client_gone(r->e, 0);
	assert_int_equal(d.region[0].refs, 1);
	while (!r->client_done)
		rig_turn(r);
	assert_int_equal(d.region[0].refs, 0);
	assert_int_equal(tell(2, ROOM, m.fd, EPOCH), 0);
	assert_int_equal(told(2, 0), MKV_E_RETRY);
	r->slot[3].busy = 0;
	memory_free(&m);
}

static void
test_what_is_no_region(void **state)
{
	struct memory m = memory_of(CHUNK);
	int unsealed = memfd_create("unsealed", MFD_CLOEXEC);

	(void)state;
	engine();
	assert_int_equal(ftruncate(unsealed, CHUNK), 0);
	assert_int_equal(tell(1, CHUNK, unsealed, EPOCH), 0);
	assert_int_equal(told(1, 0), MKV_E_INVAL);
	assert_int_equal(tell(1, CHUNK + 4096, m.fd, EPOCH), 0);
	assert_int_equal(told(1, 0), MKV_E_INVAL);
	assert_int_equal(tell(0, CHUNK, m.fd, EPOCH), 0);
	assert_int_equal(told(0, 0), MKV_E_INVAL);
	assert_int_equal(tell(1, CHUNK, m.fd, EPOCH + 1), 0);	/* of a ring that it does not have */
	assert_int_equal(told(1, 0), MKV_E_RETRY);
	assert_int_equal(offer(1, &m), 0);
	assert_int_equal(offer(1, &m), MKV_E_INVAL);
	for (uint32_t id = 2; id <= MKV_DRV_REGIONS_MAX; id++)
		assert_int_equal(offer(id, &m), 0);
	assert_int_equal(offer(1000, &m), MKV_E_NOSPACE);
	params.storage_mode = MKV_STORAGE_MEMORY;
	assert_int_equal(drop(5), 0);
	assert_int_equal(offer(1000, &m), MKV_E_UNSUPPORTED);
	params.storage_mode = MKV_STORAGE_FILE;
	d.buffers = 0;						/* no slots: the medium's I/O must not meet a missing page */
	assert_int_equal(offer(1000, &m), MKV_E_UNSUPPORTED);
	assert_int_equal(d.regions, MKV_DRV_REGIONS_MAX - 1);
	close(unsealed);
	memory_free(&m);
}

/* Before the drive has a queue it says nothing; then it does. */
static void
test_before_the_queue(void **state)
{
	struct memory m = memory_of(CHUNK);

	(void)state;
	assert_int_equal(offer(1, &m), 1);
	assert_int_equal(offer(2, &m), 1);
	assert_int_equal(drop(2), 0);
	engine();
	drive_regions_start(&d);
	assert_int_equal(told(1, 0), 0);
	assert_int_equal(told(2, 0), 1);
	memory_free(&m);
}

/* Threads read into the mapping, where the client can make pages fail: none of its regions is taken. */
static void
test_no_rings(void **state)
{
	struct memory m = memory_of(CHUNK);

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), MKV_E_UNSUPPORTED);
	assert_int_equal(d.regions, 0);
	memory_free(&m);
}

/* Whatever the size, the medium has the value, and nobody has looked at it: it counts as unverified. */
static void
test_put_sizes(void **state)
{
	static const uint64_t sizes[] = { 4096, 4097, 8191, 8192, CHUNK - 1, CHUNK, CHUNK + 1, 100000, MIB - 4096, MIB - 1, MIB };
	struct memory m = memory_of(ROOM);
	const struct mkv_drv_rep *rep;
	struct mkv_drv_req q;

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), 0);
	untouchable();
	for (unsigned i = 0; i < MKV_ARRAY_LEN(sizes); i++) {
		char key[16];

		snprintf(key, sizeof(key), "p%u", i);
		put_req(&q, &m, key, sizes[i], i, 4096 * i);
		assert_int_equal(ask(&q, &rep), 0);
		assert_int_equal(rig_get(r, key, 0, sizes[i], i), 0);
		rig_req(&q, MKV_DRV_STAT, key);
		assert_int_equal(ask(&q, &rep), 0);
		assert_int_equal(rep->value_bytes, sizes[i]);
		assert_int_equal(rep->flags & MKV_DRV_F_VERIFIED, 0);
	}
	assert_int_equal(d.region[0].refs, 0);
	memory_free(&m);
}

/* The bytes of a client's word are no touch of what is there: nobody compares them. */
static void
test_put_again(void **state)
{
	struct memory m = memory_of(ROOM);
	const struct mkv_drv_rep *rep;
	struct mkv_drv_req q;

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), 0);
	untouchable();
	assert_int_equal(rig_put(r, "k", MIB, 1, MKV_DRV_F_VERIFIED), 0);
	put_req(&q, &m, "k", MIB, 1, 0);
	assert_int_equal(ask(&q, &rep), 0);
	assert_int_equal(rep->same, 0);
	assert_int_equal(count(MKV_M_drive_touches_total), 0);
	assert_int_equal(rig_get(r, "k", 0, MIB, 1), 0);
	memory_free(&m);
}

static void
test_put_refused(void **state)
{
	struct memory m = memory_of(ROOM);
	const struct mkv_drv_rep *rep;
	struct mkv_drv_req good, q;

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), 0);
	untouchable();
	put_req(&good, &m, "k", MIB - 4019, 1, 0);
	for (unsigned i = 0; i < 11; i++) {
		q = good;
		switch (i) {
		case 0: q.flags |= MKV_DRV_F_VERIFIED; break;		/* nobody saw that */
		case 1: q.flags |= MKV_DRV_F_MANIFEST; break;
		case 2: q.bufs[0].bytes -= 4096; break;
		case 3: q.bufs[0].bytes += 4096; break;
		case 4: q.n_bufs = 1; break;
		case 5: q.n_bufs = 3; break;
		case 6: q.bufs[1].bytes = 76; break;
		case 7: q.bufs[1].region = 1; break;
		case 8: q.bufs[0].region = 2; break;
		case 9: q.bufs[0].off = ROOM - MIB + 2 * 4096; break;
		case 10: q.value_bytes = 77; break;			/* no whole block */
		}
		assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
		assert_int_equal(d.region[0].refs, 0);
	}
	assert_int_equal(rig_op(r, MKV_DRV_STAT, "k", NULL), MKV_E_MISS);
	assert_int_equal(ask(&good, &rep), 0);
	assert_int_equal(rig_get(r, "k", 0, MIB - 4019, 1), 0);
	memory_free(&m);
}

/* Bytes that are not those of the CRCs: whoever reads them sees that, and it is their writer's doing. */
static void
test_put_scribbled(void **state)
{
	struct memory m = memory_of(ROOM);
	const struct mkv_drv_rep *rep;
	struct mkv_drv_req q;
	unsigned reason;

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), 0);
	untouchable();
	put_req(&q, &m, "k", MIB - 4019, 1, 0);
	m.p[5 * CHUNK] ^= 1;
	assert_int_equal(ask(&q, &rep), 0);
	assert_int_equal(rig_get(r, "k", 0, MIB - 4019, 1), 1);
	assert_int_equal(rig_op(r, MKV_DRV_VERIFY, "k", &reason), MKV_E_CORRUPT);
	assert_int_equal(reason, MKV_REASON_WRITER_CRC);
	assert_int_equal(rig_op(r, MKV_DRV_STAT, "k", NULL), MKV_E_MISS);
	assert_int_equal(count(MKV_M_drive_writer_crc_total), 1);
	assert_int_equal(count(MKV_M_drive_corrupt_total) + count(MKV_M_drive_failures), 0);
	memory_free(&m);
}

/* A reader of a part of a chunk has the drive check it: it does not blame its medium either, and keeps nothing from further use. */
static void
test_put_scribbled_edge(void **state)
{
	static const uint64_t at[] = { 5 * CHUNK + 100, 5 * CHUNK + 100 - 50, MIB - 4019 - 70 };
	struct memory m = memory_of(ROOM);
	const struct mkv_drv_rep *rep;
	struct mkv_drv_req q, info;
	uint64_t used;

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), 0);
	rig_req(&info, MKV_DRV_INFO, "");
	assert_int_equal(ask(&info, &rep), 0);
	used = rep->used_bytes;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(at); i++) {
		put_req(&q, &m, "k", MIB - 4019, 1, 0);
		m.p[5 * CHUNK + 4096] ^= 1;
		((uint8_t *)rig_mem(r, BUF))[1] ^= 1;
		assert_int_equal(ask(&q, &rep), 0);
		rig_req(&q, MKV_DRV_GET, "k");
		q.off = at[i];
		q.len = 60;
		rig_bufs(&q, 4, MIB);
		assert_int_equal(ask(&q, &rep), MKV_E_MISS);
		assert_int_equal(rep->reason, MKV_REASON_WRITER_CRC);
		assert_int_equal(rig_op(r, MKV_DRV_STAT, "k", NULL), MKV_E_MISS);
	}
	assert_int_equal(count(MKV_M_drive_writer_crc_total), MKV_ARRAY_LEN(at));
	assert_int_equal(count(MKV_M_drive_corrupt_total) + count(MKV_M_drive_failures) + count(MKV_M_drive_bad_places_total), 0);
	assert_int_equal(rig_put(r, "l", MIB, 1, MKV_DRV_F_VERIFIED), 0);	/* durable, and so is that they are gone */
	assert_int_equal(ask(&info, &rep), 0);
	assert_int_equal(rep->used_bytes, used + MIB);
	memory_free(&m);
}

/* A write that fails may be the client's doing: it is held against no medium, and what it was to go to is free again. Without the region it counts. */
static void
test_put_fails(void **state)
{
	struct memory m = memory_of(ROOM);
	const struct mkv_drv_rep *rep;
	struct mkv_drv_req q, info;
	uint64_t used;

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), 0);
	rig_req(&info, MKV_DRV_INFO, "");
	assert_int_equal(ask(&info, &rep), 0);
	used = rep->used_bytes;
	put_req(&q, &m, "k", MIB - 4019, 1, 0);
	for (unsigned i = 0; i < 100; i++) {
		writes_to_fail = 1;
		assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
	}
	assert_int_equal(writes_to_fail, 0);
	assert_int_equal(count(MKV_M_drive_region_write_errors_total), 100);
	assert_int_equal(count(MKV_M_drive_write_errors_total) + count(MKV_M_drive_failures), 0);
	assert_int_equal(d.region[0].refs, 0);
	assert_int_equal(ask(&info, &rep), 0);
	assert_int_equal(rep->used_bytes, used);
	assert_int_equal(rig_op(r, MKV_DRV_STAT, "k", NULL), MKV_E_MISS);
	assert_int_equal(rig_put(r, "k", MIB - 4019, 1, MKV_DRV_F_VERIFIED), 0);
	assert_int_equal(rig_get(r, "k", 0, MIB - 4019, 1), 0);
	memory_free(&m);
}

/* As for gets: the memory is a request's until its end, and DROP, and the end of its front, wait for that. */
static void
test_put_dropped(void **state)
{
	struct memory m = memory_of(ROOM);
	const struct mkv_drv_rep *rep;
	struct mkv_drv_req q;

	(void)state;
	engine();
	assert_int_equal(offer(1, &m), 0);
	untouchable();
	put_req(&q, &m, "k", MIB, 1, 0);
	rig_submit(r, 3, &q);
	assert_int_equal(drop(1), 1);
	assert_int_equal(ask(&q, &rep), MKV_E_UNSUPPORTED);
	if (!r->slot[3].done)
		assert_int_equal(told(1, 1), 1);
	assert_int_equal(rig_wait(r, 3)->status, 0);
	assert_int_equal(told(1, 1), 0);
	assert_int_equal(rig_get(r, "k", 0, MIB, 1), 0);
	assert_int_equal(offer(1, &m), 0);
	put_req(&q, &m, "l", MIB, 2, 0);
	rig_submit(r, 3, &q);
	d.client[0].dying = 1;
	mkv_engine_client_gone(r->e, 0);
	assert_int_equal(d.region[0].refs, 1);
	while (!r->client_done)
		rig_turn(r);
	assert_int_equal(d.region[0].refs, 0);
	r->slot[3].busy = 0;
	memory_free(&m);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sizes, up, down),
		cmocka_unit_test_setup_teardown(test_refused, up, down),
		cmocka_unit_test_setup_teardown(test_alone, up, down),
		cmocka_unit_test_setup_teardown(test_dropped, up, down),
		cmocka_unit_test_setup_teardown(test_front_died, up, down),
		cmocka_unit_test_setup_teardown(test_what_is_no_region, up, down),
		cmocka_unit_test_setup_teardown(test_put_sizes, up, down),
		cmocka_unit_test_setup_teardown(test_put_again, up, down),
		cmocka_unit_test_setup_teardown(test_put_refused, up, down),
		cmocka_unit_test_setup_teardown(test_put_scribbled, up, down),
		cmocka_unit_test_setup_teardown(test_put_scribbled_edge, up, down),
		cmocka_unit_test_setup_teardown(test_put_fails, up, down),
		cmocka_unit_test_setup_teardown(test_put_dropped, up, down),
		cmocka_unit_test_setup_teardown(test_before_the_queue, up, down),
		cmocka_unit_test_setup_teardown(test_no_rings, up_threads, down),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
