/*
 * memkv-front, loop thread: waiting in order for what is short (buffers, control slots). A request waits in one queue at a time; what is given back
 * wakes the head, and the next one only when the head got what it wanted, so a large request is not starved by small ones. Deadlines end a wait
 * from outside (mkv_unpark).
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include "common/base/assert.h"

void
mkv_park_init(struct mkv_park_queue *q)
{
	mkv_list_init(&q->head);
	q->wake = 0;
}

int
mkv_park_turn(struct mkv_park_queue *q, struct mkv_req *r)
{
	return (mkv_list_empty(&q->head) || q->head.next == &r->park_link);
}

void
mkv_park(struct mkv_front *f, struct mkv_park_queue *q, struct mkv_req *r)
{
	if (r->parked == q)
		return;			/* keeps its place */
	mkv_unpark(f, r);
	r->parked = q;
	mkv_list_push_tail(&q->head, &r->park_link);
}

void
mkv_unpark(struct mkv_front *f, struct mkv_req *r)
{
	(void)f;
	if (r->parked == NULL)
		return;
	/* Whoever comes next may be luckier. */
	if (r->parked->head.next == &r->park_link)
		r->parked->wake = 1;
	mkv_list_remove(&r->park_link);
	r->parked = NULL;
}

void
mkv_park_run(struct mkv_front *f, struct mkv_park_queue *q)
{
	(void)f;
	while (q->wake && !mkv_list_empty(&q->head)) {
		struct mkv_req *r = MKV_CONTAINER_OF(q->head.next, struct mkv_req, park_link);

		q->wake = 0;
		MKV_CHECK_OBJ(r, REQ_MAGIC);
		/* Once it gets what it waits for it leaves the queue, and that wakes the next (mkv_unpark). */
		mkv_req_run(r);
	}
}
