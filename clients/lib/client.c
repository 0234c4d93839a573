/*
 * The handle: opening and closing, who may enter, the completions of asynchronous calls.
 *
 * Callers' threads, but for mkv_client_done() and mkv_client_identity() (I/O threads). Owns everything below struct mkv_client.
 * Invariants: an op is in the pool's free list, in a caller's or a loop's hands, or in `done`; the bell is rung exactly while `done` is not empty
 * (once somebody asked for it).
 * Fails: open, with a sentence. After fork() the child is refused by its pid and touches nothing: locks and threads are the parent's.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clients/lib/client_priv.h"
#include "clients/lib/rail.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/os.h"

int
mkv_client_enter(const struct mkv_client *c)
{
	if (c == NULL || c->magic != CLIENT_MAGIC)
		return (MKV_E_INVAL);
	return (c->pid == getpid() ? 0 : MKV_E_FORKED);
}

uint64_t
mkv_client_deadline(uint64_t deadline_us)
{
	return (deadline_us == 0 || deadline_us > MKV_WIRE_DEADLINE_MAX_US ? 0 : mkv_now_ns() + deadline_us * MKV_NS_PER_US);
}

unsigned
mkv_client_server_of(const struct mkv_client *c, const void *key, size_t key_bytes)
{
	int i = mkv_rendezvous(c->node_hash, c->node_weight, c->cf.n_servers, mkv_hash64(key, key_bytes, 0));

	MKV_ASSERT(i >= 0);
	return ((unsigned)i);
}

/* The later name is refused: whichever was met first, the result is the same. */
int
mkv_client_identity(struct mkv_client *c, unsigned server, const uint8_t id[16])
{
	unsigned other, loser = SERVERS_MAX;

	(void)pthread_mutex_lock(&c->mutex);
	memcpy(c->state[server].id, id, 16);
	c->state[server].known = 1;
	for (other = 0; other < c->cf.n_servers && loser == SERVERS_MAX; other++)
		if (other != server && c->state[other].known && memcmp(c->state[other].id, id, 16) == 0)
			loser = MKV_MAX(other, server);
	if (loser != SERVERS_MAX)
		atomic_store_explicit(&c->state[loser].refused, 1, memory_order_relaxed);
	(void)pthread_mutex_unlock(&c->mutex);
	return (loser == server ? MKV_E_CONFIG : 0);
}

/* ---- opening ---- */

static void
client_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(cond, &attr);
	(void)pthread_condattr_destroy(&attr);
}

static void
client_init(struct mkv_client *c)
{
	c->magic = CLIENT_MAGIC;
	c->pid = getpid();
	c->bell_wait = c->bell_ring = -1;
	(void)pthread_mutex_init(&c->mutex, NULL);
	(void)pthread_mutex_init(&c->gpu_lock, NULL);
	client_cond_init(&c->freed);
	client_cond_init(&c->completed);
	client_cond_init(&c->rails_changed);
	mkv_list_init(&c->free);
	mkv_list_init(&c->done);
	mkv_list_init(&c->regions);
}

static int
client_pool(struct mkv_client *c)
{
	if ((c->pool = calloc(c->cf.inflight_max, sizeof(*c->pool))) == NULL)
		return (MKV_E_NOMEM);
	for (unsigned i = 0; i < c->cf.inflight_max; i++) {
		c->pool[i].magic = OP_MAGIC;
		c->pool[i].c = c;
		mkv_list_push_tail(&c->free, &c->pool[i].link);
	}
	return (0);
}

/*
 * Many processes have one environment, and one of them gets the port: for the others' sake that is no failure. What is wrong in every process is one.
 */
static int
client_http(struct mkv_client *c, char *why)
{
	int r;

	if (c->cf.http_host[0] == '\0')
		return (0);
	r = mkv_http_open(&c->loop[0].http, &c->loop[0], c->cf.http_host, c->cf.http_port, why);
	if (r == 0 || r == MKV_E_CONFIG || r == MKV_E_NOMEM)
		return (r);
	atomic_fetch_add_explicit(&c->counters.value[CC_metrics_unserved_total], 1, memory_order_relaxed);
	return (0);
}

static int
client_start(struct mkv_client *c, char *why)
{
	int r = 0;

	for (unsigned i = 0; i < c->cf.n_servers; i++) {
		c->node_hash[i] = c->cf.server[i].hash;
		c->node_weight[i] = 1.0;
	}
	c->has_host_id = mkv_key_host(c->host_id) == 0;
	if ((r = mkv_auth_init()) != 0 || (r = mkv_random(c->client_id, sizeof(c->client_id))) != 0 || (r = client_pool(c)) != 0 ||
	    (r = mkv_resolver_open(&c->resolver, c)) != 0 || (r = mkv_fabric_open(c, why)) != 0)
		return (r);
	mkv_crc_init();
	if ((c->loop = calloc(c->cf.io_threads, sizeof(*c->loop))) == NULL)
		return (MKV_E_NOMEM);
	for (unsigned i = 0; i < c->cf.io_threads; i++)
		if ((r = mkv_loop_open(&c->loop[i], c, i)) != 0)
			return (r);
	if ((r = client_http(c, why)) != 0)
		return (r);
	for (unsigned i = 0; i < c->cf.io_threads && r == 0; i++)
		r = mkv_loop_start(&c->loop[i]);
	return (r);
}

static void
client_free(struct mkv_client *c)
{
	for (unsigned i = 0; c->loop != NULL && i < c->cf.io_threads; i++)
		mkv_loop_stop(&c->loop[i]);
	mkv_resolver_close(&c->resolver);
	for (unsigned i = 0; c->loop != NULL && i < c->cf.io_threads; i++)
		if (c->loop[i].c != NULL)
			mkv_loop_close(&c->loop[i]);
	mkv_fabric_close(c);
	while (!mkv_list_empty(&c->done))
		mkv_op_put_back(MKV_CONTAINER_OF(mkv_list_pop(&c->done), struct op, link));
	free(c->loop);
	free(c->pool);
	if (c->bell_wait >= 0) {
		(void)close(c->bell_wait);
		(void)close(c->bell_ring);
	}
	(void)pthread_cond_destroy(&c->freed);
	(void)pthread_cond_destroy(&c->completed);
	(void)pthread_cond_destroy(&c->rails_changed);
	if (c->gpu_lane != NULL)
		mkv_gpu_lane_fini(c->gpu_lane);
	free(c->gpu_lane);
	(void)pthread_mutex_destroy(&c->gpu_lock);
	(void)pthread_mutex_destroy(&c->mutex);
	mkv_wipe(&c->cf, sizeof(c->cf));
	c->magic = 0;
	free(c);
}

static int
client_open(struct mkv_client **out, const struct mkv_client_opts *opts, char *why)
{
	struct mkv_client *c = calloc(1, sizeof(*c));
	int r;

	if (c == NULL)
		return (MKV_E_NOMEM);
	client_init(c);
	if ((r = mkv_conf_load(&c->cf, opts, why)) != 0 || (r = client_start(c, why)) != 0) {
		client_free(c);
		return (r);
	}
	*out = c;
	return (0);
}

int
mkv_client_open(struct mkv_client **out, const struct mkv_client_opts *opts, char *why, size_t why_bytes)
{
	char text[WHY_BYTES] = "";
	int saved = errno, r;

	if (out == NULL)
		return (MKV_E_INVAL);
	*out = NULL;
	r = client_open(out, opts, text);
	if (why != NULL && why_bytes > 0)
		(void)snprintf(why, why_bytes, "%s", text[0] != '\0' || r == 0 ? text : mkv_err(r));
	errno = saved;
	return (r);
}

void
mkv_client_close(struct mkv_client *c)
{
	int saved = errno;

	if (mkv_client_enter(c) == 0)
		client_free(c);				/* in a forked child nothing is ours to free */
	errno = saved;
}

/* ---- completions ---- */

/* Under c->mutex. */
static void
client_ring(struct mkv_client *c)
{
	if (c->bell_ring < 0 || c->bell_rung)
		return;
	c->bell_rung = 1;
	mkv_os_bell_ring(c->bell_ring);
}

void
mkv_client_done(struct mkv_client *c, struct op *o)
{
	(void)pthread_mutex_lock(&c->mutex);
	atomic_store_explicit(&o->own, OP_DONE, memory_order_release);
	mkv_list_push_tail(&c->done, &o->link);
	client_ring(c);
	(void)pthread_mutex_unlock(&c->mutex);
	/* Not before: who is woken would find the mutex taken and sleep again. c outlives us: closing waits for the loops. */
	(void)pthread_cond_signal(&c->completed);
}

static int
client_event_fd(struct mkv_client *c)
{
	int r = 0;

	(void)pthread_mutex_lock(&c->mutex);
	if (c->bell_wait < 0)
		r = mkv_os_bell_create(&c->bell_wait, &c->bell_ring);
	if (r == 0 && !mkv_list_empty(&c->done))
		client_ring(c);
	(void)pthread_mutex_unlock(&c->mutex);
	return (r == 0 ? c->bell_wait : r);
}

int
mkv_event_fd(struct mkv_client *c)
{
	int saved = errno, r = mkv_client_enter(c);

	if (r == 0)
		r = client_event_fd(c);
	errno = saved;
	return (r);
}

static struct op *
client_next_done(struct mkv_client *c)
{
	struct mkv_list *n;

	(void)pthread_mutex_lock(&c->mutex);
	n = mkv_list_pop(&c->done);
	if (mkv_list_empty(&c->done) && c->bell_rung) {
		c->bell_rung = 0;
		mkv_os_bell_clear(c->bell_wait);
	}
	(void)pthread_mutex_unlock(&c->mutex);
	return (n == NULL ? NULL : MKV_CONTAINER_OF(n, struct op, link));
}

static void
client_tell(struct mkv_completion *to, size_t size, const struct op *o)
{
	struct mkv_completion k;

	memset(&k, 0, sizeof(k));
	k.size = size;
	k.id = atomic_load_explicit(&o->id, memory_order_relaxed);
	k.user = o->user;
	k.result = o->result;
	k.object = o->object;
	memcpy(to, &k, size);
}

/* out[i].size is the caller's size of the struct (0: this version's); all elements have the first one's. */
int
mkv_drain(struct mkv_client *c, struct mkv_completion *out, unsigned max)
{
	int saved = errno, r = mkv_client_enter(c);
	struct op *o;
	size_t size;
	unsigned n;

	if (r != 0 || max == 0)
		return (r);
	if (out == NULL)
		return (MKV_E_INVAL);
	size = out[0].size == 0 ? sizeof(*out) : MKV_MIN(out[0].size, sizeof(*out));
	for (n = 0; n < max && (o = client_next_done(c)) != NULL; n++) {
		client_tell((struct mkv_completion *)((char *)out + n * size), size, o);
		mkv_op_put_back(o);
	}
	errno = saved;
	return ((int)n);
}

static int
client_wait(struct mkv_client *c, uint64_t timeout_us)
{
	uint64_t until = mkv_now_ns() + MKV_MIN(timeout_us, MKV_WIRE_DEADLINE_MAX_US) * MKV_NS_PER_US;
	struct timespec ts = { .tv_sec = (time_t)(until / MKV_NS_PER_SEC), .tv_nsec = (long)(until % MKV_NS_PER_SEC) };
	int there;

	(void)pthread_mutex_lock(&c->mutex);
	while (mkv_list_empty(&c->done))
		if (pthread_cond_timedwait(&c->completed, &c->mutex, &ts) == ETIMEDOUT)
			break;
	there = !mkv_list_empty(&c->done);
	(void)pthread_mutex_unlock(&c->mutex);
	return (there);
}

int
mkv_wait(struct mkv_client *c, uint64_t timeout_us)
{
	int saved = errno, r = mkv_client_enter(c);

	if (r == 0)
		r = client_wait(c, timeout_us);
	errno = saved;
	return (r);
}

static int
client_cancel(struct mkv_client *c, uint64_t id)
{
	uint64_t at = id & 0xffff;
	int r = MKV_E_MISS;

	if (id == 0 || at >= c->cf.inflight_max)
		return (MKV_E_INVAL);
	/* While we hold the mutex the op can complete, but not become another one. */
	(void)pthread_mutex_lock(&c->mutex);
	if (atomic_load_explicit(&c->pool[at].id, memory_order_relaxed) == id && mkv_loop_poke(c->pool[at].loop, &c->pool[at], 1))
		r = 0;
	(void)pthread_mutex_unlock(&c->mutex);
	return (r);
}

int
mkv_cancel(struct mkv_client *c, uint64_t id)
{
	int saved = errno, r = mkv_client_enter(c);

	if (r == 0)
		r = client_cancel(c, id);
	errno = saved;
	return (r);
}

unsigned
mkv_server_count(const struct mkv_client *c)
{
	return (c == NULL || c->magic != CLIENT_MAGIC ? 0 : c->cf.n_servers);
}

unsigned
mkv_server_of(const struct mkv_client *c, const void *key, size_t key_bytes)
{
	return (c == NULL || c->magic != CLIENT_MAGIC || key == NULL ? 0 : mkv_client_server_of(c, key, key_bytes));
}
