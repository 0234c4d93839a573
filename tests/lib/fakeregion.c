/*
 * The fake server and clients' memory on its unix socket: REGION, and requests whose payload lies there. See fakeserver.h.
 *
 * A connection's thread; fakeregion_scribble() and fakeregion_late() the test's. Owns descriptors and mappings of a connection's regions, under `tables`.
 */
#include "config.h"
#include "tests/lib/fakeserver.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "tests/lib/fakeserver_priv.h"

#define LATE_MAX	64u

static pthread_mutex_t tables = PTHREAD_MUTEX_INITIALIZER;
static struct late {				/* as a drive has it whose front has ended: under `tables` */
	uint8_t		*base, *at;		/* base: of the mapping; NULL: another one's */
	uint64_t	bytes, at_bytes;
} late[LATE_MAX];
static unsigned n_late;

ssize_t
fakeregion_recv(struct fconn *c, void *to, size_t bytes)
{
	_Alignas(struct cmsghdr) char ctl[CMSG_SPACE(sizeof(int))];
	struct iovec v = { .iov_base = to, .iov_len = bytes };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof(ctl) };
	ssize_t n = recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *k = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	int fd;

	if (k != NULL && k->cmsg_level == SOL_SOCKET && k->cmsg_type == SCM_RIGHTS) {
		MKV_ASSERT(!c->has_passed);
		memcpy(&fd, CMSG_DATA(k), sizeof(fd));
		c->passed = fd;
		c->has_passed = 1;
	}
	return (n);
}

/* Under `tables`. */
static struct fakeregion *
region_find(struct fconn *c, uint32_t number)
{
	for (unsigned i = 0; i < FAKE_REGIONS_MAX; i++)
		if (c->region[i].number == number)
			return (&c->region[i]);
	return (NULL);
}

static void
region_end(struct fakeregion *r)
{
	(void)munmap(r->base, r->bytes);
	memset(r, 0, sizeof(*r));
}

static int
region_show(struct fconn *c, const struct mkv_wire_region *w)
{
	struct fakeregion *r = region_find(c, 0);
	struct mkv_os_shm shm;
	void *p;
	int e;

	if ((e = mkv_os_shm_check(c->passed, &shm)) != 0 || shm.bytes != w->bytes)
		return (MKV_E_INVAL);
	p = mmap(NULL, w->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c->passed, 0);
	MKV_ASSERT(r != NULL && p != MAP_FAILED);
	*r = (struct fakeregion){ .number = w->number, .bytes = w->bytes, .base = p };
	c->f->regions_shown++;
	c->f->stable_shown += (w->flags & MKV_WIRE_REGION_STABLE) != 0;
	return (0);
}

int
fakeregion_serve(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	struct mkv_hdr h = *q;
	struct mkv_wire_region w;
	struct fakeregion *r;
	int status = c->f->region_status, drop;

	memcpy(&w, body, sizeof(w));
	drop = (w.flags & MKV_WIRE_REGION_DROP) != 0;
	(void)pthread_mutex_lock(&tables);
	r = region_find(c, w.number);
	if (!c->f->regions || w.number == 0 || (r != NULL) != drop || c->has_passed == drop)
		status = 1;				/* no client does that: end the connection */
	else if (drop) {
		region_end(r);
		c->f->regions_dropped++;
		status = 0;
	} else if (status == 0)
		status = region_show(c, &w);
	(void)pthread_mutex_unlock(&tables);
	if (c->has_passed)
		(void)close(c->passed);
	c->has_passed = 0;
	if (status > 0)
		return (-1);
	if (c->f->region_mute)
		return (0);
	h.flags = MKV_WIRE_F_REPLY;
	h.body_bytes = 0;
	h.status = (uint16_t)-status;
	return (fake_reply(c, &h, NULL, NULL));
}

/* bytes at off of what the segments name; under `tables`. NULL: not there. */
static uint8_t *
seg_place(struct fconn *c, const struct mkv_wire_seg *seg)
{
	const struct fakeregion *r = region_find(c, seg->rkey);

	if (seg->rkey == 0 || r == NULL || seg->addr > r->bytes || seg->bytes > r->bytes - seg->addr)
		return (NULL);
	return (r->base + seg->addr);
}

static int
put_gather(struct fconn *c, const struct mkv_hdr *q, const struct mkv_wire_seg *seg, unsigned n)
{
	uint64_t at = 0;
	uint8_t *p;

	for (unsigned i = 0; i < n; i++) {
		if (seg[i].bytes > q->payload_bytes - at || (p = seg_place(c, &seg[i])) == NULL)
			return (-1);
		memcpy(c->payload + at, p, seg[i].bytes);
		at += seg[i].bytes;
	}
	c->f->remote_puts[seg[0].rkey == 1 ? 0 : 1]++;
	return (at == q->payload_bytes ? 0 : -1);
}

static unsigned
put_segs(const struct mkv_hdr *q, const uint8_t *body, uint32_t *at)
{
	const struct mkv_wire_put *w = (const struct mkv_wire_put *)(const void *)body;

	*at = (uint32_t)(MKV_ALIGN_UP(sizeof(*w) + w->ns_bytes + w->key_bytes + w->parent_bytes, 8) + MKV_ALIGN_UP(w->n_crcs * 4, 8));
	return ((q->body_bytes - *at) / (unsigned)sizeof(struct mkv_wire_seg));
}

/* Its segments are exactly what it may bring, into the window as one. */
static int
get_note(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	const struct mkv_wire_get *w = (const struct mkv_wire_get *)(const void *)body;
	uint32_t at = (uint32_t)MKV_ALIGN_UP(sizeof(*w) + w->ns_bytes + w->key_bytes, 8), have = q->body_bytes - at;
	unsigned i = c->f->remote_gets++ % FAKE_SEGS_MAX;
	uint64_t sum = 0;

	if (have == 0 || have % sizeof(c->get_seg[0]) != 0 || have > sizeof(c->get_seg))
		return (-1);
	memcpy(c->get_seg, body + at, have);
	c->n_get_seg = have / (unsigned)sizeof(c->get_seg[0]);
	c->get_off = w->off;
	c->f->seg_at[i] = c->get_seg[0].addr;
	c->f->seg_end[i] = c->get_seg[0].addr + c->get_seg[0].bytes;
	for (unsigned k = 0; k < c->n_get_seg; k++) {
		if (seg_place(c, &c->get_seg[k]) == NULL || (c->get_seg[k].rkey == 1 && c->n_get_seg > 1))
			return (-1);
		sum += c->get_seg[k].bytes;
	}
	c->f->into_gets += c->get_seg[0].rkey != 1;
	return (sum == w->len ? 0 : -1);
}

/* Under `tables`: payload to byte `at` of the segments. */
static void
get_scatter(struct fconn *c, uint64_t at, const uint8_t *p, uint64_t bytes)
{
	for (unsigned k = 0; bytes > 0 && k < c->n_get_seg; k++) {
		struct mkv_wire_seg part = c->get_seg[k];
		uint8_t *to;

		if (at >= part.bytes) {
			at -= part.bytes;
			continue;
		}
		part.addr += at;
		part.bytes = (uint32_t)MKV_MIN(part.bytes - at, bytes);
		to = seg_place(c, &part);
		memcpy(to, p, part.bytes);
		p += part.bytes;
		bytes -= part.bytes;
		at = 0;
	}
}

int
fakeregion_frame(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	uint32_t at;
	unsigned n;
	int r = -1;

	if (c->f->remote_us > 0)
		(void)usleep(c->f->remote_us);
	(void)pthread_mutex_lock(&tables);
	if (q->op == MKV_WIRE_PUT && (n = put_segs(q, body, &at)) > 0 && n <= MKV_WIRE_SEGS_MAX)
		r = put_gather(c, q, (const struct mkv_wire_seg *)(const void *)(body + at), n);
	if (q->op == MKV_WIRE_GET)
		r = get_note(c, q, body);
	(void)pthread_mutex_unlock(&tables);
	if (r == 0)
		r = fake_serve(c, q, body);
	c->n_get_seg = 0;
	return (r);
}

/* Under `tables`. The connection has ended, and its drive is at work. */
static void
get_goes_on(struct fconn *c)
{
	for (unsigned k = 0; k < c->n_get_seg; k++) {
		uint8_t *at = seg_place(c, &c->get_seg[k]);

		MKV_ASSERT(n_late < LATE_MAX);
		if (at != NULL && c->get_seg[k].rkey != 1)
			late[n_late++] = (struct late){ .at = at, .at_bytes = c->get_seg[k].bytes };
	}
	c->f->late_gets++;
}

int
fakeregion_place(struct fconn *c, struct mkv_hdr *h, const void *body, const uint8_t *payload)
{
	const struct mkv_wire_object *w = body;
	int left;

	if (h->op != MKV_WIRE_GET || h->payload_bytes == 0)
		return (0);
	if (c->n_get_seg == 0) {
		h->flags |= c->local && c->f->regions == 3 ? MKV_WIRE_F_REMOTE : 0;
		return (0);
	}
	if (c->f->regions == 2)
		return (0);
	h->flags |= MKV_WIRE_F_REMOTE;
	(void)pthread_mutex_lock(&tables);
	left = c->left;
	for (unsigned k = 0; k < c->n_get_seg; k++)
		left |= seg_place(c, &c->get_seg[k]) == NULL;		/* dropped meanwhile: no client does that */
	if (c->left && c->f->regions_stable)
		get_goes_on(c);
	if (!left)
		get_scatter(c, w->off - c->get_off, payload, h->payload_bytes);
	(void)pthread_mutex_unlock(&tables);
	return (left ? -1 : 0);
}

void
fakeregion_scribble(struct fake *f)
{
	(void)pthread_mutex_lock(&f->p->lock);
	(void)pthread_mutex_lock(&tables);
	for (unsigned i = 0; i < CONNS_MAX; i++)
		for (unsigned k = 0; f->p->conn[i] != NULL && k < FAKE_REGIONS_MAX; k++)
			if (f->p->conn[i]->region[k].number == 1)
				memset(f->p->conn[i]->region[k].base, 0xee, f->p->conn[i]->region[k].bytes);
	(void)pthread_mutex_unlock(&tables);
	(void)pthread_mutex_unlock(&f->p->lock);
}

void
fakeregion_late(void)
{
	(void)pthread_mutex_lock(&tables);
	for (unsigned i = 0; i < n_late; i++)
		if (late[i].at != NULL)
			memset(late[i].at, 0xee, late[i].at_bytes);
	for (unsigned i = 0; i < n_late; i++)
		if (late[i].base != NULL)
			(void)munmap(late[i].base, late[i].bytes);
	n_late = 0;
	(void)pthread_mutex_unlock(&tables);
}

/* Under `tables`. */
static void
region_outlives(struct fakeregion *r)
{
	MKV_ASSERT(n_late < LATE_MAX);
	late[n_late++] = (struct late){ .base = r->base, .bytes = r->bytes };
	memset(r, 0, sizeof(*r));
}

void
fakeregion_leave(struct fconn *c)
{
	(void)pthread_mutex_lock(&tables);
	c->left = 1;
	(void)pthread_mutex_unlock(&tables);
}

void
fakeregion_clean(struct fconn *c)
{
	(void)pthread_mutex_lock(&tables);
	for (unsigned i = 0; i < FAKE_REGIONS_MAX; i++)
		if (c->region[i].number > 1 && c->f->regions_stable)
			region_outlives(&c->region[i]);
		else if (c->region[i].number != 0)
			region_end(&c->region[i]);
	(void)pthread_mutex_unlock(&tables);
	if (c->has_passed)
		(void)close(c->passed);
	c->has_passed = 0;
}
