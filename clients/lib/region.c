/*
 * Regions: memory for blocks that the library knows. Over TCP they are bookkeeping: who uses them, so that they are not freed under a transfer; RDMA
 * devices have them registered (rail_reg.c), and a server on this host reads values out of those that the library has made (tcp_ref.c).
 *
 * Callers' threads and I/O threads. The list and the counts are under c->mutex; with no region there is no lock on the way of a request.
 * Fails: memory; freeing one that requests in flight use (MKV_E_BUSY).
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "clients/lib/client_priv.h"
#include "clients/lib/rail.h"
#include "clients/lib/shmwin.h"
#include "common/base/os.h"

#define HUGE_BYTES	(2ull << 20)
#define FILL_MOST_BYTES	(1ull << 30)		/* a region's pages are taken when it is made up to here: a quarter of a second */

static struct mkv_region *
region_find(struct mkv_client *c, const void *p)
{
	MKV_LIST_FOREACH(it, &c->regions) {
		struct mkv_region *r = MKV_CONTAINER_OF(it, struct mkv_region, link);

		if ((const uint8_t *)p >= r->base && (const uint8_t *)p < r->base + r->bytes)
			return (r);
	}
	return (NULL);
}

/* A request counts in the region of its first piece of memory; pieces of one request lie in one region. */
struct mkv_region *
mkv_region_enter(struct mkv_client *c, const struct iovec *iov, unsigned n)
{
	struct mkv_region *r;

	if (n == 0 || atomic_load_explicit(&c->n_regions, memory_order_relaxed) == 0)
		return (NULL);
	(void)pthread_mutex_lock(&c->mutex);
	if ((r = region_find(c, iov[0].iov_base)) != NULL)
		r->in_flight++;
	(void)pthread_mutex_unlock(&c->mutex);
	return (r);
}

void
mkv_region_leave(struct mkv_client *c, struct mkv_region *r)
{
	MKV_CHECK_OBJ(r, REGION_MAGIC);
	(void)pthread_mutex_lock(&c->mutex);
	MKV_ASSERT(r->in_flight > 0);
	r->in_flight--;
	(void)pthread_mutex_unlock(&c->mutex);
}

int
mkv_region_holds(const struct op *o)
{
	const struct mkv_region *r = o->region;

	for (unsigned i = 0; r != NULL && i < o->n_iov; i++) {
		const uint8_t *p = o->iov[i].iov_base;

		if (o->iov[i].iov_len > 0 && (p < r->base || p + o->iov[i].iov_len > r->base + r->bytes))
			return (0);
	}
	return (r != NULL);
}

int
mkv_region_memory(struct mkv_client *c, const void *p, struct mkv_gpu_mem *m)
{
	const struct mkv_region *r;

	if (atomic_load_explicit(&c->n_regions, memory_order_relaxed) == 0)
		return (0);
	(void)pthread_mutex_lock(&c->mutex);
	if ((r = region_find(c, p)) != NULL)
		*m = r->memory;
	(void)pthread_mutex_unlock(&c->mutex);
	return (r != NULL);
}

static int
region_new(struct mkv_client *c, void *base, size_t bytes, struct mkv_region **out)
{
	struct mkv_region *r = calloc(1, sizeof(*r));
	char why[MKV_GPU_WHY_BYTES];
	int e;

	if (r == NULL)
		return (MKV_E_NOMEM);
	if ((e = mkv_gpu_what(base, &r->memory, why)) != 0) {
		mkv_gpu_failed(c, why);
		free(r);
		return (e);
	}
	r->magic = REGION_MAGIC;
	r->c = c;
	r->base = base;
	r->bytes = bytes;
	r->fd = -1;
	(void)pthread_mutex_lock(&c->mutex);
	mkv_list_push_tail(&c->regions, &r->link);
	atomic_fetch_add_explicit(&c->n_regions, 1, memory_order_relaxed);
	(void)pthread_mutex_unlock(&c->mutex);
	mkv_fabric_add_region(r);
	*out = r;
	return (0);
}

/* Huge pages if there are any to have: explicitly, then as advice. */
static int
region_map(size_t bytes, int *fd, size_t *mapped, size_t *piece, void **base)
{
	size_t huge = MKV_ALIGN_UP(bytes, HUGE_BYTES), page = MKV_ALIGN_UP(bytes, 4096);
	int r;

	if (bytes >= HUGE_BYTES && (*fd = mkv_os_shm_create("memkv-region", huge, 2)) >= 0) {
		if (mkv_os_shm_map(*fd, huge, 1, 2, base) == 0) {
			*mapped = huge;
			*piece = HUGE_BYTES;
			return (0);
		}
		(void)close(*fd);
	}
	*mapped = bytes >= HUGE_BYTES ? huge : page;
	*piece = (size_t)sysconf(_SC_PAGESIZE);
	if ((*fd = mkv_os_shm_create("memkv-region", *mapped, bytes >= HUGE_BYTES)) < 0)
		return (*fd);
	if ((r = mkv_os_shm_map(*fd, *mapped, 1, bytes >= HUGE_BYTES, base)) != 0)
		(void)close(*fd);
	return (r);
}

/* ---- for servers on this host ---- */

int
mkv_region_alive(struct mkv_client *c, uint32_t number)
{
	int alive = 0;

	(void)pthread_mutex_lock(&c->mutex);
	MKV_LIST_FOREACH(it, &c->regions)
		alive |= MKV_CONTAINER_OF(it, struct mkv_region, link)->number == number;
	(void)pthread_mutex_unlock(&c->mutex);
	return (alive);
}

/* A server takes no memfd that has holes. What is too large to be filled in one go is asked about until its owner has touched it all. */
int
mkv_region_pass(struct mkv_region *r, uint64_t *bytes)
{
	struct mkv_os_shm shm;
	int fd, e;

	if ((e = mkv_os_shm_check(r->fd, &shm)) != 0)
		return (e == MKV_E_INVAL ? MKV_E_AGAIN : e);
	if ((fd = fcntl(r->fd, F_DUPFD_CLOEXEC, 3)) < 0)
		return (mkv_err_from_errno(errno));
	atomic_store_explicit(&r->passed, 1, memory_order_relaxed);
	*bytes = r->mapped;
	return (fd);
}

/* Only advice: what is not filled now may be later, or goes another way. */
static void
region_fill(const struct mkv_region *r)
{
	if (r->mapped > FILL_MOST_BYTES)
		return;
	if (r->mapped % HUGE_BYTES == 0)
		(void)mkv_os_collapse(r->base, r->mapped);	/* drives may read into it, and do so faster */
	mkv_os_populate(r->base, r->mapped);
	(void)mkv_os_shm_fill(r->fd, r->mapped);
}

static void
region_number(struct mkv_region *r)
{
	const struct conf *cf = &r->c->cf;

	if (cf->local_window == 0 || (cf->transport != MKV_TRANSPORT_AUTO && cf->transport != MKV_TRANSPORT_LOCAL))
		return;
	region_fill(r);
	(void)pthread_mutex_lock(&r->c->mutex);
	if (r->c->last_region < UINT32_MAX - WINDOW_NUMBER)
		r->number = WINDOW_NUMBER + ++r->c->last_region;
	(void)pthread_mutex_unlock(&r->c->mutex);
}

/* Loops ask for its number (mkv_region_alive()), and have servers drop it. */
static void
region_tell_gone(struct mkv_client *c)
{
	atomic_fetch_add_explicit(&c->regions_gone, 1, memory_order_release);
	for (unsigned i = 0; i < c->cf.io_threads; i++)
		mkv_loop_wake(&c->loop[i]);
}

/* ---- */

static int
region_alloc(struct mkv_client *c, size_t bytes, struct mkv_region **out)
{
	size_t mapped, piece;
	void *base;
	int fd, r;

	if (bytes == 0 || bytes > MEMKV_VALUE_MAX)
		return (MKV_E_INVAL);
	if ((r = region_map(bytes, &fd, &mapped, &piece, &base)) != 0)
		return (r);
	if ((r = region_new(c, base, bytes, out)) != 0) {
		mkv_os_shm_unmap(base, mapped);
		(void)close(fd);
		return (r);
	}
	(*out)->fd = fd;
	(*out)->mapped = mapped;
	(*out)->page = piece;
	region_number(*out);
	return (0);
}

int
mkv_region_alloc(struct mkv_client *c, size_t bytes, struct mkv_region **out)
{
	int saved = errno, r = mkv_client_enter(c);

	if (r == 0)
		r = out == NULL ? MKV_E_INVAL : region_alloc(c, bytes, out);
	errno = saved;
	return (r);
}

int
mkv_region_register(struct mkv_client *c, void *base, size_t bytes, struct mkv_region **out)
{
	int saved = errno, r = mkv_client_enter(c);

	if (r == 0)
		r = base == NULL || bytes == 0 || out == NULL ? MKV_E_INVAL : region_new(c, base, bytes, out);
	errno = saved;
	return (r);
}

void *
mkv_region_base(const struct mkv_region *r, size_t *bytes)
{
	MKV_CHECK_OBJ(r, REGION_MAGIC);
	if (bytes != NULL)
		*bytes = r->bytes;
	return (r->base);
}

static int
region_free(struct mkv_region *r)
{
	int e;

	if ((e = mkv_fabric_drop_region(r)) != 0)
		return (e);
	if (atomic_load_explicit(&r->passed, memory_order_relaxed))
		region_tell_gone(r->c);
	for (unsigned i = 0; i < r->n_away; i++)
		mkv_os_shm_unmap(r->away[i].from, r->away[i].bytes);
	if (r->mapped > 0) {
		mkv_os_shm_unmap(r->base, r->mapped);
		(void)close(r->fd);
	}
	r->magic = 0;
	free(r);
	return (0);
}

int
mkv_region_free(struct mkv_region *r)
{
	int saved = errno, e;

	if (r == NULL)
		return (0);
	MKV_CHECK_OBJ(r, REGION_MAGIC);
	if ((e = mkv_client_enter(r->c)) == 0)
		e = region_free(r);
	errno = saved;
	return (e);
}
