/*
 * Gets straight into the caller's region (local_get: in_place): no copy by the library, and how a server that may still be writing there loses it.
 *
 *            mkv_into_begin(): the frame names the caller's memory            its answer has come
 *   o->into 0 ---------------------------------------------------------> 1 ------------------------> 0    mkv_into_over()
 *                                                                        '-- the op ends first, ---> 0    torn: mkv_into_tear() or mkv_into_left()
 *                                                                            or the session
 *
 * Torn: the pages of the op's memory are replaced by new ones, zeroes, at the same place. The server's writes go to the memfd, which nobody sees there any more, whether it
 * copies by its own mapping or a device does it. Such a range is not the region's for a server from then on: what is asked for there goes through the window.
 * Other holders of the old pages lose the caller's memory as well: a GPU or a NIC that has them pinned, another process that shares them. That is why it is asked for by name, and with
 * transport local alone; and why a request goes this way only where all of its pieces are whole pages.
 *
 * Threads: the loop of the op, while it is lent or has been left; the caller's at his deadline, in op_leave(). Who tears is who moves the op out of OP_LOOP: o->into changes only
 * while the op is lent, so a caller whose compare-and-swap wins has seen how it stands, and the loop, which can no longer lend the op, leaves its pages alone.
 * Owns nothing; a caller who tears counts in the region meanwhile, since the op may be another's by then. Pages that were replaced stay mapped elsewhere, and the memfd's own are
 * charged, until the region is freed.
 * Fails: replacing pages wants up to three mappings more than the process has now, and with mlockall(MCL_FUTURE) room in RLIMIT_MEMLOCK. Where there is none the call waits for it:
 * late, for ever if need be, and never a wrong byte.
 */
#include "config.h"

#include <string.h>
#include <time.h>

#include "clients/lib/client_priv.h"
#include "clients/lib/into.h"
#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/os.h"

/* ---- which ranges are torn: under c->mutex ---- */

static int
torn_meets(const struct mkv_region *r, const uint8_t *p, size_t bytes)
{
	for (unsigned i = 0; i < r->n_torn; i++)
		if (p < r->torn[i].from + r->torn[i].bytes && r->torn[i].from < p + bytes)
			return (1);
	return (0);
}

/* When there is no place left for one more they become one, with what lies between them. */
static void
torn_add(struct mkv_region *r, uint8_t *p, size_t bytes)
{
	struct torn *t = &r->torn[0];
	uint8_t *from = p, *to = p + bytes;

	if (r->n_torn < REGION_TORN_MAX) {
		r->torn[r->n_torn++] = (struct torn){ .from = p, .bytes = bytes };
		return;
	}
	for (unsigned i = 0; i < r->n_torn; i++) {
		from = MKV_MIN(from, r->torn[i].from);
		to = MKV_MAX(to, r->torn[i].from + r->torn[i].bytes);
	}
	*t = (struct torn){ .from = from, .bytes = (size_t)(to - from) };
	r->n_torn = 1;
}

int
mkv_into_whole(const struct op *o)
{
	struct mkv_region *r = o->region;
	int whole = 1;

	/* Who has his memory back hands in what comes next after that: it is seen here without a lock. */
	if (atomic_load_explicit(&r->n_torn, memory_order_relaxed) == 0)
		return (1);
	(void)pthread_mutex_lock(&o->c->mutex);
	for (unsigned i = 0; i < o->n_iov; i++)
		whole &= !torn_meets(r, o->iov[i].iov_base, o->iov[i].iov_len);
	(void)pthread_mutex_unlock(&o->c->mutex);
	return (whole);
}

/* ---- the pages ---- */

/* Unmapping takes its time, and a deadline has passed: it is put off until the region is freed. */
static int
pages_keep(struct mkv_region *r, void *old, size_t bytes)
{
	int keep;

	(void)pthread_mutex_lock(&r->c->mutex);
	if ((keep = r->n_away < REGION_TORN_MAX) != 0)
		r->away[r->n_away++] = (struct torn){ .from = old, .bytes = bytes };
	(void)pthread_mutex_unlock(&r->c->mutex);
	return (keep);
}

static void
pages_replace(struct mkv_region *r, void *p, size_t bytes)
{
	const struct timespec pause = { .tv_nsec = MKV_NS_PER_MS };
	void *old;

	while (mkv_os_replace_pages(p, bytes, &old) != 0)
		(void)nanosleep(&pause, NULL);
	if (old != NULL && !pages_keep(r, old, bytes))
		mkv_os_shm_unmap(old, bytes);
}

/* Known first: nobody is to be sent there any more. */
static void
pages_tear(struct mkv_region *r, const struct iovec *iov, unsigned n)
{
	(void)pthread_mutex_lock(&r->c->mutex);
	for (unsigned i = 0; i < n; i++)
		torn_add(r, iov[i].iov_base, iov[i].iov_len);
	(void)pthread_mutex_unlock(&r->c->mutex);
	for (unsigned i = 0; i < n; i++)
		pages_replace(r, iov[i].iov_base, iov[i].iov_len);
	client_count(r->c, CC_local_torn_total, 1);
}

/* ---- the loop ---- */

static int
into_fits(const struct op *o)
{
	if (o->region == NULL || o->region->number == 0 || o->n_iov > INTO_PIECES_MAX || !mkv_region_holds(o))
		return (0);
	for (unsigned i = 0; i < o->n_iov; i++)
		if (o->iov[i].iov_len == 0 || o->iov[i].iov_len > UINT32_MAX || ((uintptr_t)o->iov[i].iov_base | o->iov[i].iov_len) % o->region->page != 0)
			return (0);
	return (mkv_into_whole(o));
}

int
mkv_into_may(const struct op *o)
{
	return (o->c->cf.local_in_place && into_fits(o));
}

void
mkv_into_begin(struct op *o)
{
	MKV_ASSERT(mkv_op_own(o) == OP_LENT);
	atomic_store_explicit(&o->into, 1, memory_order_relaxed);
}

void
mkv_into_over(struct op *o)
{
	if (atomic_load_explicit(&o->into, memory_order_relaxed) == 0 || !mkv_op_lend(o))
		return;
	atomic_store_explicit(&o->into, 0, memory_order_relaxed);
	mkv_op_unlend(o);
}

void
mkv_into_tear(struct op *o)
{
	if (atomic_load_explicit(&o->into, memory_order_relaxed) == 0)
		return;
	MKV_ASSERT(mkv_op_own(o) != OP_LENT);		/* its bytes do not come by the socket */
	if (!mkv_op_lend(o))
		return;					/* its caller does, or has done it */
	pages_tear(o->region, o->iov, o->n_iov);
	atomic_store_explicit(&o->into, 0, memory_order_relaxed);
	mkv_op_unlend(o);
}

/* ---- a caller at his deadline ---- */

/* An op that has gone on since is not left, and its region may be freed by now: the loop lends the op before it leaves the region (op_complete()). */
void
mkv_into_hold(struct into *t, const struct op *o, uint32_t own)
{
	t->region = NULL;
	if (atomic_load_explicit(&o->into, memory_order_relaxed) == 0)
		return;
	(void)pthread_mutex_lock(&o->c->mutex);
	if (atomic_load_explicit(&o->own, memory_order_relaxed) == own) {
		t->region = o->region;
		t->region->in_flight++;
	}
	(void)pthread_mutex_unlock(&o->c->mutex);
	t->n = o->n_iov;
	memcpy(t->iov, o->iov, t->n * sizeof(t->iov[0]));
}

void
mkv_into_left(struct into *t, int left)
{
	if (t->region == NULL)
		return;
	if (left)
		pages_tear(t->region, t->iov, t->n);
	mkv_region_leave(t->region->c, t->region);
}
