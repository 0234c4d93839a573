/*
 * Reads of the same bytes at the same time: one goes to the medium, the others have a copy. Drive's loop thread.
 *
 *   leader: follow_lead() -> its read, queued or under way -> follow_end(): copies, or the followers read for themselves
 *
 * Leader and follower hold the same entry, so its units cannot be used again between them, and a put that replaces the key makes another entry. The
 * follower's range lies inside the leader's. Its bytes are judged as if it had read them: stored CRCs go with its answer, edges are checked, and what
 * is wrong is read again, by itself. A leader that failed or is late says nothing about its followers. A leader whose client is dead ends its read
 * all the same (its buffers are ours until then), so its followers lose nothing. Bounded: copies are made in the loop.
 */
#include "config.h"

#include <string.h>

#include "worker/drive/engine_priv.h"

#define FOLLOW_BYTES_MAX	(8u << 20)	/* copied at the end of one read */

static struct mkv_list *
follow_bucket(struct mkv_engine *e, uint32_t ent)
{
	return (&e->lead[ent % LEAD_BUCKETS]);
}

int
follow_join(struct mkv_req *r, uint64_t pos, uint64_t end)
{
	struct mkv_engine *e = r->e;

	MKV_LIST_FOREACH(l, follow_bucket(e, r->ent)) {
		struct mkv_req *to = MKV_CONTAINER_OF(l, struct mkv_req, lead_link);

		if (to->ent != r->ent || to->x.base > pos || to->x.end < end || to->follow_bytes + (end - pos) > FOLLOW_BYTES_MAX)
			continue;
		MKV_ASSERT(to != r && r->leader == NULL);
		r->x = (struct xfer){ .pos = pos, .end = end, .base = pos };
		r->leader = to;
		to->follow_bytes += end - pos;
		mkv_list_push_tail(&to->followers, &r->follow_link);
		return (1);
	}
	return (0);
}

void
follow_lead(struct mkv_req *r)
{
	if (!r->e->o.media->shared)
		mkv_list_push_tail(follow_bucket(r->e, r->ent), &r->lead_link);
}

static void
follow_copy(struct mkv_req *from, struct mkv_req *to)
{
	struct xfer *x = &to->x;
	uint64_t n, m;

	for (; x->pos < x->end; x->pos += n) {
		uint8_t *src = req_at(from, x->pos - from->x.base, &n), *dst = req_at(to, x->pos - x->base, &m);

		n = MKV_MIN(MKV_MIN(n, m), x->end - x->pos);
		memcpy(dst, src, n);
	}
}

void
follow_end(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	int good = r->x.err == 0 && r->err == 0;
	struct mkv_list *l;

	mkv_list_remove(&r->lead_link);
	while ((l = mkv_list_pop(&r->followers)) != NULL) {
		struct mkv_req *f = MKV_CONTAINER_OF(l, struct mkv_req, follow_link);

		f->leader = NULL;
		if (!good) {
			req_xfer(f, 0, f->x.pos, f->x.end, f->x.base, NULL);
			continue;
		}
		ENG_COUNT(e, coalesced_reads_total, 1);
		ENG_COUNT(e, coalesced_read_bytes_total, f->x.end - f->x.pos);
		follow_copy(r, f);
		req_wake(f);
	}
	r->follow_bytes = 0;
}

void
follow_leave(struct mkv_req *r, int err)
{
	mkv_list_remove(&r->follow_link);
	r->leader->follow_bytes -= r->x.end - r->x.pos;
	r->leader = NULL;
	req_xfer_cut(r, err);
	req_wake(r);
}
