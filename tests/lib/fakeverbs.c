/*
 * The fake fabric's devices, memory, queues and events. One lock for everything; what a callee of rdma-core may do wrong ends the program.
 */
#include "config.h"
#include "tests/lib/fakeverbs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "tests/lib/fakeverbs_priv.h"

struct fv_fabric fv;
pthread_mutex_t fv_mutex = PTHREAD_MUTEX_INITIALIZER;

void
fv_die(const char *where, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "fakeverbs: %s: ", where);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

const char *
fv_verb_name(enum fv_verb verb)
{
	static const char *const name[FV_VERBS] = { "get_device_list", "open_device", "query_device", "query_port", "query_gid_table", "odp_caps", "alloc_pd",
		"reg_mr", "reg_dmabuf_mr", "create_comp_channel", "create_cq", "req_notify_cq", "poll_cq", "create_srq", "post_srq_recv", "create_qp", "modify_qp",
		"query_qp", "post_send", "create_ah", "dc_create_initiator", "dc_create_target", "dc_post" };

	return (name[verb]);
}

int
fv_enter(enum fv_verb verb, const struct fv_dev *d)
{
	pthread_mutex_lock(&fv_mutex);
	fv.calls[verb]++;
	if (fv.fail_at[verb] != 0 && --fv.fail_at[verb] == 0) {
		fv.did_fail[verb] = 1;
		return (fv.fail_errno[verb]);
	}
	return (d != NULL && d->is_gone ? EIO : 0);
}

void
fv_leave(void)
{
	pthread_mutex_unlock(&fv_mutex);
}

/* For what returns a pointer. */
void *
fv_refuse(int e)
{
	fv_leave();
	errno = e;
	return (NULL);
}

struct fv_dev *
fv_dev_of(struct ibv_context *c)
{
	return (MKV_CONTAINER_OF(c, struct fv_ctx, c)->dev);
}

struct fv_ctx *
fv_ctx_of(struct ibv_context *c)
{
	return (MKV_CONTAINER_OF(c, struct fv_ctx, c));
}

/* An allocation that a test makes fail is not meant for the fake: it asks again. */
void *
fv_calloc(size_t n, size_t bytes)
{
	void *p;

	if ((p = calloc(n, bytes)) == NULL && (p = calloc(n, bytes)) == NULL)
		FV_DIE("out of memory");
	return (p);
}

static void *
fv_new(size_t bytes)
{
	fv.alive++;
	return (fv_calloc(1, bytes));
}

static void
fv_old(void *p)
{
	fv.alive--;
	free(p);
}

/* ---- the fabric as a test sees it ---- */

static void
fv_set_gid(struct ibv_gid_entry *g, unsigned idx, uint32_t type, const char *text)
{
	*g = (struct ibv_gid_entry){ .gid_index = idx, .port_num = 1, .gid_type = type };
	if (inet_pton(AF_INET6, text, g->gid.raw) != 1)
		FV_DIE("no address: %s", text);
}

static void
fv_set_up(struct fv_dev *d, unsigned i)
{
	char link[40], mapped[40];

	memset(d, 0, sizeof(*d));
	snprintf(d->name, sizeof(d->name), "fake%u", i);
	mkv_list_init(&d->ctxs);
	d->conf.attr = (struct ibv_device_attr){ .max_mr_size = ~0ull, .max_qp = 1000, .max_qp_wr = 16384, .max_sge = 4, .max_cq = 100, .max_cqe = 32767,
		.max_srq = 100, .max_srq_wr = 16384, .max_qp_rd_atom = 128, .max_qp_init_rd_atom = 128, .phys_port_cnt = 1 };
	for (unsigned k = 0; k < 2; k++)
		d->conf.port[k] = (struct ibv_port_attr){ .state = IBV_PORT_ACTIVE, .max_mtu = IBV_MTU_4096, .active_mtu = IBV_MTU_4096, .gid_tbl_len = FV_GIDS,
			.lid = (uint16_t)(i + 1), .active_width = 2, .active_speed = 32, .link_layer = IBV_LINK_LAYER_ETHERNET };
	snprintf(link, sizeof(link), "fe80::ff:fe00:%u", i + 1);
	snprintf(mapped, sizeof(mapped), "::ffff:10.77.0.%u", i + 1);
	fv_set_gid(&d->conf.gid[0], 0, IBV_GID_TYPE_ROCE_V1, link);
	fv_set_gid(&d->conf.gid[1], 1, IBV_GID_TYPE_ROCE_V2, link);
	fv_set_gid(&d->conf.gid[2], 2, IBV_GID_TYPE_ROCE_V1, mapped);
	fv_set_gid(&d->conf.gid[3], 3, IBV_GID_TYPE_ROCE_V2, mapped);
	d->conf.n_gids = 4;
	d->conf.max_inline = 512;
	d->conf.transport = IBV_TRANSPORT_IB;
}

void
fv_start(unsigned n)
{
	pthread_mutex_lock(&fv_mutex);
	if (fv.alive != 0)
		FV_DIE("%u objects of the last fabric are left", fv.alive);
	if (n > FV_DEVICES)
		FV_DIE("at most %u devices", FV_DEVICES);
	memset(&fv, 0, sizeof(fv));
	fv.n = n;
	fv.next_key = 0x1000;
	fv.next_qpn = 0x11;
	for (unsigned i = 0; i < FV_DEVICES; i++)
		fv_set_up(&fv.dev[i], i);
	fv_leave();
}

struct fv_device *
fv_device(unsigned i)
{
	return (&fv.dev[i].conf);
}

unsigned
fv_alive(void)
{
	return (fv.alive);
}

void
fv_quirks(unsigned quirks)
{
	pthread_mutex_lock(&fv_mutex);
	fv.quirks = quirks;
	fv_run_all();
	fv_leave();
}

int
fv_fail(enum fv_verb verb, unsigned n, int err)
{
	int did;

	pthread_mutex_lock(&fv_mutex);
	did = fv.did_fail[verb];
	fv.did_fail[verb] = 0;
	fv.fail_at[verb] = n;
	fv.fail_errno[verb] = err;
	fv_leave();
	return (did);
}

unsigned
fv_calls(enum fv_verb verb)
{
	return (fv.calls[verb]);
}

struct fv_count
fv_count(void)
{
	struct fv_count c;

	pthread_mutex_lock(&fv_mutex);
	c = fv.count;
	fv_leave();
	return (c);
}

unsigned
fv_log(struct fv_wr *w, unsigned max)
{
	unsigned n;

	pthread_mutex_lock(&fv_mutex);
	n = (unsigned)MKV_MIN(fv.logged, (uint64_t)MKV_MIN(max, FV_LOG));
	for (unsigned i = 0; i < n; i++)
		w[i] = fv.log[(fv.logged - n + i) % FV_LOG];
	fv_leave();
	return (n);
}

void
fv_next_qpn(uint32_t n)
{
	fv.next_qpn = n;
}

void
fv_push_event(struct fv_dev *d, enum ibv_event_type type, unsigned port, struct ibv_qp *qp)
{
	MKV_LIST_FOREACH(it, &d->ctxs) {
		struct fv_ctx *c = MKV_CONTAINER_OF(it, struct fv_ctx, link);
		struct ibv_async_event e = { .event_type = type };

		if (qp != NULL && qp->context != &c->c)
			continue;
		if (qp != NULL)
			e.element.qp = qp;
		else
			e.element.port_num = (int)port;
		if (write(c->async_w, &e, sizeof(e)) != sizeof(e))
			FV_DIE("too many events");
	}
}

/* As the kernel does when a queue pair is destroyed. */
void
fv_drop_events(struct fv_ctx *c, const struct ibv_qp *qp)
{
	struct ibv_async_event e[256];
	unsigned n = 0;

	while (read(c->c.async_fd, &e[n], sizeof(e[n])) == sizeof(e[n]))
		if (e[n].element.qp != qp && ++n == MKV_ARRAY_LEN(e))
			FV_DIE("too many events");
	for (unsigned i = 0; i < n; i++)
		if (write(c->async_w, &e[i], sizeof(e[i])) != sizeof(e[i]))
			FV_DIE("too many events");
}

void
fv_event(unsigned device, enum ibv_event_type type, unsigned port)
{
	pthread_mutex_lock(&fv_mutex);
	fv_push_event(&fv.dev[device], type, port, NULL);
	fv_leave();
}

void
fv_port(unsigned device, unsigned port, int up)
{
	pthread_mutex_lock(&fv_mutex);
	fv.dev[device].conf.port[port - 1].state = up ? IBV_PORT_ACTIVE : IBV_PORT_DOWN;
	fv_push_event(&fv.dev[device], up ? IBV_EVENT_PORT_ACTIVE : IBV_EVENT_PORT_ERR, port, NULL);
	fv_leave();
}

void
fv_gone(unsigned device)
{
	pthread_mutex_lock(&fv_mutex);
	fv.dev[device].is_gone = fv.dev[device].conf.is_absent = 1;
	fv_push_event(&fv.dev[device], IBV_EVENT_DEVICE_FATAL, 0, NULL);
	fv_leave();
}

/* ---- devices ---- */

static struct ibv_device **
v_get_device_list(int *n)
{
	struct ibv_device **list;
	int e, k = 0;

	if ((e = fv_enter(FV_GET_DEVICE_LIST, NULL)) != 0)
		return (fv_refuse(e));
	list = fv_new((FV_DEVICES + 1) * sizeof(*list));
	for (unsigned i = fv.n; i-- > 0;)		/* not in the order of their names */
		if (!fv.dev[i].conf.is_absent) {
			fv.dev[i].d.transport_type = fv.dev[i].conf.transport;
			list[k++] = &fv.dev[i].d;
		}
	if (n != NULL)
		*n = k;
	fv_leave();
	return (list);
}

static void
v_free_device_list(struct ibv_device **list)
{
	pthread_mutex_lock(&fv_mutex);
	fv_old(list);
	fv_leave();
}

static const char *
v_get_device_name(struct ibv_device *d)
{
	return (MKV_CONTAINER_OF(d, struct fv_dev, d)->name);
}

static struct ibv_context *
v_open_device(struct ibv_device *d)
{
	struct fv_dev *dev = MKV_CONTAINER_OF(d, struct fv_dev, d);
	struct fv_ctx *c;
	int e, fd[2];

	if ((e = fv_enter(FV_OPEN_DEVICE, dev)) != 0)
		return (fv_refuse(e));
	c = fv_new(sizeof(*c));
	if (pipe2(fd, O_CLOEXEC) != 0)
		FV_DIE("no pipe");
	c->c.device = d;
	c->c.async_fd = fd[0];
	c->async_w = fd[1];
	c->dev = dev;
	mkv_list_init(&c->qps);
	mkv_list_init(&c->mrs);
	mkv_list_push_tail(&dev->ctxs, &c->link);
	fv_leave();
	return (&c->c);
}

static int
v_close_device(struct ibv_context *x)
{
	struct fv_ctx *c = fv_ctx_of(x);

	pthread_mutex_lock(&fv_mutex);
	if (!mkv_list_empty(&c->qps) || !mkv_list_empty(&c->mrs))
		FV_DIE("queue pairs or registrations of %s are left", c->dev->name);
	mkv_list_remove(&c->link);
	close(c->c.async_fd);
	close(c->async_w);
	fv_old(c);
	fv_leave();
	return (0);
}

static int
v_query_device(struct ibv_context *c, struct ibv_device_attr *a)
{
	int e = fv_enter(FV_QUERY_DEVICE, fv_dev_of(c));

	*a = fv_dev_of(c)->conf.attr;
	fv_leave();
	return (e);
}

static int
v_query_port(struct ibv_context *c, uint8_t port, struct ibv_port_attr *a)
{
	int e = fv_enter(FV_QUERY_PORT, fv_dev_of(c));

	if (e == 0 && (port < 1 || port > fv_dev_of(c)->conf.attr.phys_port_cnt))
		e = EINVAL;
	if (e == 0)
		*a = fv_dev_of(c)->conf.port[port - 1];
	fv_leave();
	return (e);
}

static ssize_t
v_query_gid_table(struct ibv_context *c, struct ibv_gid_entry *g, size_t max)
{
	struct fv_device *conf = &fv_dev_of(c)->conf;
	int e = fv_enter(FV_QUERY_GID_TABLE, fv_dev_of(c));

	if (e == 0 && max < conf->n_gids)
		e = EINVAL;
	if (e == 0)
		memcpy(g, conf->gid, conf->n_gids * sizeof(*g));
	fv_leave();
	return (e != 0 ? -e : (ssize_t)conf->n_gids);
}

static int
v_odp_caps(struct ibv_context *c, uint32_t *caps)
{
	int e = fv_enter(FV_ODP_CAPS, fv_dev_of(c));

	*caps = e == 0 ? fv_dev_of(c)->conf.odp_caps : 0;
	fv_leave();
	return (e);
}

static int
v_get_async_event(struct ibv_context *x, struct ibv_async_event *ev)
{
	return (read(x->async_fd, ev, sizeof(*ev)) == sizeof(*ev) ? 0 : -1);
}

static void
v_ack_async_event(struct ibv_async_event *ev)
{
	(void)ev;
}

/* ---- memory ---- */

static struct ibv_pd *
v_alloc_pd(struct ibv_context *c)
{
	struct fv_pd *p;
	int e;

	if ((e = fv_enter(FV_ALLOC_PD, fv_dev_of(c))) != 0)
		return (fv_refuse(e));
	p = fv_new(sizeof(*p));
	p->pd.context = c;
	fv_leave();
	return (&p->pd);
}

static int
v_dealloc_pd(struct ibv_pd *pd)
{
	struct fv_pd *p = MKV_CONTAINER_OF(pd, struct fv_pd, pd);
	int e = 0;

	pthread_mutex_lock(&fv_mutex);
	if (p->users != 0)
		e = EBUSY;
	else
		fv_old(p);
	fv_leave();
	return (e);
}

static struct ibv_mr *
fv_register(struct ibv_pd *pd, enum fv_verb verb, void *addr, size_t bytes, uint64_t iova, int access)
{
	struct fv_dev *d = fv_dev_of(pd->context);
	struct fv_mr *m;
	int e = fv_enter(verb, d);

	if (e == 0 && (bytes == 0 || bytes > d->conf.attr.max_mr_size || ((access & IBV_ACCESS_REMOTE_WRITE) != 0 && (access & IBV_ACCESS_LOCAL_WRITE) == 0)))
		e = EINVAL;
	if (e == 0 && (access & IBV_ACCESS_ON_DEMAND) != 0 && d->conf.odp_caps == 0)
		e = EOPNOTSUPP;
	if (e != 0)
		return (fv_refuse(e));
	m = fv_new(sizeof(*m));
	m->mr = (struct ibv_mr){ .context = pd->context, .pd = pd, .addr = addr, .length = bytes, .lkey = fv.next_key, .rkey = fv.next_key };
	fv.next_key += 0x100;
	m->iova = iova;
	m->at = addr;
	m->access = access;
	MKV_CONTAINER_OF(pd, struct fv_pd, pd)->users++;
	mkv_list_push_head(&fv_ctx_of(pd->context)->mrs, &m->link);
	fv_leave();
	return (&m->mr);
}

static struct ibv_mr *
v_reg_mr(struct ibv_pd *pd, void *addr, size_t bytes, int access)
{
	return (fv_register(pd, FV_REG_MR, addr, bytes, (uintptr_t)addr, access));
}

/* What can be mapped is reached by a mapping of its own (the address that the program knows it by need not be readable). Else the "device memory" is where iova says. */
static void
fv_map(struct fv_mr *m, int fd, uint64_t off, size_t bytes)
{
	uint64_t from = off / 4096 * 4096;
	struct stat st;
	void *p;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < off + bytes)
		return;
	if ((p = mmap(NULL, off - from + bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)from)) == MAP_FAILED)
		return;
	m->map = p;
	m->map_bytes = off - from + bytes;
	m->at = (uint8_t *)p + (off - from);
}

static struct ibv_mr *
v_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t off, size_t bytes, uint64_t iova, int fd, int access)
{
	struct ibv_mr *mr;

	if (fcntl(fd, F_GETFD) < 0 || off % 4096 != iova % 4096) {
		errno = fcntl(fd, F_GETFD) < 0 ? EBADF : EINVAL;
		return (NULL);
	}
	if ((mr = fv_register(pd, FV_REG_DMABUF_MR, (void *)(uintptr_t)iova, bytes, iova, access)) != NULL)
		fv_map(MKV_CONTAINER_OF(mr, struct fv_mr, mr), fd, off, bytes);
	return (mr);
}

static int
v_dereg_mr(struct ibv_mr *mr)
{
	struct fv_mr *m = MKV_CONTAINER_OF(mr, struct fv_mr, mr);

	pthread_mutex_lock(&fv_mutex);
	MKV_CONTAINER_OF(mr->pd, struct fv_pd, pd)->users--;
	mkv_list_remove(&m->link);
	if (m->map != NULL)
		(void)munmap(m->map, m->map_bytes);
	fv_old(m);
	fv_leave();
	return (0);
}

struct fv_mr *
fv_mr_find(struct fv_ctx *c, struct ibv_pd *pd, uint32_t key, uint64_t addr, uint64_t bytes, int access)
{
	MKV_LIST_FOREACH(it, &c->mrs) {
		struct fv_mr *m = MKV_CONTAINER_OF(it, struct fv_mr, link);

		if (m->mr.rkey == key)
			return (m->mr.pd == pd && addr >= m->iova && addr - m->iova <= m->mr.length && bytes <= m->mr.length - (addr - m->iova) &&
			    (m->access & access) == access ? m : NULL);
	}
	return (NULL);
}

int
fv_access(uint32_t key)
{
	int access = -1;

	pthread_mutex_lock(&fv_mutex);
	for (unsigned i = 0; i < fv.n; i++)
		MKV_LIST_FOREACH(ci, &fv.dev[i].ctxs)
			MKV_LIST_FOREACH(mi, &MKV_CONTAINER_OF(ci, struct fv_ctx, link)->mrs)
				if (MKV_CONTAINER_OF(mi, struct fv_mr, link)->mr.rkey == key)
					access = MKV_CONTAINER_OF(mi, struct fv_mr, link)->access;
	fv_leave();
	return (access);
}

/* ---- completion queues ---- */

static struct ibv_comp_channel *
v_create_comp_channel(struct ibv_context *c)
{
	struct fv_channel *ch;
	int e, fd[2];

	if ((e = fv_enter(FV_CREATE_COMP_CHANNEL, fv_dev_of(c))) != 0)
		return (fv_refuse(e));
	ch = fv_new(sizeof(*ch));
	if (pipe2(fd, O_CLOEXEC) != 0)
		FV_DIE("no pipe");
	ch->ch.context = c;
	ch->ch.fd = fd[0];
	ch->w = fd[1];
	fv_leave();
	return (&ch->ch);
}

static int
v_destroy_comp_channel(struct ibv_comp_channel *x)
{
	struct fv_channel *ch = MKV_CONTAINER_OF(x, struct fv_channel, ch);

	pthread_mutex_lock(&fv_mutex);
	if (ch->users != 0)
		FV_DIE("its completion queues are left");
	close(ch->ch.fd);
	close(ch->w);
	fv_old(ch);
	fv_leave();
	return (0);
}

static struct ibv_cq *
v_create_cq(struct ibv_context *c, int cqe, void *arg, struct ibv_comp_channel *ch, int vector)
{
	struct fv_cq *q;
	int e = fv_enter(FV_CREATE_CQ, fv_dev_of(c));

	if (e == 0 && (cqe < 1 || cqe > fv_dev_of(c)->conf.attr.max_cqe || vector != 0))
		e = EINVAL;
	if (e != 0)
		return (fv_refuse(e));
	q = fv_new(sizeof(*q));
	q->cq = (struct ibv_cq){ .context = c, .channel = ch, .cq_context = arg, .cqe = cqe };
	q->cap = (unsigned)cqe;
	q->e = fv_calloc(q->cap, sizeof(*q->e));
	if (ch != NULL)
		MKV_CONTAINER_OF(ch, struct fv_channel, ch)->users++;
	fv_leave();
	return (&q->cq);
}

static int
v_destroy_cq(struct ibv_cq *cq)
{
	struct fv_cq *q = MKV_CONTAINER_OF(cq, struct fv_cq, cq);

	pthread_mutex_lock(&fv_mutex);
	if (q->users != 0 || q->unacked != 0)
		FV_DIE("%u queue pairs and %u events without acknowledgement are left", q->users, q->unacked);
	if (cq->channel != NULL)
		MKV_CONTAINER_OF(cq->channel, struct fv_channel, ch)->users--;
	free(q->e);
	fv_old(q);
	fv_leave();
	return (0);
}

static int
v_get_cq_event(struct ibv_comp_channel *ch, struct ibv_cq **cq, void **arg)
{
	if (read(ch->fd, cq, sizeof(*cq)) != sizeof(*cq))
		return (-1);
	pthread_mutex_lock(&fv_mutex);
	MKV_CONTAINER_OF(*cq, struct fv_cq, cq)->unacked++;
	*arg = (*cq)->cq_context;
	fv_leave();
	return (0);
}

static void
v_ack_cq_events(struct ibv_cq *cq, unsigned n)
{
	struct fv_cq *q = MKV_CONTAINER_OF(cq, struct fv_cq, cq);

	pthread_mutex_lock(&fv_mutex);
	if (n > q->unacked)
		FV_DIE("more events acknowledged than there were");
	q->unacked -= n;
	fv_leave();
}

static void
fv_wake(struct fv_cq *q)
{
	struct ibv_cq *cq = &q->cq;

	if (!q->armed || cq->channel == NULL)
		return;
	q->armed = 0;
	if (write(MKV_CONTAINER_OF(cq->channel, struct fv_channel, ch)->w, &cq, sizeof(cq)) != sizeof(cq))
		FV_DIE("too many events");
}

void
fv_complete(struct ibv_cq *cq, const struct ibv_wc *wc, uint64_t frees)
{
	struct fv_cq *q = MKV_CONTAINER_OF(cq, struct fv_cq, cq);

	if (q->n == q->cap)
		FV_DIE("the completion queue of %u overruns", q->cap);
	q->e[q->n++] = (struct fv_cqe){ *wc, frees };
	fv.count.completions++;
	if (fv.wc_held)
		return;
	q->visible = q->n;
	fv_wake(q);
}

void
fv_cq_forget(struct ibv_cq *cq, uint32_t qpn)
{
	const struct fv_cq *q = MKV_CONTAINER_OF(cq, struct fv_cq, cq);

	for (unsigned i = 0; i < q->n; i++)
		if (q->e[i].wc.qp_num == qpn)
			FV_DIE("queue pair %u is reset before its completions were taken", (unsigned)qpn);
}

static int
v_req_notify_cq(struct ibv_cq *cq, int solicited)
{
	int e = fv_enter(FV_REQ_NOTIFY_CQ, fv_dev_of(cq->context));

	if (solicited)
		FV_DIE("solicited events are not used");
	MKV_CONTAINER_OF(cq, struct fv_cq, cq)->armed = 1;
	fv_leave();
	return (e);
}

static int
v_poll_cq(struct ibv_cq *cq, int n, struct ibv_wc *wc)
{
	struct fv_cq *q = MKV_CONTAINER_OF(cq, struct fv_cq, cq);
	int e = fv_enter(FV_POLL_CQ, NULL), k;

	for (k = 0; e == 0 && k < n && (unsigned)k < q->visible; k++) {
		wc[k] = q->e[k].wc;
		if (q->e[k].frees != 0)
			fv_told(wc[k].qp_num, q->e[k].frees);
	}
	memmove(q->e, q->e + k, (q->n - (unsigned)k) * sizeof(*q->e));
	q->n -= (unsigned)k;
	q->visible -= (unsigned)k;
	fv_leave();
	return (e != 0 ? -1 : k);
}

/* ---- shared receive queues ---- */

static struct ibv_srq *
v_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *a)
{
	struct fv_srq *s;
	int e = fv_enter(FV_CREATE_SRQ, fv_dev_of(pd->context));

	if (e == 0 && (a->attr.max_wr > (uint32_t)fv_dev_of(pd->context)->conf.attr.max_srq_wr || a->attr.max_sge != 1))
		e = EINVAL;
	if (e != 0)
		return (fv_refuse(e));
	s = fv_new(sizeof(*s));
	s->srq = (struct ibv_srq){ .context = pd->context, .pd = pd };
	s->cap = a->attr.max_wr;
	s->wr = fv_calloc(s->cap, sizeof(*s->wr));
	s->sge = fv_calloc(s->cap, sizeof(*s->sge));
	MKV_CONTAINER_OF(pd, struct fv_pd, pd)->users++;
	fv_leave();
	return (&s->srq);
}

static int
v_modify_srq(struct ibv_srq *srq, struct ibv_srq_attr *a, int mask)
{
	struct fv_srq *s = MKV_CONTAINER_OF(srq, struct fv_srq, srq);

	if (mask != IBV_SRQ_LIMIT || a->srq_limit >= s->cap)
		return (EINVAL);
	pthread_mutex_lock(&fv_mutex);
	s->limit = a->srq_limit;
	fv_leave();
	return (0);
}

static int
v_destroy_srq(struct ibv_srq *srq)
{
	struct fv_srq *s = MKV_CONTAINER_OF(srq, struct fv_srq, srq);

	pthread_mutex_lock(&fv_mutex);
	if (s->users != 0)
		FV_DIE("%u queue pairs are left", s->users);
	MKV_CONTAINER_OF(srq->pd, struct fv_pd, pd)->users--;
	free(s->wr);
	free(s->sge);
	fv_old(s);
	fv_leave();
	return (0);
}

static int
v_post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct fv_srq *s = MKV_CONTAINER_OF(srq, struct fv_srq, srq);
	int e = fv_enter(FV_POST_SRQ_RECV, fv_dev_of(srq->context));

	for (; e == 0 && wr != NULL; wr = wr->next) {
		if (s->n == s->cap)
			FV_DIE("more receives than the %u of its shared receive queue", s->cap);
		if (wr->num_sge != 1 || fv_mr_find(fv_ctx_of(srq->context), srq->pd, wr->sg_list->lkey, wr->sg_list->addr, wr->sg_list->length,
		    IBV_ACCESS_LOCAL_WRITE) == NULL)
			FV_DIE("a receive that is not in registered memory");
		s->wr[(s->head + s->n) % s->cap] = *wr;
		s->sge[(s->head + s->n) % s->cap] = *wr->sg_list;
		s->n++;
		fv.count.recvs_posted++;
	}
	if (e != 0)
		*bad = wr;
	else
		fv_run_all();
	fv_leave();
	return (e);
}

const struct mkv_verbs *
fv_verbs(void)
{
	static const struct mkv_verbs table = {
		.abi = MKV_VERBS_ABI,
		.get_device_list = v_get_device_list,
		.free_device_list = v_free_device_list,
		.get_device_name = v_get_device_name,
		.open_device = v_open_device,
		.close_device = v_close_device,
		.query_device = v_query_device,
		.query_port = v_query_port,
		.query_gid_table = v_query_gid_table,
		.odp_caps = v_odp_caps,
		.alloc_pd = v_alloc_pd,
		.dealloc_pd = v_dealloc_pd,
		.reg_mr = v_reg_mr,
		.reg_dmabuf_mr = v_reg_dmabuf_mr,
		.dereg_mr = v_dereg_mr,
		.create_comp_channel = v_create_comp_channel,
		.destroy_comp_channel = v_destroy_comp_channel,
		.create_cq = v_create_cq,
		.destroy_cq = v_destroy_cq,
		.get_cq_event = v_get_cq_event,
		.ack_cq_events = v_ack_cq_events,
		.req_notify_cq = v_req_notify_cq,
		.poll_cq = v_poll_cq,
		.create_srq = v_create_srq,
		.modify_srq = v_modify_srq,
		.destroy_srq = v_destroy_srq,
		.post_srq_recv = v_post_srq_recv,
		.create_qp = fv_create_qp,
		.modify_qp = fv_modify_qp,
		.query_qp = fv_query_qp,
		.destroy_qp = fv_destroy_qp,
		.post_send = fv_post_send,
		.create_ah = fv_create_ah,
		.destroy_ah = fv_destroy_ah,
		.get_async_event = v_get_async_event,
		.ack_async_event = v_ack_async_event,
		.dc_supported = fv_dc_supported,
		.dc_create_initiator = fv_dc_create_initiator,
		.dc_create_target = fv_dc_create_target,
		.dc_post = fv_dc_post,
	};

	return (&table);
}

void
fv_hold_completions(int on)
{
	pthread_mutex_lock(&fv_mutex);
	fv.wc_held = on;
	for (unsigned i = 0; !on && i < fv.n; i++)
		MKV_LIST_FOREACH(ci, &fv.dev[i].ctxs)
			MKV_LIST_FOREACH(qi, &MKV_CONTAINER_OF(ci, struct fv_ctx, link)->qps) {
				struct fv_cq *q = MKV_CONTAINER_OF(MKV_CONTAINER_OF(qi, struct fv_qp, link)->qp.send_cq, struct fv_cq, cq);

				q->visible = q->n;
				if (q->n > 0)
					fv_wake(q);
			}
	fv_leave();
}
