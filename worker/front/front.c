/*
 * memkv-front, loop thread: the front as a whole. Owns the pools (connections, requests, drive operations), the wake-up lists and the order in which
 * a turn serves them. Nothing here allocates after mkv_front_create().
 *
 *   mkv_ioq_run() -> callbacks note facts and run what they concern
 *   mkv_front_turn(): full rings -> refused -> parked -> holds -> kicked connections -> (again while there is progress) -> sends
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/log.h"

#define ACCEPT_AGAIN_NS		(100 * MKV_NS_PER_MS)

static void	front_accept(struct mkv_listener *l);

uint32_t
mkv_front_timers(const struct mkv_front_conf *conf)
{
	return (2 * (conf->connections_max + FRONT_SPARE_CONNS) + conf->requests_max + MKV_FRONT_LISTENERS_MAX + 3);	/* the end's, a rail's, that of regions */
}

uint32_t
mkv_front_depth(const struct mkv_front_conf *conf)
{
	return (2 * (conf->connections_max + FRONT_SPARE_CONNS) + MKV_FRONT_LISTENERS_MAX + 64);
}

static int
front_conf_ok(const struct mkv_front_conf *c)
{
	if (c->connections_max == 0 || c->inflight_max == 0 || c->requests_max == 0)
		return (0);
	if (c->part_bytes < MKV_EXTENT_MIN || c->part_bytes > MKV_EXTENT_MAX || (c->part_bytes & (c->part_bytes - 1)) != 0)
		return (0);
	return (c->handshake_ns != 0 && c->idle_ns != 0);
}

static void
front_lists_init(struct mkv_front *f)
{
	mkv_list_init(&f->conn_free);
	mkv_list_init(&f->conn_used);
	mkv_list_init(&f->req_free);
	mkv_list_init(&f->run);
	mkv_list_init(&f->later);
	mkv_list_init(&f->tx_dirty);
	mkv_list_init(&f->req_wait);
	mkv_list_init(&f->refused);
	mkv_list_init(&f->hold_wait);
	mkv_park_init(&f->park_bufs);
	mkv_park_init(&f->park_slots);
	mkv_park_init(&f->park_lists);
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++) {
		f->drive[i].index = i;
		mkv_list_init(&f->drive[i].pending);
		mkv_list_init(&f->drive[i].given);
	}
}

static void
front_conns_init(struct mkv_front *f)
{
	for (uint32_t i = 0; i < f->conf.connections_max + FRONT_SPARE_CONNS; i++) {
		struct mkv_conn *c = &f->conns[i];

		c->magic = CONN_MAGIC;
		c->idx = i;
		c->f = f;
		c->fd = -1;
		f->passes[i].stray = mkv_close_stranger;
		c->rx_buf = f->rx_slab + (size_t)i * CONN_RX_BYTES;
		mkv_list_init(&c->run_link);
		mkv_list_init(&c->tx_link);
		mkv_list_init(&c->wait_link);
		mkv_list_init(&c->msg_link);
		mkv_list_init(&c->reqs);
		mkv_list_init(&c->regions);
		c->passed = -1;
		mkv_list_init(&c->txq);
		mkv_list_init(&c->tx_flight);
		mkv_list_push_tail(&f->conn_free, &c->link);
	}
}

static int
front_alloc(struct mkv_front *f)
{
	struct mkv_stage_stat st;
	uint32_t buckets = 64, n_conns = f->conf.connections_max + FRONT_SPARE_CONNS;

	while (buckets < 2 * f->conf.requests_max)
		buckets *= 2;
	f->req_hash_mask = buckets - 1;
	f->n_slots = mkv_stage_slot_count(f->stage);
	mkv_stage_stat(f->stage, &st);
	f->lists_claim_max = (uint32_t)(st.total_bytes / MKV_STAGE_UNIT / 2);
	f->conns = calloc(n_conns, sizeof(*f->conns));
	/* Large and zeroed by the kernel: pages that no connection ever used cost nothing. */
	f->rx_slab = calloc(n_conns, CONN_RX_BYTES);
	f->scratch = malloc(CONN_PIECE_BYTES);
	f->passes = calloc(n_conns, sizeof(*f->passes));
	f->reqs = calloc(f->conf.requests_max, sizeof(*f->reqs));
	f->dops = calloc(f->n_slots, sizeof(*f->dops));
	f->req_hash = calloc(buckets, sizeof(struct mkv_req *));
	if (f->conns == NULL || f->rx_slab == NULL || f->scratch == NULL || f->passes == NULL || f->reqs == NULL || f->dops == NULL || f->req_hash == NULL)
		return (MKV_E_NOMEM);
	for (uint32_t i = 0; i < f->n_slots; i++)
		mkv_list_init(&f->dops[i].link);
	return (0);
}

int
mkv_front_create(struct mkv_front **out, const struct mkv_front_conf *conf, struct mkv_ioq *q, struct mkv_timers *timers,
    struct mkv_stage *stage, struct mkv_metrics *m)
{
	struct mkv_front *f;
	int r;

	*out = NULL;
	if (!front_conf_ok(conf))
		return (MKV_E_INVAL);
	f = calloc(1, sizeof(*f));
	if (f == NULL)
		return (MKV_E_NOMEM);
	f->magic = FRONT_MAGIC;
	f->conf = *conf;
	if (f->conf.loose_ns == 0)
		f->conf.loose_ns = MKV_FRONT_LOOSE_NS;
	f->q = q;
	f->timers = timers;
	f->stage = stage;
	f->m = m;
	f->start_ns = mkv_now_ns();
	front_lists_init(f);
	mkv_doors_init(f);
	if ((r = front_alloc(f)) != 0 || (r = mkv_regions_init(f)) != 0)
		goto out;
	if ((r = mkv_hkdf(conf->store_secret, sizeof(conf->store_secret), NULL, 0, MKV_PIECE_INFO, strlen(MKV_PIECE_INFO), f->piece_secret,
	    sizeof(f->piece_secret))) != 0)
		goto out;
	front_conns_init(f);
	mkv_req_pool_init(f);
	TAKE(*out, f);
out:
	if (f != NULL)
		mkv_front_destroy(&f);
	return (r);
}

void
mkv_front_destroy(struct mkv_front **fp)
{
	struct mkv_front *f = *fp;

	if (f == NULL)
		return;
	MKV_ASSERT(f->magic == FRONT_MAGIC);
	mkv_timer_disarm(f->timers, &f->stop_timer);
	for (unsigned i = 0; i < f->n_listeners; i++)
		mkv_timer_disarm(f->timers, &f->listener[i].again);
	/* Of requests whose memory is with a drive that did not come back. */
	for (uint32_t i = 0; f->reqs != NULL && i < f->conf.requests_max; i++)
		mkv_timer_disarm(f->timers, &f->reqs[i].timer);
	mkv_drives_fini(f);
	mkv_doors_fini(f);
	mkv_wipe(f->key, sizeof(f->key));
	mkv_wipe(f->ns, sizeof(f->ns));
	mkv_wipe(f->piece_secret, sizeof(f->piece_secret));
	mkv_wipe(&f->conf, sizeof(f->conf));
	free(f->conns);
	free(f->rx_slab);
	free(f->scratch);
	free(f->reqs);
	free(f->dops);
	free(f->req_hash);
	free(f->passes);
	mkv_timer_disarm(f->timers, &f->lend_timer);
	mkv_regions_fini(f);
	f->magic = 0;
	free(f);
	*fp = NULL;
}

/* ---- Accepting ------------------------------------------------------------------------------------------------------------- */

int
mkv_front_is_loopback(const struct sockaddr_storage *ss)
{
	static const uint8_t mapped[13] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127 };
	static const uint8_t one[16] = { [15] = 1 };

	if (ss->ss_family == AF_UNIX)
		return (1);
	if (ss->ss_family == AF_INET)
		return ((ntohl(((const struct sockaddr_in *)ss)->sin_addr.s_addr) >> 24) == 127);
	if (ss->ss_family == AF_INET6) {
		const uint8_t *a = ((const struct sockaddr_in6 *)ss)->sin6_addr.s6_addr;

		return (memcmp(a, one, sizeof(one)) == 0 || memcmp(a, mapped, sizeof(mapped)) == 0);
	}
	return (0);
}

/* Where a connection comes from, for logs. */
static void
front_address(struct mkv_drv_writer *who, const struct sockaddr_storage *ss)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;

	if (ss->ss_family == AF_INET) {
		who->addr[10] = who->addr[11] = 0xff;
		memcpy(who->addr + 12, &in->sin_addr, 4);
		who->port = ntohs(in->sin_port);
	} else if (ss->ss_family == AF_INET6) {
		memcpy(who->addr, &in6->sin6_addr, 16);
		who->port = ntohs(in6->sin6_port);
	}
}

static void
accept_again(struct mkv_timer *t, uint64_t now_ns)
{
	struct mkv_listener *l = MKV_CONTAINER_OF(t, struct mkv_listener, again);

	(void)now_ns;
	front_accept(l);
}

static void
accept_done(struct mkv_io *io, int res)
{
	struct mkv_listener *l = MKV_CONTAINER_OF(io, struct mkv_listener, io);
	struct mkv_front *f = l->f;

	l->busy = 0;
	if (res >= 0) {
		(void)mkv_front_adopt(f, res, &io->addr);
		front_accept(l);
	} else if (!f->stopping) {
		/* Descriptors or memory are short, or the peer was gone already: not at once again, or the loop would only do this. */
		l->again.fire = accept_again;
		mkv_timer_arm(f->timers, &l->again, mkv_now_ns() + ACCEPT_AGAIN_NS);
	}
}

static void
front_accept(struct mkv_listener *l)
{
	if (l->f->stopping || l->busy)
		return;
	l->busy = 1;
	l->io.done = accept_done;
	mkv_ioq_accept(l->f->q, &l->io, l->file);
}

int
mkv_front_listen(struct mkv_front *f, int file)
{
	struct mkv_listener *l;

	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	if (f->n_listeners == MKV_FRONT_LISTENERS_MAX)
		return (MKV_E_TOOBIG);
	l = &f->listener[f->n_listeners++];
	l->f = f;
	l->file = file;
	if (f->running)
		front_accept(l);
	return (0);
}

struct mkv_conn *
mkv_front_open(struct mkv_front *f, int fd, const struct sockaddr_storage *from)
{
	int crowded = f->n_conns - f->n_crowded >= f->conf.connections_max, loopback = from == NULL || mkv_front_is_loopback(from);
	struct mkv_drv_writer who = { 0 };
	struct mkv_conn *c;

	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	if (f->stopping || mkv_list_empty(&f->conn_free)) {
		mkv_metric_add(f->m, MKV_M_front_connections_refused_total, 0, 1);
		close(fd);
		return (NULL);
	}
	if (from != NULL)
		front_address(&who, from);
	c = mkv_conn_open(f, fd, loopback, crowded, &who);
	c->local = from != NULL && from->ss_family == AF_UNIX;
	return (c);
}

int
mkv_front_adopt(struct mkv_front *f, int fd, const struct sockaddr_storage *from)
{
	struct mkv_conn *c = mkv_front_open(f, fd, from);

	return (c == NULL || c->crowded ? MKV_E_BUSY : 0);
}

void
mkv_front_start(struct mkv_front *f)
{
	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	f->running = 1;
	for (unsigned i = 0; i < f->n_listeners; i++)
		front_accept(&f->listener[i]);
	mkv_doors_start(f);
}

/* ---- Stopping -------------------------------------------------------------------------------------------------------------- */

/*
 * Memory of its client is with a drive that died, and it waits for that alone. Who ends does not: the drive's next life may never come, and the memory is its client's and
 * outlives this process.
 */
static int
front_req_lost(const struct mkv_req *r)
{
	return (r->n_dops == 0 && mkv_lends_lost(r));
}

static uint32_t
front_reqs_lost(const struct mkv_list *reqs)
{
	uint32_t n = 0;

	MKV_LIST_FOREACH(it, reqs)
		n += (uint32_t)front_req_lost(MKV_CONTAINER_OF(it, struct mkv_req, link));
	return (n);
}

/* 1: no request is there but of clients that are gone, and lost. */
static int
front_reqs_none(const struct mkv_front *f)
{
	uint32_t lost = 0;

	for (uint32_t i = 0; i < f->conf.requests_max && f->n_reqs != 0; i++)
		lost += f->reqs[i].state != REQ_FREE && f->reqs[i].ending && front_req_lost(&f->reqs[i]);
	return (f->n_reqs == lost);
}

static void
front_close_conns(struct mkv_front *f, int all)
{
	MKV_LIST_FOREACH_SAFE(it, tmp, &f->conn_used) {
		struct mkv_conn *c = MKV_CONTAINER_OF(it, struct mkv_conn, link);

		if (all || (c->n_reqs == front_reqs_lost(&c->reqs) && mkv_list_empty(&c->txq) && mkv_list_empty(&c->tx_flight)))
			mkv_conn_close(c);
	}
}

static void
stop_fire(struct mkv_timer *t, uint64_t now_ns)
{
	struct mkv_front *f = MKV_CONTAINER_OF(t, struct mkv_front, stop_timer);

	(void)now_ns;
	f->stopping = 2;
	front_close_conns(f, 1);
}

void
mkv_front_stop(struct mkv_front *f, uint64_t grace_ns)
{
	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	if (f->stopping)
		return;
	f->stopping = 1;
	mkv_spares_stop(f);
	f->stop_timer.fire = stop_fire;
	mkv_timer_arm(f->timers, &f->stop_timer, mkv_now_ns() + grace_ns);
	for (unsigned i = 0; i < f->n_listeners; i++) {
		mkv_timer_disarm(f->timers, &f->listener[i].again);
		if (f->listener[i].busy)
			mkv_ioq_cancel(f->q, &f->listener[i].io);
	}
	mkv_doors_stop(f);
	front_close_conns(f, 0);
}

int
mkv_front_idle(const struct mkv_front *f)
{
	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	for (unsigned i = 0; i < f->n_listeners; i++)
		if (f->listener[i].busy)
			return (0);
	if (f->door_busy)
		return (0);
	/* A drive that hangs keeps what it was asked for: at the end of the grace that is no reason to stay. */
	return (f->stopping && f->n_conns == 0 && front_reqs_none(f) && (f->stopping == 2 || mkv_spares_none(f)));
}

void
mkv_front_reload(struct mkv_front *f, const struct mkv_front_conf *c)
{
	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	f->conf.handshake_ns = c->handshake_ns;
	f->conf.idle_ns = c->idle_ns;
	f->conf.stall_ns = c->stall_ns;
	f->conf.accepted = c->accepted;
	f->conf.verify_put = c->verify_put;
	mkv_lend_reload(f);
}

/* ---- The turn -------------------------------------------------------------------------------------------------------------- */

static unsigned
front_run_kicked(struct mkv_front *f)
{
	struct mkv_list now, *l;
	unsigned n = 0;

	/* Those kicked from here on wait for the next round. */
	mkv_list_init(&now);
	while ((l = mkv_list_pop(&f->run)) != NULL)
		mkv_list_push_tail(&now, l);
	while ((l = mkv_list_pop(&now)) != NULL) {
		struct mkv_conn *c = MKV_CONTAINER_OF(l, struct mkv_conn, run_link);

		c->kicked = 0;
		mkv_conn_run(c);
		n++;
	}
	return (n);
}

static void
front_send(struct mkv_front *f)
{
	struct mkv_list now, *l;

	/* Those that have more to copy come again in the next turn. */
	mkv_list_init(&now);
	while ((l = mkv_list_pop(&f->tx_dirty)) != NULL)
		mkv_list_push_tail(&now, l);
	while ((l = mkv_list_pop(&now)) != NULL)
		mkv_conn_tx_begin(MKV_CONTAINER_OF(l, struct mkv_conn, tx_link));
}

unsigned
mkv_front_turn(struct mkv_front *f)
{
	unsigned n = 0, came = f->rail != NULL ? mkv_rail_turn(f->rail) : 0;
	struct mkv_list *l;

	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	while ((l = mkv_list_pop(&f->later)) != NULL)
		mkv_list_push_tail(&f->run, l);
	mkv_drives_pending(f);
	for (unsigned round = 0; round < FRONT_TURN_ROUNDS; round++) {
		mkv_drives_refused(f);
		mkv_park_run(f, &f->park_slots);
		mkv_park_run(f, &f->park_bufs);
		mkv_park_run(f, &f->park_lists);
		mkv_req_contexts(f);
		mkv_req_releases(f);
		if (f->rail != NULL)
			mkv_rail_wake(f->rail);
		if ((n = front_run_kicked(f)) == 0)
			break;
	}
	mkv_lend_turn(f);
	front_send(f);
	if (f->stopping == 1)
		front_close_conns(f, 0);
	if (f->rail != NULL)
		mkv_rail_flush(f->rail);
	return (n + came);
}

int
mkv_front_may_sleep(struct mkv_front *f)
{
	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	/* A rail's flush is the last of a turn, and may have left something to be run or sent. */
	return (mkv_list_empty(&f->run) && mkv_list_empty(&f->later) && mkv_list_empty(&f->tx_dirty) && (f->rail == NULL || mkv_rail_may_sleep(f->rail)));
}

void
mkv_front_gauges(struct mkv_front *f)
{
	uint64_t enters = mkv_ioq_enters(f->q);
	struct mkv_stage_stat st;
	unsigned parked = 0;

	mkv_stage_stat(f->stage, &st);
	MKV_LIST_FOREACH(it, &f->park_bufs.head)
		parked++;
	MKV_LIST_FOREACH(it, &f->park_slots.head)
		parked++;
	MKV_LIST_FOREACH(it, &f->park_lists.head)
		parked++;
	mkv_metric_set(f->m, MKV_M_front_connections, 0, f->n_conns);
	mkv_metric_set(f->m, MKV_M_front_sessions, 0, f->n_sessions);
	mkv_metric_set(f->m, MKV_M_front_sessions_loose, 0, f->n_loose);
	mkv_metric_set(f->m, MKV_M_front_in_flight, 0, f->n_reqs);
	mkv_metric_set(f->m, MKV_M_front_regions, 0, f->n_regions);
	mkv_metric_set(f->m, MKV_M_front_region_bytes, 0, f->regions_bytes / 2);
	mkv_metric_set(f->m, MKV_M_front_regions_lent, 0, f->lends_here);
	mkv_metric_set(f->m, MKV_M_front_parked, 0, parked);
	mkv_metric_set(f->m, MKV_M_front_stage_bytes, 0, st.total_bytes);
	mkv_metric_set(f->m, MKV_M_front_stage_free_bytes, 0, st.free_bytes);
	mkv_metric_set(f->m, MKV_M_front_stage_quarantined_bytes, 0, st.quarantined_bytes);
	mkv_metric_set(f->m, MKV_M_front_stage_words_bad, 0, st.words_bad);
	mkv_metric_set(f->m, MKV_M_front_slots_free, 0, st.slots_free);
	if (f->rail != NULL)
		mkv_rail_gauges(f->rail);
	/* A counter that outlives this process: only what is new. */
	mkv_metric_add(f->m, MKV_M_front_loop_enters_total, 0, enters - f->enters_told);
	f->enters_told = enters;
}
