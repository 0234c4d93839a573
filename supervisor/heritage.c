/*
 * Process: supervisor, loop thread.
 * Owns: every shared segment, bell and listening socket of the server, for the supervisor's life; rings until one of their ends dies.
 * What a child is given is exactly what heritage_give() sends, in that order, on its control socket; nothing is inherited by fork but descriptors
 * 0 to 3.
 *
 *	front	own stage, own bell, bells of all drives, rings with all drives, arenas (data), keys derived for it; for TCP: its listener and
 *		the doors of all rails; for RDMA: its own door (rails.c); for this host: the unix socket
 *	drive	stages of all fronts, own bell, bells of all fronts and drives, rings with all of them, its own arena (data and metadata)
 *
 * Invariants: bells, stages, arenas and metric pages outlive their process; a ring belongs to one pair of lives and is made anew when either end
 * starts.
 * What can fail: memory and descriptors. At start that ends the supervisor; later it ends the child that could not be served.
 */
#include "config.h"

#include "supervisor/sup_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"
#include "common/base/topo.h"
#include "common/shm/ring.h"
#include "common/shm/stage.h"
#include "supervisor/budget_priv.h"

#define LISTEN_WAIT_NS	(12 * MKV_NS_PER_SEC)	/* a worker without a supervisor ends within 10 s */
#define BELL_BYTES	4096u

_Static_assert(CONFIG_DRIVES_MAX <= MKV_STAGE_DRIVES_MAX, "owner words name a drive");

#define CTL_MESSAGE(m, Type, CASE, field, body) \
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT; \
	m.body_case = MKV__CTL__CONTROL__BODY_##CASE; \
	m.field = (body)

static void
heritage_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- at start ---- */

static int
heritage_bell(struct proc *p)
{
	int r;

	p->bell_shm = mkv_os_shm_create("memkv-bell", BELL_BYTES, 0);
	if (p->bell_shm < 0)
		return (p->bell_shm);
	if ((r = mkv_bell_format(p->bell_shm)) != 0)
		return (r);
	return (mkv_os_bell_create(&p->bell_wait, &p->bell_ring));
}

static int
heritage_metrics(struct proc *p)
{
	int r;

	p->metrics_fd = mkv_os_shm_create("memkv-metrics", mkv_metrics_bytes(), 0);
	if (p->metrics_fd < 0)
		return (p->metrics_fd);
	if ((r = mkv_metrics_format(p->metrics_fd)) != 0)
		return (r);
	return (mkv_metrics_open(&p->metrics, p->metrics_fd, 0));
}

static int
heritage_stage(struct proc *p)
{
	uint64_t data_bytes = p->sup->conf->stage_data_bytes, bytes;
	uint32_t chunk_bytes = (uint32_t)p->sup->params->memory_block_size, slots = p->sup->params->memory_slots;
	int r;

	bytes = mkv_stage_bytes(data_bytes, chunk_bytes, slots);
	MKV_ASSERT(bytes > 0);			/* the parameters' ranges lie within the segment's */
	p->stage_fd = pages_create(p->sup->params, MKV_TOPO_SYS, "memkv-stage", bytes, p->node, &p->stage);
	if (p->stage_fd < 0)
		return (p->stage_fd);
	r = mkv_stage_format(p->stage_fd, data_bytes, chunk_bytes, slots, p->stage.page_bytes == 0);
	if (r != 0)
		heritage_close(&p->stage_fd);
	return (r);
}

/* Small pages are there only once they are used. What rounding up makes more of it the drive has, too. */
static int
heritage_arena(struct proc *p)
{
	uint64_t bytes = p->sup->conf->drive[p->index].max_size;

	p->arena_meta_bytes = budget_arena_meta(bytes);
	p->arena_fd = pages_create(p->sup->params, MKV_TOPO_SYS, "memkv-arena", bytes, p->node, &p->arena);
	if (p->arena_fd < 0)
		return (p->arena_fd);
	p->arena_meta_fd = mkv_os_shm_create("memkv-arena-meta", p->arena_meta_bytes, 0);
	return (MKV_MIN(p->arena_meta_fd, 0));
}

static int
heritage_listen_data(struct mkv_sup *s)
{
	return (mkv_os_listen_tcp(s->conf->data.host, s->conf->data.port, 0, &s->data_port));
}

/* Everybody on this host may come, as everybody may come to the loopback: what they may do, the key says. */
static int
heritage_listen_path(struct mkv_sup *s)
{
	return (mkv_os_listen_unix(s->conf->local_path, 0666));
}

/* The front of a server that was killed has the socket until it sees that. Meanwhile the loop hears signals: whoever says stop is not kept waiting. */
static int
heritage_listen_first(struct mkv_sup *s, int (*listen_fn)(struct mkv_sup *s))
{
	uint64_t end = mkv_now_ns() + (s->state.unclean ? LISTEN_WAIT_NS : 0);
	int fd;

	for (;;) {
		fd = listen_fn(s);
		if (fd != MKV_E_LOCKED || mkv_now_ns() >= end)
			return (fd);
		(void)uv_run(s->loop, UV_RUN_NOWAIT);
		if (s->stop_asked)
			return (MKV_E_CANCELLED);
		(void)usleep(20000);
	}
}

static int
heritage_listen(struct mkv_sup *s, char *why, unsigned why_bytes)
{
	const struct config_derived *d = s->conf;
	int shared = s->shard_count > 1, fd, r;

	/* A shared port would let a second server of this user in beside us, unseen: first take it for ourselves alone. */
	fd = heritage_listen_first(s, heritage_listen_data);
	r = MKV_MIN(fd, 0);
	if (shared && fd >= 0)
		close(fd);
	for (uint32_t i = 0; i < s->shard_count && r == 0; i++) {
		if (shared)
			fd = mkv_os_listen_tcp(d->data.host, s->data_port, 1, NULL);
		r = MKV_MIN(fd, 0);
		sup_front(s, i)->listen_fd = fd;
	}
	if (r != 0)
		snprintf(why, why_bytes, "cannot listen on %s:%u: %s%s", d->data.host, d->data.port != 0 ? d->data.port : s->data_port,
		    r == MKV_E_LOCKED ? "the port is taken" : mkv_err(r), r == MKV_E_LOCKED ? "; set network.address to another one" : "");
	return (r);
}

static int
heritage_listen_local(struct mkv_sup *s, char *why, unsigned why_bytes)
{
	const char *path = s->conf->local_path;
	struct proc *p = sup_front(s, sup_rails_end(s));
	int fd;

	if (s->conf->local_count == 0)
		return (0);
	if ((fd = heritage_listen_first(s, heritage_listen_path)) < 0) {
		snprintf(why, why_bytes, "local socket \"%s\": %s; set local.path", path, fd == MKV_E_LOCKED ? "another server listens there" : mkv_err(fd));
		return (fd);
	}
	p->listen_fd = fd;
	return (0);
}

/* budget.c found enough: since then somebody else took them, or they are there and are not for us. */
static void
heritage_say_memory(const struct proc *p, int r, const char *what, uint64_t bytes, char *why, unsigned why_bytes)
{
	const char *huge = p->sup->params->memory_hugepages == MKV_HUGEPAGES_REQUIRE ? " in huge pages (memory.hugepages is require)" : "";

	snprintf(why, why_bytes, "%s: cannot have %" PRIu64 " bytes of %s%s: %s", p->child.name, bytes, what, huge,
	    r != MKV_E_DENIED ? mkv_err(r) : "the kernel promised the pages and withheld them: a limit of the cgroup (hugetlb.*.max), or of the NUMA node's own");
}

static int
heritage_one(struct proc *p, char *why, unsigned why_bytes)
{
	int r;

	affinity_place(p);
	if ((r = heritage_bell(p)) != 0 || (r = heritage_metrics(p)) != 0) {
		snprintf(why, why_bytes, "%s: shared memory: %s", p->child.name, mkv_err(r));
		return (r);
	}
	if (!proc_is_drive(p) && (r = heritage_stage(p)) != 0)
		heritage_say_memory(p, r, "staging memory (memory.max_size)", p->stage.bytes, why, why_bytes);
	if (proc_is_drive(p) && p->sup->params->storage_mode == MKV_STORAGE_MEMORY && (r = heritage_arena(p)) != 0)
		heritage_say_memory(p, r, "arena (storage.drives, max_size)", p->arena.bytes, why, why_bytes);
	return (r);
}

/* The segment of a process that others map; NULL: it has none. */
const struct pages_mem *
heritage_memory(const struct proc *p)
{
	return (p->stage_fd >= 0 ? &p->stage : p->arena_fd >= 0 ? &p->arena : NULL);
}

/* "with\n    sysctl ..." as part of a line. */
static void
heritage_one_line(char *words)
{
	for (char *at = words; (at = strchr(at, '\n')) != NULL;) {
		size_t more = strspn(at + 1, " ");

		*at = ' ';
		memmove(at + 1, at + 1 + more, strlen(at + 1 + more) + 1);
	}
}

/* One line for all staging, one for all arenas. With small pages: how many huge ones it would take. */
static void
heritage_say_pages(const struct mkv_sup *s, const char *what, uint32_t first, uint32_t count)
{
	struct pages_seg seg[SUP_PROCS_MAX];
	struct mkv_os_memory m = { 0 };
	const struct pages_mem *mem, *last = NULL;
	char words[768], text[64];
	uint64_t bytes = 0;
	unsigned n = 0;

	for (uint32_t i = first; i < first + count; i++) {
		if ((mem = heritage_memory(&s->proc[i])) == NULL)
			continue;
		seg[n++] = (struct pages_seg){ .bytes = mem->bytes, .node = s->proc[i].node, .page_bytes = mem->page_bytes, .held = mem->page_bytes > 0 };
		bytes += mem->bytes;
		last = last == NULL || mem->page_bytes < last->page_bytes ? mem : last;
	}
	if (last == NULL)
		return;
	(void)mkv_os_memory(&m);
	pages_say(s->params, MKV_TOPO_SYS, seg, n, m.huge_page_bytes, words, sizeof(words));
	heritage_one_line(words);
	mkv_log(MKV_EV_PAGES, "what=%s bytes=%" PRIu64 " pages=%s text=%s", what, bytes, pages_text(last, text, sizeof(text)), words);
}

int
heritage_create(struct mkv_sup *s, char *why, unsigned why_bytes)
{
	int r = 0;

	s->ring = calloc((size_t)SUP_PROCS_MAX * SUP_PROCS_MAX, sizeof(*s->ring));
	if (s->ring == NULL) {
		snprintf(why, why_bytes, "out of memory");
		return (MKV_E_NOMEM);
	}
	for (uint32_t i = 0; i < s->proc_count && r == 0; i++)
		r = heritage_one(&s->proc[i], why, why_bytes);
	if (r != 0)
		return (r);
	heritage_say_pages(s, "staging", 0, s->front_count);
	heritage_say_pages(s, "arenas", s->front_count, s->drive_count);
	for (uint32_t i = 0; i < s->front_count; i++)
		sup_front(s, i)->stage_epoch = s->state.epoch;
	r = heritage_listen(s, why, why_bytes);
	return (r != 0 ? r : heritage_listen_local(s, why, why_bytes));
}

void
heritage_destroy(struct mkv_sup *s)
{
	if (s->front_count > sup_rails_end(s) && sup_front(s, sup_rails_end(s))->listen_fd >= 0)
		(void)unlink(s->conf->local_path);
	for (uint32_t i = 0; i < s->proc_count; i++) {
		struct proc *p = &s->proc[i];

		if (s->ring != NULL)
			heritage_drop_rings(p);
		mkv_metrics_close(&p->metrics);
		heritage_close(&p->metrics_fd);
		heritage_close(&p->bell_shm);
		if (p->bell_ring != p->bell_wait)
			heritage_close(&p->bell_ring);
		heritage_close(&p->bell_wait);
		heritage_close(&p->stage_fd);
		heritage_close(&p->listen_fd);
		heritage_close(&p->rail.door_fd);
		heritage_close(&p->arena_fd);
		heritage_close(&p->arena_meta_fd);
	}
	free(s->ring);
	s->ring = NULL;
}

/* ---- rings ---- */

/* Fronts and drives talk, drives among themselves do, fronts do not. */
static int
heritage_neighbours(const struct proc *a, const struct proc *b)
{
	return (a != b && (proc_is_drive(a) || proc_is_drive(b)));
}

static struct sup_ring *
heritage_ring(const struct proc *a, const struct proc *b)
{
	struct mkv_sup *s = a->sup;
	uint32_t lo = MKV_MIN(a->number, b->number), hi = MKV_MAX(a->number, b->number);

	return (&s->ring[(size_t)lo * SUP_PROCS_MAX + hi]);
}

static Mkv__Ctl__PeerKind
heritage_peer_kind(const struct proc *p)
{
	return (proc_is_drive(p) ? MKV__CTL__PEER_KIND__PEER_DRIVE : MKV__CTL__PEER_KIND__PEER_FRONT);
}

/* Who still has it hears MKV_E_STALE from now on; what cannot be told that way is told by PEER_DIED. */
static void
heritage_ring_free(struct sup_ring *r)
{
	if (r->epoch == 0)
		return;
	for (int i = 0; i < 2; i++)
		if (r->fd[i] >= 0)
			(void)mkv_ring_retire(r->fd[i], r->epoch + 1);
	heritage_close(&r->fd[0]);
	heritage_close(&r->fd[1]);
	r->epoch = 0;
}

static int
heritage_ring_make(struct sup_ring *r, uint32_t epoch)
{
	int e = 0;

	heritage_ring_free(r);
	r->fd[0] = r->fd[1] = -1;
	r->epoch = epoch;
	for (int i = 0; i < 2 && e == 0; i++) {
		r->fd[i] = mkv_os_shm_create("memkv-ring", mkv_ring_bytes(SUP_RING_CAPACITY), 0);
		e = r->fd[i] < 0 ? r->fd[i] : mkv_ring_format(r->fd[i], SUP_RING_CAPACITY, epoch);
	}
	if (e != 0)
		heritage_ring_free(r);
	return (e);
}

/* Tell `to` of its ring with `peer`. */
static void
heritage_tell_ring(struct proc *to, struct proc *peer)
{
	const struct sup_ring *r = heritage_ring(to, peer);
	Mkv__Ctl__Ring body = MKV__CTL__RING__INIT;
	int fds[2], lower = to->number < peer->number;
	CTL_MESSAGE(m, Ring, RING, ring, &body);

	if (r->epoch == 0)
		return;
	body.peer = heritage_peer_kind(peer);
	body.index = peer->index;
	body.epoch = r->epoch;
	fds[0] = r->fd[lower ? 0 : 1];
	fds[1] = r->fd[lower ? 1 : 0];
	proc_send(to, &m, fds, 2);
}

int
heritage_rings(struct proc *p)
{
	struct mkv_sup *s = p->sup;
	int r;

	for (uint32_t i = 0; i < s->proc_count; i++) {
		struct proc *q = &s->proc[i];

		if (!heritage_neighbours(p, q) || q->life == NULL)
			continue;
		if ((r = heritage_ring_make(heritage_ring(p, q), p->epoch)) != 0)
			return (r);
		if (proc_reachable(q))
			heritage_tell_ring(q, p);
	}
	return (0);
}

uint32_t
heritage_ring_epoch(const struct proc *a, const struct proc *b)
{
	return (heritage_ring(a, b)->epoch);
}

void
heritage_drop_rings(struct proc *p)
{
	for (uint32_t i = 0; i < p->sup->proc_count; i++)
		if (heritage_neighbours(p, &p->sup->proc[i]))
			heritage_ring_free(heritage_ring(p, &p->sup->proc[i]));
}

/* ---- what a child is told ---- */

/* All parameters but secrets, as text. Returns how many; each is two mallocs (heritage_params_free()). */
static size_t
heritage_params(const struct mkv_params *params, Mkv__Ctl__Param **list, size_t max)
{
	char value[MKV_PARAM_TEXT_BYTES];
	size_t n = 0;

	for (unsigned i = 0; i < mkv_param_count() && n < max; i++) {
		const struct mkv_param_row *row = &mkv_param_rows()[i];
		Mkv__Ctl__Param *p;

		if (row->type == MKV_PARAM_SECRET || mkv_params_get_text(params, row, value, sizeof(value)) != 0)
			continue;
		if ((p = malloc(sizeof(*p))) == NULL)
			break;
		mkv__ctl__param__init(p);
		p->key = (char *)(uintptr_t)row->key;
		if ((p->value = strdup(value)) == NULL) {
			free(p);
			break;
		}
		list[n++] = p;
	}
	return (n);
}

static void
heritage_params_free(Mkv__Ctl__Param **list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(list[i]->value);
		free(list[i]);
	}
}

/* others: room for CONFIG_DRIVES_MAX, as long as c is used. */
static void
heritage_drive_part(const struct proc *p, Mkv__Ctl__Configure *c, ProtobufCBinaryData *others)
{
	struct mkv_map_row *row = pool_row(p->sup, p->index), *o;

	c->other_uuids = others;
	for (uint32_t i = 0; i < p->sup->drive_count; i++)
		if ((o = pool_row(p->sup, i)) != row && o->known)
			others[c->n_other_uuids++] = (ProtobufCBinaryData){ .len = sizeof(o->uuid), .data = o->uuid };
	c->media = (char *)(uintptr_t)p->sup->conf->drive[p->index].media;
	c->max_size = p->sup->conf->drive[p->index].max_size;
	if (row->known && row->state != MKV_DRIVE_REMOVED)
		c->drive_uuid = (ProtobufCBinaryData){ .len = sizeof(row->uuid), .data = row->uuid };
	c->forget_all = p->life->forget_all = pool_forgets(p->sup, p->index);
}

void
heritage_configure(struct proc *p)
{
	ProtobufCBinaryData others[CONFIG_DRIVES_MAX];
	Mkv__Ctl__Param *params[256];
	struct mkv_sup *s = p->sup;
	Mkv__Ctl__Configure c = MKV__CTL__CONFIGURE__INIT;
	CTL_MESSAGE(m, Configure, CONFIGURE, configure, &c);

	c.name = p->child.name;
	c.kind = proc_ctl_kind(p->kind);
	c.index = p->index;
	c.epoch = p->epoch;
	c.server_id = (ProtobufCBinaryData){ .len = sizeof(s->state.server_id), .data = s->state.server_id };
	c.store_secret = (ProtobufCBinaryData){ .len = sizeof(s->state.store_secret), .data = s->state.store_secret };
	c.loopback_only = s->keys.now.dev;
	c.front_count = s->front_count;
	c.drive_count = s->drive_count;
	c.params = params;
	c.n_params = heritage_params(&s->config->params, params, MKV_ARRAY_LEN(params));
	if (proc_is_drive(p))
		heritage_drive_part(p, &c, others);
	else
		c.front_id = p->index + 1;
	if (p->kind == SUP_FRONT_TCP)
		c.local_path = (char *)(uintptr_t)s->conf->local_path;
	if (proc_is_rail(p)) {
		c.device = (char *)(uintptr_t)rail_device(p);
		c.rail = p->rail.number;
	}
	proc_send(p, &m, NULL, 0);
	heritage_params_free(params, c.n_params);
}

void
heritage_key(struct proc *p, const struct key *k, int revoked)
{
	uint8_t front_key[MKV_KEY_BYTES];
	Mkv__Ctl__Key body = MKV__CTL__KEY__INIT;
	CTL_MESSAGE(m, Key, KEY, key, &body);

	MKV_ASSERT(!proc_is_drive(p));
	if (k->id == 0 || mkv_key_front(k->cred, p->index + 1, front_key) != 0)
		return;
	body.key_id = k->id;
	body.front_key = (ProtobufCBinaryData){ .len = sizeof(front_key), .data = front_key };
	body.dev = k->dev;
	body.revoked = revoked;
	body.role = (char *)(uintptr_t)"rw";
	proc_send(p, &m, NULL, 0);
	mkv_wipe(front_key, sizeof(front_key));
}

static void
heritage_tell_metrics(struct proc *p)
{
	Mkv__Ctl__Metrics body = MKV__CTL__METRICS__INIT;
	CTL_MESSAGE(m, Metrics, METRICS, metrics, &body);

	proc_send(p, &m, &p->metrics_fd, 1);
}

static void
heritage_tell_stage(struct proc *p, const struct proc *front)
{
	Mkv__Ctl__Stage body = MKV__CTL__STAGE__INIT;
	CTL_MESSAGE(m, Stage, STAGE, stage, &body);

	body.front = front->index;
	body.bytes = front->stage.bytes;
	body.epoch = front->stage_epoch;
	body.huge = front->stage.page_bytes == 0 && p->sup->params->memory_hugepages != MKV_HUGEPAGES_OFF;
	proc_send(p, &m, &front->stage_fd, 1);
}

static void
heritage_tell_arena(struct proc *p, const struct proc *drive)
{
	Mkv__Ctl__Arena body = MKV__CTL__ARENA__INIT;
	int fds[2] = { drive->arena_fd, drive->arena_meta_fd };
	CTL_MESSAGE(m, Arena, ARENA, arena, &body);

	if (drive->arena_fd < 0)
		return;
	body.drive = drive->index;
	body.bytes = drive->arena.bytes;
	body.meta_bytes = drive->arena_meta_bytes;
	proc_send(p, &m, fds, p == drive ? 2 : 1);
}

static void
heritage_tell_bell(struct proc *p, const struct proc *of)
{
	Mkv__Ctl__Bell body = MKV__CTL__BELL__INIT;
	int fds[2] = { of->bell_shm, p == of ? of->bell_wait : of->bell_ring };
	CTL_MESSAGE(m, Bell, BELL, bell, &body);

	body.peer = heritage_peer_kind(of);
	body.index = of->index;
	body.own = p == of;
	proc_send(p, &m, fds, 2);
}

static void
heritage_tell_listener(struct proc *p)
{
	char address[CONFIG_ADDR_TEXT];
	Mkv__Ctl__Listener body = MKV__CTL__LISTENER__INIT;
	CTL_MESSAGE(m, Listener, LISTENER, listener, &body);

	config_addr_text(address, p->sup->conf->data.host, p->sup->data_port);
	body.address = p->kind == SUP_FRONT_LOCAL ? (char *)(uintptr_t)p->sup->conf->local_path : address;
	proc_send(p, &m, &p->listen_fd, 1);
}

static void
heritage_tell_start(struct proc *p)
{
	Mkv__Ctl__Start body = MKV__CTL__START__INIT;
	CTL_MESSAGE(m, Start, START, start, &body);

	proc_send(p, &m, NULL, 0);
}

void
heritage_give(struct proc *p)
{
	struct mkv_sup *s = p->sup;

	heritage_configure(p);
	if (!proc_is_drive(p))
		heritage_key(p, &s->keys.now, 0);
	heritage_tell_metrics(p);
	for (uint32_t i = 0; i < s->front_count; i++)
		if (proc_is_drive(p) || sup_front(s, i) == p)
			heritage_tell_stage(p, sup_front(s, i));
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (!proc_is_drive(p) || sup_drive(s, i) == p)
			heritage_tell_arena(p, sup_drive(s, i));
	heritage_tell_bell(p, p);
	for (uint32_t i = 0; i < s->proc_count; i++)
		if (heritage_neighbours(p, &s->proc[i]))
			heritage_tell_bell(p, &s->proc[i]);
	for (uint32_t i = 0; i < s->proc_count; i++)
		if (heritage_neighbours(p, &s->proc[i]))
			heritage_tell_ring(p, &s->proc[i]);
	if (p->listen_fd >= 0)
		heritage_tell_listener(p);
	if (p->kind == SUP_FRONT_TCP)
		rails_tell_all(p);
	if (proc_is_rail(p) && rails_open_door(p) != 0) {
		proc_break(p, "no descriptors for its door");
		return;
	}
	heritage_tell_start(p);
}

int
heritage_add(struct proc *p, char *why, unsigned why_bytes)
{
	struct mkv_sup *s = p->sup;
	int r = heritage_one(p, why, why_bytes);

	for (uint32_t i = 0; i < s->proc_count && r == 0; i++) {
		struct proc *q = &s->proc[i];

		if (!heritage_neighbours(p, q) || !proc_reachable(q))
			continue;
		heritage_tell_bell(q, p);
		if (!proc_is_drive(q))
			heritage_tell_arena(q, p);
	}
	return (r);
}
