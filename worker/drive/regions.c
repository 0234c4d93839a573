/*
 * Memory of clients on this host (regions), which a front has shown this drive by way of the supervisor: the medium reads straight into it, and writes from it. Drive's loop thread;
 * owns a mapping and slots of the queue's table of buffers for each.
 *
 *	(free) --REGION--> WAITING (no queue yet) --start--> HERE --DROP--> LEAVING --last request's end--> (free), answered
 *	                      '--cannot be registered: refused, (free)
 *	HERE, LEAVING: their front died: --its last request's end--> (free), before DRAINED is said
 *
 * Who may touch it: the medium's I/O alone, by a registered buffer. Its pages are pinned, so whatever the client does to them meanwhile (holes, hugetlbfs) is no error of an I/O
 * request; the same I/O on the mapping would fail with EFAULT, and a client could make a good medium look bad. So a region that gets no slots is refused, and an access
 * that no one slot covers is as well: the front goes by its stage. The processor never reads or writes here: no CRC is made of it, nothing is copied from it, no other
 * request follows a read into it (get.c).
 * A request has a reference from drive_region() to drive_region_done(), which the engine calls when no I/O of it is left, whether anybody hears its answer or not.
 * Fails: no memfd as it must be, unknown numbers, no room: the front is told; nothing ends this process.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/os.h"
#include "common/base/params.h"
#include "worker/drive/drive.h"

static void
region_answer(struct drive *d, const Mkv__Ctl__Region *m, int status)
{
	Mkv__Ctl__RegionDone a = MKV__CTL__REGION_DONE__INIT;

	a.front = m->front;
	a.epoch = m->epoch;
	a.region = m->region;
	a.drop = m->drop;
	a.status = status;
	mkv_worker_region_done(d->w, &a);
}

/* What the front knows it by, which is gone with it: taken before, and said after. */
static Mkv__Ctl__Region
region_question(const struct drive *d, const struct drive_region *g, int drop)
{
	Mkv__Ctl__Region m = MKV__CTL__REGION__INIT;

	m.front = d->client[g->client].peer->index;
	m.epoch = d->client[g->client].epoch;
	m.region = g->id;
	m.drop = drop;
	return (m);
}

static struct drive_region *
region_find(struct drive *d, uint32_t client, uint32_t id)
{
	for (unsigned i = 0; i < MKV_DRV_REGIONS_MAX; i++)
		if (d->region[i].id == id && d->region[i].client == client)
			return (&d->region[i]);
	return (NULL);
}

static void
regions_gauge(struct drive *d)
{
	mkv_metric_set(d->w->metrics, MKV_M_drive_regions, 0, d->regions);
}

/* ---- Slots of the table ---------------------------------------------------------------------------------------------------- */

/* The highest run of so many that neither stages nor regions have. -1: none. */
static int
slots_find(const struct drive *d, unsigned n)
{
	unsigned run = 0;

	for (unsigned i = DRIVE_BUF_SLOTS; i-- > d->buf_slots;) {
		run = d->slot_region[i] ? 0 : run + 1;
		if (run == n)
			return ((int)i);
	}
	return (-1);
}

static void
slots_clear(struct drive *d, unsigned first, unsigned n)
{
	struct iovec none = { NULL, 0 };

	for (unsigned i = first; i < first + n; i++) {
		(void)mkv_ioq_set_buffer(d->w->q, i, &none);
		d->slot_region[i] = 0;
	}
}

/* Helper threads register nothing, whatever they answer: their reads meet the mapping as it is. */
static int
regions_pinned(const struct drive *d)
{
	return (d->buffers && strcmp(mkv_ioq_name(d->w->q), "io_uring") == 0);
}

static int
region_register(struct drive *d, struct drive_region *g)
{
	unsigned n = (unsigned)MKV_DIV_UP(g->bytes, DRIVE_RANGE_BYTES);
	int first, r;

	if (!regions_pinned(d))
		return (MKV_E_UNSUPPORTED);
	if ((first = slots_find(d, n)) < 0)
		return (MKV_E_NOSPACE);
	for (unsigned i = 0; i < n; i++) {
		struct iovec iov = { g->base + i * DRIVE_RANGE_BYTES, (size_t)MKV_MIN(DRIVE_RANGE_BYTES, g->bytes - i * DRIVE_RANGE_BYTES) };

		if ((r = mkv_ioq_set_buffer(d->w->q, (unsigned)first + i, &iov)) != 0) {
			slots_clear(d, (unsigned)first, i);
			return (r);
		}
		d->slot_region[(unsigned)first + i] = 1;
	}
	g->first_buf = first;
	return (0);
}

static void
region_free(struct drive *d, struct drive_region *g)
{
	MKV_ASSERT(g->refs == 0);
	if (g->first_buf >= 0)
		slots_clear(d, (unsigned)g->first_buf, (unsigned)MKV_DIV_UP(g->bytes, DRIVE_RANGE_BYTES));
	mkv_os_shm_unmap(g->base, g->bytes);
	memset(g, 0, sizeof(*g));
	d->regions--;
	regions_gauge(d);
}

/* ---- What fronts say ------------------------------------------------------------------------------------------------------- */

/* Registered, if there is a queue to do it with, and the front is told. */
static void
region_begin(struct drive *d, struct drive_region *g)
{
	Mkv__Ctl__Region m = region_question(d, g, 0);
	int r;

	if (d->w->q == NULL)
		return;
	if ((r = region_register(d, g)) != 0)
		region_free(d, g);
	region_answer(d, &m, r);
}

static int
region_add(struct drive *d, uint32_t client, const Mkv__Ctl__Region *m, int fd)
{
	struct drive_region *g = region_find(d, 0, 0);
	struct mkv_os_shm shm;
	void *base;
	int r;

	if (d->w->params->storage_mode == MKV_STORAGE_MEMORY)
		return (MKV_E_UNSUPPORTED);
	if (m->region == 0 || region_find(d, client, m->region) != NULL)
		return (MKV_E_INVAL);
	if (g == NULL)
		return (MKV_E_NOSPACE);
	if ((r = mkv_os_shm_check(fd, &shm)) != 0)
		return (r);
	if (shm.bytes != m->bytes || shm.bytes == 0)
		return (MKV_E_INVAL);
	/* Aligned, where it may lie in huge pages: these are pinned at once. */
	if ((r = mkv_os_shm_map(fd, shm.bytes, 1, 1, &base)) != 0)
		return (r);
	*g = (struct drive_region){ .client = client, .id = m->region, .base = base, .bytes = shm.bytes, .first_buf = -1 };
	d->regions++;
	regions_gauge(d);
	region_begin(d, g);
	return (0);
}

static void
region_leave(struct drive *d, struct drive_region *g)
{
	Mkv__Ctl__Region m = region_question(d, g, 1);

	region_free(d, g);
	region_answer(d, &m, 0);
}

static void
region_drop(struct drive *d, uint32_t client, const Mkv__Ctl__Region *m)
{
	struct drive_region *g = m->region != 0 ? region_find(d, client, m->region) : NULL;

	if (g == NULL || g->leaving)
		region_answer(d, m, 0);		/* nothing here touches it */
	else if (g->refs == 0)
		region_leave(d, g);
	else
		g->leaving = 1;
}

int
drive_region_message(struct drive *d, const Mkv__Ctl__Region *m, int fd)
{
	int client = drive_front_client(d, m->front, m->epoch), r;

	if ((fd < 0) != (m->drop != 0))
		return (MKV_E_PROTO);
	if (client < 0)
		region_answer(d, m, m->drop ? 0 : MKV_E_RETRY);
	else if (m->drop)
		region_drop(d, (uint32_t)client, m);
	else if ((r = region_add(d, (uint32_t)client, m, fd)) != 0)
		region_answer(d, m, r);
	return (0);
}

void
drive_regions_start(struct drive *d)
{
	regions_gauge(d);			/* the page has the former life's */
	for (unsigned i = 0; i < MKV_DRV_REGIONS_MAX; i++)
		if (d->region[i].id != 0)
			region_begin(d, &d->region[i]);
}

void
drive_regions_gone(struct drive *d, uint32_t client)
{
	for (unsigned i = 0; i < MKV_DRV_REGIONS_MAX; i++)
		if (d->region[i].id != 0 && d->region[i].client == client)
			region_free(d, &d->region[i]);
}

/* The queue is gone, and with it its table. */
void
drive_regions_close(struct drive *d)
{
	for (unsigned i = 0; i < MKV_DRV_REGIONS_MAX; i++)
		if (d->region[i].id != 0)
			mkv_os_shm_unmap(d->region[i].base, d->region[i].bytes);
}

/* ---- What the engine asks -------------------------------------------------------------------------------------------------- */

void *
drive_region(void *arg, uint32_t client, uint32_t id, uint64_t off, uint64_t bytes, int *buf_idx)
{
	struct drive *d = arg;
	struct drive_region *g = id != 0 ? region_find(d, client, id) : NULL;

	if (g == NULL || g->leaving || g->first_buf < 0 || bytes == 0 || off > g->bytes || bytes > g->bytes - off ||
	    off / DRIVE_RANGE_BYTES != (off + bytes - 1) / DRIVE_RANGE_BYTES)
		return (NULL);
	g->refs++;
	*buf_idx = g->first_buf + (int)(off / DRIVE_RANGE_BYTES);
	return (g->base + off);
}

void
drive_region_done(void *arg, uint32_t client, uint32_t id)
{
	struct drive *d = arg;
	struct drive_region *g = region_find(d, client, id);

	MKV_ASSERT(g != NULL && g->refs > 0);
	if (--g->refs == 0 && g->leaving)
		region_leave(d, g);
}
