/*
 * What memory the server on this host has been shown: REGION frames, their answers, and DROP when a caller has freed it.
 *
 *   PASSED_LATER --want--> TO_SEND --tx--> ASKED --answer--> UP --freed--> TO_DROP --tx--> DROPPING --answer--> (free)
 *        ^                                   |--not now--> LATER
 *        '-----------------------------------'--no-------> REFUSED, as long as the connection lasts
 *
 * The loop's thread. Owns a descriptor of each until the server has answered. A REGION travels alone in its send, since the descriptor goes with the first byte.
 * Invariants: ref.due counts those in TO_SEND and TO_DROP; a number is never shown twice while the server may have it; a frame that refers to a number leaves
 * only in UP, and none does once its region is freed, since requests in flight keep it from that. A get that has been left is none any more, and its server may be about to write: it ends
 * sessions whose regions go then, so DROP waits for the answer.
 * Fails: what the server does not take is counted, and its values go another way.
 */
#include "config.h"

#include <string.h>
#include <unistd.h>

#include "clients/lib/tcp_priv.h"
#include "common/base/clock.h"

#define PASS_DEADLINE_US 10000000u
#define PASS_AGAIN_NS	(100 * MKV_NS_PER_MS)	/* after an answer that it may be tried again */

static struct passed *
pass_find(struct conn *c, uint32_t number)
{
	for (unsigned i = 0; i < PASSED_MAX; i++)
		if (c->ref.passed[i].number == number)
			return (&c->ref.passed[i]);
	return (NULL);
}

static void
pass_close(struct passed *p)
{
	if (p->fd >= 0)
		(void)close(p->fd);
	p->fd = -1;
}

static void
pass_forget(struct passed *p)
{
	pass_close(p);
	p->number = 0;
}

static void
pass_due(struct conn *c, struct passed *p, enum passed_state state)
{
	p->state = state;
	c->ref.due++;
	c->srv->loop->dirty = 1;
}

int
mkv_pass_want(struct conn *c, uint32_t number)
{
	const struct passed *p = pass_find(c, number);

	if (p == NULL)
		return (pass_find(c, 0) != NULL ? MKV_E_AGAIN : 0);
	if (p->state == PASSED_LATER)
		return (p->not_before_ns <= c->srv->loop->now_ns ? MKV_E_AGAIN : 0);
	return (p->state == PASSED_UP);
}

void
mkv_pass_show(struct conn *c, uint32_t number, int fd, uint64_t bytes)
{
	struct passed *p = pass_find(c, number);

	if (p == NULL)
		p = pass_find(c, 0);
	MKV_ASSERT(p != NULL && (p->number == 0 || p->state == PASSED_LATER));
	*p = (struct passed){ .number = number, .fd = fd, .bytes = bytes };
	pass_due(c, p, PASSED_TO_SEND);
}

static struct passed *
pass_next(struct conn *c)
{
	for (unsigned i = 0; i < PASSED_MAX; i++) {
		struct passed *p = &c->ref.passed[i];

		if (p->number != 0 && (p->state == PASSED_TO_SEND || p->state == PASSED_TO_DROP))
			return (p);
	}
	return (NULL);
}

uint32_t
mkv_pass_frame(struct conn *c, int *fd)
{
	struct mkv_hdr *h = (struct mkv_hdr *)c->tx_buf;
	struct mkv_wire_region *w = (struct mkv_wire_region *)(h + 1);
	struct passed *p;
	struct slot *s;

	if (c->ref.due == 0 || (s = mkv_slot_take(c, NULL)) == NULL)
		return (0);
	p = pass_next(c);
	MKV_ASSERT(p != NULL);
	s->region = p->number;
	mkv_conn_header(h, MKV_WIRE_REGION, s->id, PASS_DEADLINE_US);
	h->body_bytes = sizeof(*w);
	*w = (struct mkv_wire_region){ .number = p->number };
	if (p->state == PASSED_TO_SEND) {
		w->bytes = p->bytes;
		/* A chunk of the window is its slot's until the answer is there; a get in place that ends before leaves its pages to the server (into.c). */
		w->flags = c->ref.stable && (p->number == WINDOW_NUMBER || c->srv->loop->c->cf.local_in_place) ? MKV_WIRE_REGION_STABLE : 0;
	} else
		w->flags = MKV_WIRE_REGION_DROP;
	*fd = p->fd;
	p->state = p->state == PASSED_TO_SEND ? PASSED_ASKED : PASSED_DROPPING;
	c->ref.due--;
	mkv_conn_seal(c, h, (const uint8_t *)w);
	return (sizeof(*h) + sizeof(*w));
}

static void
pass_shown(struct conn *c, struct passed *p, int status)
{
	pass_close(p);
	if (status == 0) {
		if (p->gone)
			pass_due(c, p, PASSED_TO_DROP);
		else
			p->state = PASSED_UP;
		return;
	}
	if (!mkv_err_retry(status))
		client_count(c->srv->loop->c, CC_local_regions_refused_total, 1);
	p->state = mkv_err_retry(status) ? PASSED_LATER : PASSED_REFUSED;
	p->not_before_ns = c->srv->loop->now_ns + PASS_AGAIN_NS;
	if (p->state == PASSED_REFUSED && p->number == WINDOW_NUMBER)
		mkv_ref_no_window(c);
	if (p->gone)
		pass_forget(p);
}

int
mkv_pass_answered(struct conn *c, struct slot *s, const struct mkv_hdr *h)
{
	struct passed *p = pass_find(c, s->region);

	if (h->op != MKV_WIRE_REGION || (h->flags & MKV_WIRE_F_MORE) || p == NULL || (p->state != PASSED_ASKED && p->state != PASSED_DROPPING))
		return (MKV_E_PEER);
	if (p->state == PASSED_ASKED)
		pass_shown(c, p, -(int)h->status);
	else
		pass_forget(p);
	(void)mkv_slot_release(c, s);
	c->srv->loop->dirty = 1;
	return (0);
}

static void
pass_gone(struct conn *c, struct passed *p)
{
	switch (p->state) {
	case PASSED_TO_SEND:
		c->ref.due--;
		pass_forget(p);
		return;
	case PASSED_LATER:
	case PASSED_REFUSED:
		pass_forget(p);
		return;
	case PASSED_UP:
		pass_due(c, p, PASSED_TO_DROP);
		return;
	case PASSED_ASKED:
		p->gone = 1;
		return;
	case PASSED_TO_DROP:
	case PASSED_DROPPING:
		return;
	}
}

static int
pass_is_awaited(const struct conn *c, uint32_t number)
{
	MKV_LIST_FOREACH(it, &c->out)
		if (MKV_CONTAINER_OF(it, struct slot, link)->into == number)
			return (1);
	return (0);
}

void
mkv_pass_sweep(struct conn *c)
{
	struct mkv_client *cl = c->srv->loop->c;
	int all = 1;
	/* Acquire, pairs with region_tell_gone(): what was counted is off the list by now. */
	unsigned gone = atomic_load_explicit(&cl->regions_gone, memory_order_acquire);

	if (gone == c->ref.seen)
		return;
	for (unsigned i = 0; i < PASSED_MAX; i++) {
		struct passed *p = &c->ref.passed[i];

		if (p->number <= WINDOW_NUMBER || mkv_region_alive(cl, p->number))
			continue;
		if (pass_is_awaited(c, p->number))
			all = 0;			/* the end of its slot comes in a turn of the loop */
		else
			pass_gone(c, p);
	}
	if (all)
		c->ref.seen = gone;
}

void
mkv_pass_reset(struct conn *c)
{
	for (unsigned i = 0; i < PASSED_MAX; i++)
		if (c->ref.passed[i].number != 0)
			pass_forget(&c->ref.passed[i]);
	c->ref.due = 0;
}
