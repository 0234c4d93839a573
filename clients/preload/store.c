/*
 * The store behind the files: one handle of libmemkv for the process, errors as errno, and what is counted.
 *
 * Any thread of the program; nothing is locked over a call of the library but the handle against its own making. The handle is made at the first use
 * of a prefix, never before, and again after fork(). Values stay the caller's memory. Fails as the store does: see store_errno[].
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clients/preload/preload_priv.h"

#define DEADLINE_DEFAULT_US	30000000ull
#define DEADLINE_MAX_US		3600000000ull
#define SERVERS_MAX		1024u

enum op { OP_STAT, OP_GET, OP_PUT, OP_DELETE, OP_LIST, OP_COUNT };
static const char *const op_name[OP_COUNT] = { "stat", "get", "put", "delete", "list" };

struct op_stat {
	_Atomic uint64_t count, bytes, misses, errors, total_us, max_us;
};
static struct op_stat op_stat[OP_COUNT];

static struct mkv_client *store_client;
static pthread_mutex_t store_mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t store_deadline_us = DEADLINE_DEFAULT_US;
static const char *store_stats;
static __thread bool store_in;

/* Where the store's word and errno's are not the same: all else is EIO. */
static const struct {
	int	status, error;
} store_errno[] = {
	{ MKV_ERR_MISS, ENOENT }, { MKV_ERR_TIMEOUT, ETIMEDOUT }, { MKV_ERR_NOSPACE, ENOSPC }, { MKV_ERR_NOMEM, ENOMEM }, { MKV_ERR_TOOBIG, EFBIG },
	{ MKV_ERR_EXISTS, EEXIST }, { MKV_ERR_AUTH, EACCES }, { MKV_ERR_DENIED, EACCES }, { MKV_ERR_READONLY, EROFS },
};

static int
store_result(int64_t r)
{
	unsigned i;

	if (r >= 0)
		return (0);
	errno = EIO;
	for (i = 0; i < sizeof(store_errno) / sizeof(store_errno[0]); i++)
		if (store_errno[i].status == r)
			errno = store_errno[i].error;
	return (-1);
}

bool
mkv_pl_store_inside(void)
{
	return (store_in);
}

/* "30s", "500ms", "2m"; a number alone is seconds. What is no time leaves the default. */
static uint64_t
deadline_of(const char *text)
{
	char *end;
	double v;

	if (text == NULL)
		return (DEADLINE_DEFAULT_US);
	v = strtod(text, &end);
	if (strcmp(end, "ms") == 0)
		v *= 1e3;
	else if (strcmp(end, "s") == 0 || *end == '\0')
		v *= 1e6;
	else if (strcmp(end, "m") == 0)
		v *= 60e6;
	else
		v = 0;
	if (end == text || !(v >= 1) || v > (double)DEADLINE_MAX_US)
		return (DEADLINE_DEFAULT_US);
	return ((uint64_t)v);
}

void
mkv_pl_store_init(void)
{
	store_deadline_us = deadline_of(getenv("MEMKV_PRELOAD_DEADLINE"));
	/* A copy: programs that set their title write over what they were given. */
	store_stats = getenv("MEMKV_PRELOAD_STATS") == NULL ? NULL : strdup(getenv("MEMKV_PRELOAD_STATS"));
}

/* The parent's handle is its own: the copy here answers nothing, and is closed for its memory. */
void
mkv_pl_store_forked(void)
{
	struct mkv_client *old = store_client;

	(void)pthread_mutex_init(&store_mutex, NULL);
	store_client = NULL;
	store_in = true;
	mkv_client_close(old);
	store_in = false;
	memset(op_stat, 0, sizeof(op_stat));
}

static void
store_exit(void)
{
	mkv_pl_end(true);
}

/* NULL: errno says why not. What was registered last is called first at exit: while the library's own end has not been. */
static struct mkv_client *
store_handle(void)
{
	static bool registered;
	int r = 0;

	(void)pthread_mutex_lock(&store_mutex);
	if (store_client == NULL)
		r = mkv_client_open(&store_client, NULL, NULL, 0);
	if (r == 0 && !registered)
		registered = atexit(store_exit) == 0;
	(void)pthread_mutex_unlock(&store_mutex);
	(void)store_result(r);
	return (r == 0 ? store_client : NULL);
}

int
mkv_pl_store_ready(void)
{
	struct mkv_client *c;

	store_in = true;
	c = store_handle();
	store_in = false;
	return (c != NULL ? 0 : -1);
}

static uint64_t
now_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000);
}

/* A call of the library begins: its own calls of libc pass. */
static struct mkv_client *
store_begin(uint64_t *since_us)
{
	struct mkv_client *c;

	store_in = true;
	*since_us = now_us();
	if ((c = store_handle()) == NULL)
		store_in = false;
	return (c);
}

static int
store_end(enum op op, uint64_t since_us, int64_t r, uint64_t bytes)
{
	struct op_stat *s = &op_stat[op];
	uint64_t us = now_us() - since_us, max_us = atomic_load(&s->max_us);

	store_in = false;
	atomic_fetch_add(&s->count, 1);
	atomic_fetch_add(&s->total_us, us);
	while (us > max_us && !atomic_compare_exchange_weak(&s->max_us, &max_us, us))
		;
	if (r >= 0)
		atomic_fetch_add(&s->bytes, bytes);
	else
		atomic_fetch_add(r == MKV_ERR_MISS ? &s->misses : &s->errors, 1);
	return (store_result(r));
}

/* An operation that did not even get a handle. */
static int
store_none(enum op op)
{
	atomic_fetch_add(&op_stat[op].count, 1);
	atomic_fetch_add(&op_stat[op].errors, 1);
	return (-1);
}

/* Nobody was asked: that nothing is there is more than anybody knows, and a writer would begin anew over what is. */
static bool
is_unknown(const struct mkv_object *obj)
{
	const char *why = mkv_miss_label(obj->reason);

	return (why != NULL && (strcmp(why, "server_down") == 0 || strcmp(why, "timed_out") == 0));
}

int
mkv_pl_store_stat(const struct mkv_pl_name *n, struct mkv_object *obj)
{
	struct mkv_client *c;
	uint64_t since;
	int r;

	memset(obj, 0, sizeof(*obj));
	obj->size = sizeof(*obj);
	if ((c = store_begin(&since)) == NULL)
		return (store_none(OP_STAT));
	r = mkv_stat(c, n->key, n->key_bytes, store_deadline_us, obj);
	if (r == MKV_ERR_MISS && is_unknown(obj))
		r = MKV_ERR_UNREACHABLE;
	return (store_end(OP_STAT, since, r, 0));
}

int
mkv_pl_store_get(const struct mkv_pl_name *n, struct mkv_pl_version *v, uint64_t off, void *to, size_t bytes)
{
	struct mkv_object obj = { .size = sizeof(obj) };
	struct mkv_client *c;
	uint64_t since;
	int64_t r;

	if ((c = store_begin(&since)) == NULL)
		return (store_none(OP_GET));
	r = mkv_get_range(c, n->key, n->key_bytes, off, to, bytes, store_deadline_us, &obj);
	if (r == MKV_ERR_MISS && is_unknown(&obj))
		r = MKV_ERR_UNREACHABLE;
	if (store_end(OP_GET, since, r, r < 0 ? 0 : (uint64_t)r) != 0)
		return (-1);
	if (obj.value_bytes != v->bytes || (size_t)r != bytes || (v->put_id != 0 && obj.put_id != v->put_id)) {
		errno = ESTALE;
		return (-1);
	}
	v->put_id = obj.put_id;
	return (0);
}

int
mkv_pl_store_put(const struct mkv_pl_name *n, const void *from, size_t bytes, unsigned flags)
{
	struct mkv_put_opts opts = { .size = sizeof(opts), .flags = flags };
	struct mkv_client *c;
	uint64_t since;
	int r;

	if ((c = store_begin(&since)) == NULL)
		return (store_none(OP_PUT));
	r = mkv_put(c, n->key, n->key_bytes, from, bytes, &opts, store_deadline_us, NULL);
	return (store_end(OP_PUT, since, r, bytes));
}

int
mkv_pl_store_delete(const struct mkv_pl_name *n)
{
	struct mkv_client *c;
	uint64_t since;
	int r;

	if ((c = store_begin(&since)) == NULL)
		return (store_none(OP_DELETE));
	r = mkv_delete(c, n->key, n->key_bytes, store_deadline_us);
	return (store_end(OP_DELETE, since, r, 0));
}

int
mkv_pl_store_list(const char *prefix, size_t prefix_bytes, mkv_list_fn *fn, void *arg)
{
	struct mkv_client *c;
	uint64_t since;
	int r;

	if ((c = store_begin(&since)) == NULL)
		return (store_none(OP_LIST));
	r = mkv_list(c, prefix, prefix_bytes, fn, arg, store_deadline_us);
	return (store_end(OP_LIST, since, r, 0));
}

int
mkv_pl_store_space(uint64_t *total_bytes, uint64_t *used_bytes)
{
	struct mkv_server_info info = { .size = sizeof(info) };
	unsigned i, answered = 0;
	struct mkv_client *c;
	uint64_t since;
	int r = 0;

	*total_bytes = *used_bytes = 0;
	if ((c = store_begin(&since)) == NULL)
		return (-1);
	for (i = 0; i < mkv_server_count(c) && i < SERVERS_MAX; i++) {
		if ((r = mkv_server_info(c, i, store_deadline_us, &info)) != 0)
			continue;
		*total_bytes += info.total_bytes;
		*used_bytes += info.used_bytes;
		answered++;
	}
	store_in = false;
	return (answered != 0 ? 0 : store_result(r));
}

static int
stats_text(char *dst, size_t room)
{
	int n = snprintf(dst, room, "{\"pid\": %ld", (long)getpid());
	unsigned i;

	for (i = 0; i < OP_COUNT && n >= 0 && (size_t)n < room; i++) {
		struct op_stat *s = &op_stat[i];

		n += snprintf(dst + n, room - (size_t)n,
		    ", \"%s\": {\"count\": %lu, \"bytes\": %lu, \"misses\": %lu, \"errors\": %lu, \"total_us\": %lu, \"max_us\": %lu}", op_name[i],
		    (unsigned long)s->count, (unsigned long)s->bytes, (unsigned long)s->misses, (unsigned long)s->errors, (unsigned long)s->total_us,
		    (unsigned long)s->max_us);
	}
	return (n >= 0 && (size_t)n + 3 < room ? n + snprintf(dst + n, room - (size_t)n, "}\n") : -1);
}

/* One line for each process that has asked the store for anything. */
void
mkv_pl_stats_write(void)
{
	char text[2048];
	uint64_t any = 0;
	unsigned i;
	int fd, n;

	for (i = 0; i < OP_COUNT; i++)
		any += atomic_load(&op_stat[i].count);
	if (store_stats == NULL || any == 0 || (n = stats_text(text, sizeof(text))) < 0)
		return;
	if ((fd = REAL(open)(store_stats, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) < 0)
		return;
	if (REAL(write)(fd, text, (size_t)n) == n)
		memset(op_stat, 0, sizeof(op_stat));
	(void)REAL(close)(fd);
}
