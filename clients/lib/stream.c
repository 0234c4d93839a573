/*
 * Put in parts: a value whose size is not known yet.
 *
 * The caller's thread (one at a time per stream). Owns a buffer of one part (the server's size of an extent) and, once a part has been sent, the op
 * that carries the put. A part that is full waits until more comes, since the last one carries the size and commits. A value that fits one part never
 * becomes a stream: it is an ordinary put, with its retries. Beyond that a lost session fails the put, because the parts before are gone.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clients/lib/client_priv.h"
#include "common/base/clock.h"

struct mkv_put_stream {
	uint32_t	magic;
	struct mkv_client *c;
	char		ns[MEMKV_NAMESPACE_MAX + 1];
	uint8_t		key[MEMKV_KEY_MAX], parent[MEMKV_KEY_MAX];
	size_t		key_bytes;
	struct mkv_put_opts opts;		/* strings point into this struct */
	struct put_part	part;			/* bytes: filled so far */
	struct sink	sink;
	struct op	*op;			/* NULL: nothing was sent yet, or it is over */
	int		sent;
	int		failed;			/* MKV_E_*: every further call says so */
};

static int
stream_keep_opts(struct mkv_put_stream *s, const struct mkv_put_opts *from)
{
	const char *ns;

	memset(&s->opts, 0, sizeof(s->opts));
	if (from != NULL)
		memcpy(&s->opts, from, MKV_MIN(from->size, sizeof(s->opts)));
	s->opts.size = sizeof(s->opts);
	ns = s->opts.namespace_ != NULL ? s->opts.namespace_ : s->c->cf.ns;
	if (strlen(ns) > MEMKV_NAMESPACE_MAX || s->opts.parent_bytes > MEMKV_KEY_MAX || (s->opts.parent == NULL && s->opts.parent_bytes > 0))
		return (MKV_E_INVAL);
	memcpy(s->ns, ns, strlen(ns));
	s->opts.namespace_ = s->ns;
	if (s->opts.parent_bytes > 0)
		memcpy(s->parent, s->opts.parent, s->opts.parent_bytes);
	s->opts.parent = s->parent;
	return (0);
}

/* How the server cuts values: it says so when a session is made. */
static int
stream_part_bytes(struct mkv_put_stream *s, uint64_t deadline_ns)
{
	struct op *o;
	int64_t r;
	int err;

	if ((o = mkv_op_take(s->c, deadline_ns, 1, &err)) == NULL)
		return (err);
	o->kind = OPK_WARM;
	if ((err = mkv_op_set_key(o, s->key, s->key_bytes)) != 0) {
		mkv_op_put_back(o);
		return (err);
	}
	if ((r = mkv_op_run(o, NULL)) < 0)
		return ((int)r);
	s->part.part_bytes = (uint32_t)r;
	return (r == 0 ? MKV_E_PEER : 0);
}

static void
stream_free(struct mkv_put_stream *s)
{
	mkv_sink_fini(&s->sink);
	free(s->part.buf);
	s->magic = 0;
	free(s);
}

static int
stream_open(struct mkv_put_stream *s, const struct mkv_put_opts *opts, uint64_t deadline_us)
{
	uint64_t until = mkv_client_deadline(deadline_us);
	int r;

	if (until == 0)
		return (MKV_E_INVAL);
	if ((r = stream_keep_opts(s, opts)) != 0 || (r = stream_part_bytes(s, until)) != 0)
		return (r);
	s->part.buf = malloc(s->part.part_bytes);
	return (s->part.buf == NULL ? MKV_E_NOMEM : 0);
}

static int
stream_begin(struct mkv_client *c, const void *key, size_t key_bytes, const struct mkv_put_opts *opts, uint64_t deadline_us,
    struct mkv_put_stream **out)
{
	struct mkv_put_stream *s;
	int r;

	if ((r = mkv_client_enter(c)) != 0)
		return (r);
	if (key == NULL || key_bytes == 0 || key_bytes > MEMKV_KEY_MAX || out == NULL)
		return (MKV_E_INVAL);
	if ((s = calloc(1, sizeof(*s))) == NULL)
		return (MKV_E_NOMEM);
	s->magic = STREAM_MAGIC;
	s->c = c;
	memcpy(s->key, key, key_bytes);
	s->key_bytes = key_bytes;
	mkv_sink_init(&s->sink, 0);
	if ((r = stream_open(s, opts, deadline_us)) != 0)
		stream_free(s);
	else
		*out = s;
	return (r);
}

int
mkv_put_begin(struct mkv_client *c, const void *key, size_t key_bytes, const struct mkv_put_opts *opts, uint64_t deadline_us,
    struct mkv_put_stream **out)
{
	int saved = errno, r = stream_begin(c, key, key_bytes, opts, deadline_us, out);

	errno = saved;
	return (r);
}

/* The op of the stream, made with its first part. */
static int
stream_op(struct mkv_put_stream *s, uint64_t until)
{
	struct op *o;
	int r;

	if ((o = mkv_op_take(s->c, until, 1, &r)) == NULL)
		return (r);
	o->kind = OPK_STREAM;
	o->part = &s->part;
	o->part_bytes = s->part.part_bytes;
	if ((r = mkv_op_set_key(o, s->key, s->key_bytes)) != 0 || (r = mkv_op_set_put(o, &s->opts)) != 0) {
		mkv_op_put_back(o);
		return (r);
	}
	s->op = o;
	return (0);
}

/* 1: handed over; 0: the op is over already. */
static int
stream_hand_over(struct mkv_put_stream *s, uint64_t until)
{
	int over;

	(void)pthread_mutex_lock(&s->sink.mutex);
	over = mkv_op_own(s->op) == OP_DONE;
	s->sink.left = !over;
	(void)pthread_mutex_unlock(&s->sink.mutex);
	if (over)
		return (0);
	if (!s->sent) {
		s->sent = 1;
		mkv_op_submit(s->op, &s->sink);
		return (1);
	}
	s->op->deadline_ns = until;			/* read by the loop after the poke */
	return (mkv_loop_poke(s->op->loop, s->op, 0));
}

/* Wait until the part is out (1) or the put is over (0: *result, and *obj if it is the last). */
static int
stream_wait(struct mkv_put_stream *s, uint64_t until, int64_t *result, struct mkv_object *obj)
{
	struct mkv_object late = { .reason = MKV_REASON_TIMED_OUT, .server = (int)s->op->server };
	struct op *o = s->op;

	mkv_sink_wait(&s->sink, &s->op, 1, until);
	*result = MKV_E_TIMEOUT;
	if (s->op == NULL) {
		mkv_op_tell_object(obj, &late);
		return (0);
	}
	if (mkv_op_own(o) != OP_DONE)
		return (1);
	*result = o->result;
	mkv_op_tell_object(obj, &o->object);
	mkv_op_put_back(o);
	s->op = NULL;
	return (0);
}

/* Send what the buffer has. The last: the result of the put. */
static int
stream_send(struct mkv_put_stream *s, int last, uint64_t until, struct mkv_object *obj)
{
	int64_t result = 0;
	int r;

	if (s->op == NULL && !s->sent && (r = stream_op(s, until)) != 0)
		return (s->failed = r);
	s->part.last = last;
	(void)stream_hand_over(s, until);		/* if it is over, the wait ends at once */
	if (stream_wait(s, until, &result, obj)) {
		MKV_ASSERT(!last);
		s->part.bytes = 0;
		return (0);
	}
	s->failed = last ? (int)result : result == 0 ? MKV_E_PEER : (int)result;
	return (s->failed);
}

static int
stream_part(struct mkv_put_stream *s, const uint8_t *data, size_t bytes, uint64_t deadline_us)
{
	uint64_t until = mkv_client_deadline(deadline_us);
	size_t n;
	int r;

	if ((r = mkv_client_enter(s->c)) != 0)
		return (r);
	if (until == 0 || (data == NULL && bytes > 0))
		return (MKV_E_INVAL);
	if (s->failed != 0)
		return (s->failed);
	if (bytes > MEMKV_VALUE_MAX - s->part.total)
		return (s->failed = MKV_E_TOOBIG);
	for (; bytes > 0; bytes -= n, data += n) {
		if (s->part.bytes == s->part.part_bytes && (r = stream_send(s, 0, until, NULL)) != 0)
			return (r);
		n = MKV_MIN(bytes, s->part.part_bytes - s->part.bytes);
		if ((r = mkv_stage_read(s->c, s->part.buf + s->part.bytes, data, n, until)) != 0)
			return (s->failed = r);
		s->part.bytes += (uint32_t)n;
		s->part.total += n;
	}
	return (0);
}

int
mkv_put_part(struct mkv_put_stream *s, const void *data, size_t bytes, uint64_t deadline_us)
{
	int saved = errno, r;

	if (s == NULL)
		return (MKV_E_INVAL);
	MKV_CHECK_OBJ(s, STREAM_MAGIC);
	r = stream_part(s, data, bytes, deadline_us);
	errno = saved;
	return (r);
}

static void
stream_abort(struct mkv_put_stream *s)
{
	if (s->op == NULL)
		return;
	(void)pthread_mutex_lock(&s->sink.mutex);
	s->sink.left = mkv_op_own(s->op) != OP_DONE;
	(void)pthread_mutex_unlock(&s->sink.mutex);
	(void)mkv_loop_poke(s->op->loop, s->op, 1);
	mkv_sink_wait(&s->sink, &s->op, 1, UINT64_MAX / 2);	/* the loop ends it in its next turn */
	mkv_op_put_back(s->op);
	s->op = NULL;
}

void
mkv_put_abort(struct mkv_put_stream *s)
{
	int saved = errno;

	if (s == NULL)
		return;
	MKV_CHECK_OBJ(s, STREAM_MAGIC);
	if (mkv_client_enter(s->c) == 0) {
		stream_abort(s);
		stream_free(s);
	}
	errno = saved;
}

static int
stream_commit(struct mkv_put_stream *s, uint64_t deadline_us, struct mkv_object *obj)
{
	uint64_t until = mkv_client_deadline(deadline_us);

	if (s->failed != 0)
		return (s->failed);
	if (until == 0)
		return (MKV_E_INVAL);
	if (s->sent)
		return (stream_send(s, 1, until, obj));
	return (mkv_put(s->c, s->key, s->key_bytes, s->part.buf, s->part.bytes, &s->opts, deadline_us, obj));
}

int
mkv_put_commit(struct mkv_put_stream *s, uint64_t deadline_us, struct mkv_object *obj)
{
	int saved = errno, r;

	if (s == NULL)
		return (MKV_E_INVAL);
	MKV_CHECK_OBJ(s, STREAM_MAGIC);
	if ((r = mkv_client_enter(s->c)) == 0) {
		r = stream_commit(s, deadline_us, obj);
		stream_abort(s);			/* a put that failed half-way */
		stream_free(s);
	}
	errno = saved;
	return (r);
}
