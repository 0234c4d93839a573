/*
 * A worker's end of its control socket.
 *
 * Process and thread: front, drive; the loop thread.
 * Owns: the socket; messages that wait for room in it, with a duplicate of the descriptor that goes with one.
 * Invariants: messages leave in the order of mkv_ctl_send(); a message that carries key material is wiped, packed and unpacked.
 * Fails: the supervisor is trusted to be ours, its bytes are not trusted to be whole: what does not parse, is not allowed now or has the wrong
 * number of descriptors ends the conversation.
 */
#include "config.h"
#include "worker/core/ctl.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/err.h"
#include "common/base/list.h"
#include "common/base/os.h"

#define CTL_MAGIC	0xc711e05bu

struct ctl_out {
	struct mkv_list	link;
	int		fd;			/* goes with it; -1: none */
	size_t		bytes;
	uint8_t		data[];
};

struct mkv_ctl {
	uint32_t	magic;
	int		fd;
	struct mkv_list	queue;			/* struct ctl_out */
	unsigned	queued;
	uint8_t		in[MKV_CTL_BYTES_MAX];
};

enum { FRONT = 1, DRIVE = 2, BOTH = FRONT | DRIVE };
enum { LATER = MKV_CTL_SETUP | MKV_CTL_SERVE, EVER = LATER | MKV_CTL_STOPPING, ALWAYS = EVER | MKV_CTL_NEW };

/* Number, name, who may get it, when, descriptors for a front, for a drive. What is not here may not be said to a worker. */
static const struct {
	int		body;
	const char	*name;
	int		who, when;
	unsigned	front_fds, drive_fds;
} ctl_table[] = {
#define ROW(CASE, name, who, when, ffds, dfds)	{ MKV__CTL__CONTROL__BODY_##CASE, name, who, when, ffds, dfds }
	ROW(CONFIGURE,		"configure",	BOTH,	MKV_CTL_NEW | EVER,	0, 0),
	ROW(KEY,		"key",		FRONT,	EVER,			0, 0),
	ROW(METRICS,		"metrics",	BOTH,	MKV_CTL_SETUP,		1, 1),
	ROW(STAGE,		"stage",	BOTH,	EVER,			1, 1),
	ROW(ARENA,		"arena",	BOTH,	EVER,			1, 2),
	ROW(BELL,		"bell",		BOTH,	EVER,			2, 2),
	ROW(RING,		"ring",		BOTH,	EVER,			2, 2),
	ROW(PEER_DIED,		"peer_died",	BOTH,	EVER,			0, 0),
	ROW(PEER_DRAINED,	"peer_drained",	BOTH,	EVER,			0, 0),
	ROW(LISTENER,		"listener",	FRONT,	LATER,			1, 0),
	ROW(DOOR,		"door",		FRONT,	EVER,			1, 0),
	ROW(DOOR,		"door",		FRONT,	EVER,			0, 0),
	ROW(POOL_MAP,		"pool_map",	BOTH,	EVER,			0, 0),
	ROW(AWAY_ASK,		"away_ask",	DRIVE,	EVER,			0, 0),
	ROW(FORGET,		"forget",	DRIVE,	EVER,			0, 0),
	ROW(PURGE,		"purge",	DRIVE,	EVER,			0, 0),
	ROW(SPACES_ASK,		"spaces_ask",	DRIVE,	EVER,			0, 0),
	ROW(REGION,		"region",	DRIVE,	EVER,			0, 1),
	ROW(REGION,		"region",	DRIVE,	EVER,			0, 0),
	ROW(REGION_DONE,	"region_done",	FRONT,	EVER,			0, 0),
	ROW(START,		"start",	BOTH,	MKV_CTL_SETUP,		0, 0),
	ROW(PING,		"ping",		BOTH,	ALWAYS,			0, 0),
	ROW(STOP,		"stop",		BOTH,	ALWAYS,			0, 0),
#undef ROW
};

int
mkv_ctl_allowed(int body, enum mkv_ctl_phase phase, int is_drive, unsigned n_fds)
{
	for (size_t i = 0; i < MKV_ARRAY_LEN(ctl_table); i++)
		if (ctl_table[i].body == body && (ctl_table[i].who & (is_drive ? DRIVE : FRONT)) != 0 &&
		    (ctl_table[i].when & (int)phase) != 0 && n_fds == (is_drive ? ctl_table[i].drive_fds : ctl_table[i].front_fds))
			return (1);
	return (0);
}

const char *
mkv_ctl_name(int body)
{
	for (size_t i = 0; i < MKV_ARRAY_LEN(ctl_table); i++)
		if (ctl_table[i].body == body)
			return (ctl_table[i].name);
	return ("unknown");
}

static void
ctl_out_free(struct ctl_out *o)
{
	if (o->fd != -1)
		(void)close(o->fd);
	free(o);
}

int
mkv_ctl_open(struct mkv_ctl **out, int fd)
{
	struct mkv_ctl *c = calloc(1, sizeof(*c));

	*out = NULL;
	if (c == NULL) {
		(void)close(fd);
		return (MKV_E_NOMEM);
	}
	c->magic = CTL_MAGIC;
	c->fd = fd;
	mkv_list_init(&c->queue);
	*out = c;
	return (0);
}

void
mkv_ctl_close(struct mkv_ctl **cp)
{
	struct mkv_ctl *c;
	struct mkv_list *n;

	if (*cp == NULL)
		return;
	TAKE(c, *cp);
	MKV_CHECK_OBJ(c, CTL_MAGIC);
	while ((n = mkv_list_pop(&c->queue)) != NULL)
		ctl_out_free(MKV_CONTAINER_OF(n, struct ctl_out, link));
	(void)close(c->fd);
	mkv_wipe(c, sizeof(*c));
	free(c);
}

int
mkv_ctl_fd(const struct mkv_ctl *c)
{
	return (c->fd);
}

int
mkv_ctl_send_fd(struct mkv_ctl *c, const Mkv__Ctl__Control *m, int fd)
{
	size_t bytes = mkv__ctl__control__get_packed_size(m);
	struct ctl_out *o;
	int r;

	MKV_CHECK_OBJ(c, CTL_MAGIC);
	MKV_ASSERT(bytes > 0 && bytes <= MKV_CTL_BYTES_MAX);
	if (c->queued == MKV_CTL_QUEUE_MAX)
		return (MKV_E_BUSY);
	if ((o = malloc(sizeof(*o) + bytes)) == NULL)
		return (MKV_E_NOMEM);
	if ((o->fd = fd) != -1 && (o->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) == -1) {
		free(o);
		return (MKV_E_NOMEM);
	}
	o->bytes = mkv__ctl__control__pack(m, o->data);
	mkv_list_push_tail(&c->queue, &o->link);
	c->queued++;
	r = mkv_ctl_flush(c);
	return (r == MKV_E_AGAIN ? 0 : r);
}

int
mkv_ctl_send(struct mkv_ctl *c, const Mkv__Ctl__Control *m)
{
	return (mkv_ctl_send_fd(c, m, -1));
}

int
mkv_ctl_flush(struct mkv_ctl *c)
{
	struct ctl_out *o;
	int r;

	while (!mkv_list_empty(&c->queue)) {
		o = MKV_CONTAINER_OF(c->queue.next, struct ctl_out, link);
		if ((r = mkv_os_ctl_send(c->fd, o->data, o->bytes, &o->fd, o->fd != -1 ? 1 : 0)) != 0)
			return (r == MKV_E_AGAIN ? r : MKV_E_CLOSED);
		mkv_list_remove(&o->link);
		c->queued--;
		ctl_out_free(o);
	}
	return (0);
}

int
mkv_ctl_recv(struct mkv_ctl *c, Mkv__Ctl__Control **m, int *fds, unsigned *n_fds)
{
	ssize_t n;

	MKV_CHECK_OBJ(c, CTL_MAGIC);
	*m = NULL;
	*n_fds = MKV_CTL_FDS_MAX;
	n = mkv_os_ctl_recv(c->fd, c->in, sizeof(c->in), fds, n_fds);
	if (n <= 0)
		return (n == MKV_E_AGAIN || n == MKV_E_PROTO ? (int)n : 0);	/* a broken socket is an end, too */
	*m = mkv__ctl__control__unpack(NULL, (size_t)n, c->in);
	mkv_wipe(c->in, (size_t)n);
	if (*m != NULL)
		return (1);
	while (*n_fds > 0)
		(void)close(fds[--*n_fds]);
	return (MKV_E_PROTO);
}

void
mkv_ctl_free(Mkv__Ctl__Control **mp)
{
	Mkv__Ctl__Control *m = *mp;

	*mp = NULL;
	if (m == NULL)
		return;
	if (m->body_case == MKV__CTL__CONTROL__BODY_CONFIGURE && m->configure->store_secret.len > 0)
		mkv_wipe(m->configure->store_secret.data, m->configure->store_secret.len);
	if (m->body_case == MKV__CTL__CONTROL__BODY_KEY && m->key->front_key.len > 0)
		mkv_wipe(m->key->front_key.data, m->key->front_key.len);
	mkv__ctl__control__free_unpacked(m, NULL);
}
