/*
 * What one server has to do for an operation: the state machine with retries.
 *
 * The op's loop thread. Owns nothing; a leg is part of its op, and belongs to the server's queue, the retry timer or the transport as its state says.
 * Invariants: mkv_leg_set_state() knows every edge; a leg that is over (LEG_IDLE with op->legs_left lowered) is on no list and on no timer; the
 * caller's memory is never in the kernel's hands when mkv_leg_over() runs.
 * Fails: every end is a status; what the table of errors marks as "retry" is tried again while the deadline allows, after a back-off with jitter.
 */
#include "config.h"

#include <string.h>

#include "clients/lib/client_priv.h"
#include "clients/lib/into.h"
#include "clients/lib/transport.h"
#include "common/base/clock.h"

#define BACKOFF_FIRST_NS	(1 * MKV_NS_PER_MS)
#define BACKOFF_MOST_NS		(100 * MKV_NS_PER_MS)
#define BACKOFF_HINT_MOST_NS	(1000 * MKV_NS_PER_MS)

static const uint16_t leg_edges[] = {			/* bit: where one may go from here */
#define TO(s)	(1u << (s))
	[LEG_IDLE] = TO(LEG_WAITING),
	[LEG_WAITING] = TO(LEG_QUEUED) | TO(LEG_IDLE),
	[LEG_QUEUED] = TO(LEG_SENDING) | TO(LEG_BACKOFF) | TO(LEG_WAITING) | TO(LEG_IDLE) | TO(LEG_ENDING),
	[LEG_SENDING] = TO(LEG_QUEUED) | TO(LEG_SENT) | TO(LEG_PAUSED) | TO(LEG_BACKOFF) | TO(LEG_WAITING) | TO(LEG_IDLE) | TO(LEG_ENDING),
	[LEG_SENT] = TO(LEG_BACKOFF) | TO(LEG_WAITING) | TO(LEG_IDLE) | TO(LEG_ENDING),
	[LEG_BACKOFF] = TO(LEG_WAITING) | TO(LEG_IDLE),
	[LEG_PAUSED] = TO(LEG_QUEUED) | TO(LEG_IDLE),
	[LEG_ENDING] = TO(LEG_IDLE),
#undef TO
};

void
mkv_leg_set_state(struct leg *l, enum leg_state to)
{
	MKV_ASSERT(leg_edges[l->state] & 1u << to);
	l->state = to;
}

static void	leg_on_retry(struct mkv_timer *t, uint64_t now_ns);

void
mkv_leg_init(struct leg *l, struct op *o, struct server *s, uint8_t wire_op)
{
	memset(l, 0, sizeof(*l));
	l->op = o;
	l->srv = s;
	l->wire_op = wire_op;
	l->retry.fire = leg_on_retry;
	mkv_list_init(&l->link);
}

/* From the beginning again: nothing of the last attempt counts. */
static void
leg_rewind(struct leg *l)
{
	l->conn = NULL;
	l->slot = NULL;
	l->rslot = NULL;
	l->tx_off = l->frame_left = l->rx_off = 0;
	l->rx_begun = l->crc_bad = l->early = l->last_begun = l->answered = 0;
	l->stage = NULL;
	l->crcs = NULL;
	l->stage_error = 0;
	mkv_keys_forget(l);
}

void
mkv_leg_begin(struct leg *l)
{
	leg_rewind(l);
	l->began_ns = l->op->loop->now_ns;
	mkv_server_submit(l->srv, l);
}

void
mkv_leg_over(struct leg *l, int status, unsigned reason)
{
	MKV_ASSERT(mkv_list_empty(&l->link));
	mkv_timer_disarm(&l->op->loop->timers, &l->retry);
	l->state = LEG_IDLE;
	l->status = status;
	l->reason = reason;
	mkv_op_leg_over(l->op);
}

static uint64_t
leg_jitter(struct leg *l, uint64_t ns)
{
	uint64_t *s = &l->srv->seed;

	*s = *s * 6364136223846793005ull + 1442695040888963407ull;
	return (ns / 2 + (*s >> 33) % (ns / 2 + 1));
}

static void
leg_on_retry(struct mkv_timer *t, uint64_t now_ns MKV_UNUSED)
{
	mkv_leg_begin(MKV_CONTAINER_OF(t, struct leg, retry));
}

/* Again later, if there is a later before the deadline. */
static void
leg_again(struct leg *l, int status, unsigned reason, uint64_t least_ns)
{
	struct loop *lo = l->op->loop;
	uint64_t wait = BACKOFF_FIRST_NS << MKV_MIN(l->attempts, 10u);

	wait = leg_jitter(l, MKV_MIN(wait, BACKOFF_MOST_NS));
	wait = MKV_MAX(wait, MKV_MIN(least_ns, BACKOFF_HINT_MOST_NS));
	if (l->op->kind == OPK_STREAM || ++l->attempts > ATTEMPTS_MAX || lo->now_ns + wait >= l->op->deadline_ns) {
		mkv_leg_over(l, status, reason);
		return;
	}
	client_count(l->op->c, CC_retries_total, 1);
	mkv_leg_set_state(l, LEG_BACKOFF);
	mkv_timer_arm(&lo->timers, &l->retry, lo->now_ns + wait);
}

/* The bytes did not match: the server reads them again and says who is right. */
static void
leg_report(struct leg *l)
{
	client_count(l->op->c, CC_corrupt_total, 1);
	if (l->reported) {
		mkv_leg_over(l, MKV_E_MISS, MKV_REASON_CORRUPT);
		return;
	}
	l->reported = 1;
	l->wire_op = MKV_WIRE_REPORT;
	mkv_leg_set_state(l, LEG_WAITING);
	mkv_leg_begin(l);
}

/* What it found, or had found before, is why the caller misses: `corrupt`, `writer_crc`, ... */
static void
leg_report_reply(struct leg *l, int status, unsigned reason)
{
	if (status != 0) {
		if ((status != MKV_E_MISS && status != MKV_E_CORRUPT) || reason == MKV_REASON_NONE)
			reason = MKV_REASON_CORRUPT;
		mkv_leg_over(l, MKV_E_MISS, reason);
		return;
	}
	l->wire_op = MKV_WIRE_GET;			/* the server's copy is good: once more */
	mkv_leg_set_state(l, LEG_WAITING);
	mkv_leg_begin(l);
}

void
mkv_leg_reply(struct leg *l, int status, unsigned reason, uint64_t retry_after_us)
{
	l->conn = NULL;
	l->slot = NULL;
	mkv_into_over(l->op);
	if (l->op->end_status != 0)
		mkv_leg_over(l, l->op->end_status, reason);
	else if (mkv_err_retry(status))
		leg_again(l, status, reason, retry_after_us * MKV_NS_PER_US);
	else if (l->wire_op == MKV_WIRE_REPORT)
		leg_report_reply(l, status, reason);
	else if (status == 0 && l->crc_bad)
		leg_report(l);
	else
		mkv_leg_over(l, status, reason);
}

void
mkv_leg_lost(struct leg *l, int err)
{
	l->conn = NULL;
	l->slot = NULL;
	if (l->op->end_status != 0) {
		mkv_leg_over(l, l->op->end_status, 0);
	} else if (l->op->kind == OPK_STREAM) {
		mkv_leg_over(l, MKV_E_CLOSED, 0);		/* earlier parts are gone */
	} else if (l->attempts == 0) {
		l->attempts++;
		client_count(l->op->c, CC_retries_total, 1);
		mkv_leg_set_state(l, LEG_WAITING);
		mkv_leg_begin(l);
	} else {
		leg_again(l, mkv_err_retry(err) ? err : MKV_E_CLOSED, 0, 0);
	}
}

void
mkv_leg_detached(struct leg *l)
{
	MKV_ASSERT(l->state == LEG_ENDING);
	l->conn = NULL;
	l->slot = NULL;
	mkv_leg_over(l, l->op->end_status, 0);
}

void
mkv_leg_elsewhere(struct leg *l)
{
	mkv_leg_set_state(l, LEG_WAITING);
	mkv_leg_begin(l);
}

/* Why the server is out of service, if it said so itself; else it just is. */
void
mkv_leg_down(struct leg *l)
{
	int err = l->srv->last_error;

	client_count(l->op->c, CC_breaker_refused_total, 1);
	if (err == MKV_E_AUTH || err == MKV_E_VERSION || err == MKV_E_CONFIG || err == MKV_E_PROTO || err == MKV_E_BUSY)
		mkv_leg_over(l, err, MKV_REASON_SERVER_DOWN);
	else
		mkv_leg_over(l, MKV_E_UNREACHABLE, MKV_REASON_SERVER_DOWN);
}

/* 1: it was in work, and is over now or will be after mkv_leg_detached(). */
static int
leg_withdraw(struct leg *l, int status)
{
	switch (l->state) {
	case LEG_IDLE:
	case LEG_ENDING:
		return (0);
	case LEG_WAITING:
	case LEG_BACKOFF:
		mkv_list_remove(&l->link);
		mkv_leg_over(l, status, 0);
		return (1);
	case LEG_QUEUED:
	case LEG_SENDING:
	case LEG_SENT:
	case LEG_PAUSED:
		mkv_into_tear(l->op);
		if (l->srv->tr->detach(l))
			mkv_leg_over(l, status, 0);
		else
			mkv_leg_set_state(l, LEG_ENDING);
		return (1);
	}
	return (0);
}

/* The op outlives this call: mkv_op_abort() holds it. */
void
mkv_leg_end(struct leg *l, int status)
{
	int silent = l->state != LEG_BACKOFF && l->state != LEG_PAUSED;

	if (leg_withdraw(l, status) && silent && status == MKV_E_TIMEOUT)
		mkv_server_timed_out(l->srv, l);
}
