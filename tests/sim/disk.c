/*
 * The medium (disk.h). Two images: what reads see, and what a power loss leaves for sure; between them the writes since the last flush that covers them.
 */
#include "config.h"

#include "tests/sim/disk.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "tests/sim/sim.h"

/* ---- Images ----------------------------------------------------------------------------------------------------------------- */

/*
 * Images are kept from seed to seed: a page that was never touched costs nothing, a page fault each time costs more than all else. What was written is
 * zero again before the next one has it.
 */
#define IMAGE_BYTES	(64u << 20)
#define IMAGE_CHUNK	65536u

struct image {
	uint8_t		*base;
	int		used;
	uint8_t		dirty[IMAGE_BYTES / IMAGE_CHUNK];
};

static struct image image[2 * SIM_DRIVES];

static uint8_t *
image_take(uint64_t bytes)
{
	unsigned i = 0;

	while (i < MKV_ARRAY_LEN(image) && image[i].used)
		i++;
	SIM_CHECK(i < MKV_ARRAY_LEN(image) && bytes <= IMAGE_BYTES, "no image for a medium");
	if (image[i].base == NULL) {
		void *p = mmap(NULL, IMAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		SIM_CHECK(p != MAP_FAILED, "no memory for a medium");
		image[i].base = p;
	}
	image[i].used = 1;
	return (image[i].base);
}

static struct image *
image_of(const uint8_t *base)
{
	unsigned i = 0;

	while (image[i].base != base)
		i++;
	return (&image[i]);
}

static void
image_write(uint8_t *base, uint64_t off, const void *p, uint64_t bytes)
{
	struct image *m = image_of(base);

	memcpy(base + off, p, bytes);
	for (uint64_t at = off / IMAGE_CHUNK; at <= (off + bytes - 1) / IMAGE_CHUNK; at++)
		m->dirty[at] = 1;
}

static void
image_drop(uint8_t *base)
{
	struct image *m = image_of(base);

	for (unsigned i = 0; i < IMAGE_BYTES / IMAGE_CHUNK; i++)
		if (m->dirty[i])
			memset(base + (size_t)i * IMAGE_CHUNK, 0, IMAGE_CHUNK);
	memset(m->dirty, 0, sizeof(m->dirty));
	m->used = 0;
}

/* ---- Transfers -------------------------------------------------------------------------------------------------------------- */

static struct disk_handle *
disk_handle_of(struct mkv_media *m)
{
	return (MKV_CONTAINER_OF(m, struct disk_handle, m));
}

static void	disk_done(void *arg, uint64_t gen);

static const char *const disk_kinds[] = { [DISK_READ] = "read", [DISK_WRITE] = "write", [DISK_FLUSH] = "flush", [DISK_DISCARD] = "discard" };

static int
disk_changes(enum disk_kind kind)
{
	return (kind == DISK_WRITE || kind == DISK_DISCARD);
}

/* Two transfers of the same place at one time, one of them a write: nobody could say what is there afterwards. */
static void
disk_check_apart(const struct disk *d, enum disk_kind kind, uint64_t off, uint32_t bytes)
{
	for (unsigned i = 0; i < DISK_OPS_MAX; i++) {
		const struct disk_op *o = &d->op[i];

		if (o->busy && o->mio != NULL && o->kind != DISK_FLUSH && (disk_changes(kind) || disk_changes(o->kind)) && off < o->off + o->bytes && o->off < off + bytes)
			sim_fail("%s of %u bytes at %llu while a %s of %u bytes at %llu is under way", disk_kinds[kind], bytes,
			    (unsigned long long)off, disk_kinds[o->kind], o->bytes, (unsigned long long)o->off);
	}
}

static struct disk_op *
disk_begin(struct disk_handle *h, struct mkv_mio *mio, enum disk_kind kind, void *buf, uint32_t bytes, uint64_t off)
{
	struct disk *d = h->disk;
	struct disk_op *o = d->free;
	uint64_t ns = sim_between(d->f.lat_min_ns, d->f.lat_max_ns);

	if (kind != DISK_READ && !d->dead && !h->over)
		sim_step((int)((struct sim_drive *)d->arg)->index);
	if (d->dead || h->over)
		return (NULL);
	SIM_CHECK(o != NULL, "more than %u transfers under way", DISK_OPS_MAX);
	SIM_CHECK(kind == DISK_FLUSH || (off % 4096 == 0 && bytes % 4096 == 0 && bytes > 0 && off + bytes <= d->total_bytes), "a transfer outside of the medium");
	if (kind != DISK_FLUSH)
		disk_check_apart(d, kind, off, bytes);
	d->free = o->next;
	o->mio = mio;
	o->kind = kind;
	o->busy = 1;
	o->buf = buf;
	o->bytes = bytes;
	o->off = off;
	o->covers = d->done_count;
	o->w = NULL;
	d->in_flight++;
	if (sim_chance(d->f.hang, 1000000) && !sim->resting) {
		ns += d->f.hang_ns;
		sim->harm_ns = MKV_MAX(sim->harm_ns, sim->now + ns);
		d->faults++;
		sim_trace("disk: a %s hangs", disk_kinds[kind]);
	}
	sim_in(ns, disk_done, o, o->gen);
	return (o);
}

/* The process (or the machine) may end between any two transfers. */
static void
disk_count(struct disk *d)
{
	if (d->dead || d->cut_after == 0 || --d->cut_after > 0)
		return;
	d->dead = 1;
	d->on_cut(d->arg);
}

static void
disk_read(struct mkv_media *m, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	(void)buf_idx;
	disk_handle_of(m)->disk->reads++;
	(void)disk_begin(disk_handle_of(m), mio, DISK_READ, buf, bytes, off);
}

static void
disk_write_begin(struct disk_handle *h, struct mkv_mio *mio, enum disk_kind kind, const void *buf, uint32_t bytes, uint64_t off)
{
	struct disk *d = h->disk;
	struct disk_op *o = disk_begin(h, mio, kind, (void *)(uintptr_t)buf, bytes, off);
	struct disk_write *w;

	if (o == NULL)
		return;
	w = calloc(1, sizeof(*w));
	SIM_CHECK(w != NULL && (w->data = malloc(bytes)) != NULL, "no memory");
	/* A write that has begun may reach the medium whether or not it is ever reported. */
	w->off = off;
	w->bytes = bytes;
	memcpy(w->data, buf, bytes);
	*d->pending_last = w;
	d->pending_last = &w->next;
	o->w = w;
	disk_count(d);
}

static void
disk_write(struct mkv_media *m, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	(void)buf_idx;
	disk_handle_of(m)->disk->writes++;
	disk_write_begin(disk_handle_of(m), mio, DISK_WRITE, buf, bytes, off);
}

static void
disk_on_discard(struct mkv_mio *mio, int res)
{
	struct disk_handle *h = MKV_CONTAINER_OF(mio, struct disk_handle, discard);

	h->discarding = 2;
	h->discard_res = res;
}

/* Rubbish from now on, at the latest when it ends; a power loss may leave some of it, or what was there. */
static int
disk_discard(struct mkv_media *m, uint64_t off, uint64_t bytes)
{
	struct disk_handle *h = disk_handle_of(m);
	uint8_t *rubbish = malloc(bytes);

	SIM_CHECK(rubbish != NULL, "no memory");
	SIM_CHECK(h->discarding == 0, "two discards at one time");
	memset(rubbish, 0xd0 + (int)sim_below(16), bytes);
	h->discarding = 1;
	h->disk->discards++;
	h->discard.done = disk_on_discard;
	disk_write_begin(h, &h->discard, DISK_DISCARD, rubbish, (uint32_t)bytes, off);
	if (!h->disk->dead && !h->over && sim_chance(1, 2))
		image_write(h->disk->now, off, rubbish, bytes);
	free(rubbish);
	return (0);
}

static int
disk_discard_end(struct mkv_media *m, int *res)
{
	struct disk_handle *h = disk_handle_of(m);

	SIM_CHECK(h->discarding != 0, "no discard is under way");
	if (h->discarding == 1)
		return (0);
	h->discarding = 0;
	*res = h->discard_res;
	return (1);
}

static void
disk_flush(struct mkv_media *m, struct mkv_mio *mio)
{
	struct disk *d = disk_handle_of(m)->disk;

	d->flushes++;
	if (disk_begin(disk_handle_of(m), mio, DISK_FLUSH, NULL, 0, 0) != NULL)
		disk_count(d);
}

static void
disk_make_durable(struct disk *d, uint64_t covers)
{
	struct disk_write **pw = &d->pending, *w;

	while ((w = *pw) != NULL) {
		if (w->done == 0 || w->done > covers) {
			pw = &w->next;
			continue;
		}
		image_write(d->durable, w->off, w->data, w->bytes);
		*pw = w->next;
		free(w->data);
		free(w);
	}
	d->pending_last = pw;
}

/* A write that fails leaves some of its sectors as they were. */
static void
disk_write_some(struct disk *d, struct disk_op *o)
{
	unsigned keep = sim_below(3);

	for (uint32_t at = 0; at < o->bytes; at += d->f.sector)
		if (!sim_chance(keep, 2))
			memcpy(o->w->data + at, d->now + o->off + at, d->f.sector);
	image_write(d->now, o->off, o->w->data, o->bytes);
	o->w->done = ++d->done_count;
}

static int
disk_do(struct disk *d, struct disk_op *o)
{
	const struct disk_faults *f = &d->f;
	unsigned rate = o->kind == DISK_READ ? f->read_error : o->kind == DISK_FLUSH ? f->flush_error : f->write_error;

	if (d->gone) {
		d->faults++;
		return (MKV_E_IO);
	}
	if (!sim->resting && sim_chance(rate, 1000000)) {
		d->faults++;
		sim_trace("disk: a %s at %llu fails", disk_kinds[o->kind], (unsigned long long)o->off);
		if (disk_changes(o->kind))
			disk_write_some(d, o);
		return (MKV_E_IO);
	}
	switch (o->kind) {
	case DISK_READ:
		if (o->mio != NULL || (d->shared != NULL && d->shared(d->arg, o->buf)))
			memcpy(o->buf, d->now + o->off, o->bytes);
		return (0);
	case DISK_WRITE:
	case DISK_DISCARD:
		if (o->mio != NULL && o->kind == DISK_WRITE)
			SIM_CHECK(memcmp(o->w->data, o->buf, o->bytes) == 0, "drive %u: somebody changed a buffer under I/O, %u bytes to %llu",
			    ((struct sim_drive *)d->arg)->index, o->bytes, (unsigned long long)o->off);
		image_write(d->now, o->off, o->w->data, o->bytes);
		o->w->done = ++d->done_count;
		return (0);
	default:
		disk_make_durable(d, o->covers);
		return (0);
	}
}

static void
disk_done(void *arg, uint64_t gen)
{
	struct disk_op *o = arg;
	struct disk *d = o->disk;
	struct mkv_mio *mio = o->mio;
	int res;

	if (!o->busy || o->gen != gen)
		return;				/* the power went meanwhile */
	if (d->dead && mio != NULL)
		return;				/* its process ends at this very moment and is not told */
	res = disk_do(d, o);
	o->busy = 0;
	o->gen++;
	o->next = d->free;
	d->free = o;
	d->in_flight--;
	if (mio != NULL) {
		mio->done(mio, res);
		drive_wake(d->arg);
	} else if (--d->orphans == 0)
		d->on_idle(d->arg);
}

static int
disk_pump(struct mkv_media *m, uint64_t until_ns)
{
	(void)m;
	(void)until_ns;
	return (0);
}

static void *
disk_map(struct mkv_media *m, uint64_t off, uint64_t bytes)
{
	(void)m;
	(void)off;
	(void)bytes;
	return (NULL);
}

static void
disk_close(struct mkv_media *m)
{
	(void)m;
}

static const struct mkv_media_ops disk_ops = {
	.read = disk_read, .write = disk_write, .flush = disk_flush, .pump = disk_pump, .map = disk_map, .close = disk_close,
};

static const struct mkv_media_ops disk_discard_ops = {
	.read = disk_read, .write = disk_write, .flush = disk_flush, .pump = disk_pump, .map = disk_map, .close = disk_close,
	.discard = disk_discard, .discard_end = disk_discard_end,
};

struct disk *
disk_create(uint64_t bytes, const struct disk_faults *f)
{
	struct disk *d = calloc(1, sizeof(*d));

	SIM_CHECK(d != NULL, "no memory");
	d->total_bytes = bytes;
	d->f = *f;
	d->now = image_take(bytes);
	d->durable = image_take(bytes);
	d->pending_last = &d->pending;
	for (unsigned i = 0; i < DISK_OPS_MAX; i++) {
		d->op[i].disk = d;
		d->op[i].next = i + 1 < DISK_OPS_MAX ? &d->op[i + 1] : NULL;
	}
	d->free = &d->op[0];
	return (d);
}

struct mkv_media *
disk_open(struct disk *d)
{
	struct disk_handle *h = calloc(1, sizeof(*h));

	SIM_CHECK(h != NULL, "no memory");
	h->m = (struct mkv_media){ .magic = 0x51a51a52u, .ops = d->may_discard ? &disk_discard_ops : &disk_ops, .name = "sim", .total_bytes = d->total_bytes };
	h->disk = d;
	if (d->handles != NULL)
		d->handles->over = 1;
	/* An open or close that is being cancelled may still have the last one. */
	h->next = d->handles;
	d->handles = h;
	return (&h->m);
}

static void
disk_forget(struct disk *d)
{
	struct disk_write *w;

	while ((w = d->pending) != NULL) {
		d->pending = w->next;
		free(w->data);
		free(w);
	}
	d->pending_last = &d->pending;
}

void
disk_destroy(struct disk **dp)
{
	struct disk *d = *dp;

	if (d == NULL)
		return;
	disk_forget(d);
	for (struct disk_handle *h; (h = d->handles) != NULL; free(h))
		d->handles = h->next;
	image_drop(d->now);
	image_drop(d->durable);
	free(d);
	*dp = NULL;
}

void
disk_orphan(struct disk *d)
{
	if (d->handles != NULL)
		d->handles->over = 1;
	d->orphans = 0;
	for (unsigned i = 0; i < DISK_OPS_MAX; i++) {
		struct disk_op *o = &d->op[i];

		if (!o->busy)
			continue;
		/* An event that came while the process was ending has passed: it lands now. */
		o->mio = NULL;
		o->gen++;
		d->orphans++;
		sim_in(sim_between(1, 20 * MS), disk_done, o, o->gen);
	}
	d->dead = 0;
	d->cut_after = 0;
}

void
disk_power_cut(struct disk *d)
{
	static const unsigned keep_of_8[] = { 0, 8, 4, 4, 1, 7 };
	unsigned keep = keep_of_8[sim_below(6)], whole = sim_below(2);

	if (sim->cut != CUT_CHANCE) {
		keep = sim->cut == CUT_KEEP ? 8 : sim->cut == CUT_DROP ? 0 : 4;
		whole = 0;
	}

	for (struct disk_write *w = d->pending; w != NULL; w = w->next) {
		int some = sim_chance(keep, 8);

		for (uint32_t at = 0; at < w->bytes; at += d->f.sector)
			if (whole ? some : sim_chance(keep, 8))
				image_write(d->durable, w->off + at, w->data + at, d->f.sector);
	}
	for (struct disk_write *w = d->pending; w != NULL; w = w->next)
		image_write(d->now, w->off, d->durable + w->off, w->bytes);
	disk_forget(d);
	d->free = NULL;
	for (unsigned i = 0; i < DISK_OPS_MAX; i++) {
		d->op[i].busy = 0;
		d->op[i].gen++;
		d->op[i].next = d->free;
		d->free = &d->op[i];
	}
	d->in_flight = d->orphans = 0;
	d->done_count = 0;
	d->dead = 0;
	d->cut_after = 0;
}

void
disk_flip_at(struct disk *d, uint64_t at)
{
	uint8_t bit = (uint8_t)(1u << sim_below(8));

	bit ^= d->now[at];
	image_write(d->now, at, &bit, 1);
	image_write(d->durable, at, &bit, 1);
	d->flips++;
	sim_trace("disk: bit flipped at %llu", (unsigned long long)at);
}

void
disk_flip(struct disk *d)
{
	disk_flip_at(d, sim_between(0, d->total_bytes - 1));
}
