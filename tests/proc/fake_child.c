/*
 * A child that speaks the control protocol and does nothing else, for tests of the supervisor. It stands in the place of memkv-front and memkv-drive.
 *
 * What it does beyond that is read at each start from the file "<own path>.behave.<name>", words in one line:
 *	die_before_hello die_before_ready die_on_start fail_final fail_epoch hang nolock bad_message send_fd no_stop flood say_fds wrong_version
 *	drain_after=MS (a drive: DRAINED so late) die_before_drained (a drive: instead of DRAINED)
 *	ready_after=MS (READY so late, silent before) hang_in_start (silent for ever after DRAINED)
 *	linger=MS (stays so long after the end of the supervisor, with its listening socket)
 *	no_front_drained (a drive: never answers PEER_DIED of a front)
 *	absent (a front of an RDMA device: the device is not there) no_rail other_rail (its READY describes none, another one's)
 *	rail_down (READY, then STATE: its port is down)
 *	region=N (a front: N REGIONs to drive 0 after READY), with the memory, or with: region_no_fd, region_plain (a file), region_stale (of a ring that is over),
 *	region_nobody (to a drive that is none)
 *	region_silent (a drive: answers none of them) region_unasked (a drive: answers one that there was not)
 *	accuse (calls each ring that it gets damaged) accuse_stale (one of an epoch that is over) accuse_nobody (of a neighbour that is none)
 * Each message that it gets is told on stderr: level=info event=note got=ring peer=1 index=0 epoch=3.
 */
#include "config.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fcntl.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"
#include "proto/control.pb-c.h"

#define CTL	3

static char behave[512], name[64];
static int is_drive;
static uint32_t own_epoch, own_rail, drive_epoch;	/* drive_epoch: a front's, of its ring with drive 0 */

static int
does(const char *word)
{
	const char *p = strstr(behave, word);

	return (p != NULL && (p == behave || p[-1] == ' '));
}

static int
does_number(const char *word)
{
	const char *p = strstr(behave, word);

	return (p != NULL ? atoi(p + strlen(word)) : 0);
}

static void
send_body(int body_case, void *body, const int *fds, unsigned n_fds)
{
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;
	uint8_t buf[4096];
	size_t n;

	m.body_case = (Mkv__Ctl__Control__BodyCase)body_case;
	m.hello = body;				/* all members of the union are pointers */
	n = mkv__ctl__control__pack(&m, buf);
	(void)mkv_os_ctl_send(CTL, buf, n, fds, n_fds);	/* the supervisor's end is seen by the next one(), and may have to be outlived */
}

static void
send_hello(void)
{
	Mkv__Ctl__Hello h = MKV__CTL__HELLO__INIT;
	char version[] = PACKAGE_VERSION, wrong[] = "0.0.0";

	h.kind = is_drive ? MKV__CTL__KIND__KIND_DRIVE : MKV__CTL__KIND__KIND_NONE;
	h.pid = (int32_t)getpid();
	h.version = does("wrong_version") ? wrong : version;
	send_body(MKV__CTL__CONTROL__BODY_HELLO, &h, NULL, 0);
}

static void
send_drained(int own, uint32_t front, uint32_t epoch)
{
	Mkv__Ctl__Drained d = MKV__CTL__DRAINED__INIT;

	d.own = own;
	d.front = front;
	d.epoch = epoch;
	send_body(MKV__CTL__CONTROL__BODY_DRAINED, &d, NULL, 0);
}

static void
describe_rail(Mkv__Ctl__Rail *r, int up)
{
	static uint8_t gid[16] = "fake gid", address[16] = "fake address";

	mkv__ctl__rail__init(r);
	r->rail = own_rail + (uint32_t)does("other_rail");
	r->up = up;
	r->transports = 2;
	r->without_dc = (char *)(uintptr_t)"it is a fake\n";
	r->speed_mbit = 100000;
	r->mtu = 4096;
	r->gid = (ProtobufCBinaryData){ .len = sizeof(gid), .data = gid };
	r->address = (ProtobufCBinaryData){ .len = sizeof(address), .data = address };
}

static void
send_rail_down(void)
{
	Mkv__Ctl__State s = MKV__CTL__STATE__INIT;
	Mkv__Ctl__Rail rail;
	char detail[] = "the port is down";

	describe_rail(&rail, 0);
	s.rail = &rail;
	s.detail = detail;
	send_body(MKV__CTL__CONTROL__BODY_STATE, &s, NULL, 0);
}

static void
send_ready(void)
{
	Mkv__Ctl__Ready r = MKV__CTL__READY__INIT;
	Mkv__Ctl__Rail rail;
	uint8_t uuid[16] = "fake drive uuid";
	char io[] = "fake", *missing[] = { (char[]){ "everything" } };

	uuid[15] = (uint8_t)name[strlen(name) - 1];
	r.io = io;
	r.jail_missing = missing;
	r.n_jail_missing = 1;
	if (is_drive) {
		r.drive_uuid = (ProtobufCBinaryData){ .len = sizeof(uuid), .data = uuid };
		r.total_bytes = 1 << 30;
		r.used_bytes = 4096;
	}
	if (own_rail != 0 && !does("no_rail")) {
		describe_rail(&rail, 1);
		r.rail = &rail;
	}
	send_body(MKV__CTL__CONTROL__BODY_READY, &r, NULL, 0);
}

static void
send_ring_bad(Mkv__Ctl__PeerKind peer, uint32_t idx, uint32_t epoch)
{
	Mkv__Ctl__RingBad b = MKV__CTL__RING_BAD__INIT;
	char what[] = "fake";

	b.peer = peer;
	b.index = idx;
	b.epoch = epoch;
	b.what = what;
	send_body(MKV__CTL__CONTROL__BODY_RING_BAD, &b, NULL, 0);
}

static void
send_region(uint32_t number)
{
	Mkv__Ctl__Region r = MKV__CTL__REGION__INIT;
	int fd = mkv_os_shm_create("fake", 65536, 0);

	MKV_ASSERT(fd >= 0 && mkv_os_shm_fill(fd, 65536) == 0);
	r.drive = does("region_nobody") ? 99 : 0;
	r.epoch = drive_epoch - (uint32_t)does("region_stale");
	r.region = number;
	r.bytes = 65536;
	send_body(MKV__CTL__CONTROL__BODY_REGION, &r, does("region_plain") ? (int[]){ 2 } : &fd, !does("region_no_fd"));
	close(fd);
}

static void
on_region(const Mkv__Ctl__Region *r, unsigned n_fds)
{
	Mkv__Ctl__RegionDone d = MKV__CTL__REGION_DONE__INIT;

	mkv_log(MKV_EV_NOTE, "got=region front=%u epoch=%u region=%u bytes=%u fds=%u", r->front, r->epoch, r->region, (unsigned)r->bytes, n_fds);
	if (does("region_silent"))
		return;
	d.front = r->front;
	d.epoch = r->epoch;
	d.region = r->region;
	d.status = MKV_E_NOMEM;
	send_body(MKV__CTL__CONTROL__BODY_REGION_DONE, &d, NULL, 0);
}

static void
on_ring(const Mkv__Ctl__Ring *r)
{
	if (!is_drive && r->index == 0)
		drive_epoch = r->epoch;
	if (does("accuse_stale"))
		send_ring_bad(r->peer, r->index, r->epoch - 1);
	else if (does("accuse_nobody"))
		send_ring_bad(MKV__CTL__PEER_KIND__PEER_FRONT, 99, r->epoch);
	else if (does("accuse"))
		send_ring_bad(r->peer, r->index, r->epoch);
}

static void
send_fail(int final, uint32_t epoch)
{
	Mkv__Ctl__Fail f = MKV__CTL__FAIL__INIT;
	char why[] = "the fake does not want to";

	f.why = why;
	f.final = final;
	f.epoch_seen = epoch;
	f.absent = does("absent");
	send_body(MKV__CTL__CONTROL__BODY_FAIL, &f, NULL, 0);
	_exit(1);
}

static void
say_fds(void)
{
	char line[256] = "";
	size_t n = 0;
	int env = 0;

	for (char **e = environ; *e != NULL; e++)
		env += strstr(*e, "SAN_OPTIONS=") == NULL;
	for (int fd = 0; fd < 64 && n < sizeof(line) - 8; fd++)
		if (fcntl(fd, F_GETFD) != -1)
			n += (size_t)snprintf(line + n, sizeof(line) - n, "%d,", fd);
	mkv_log(MKV_EV_NOTE, "fds=%s env=%d", line, env);
}

static void
started(void)
{
	if (does("die_on_start"))
		abort();
	if (does("fail_final"))
		send_fail(1, 0);
	if (does("absent"))
		send_fail(0, 0);
	if (does("fail_epoch") && own_epoch < 1000)
		send_fail(0, 1000);
	if (does("bad_message"))
		send_hello();
	if (does("send_fd"))
		send_body(MKV__CTL__CONTROL__BODY_PONG, &(Mkv__Ctl__Pong)MKV__CTL__PONG__INIT, (int[]){ 2 }, 1);
	if (does("nolock"))
		return;
	if (is_drive) {
		usleep((useconds_t)does_number("drain_after=") * 1000);
		if (does("die_before_drained"))
			_exit(8);
		send_drained(1, 0, 0);
	}
	if (does("hang_in_start"))
		pause();
	usleep((useconds_t)does_number("ready_after=") * 1000);
	if (does("die_before_ready"))
		_exit(7);
	send_ready();
	for (int i = 0; i < does_number("region="); i++)
		send_region((uint32_t)i + 1);
	if (does("region_unasked"))
		send_body(MKV__CTL__CONTROL__BODY_REGION_DONE, &(Mkv__Ctl__RegionDone)MKV__CTL__REGION_DONE__INIT, NULL, 0);
	if (does("rail_down"))
		send_rail_down();
	for (int i = 0; does("flood") && i < 20000; i++) {
		mkv_log(MKV_EV_NOTE, "flood=%d", i);
		if (i % 500 == 499)
			usleep(10000);			/* a full pipe loses lines: whoever reads it must have had its turn */
	}
}

static void
on_stop(void)
{
	if (does("no_stop"))
		return;
	send_body(MKV__CTL__CONTROL__BODY_STOPPED, &(Mkv__Ctl__Stopped)MKV__CTL__STOPPED__INIT, NULL, 0);
	_exit(0);
}

static void
on_message(const Mkv__Ctl__Control *m, unsigned n_fds)
{
	switch (m->body_case) {
	case MKV__CTL__CONTROL__BODY_CONFIGURE:
		own_epoch = m->configure->epoch;
		own_rail = m->configure->rail;
		mkv_log(MKV_EV_NOTE, "got=configure name=%s epoch=%u params=%zu media=%s uuid=%zu level=%s local=%s", m->configure->name, own_epoch,
		    m->configure->n_params, m->configure->media, m->configure->drive_uuid.len, "-", m->configure->local_path);
		break;
	case MKV__CTL__CONTROL__BODY_KEY:
		mkv_log(MKV_EV_NOTE, "got=key id=%u dev=%d revoked=%d", m->key->key_id, m->key->dev, m->key->revoked);
		break;
	case MKV__CTL__CONTROL__BODY_RING:
		mkv_log(MKV_EV_NOTE, "got=ring peer=%d index=%u epoch=%u fds=%u", m->ring->peer, m->ring->index, m->ring->epoch, n_fds);
		on_ring(m->ring);
		break;
	case MKV__CTL__CONTROL__BODY_PEER_DIED:
		mkv_log(MKV_EV_NOTE, "got=peer_died peer=%d index=%u epoch=%u restarting=%d", m->peer_died->peer, m->peer_died->index,
		    m->peer_died->epoch, m->peer_died->restarting);
		if (is_drive && m->peer_died->peer == MKV__CTL__PEER_KIND__PEER_FRONT && !does("no_front_drained"))
			send_drained(0, m->peer_died->index, m->peer_died->epoch);
		break;
	case MKV__CTL__CONTROL__BODY_PEER_DRAINED:
		mkv_log(MKV_EV_NOTE, "got=peer_drained peer=%d index=%u epoch=%u", m->peer_drained->peer, m->peer_drained->index,
		    m->peer_drained->epoch);
		break;
	case MKV__CTL__CONTROL__BODY_POOL_MAP:
		mkv_log(MKV_EV_NOTE, "got=pool_map version=%u drives=%zu state0=%d", (unsigned)m->pool_map->version, m->pool_map->n_drives,
		    m->pool_map->drives[0]->state);
		if (is_drive)
			send_body(MKV__CTL__CONTROL__BODY_MAP_STORED, &(Mkv__Ctl__MapStored){ .base = PROTOBUF_C_MESSAGE_INIT(&mkv__ctl__map_stored__descriptor),
			    .version = m->pool_map->version }, NULL, 0);
		break;
	case MKV__CTL__CONTROL__BODY_AWAY_ASK:
		send_body(MKV__CTL__CONTROL__BODY_AWAY_LOG, &(Mkv__Ctl__AwayLog){ .base = PROTOBUF_C_MESSAGE_INIT(&mkv__ctl__away_log__descriptor),
		    .since = m->away_ask->since, .whole = 1, .last = 1 }, NULL, 0);
		break;
	case MKV__CTL__CONTROL__BODY_REGION:
		on_region(m->region, n_fds);
		break;
	case MKV__CTL__CONTROL__BODY_REGION_DONE:
		mkv_log(MKV_EV_NOTE, "got=region_done drive=%u epoch=%u region=%u status=%d", m->region_done->drive, m->region_done->epoch, m->region_done->region,
		    m->region_done->status);
		break;
	case MKV__CTL__CONTROL__BODY_LISTENER:
		mkv_log(MKV_EV_NOTE, "got=listener fds=%u", n_fds);
		break;
	case MKV__CTL__CONTROL__BODY_DOOR:
		mkv_log(MKV_EV_NOTE, "got=door rail=%u up=%d device=%s transports=%u mtu=%u fds=%u", m->door->rail->rail, m->door->rail->up,
		    m->door->rail->device, m->door->rail->transports, m->door->rail->mtu, n_fds);
		break;
	case MKV__CTL__CONTROL__BODY_START:
		started();
		break;
	case MKV__CTL__CONTROL__BODY_PING:
		if (!does("hang"))
			send_body(MKV__CTL__CONTROL__BODY_PONG, &(Mkv__Ctl__Pong){ .base = PROTOBUF_C_MESSAGE_INIT(&mkv__ctl__pong__descriptor),
			    .nonce = m->ping->nonce }, NULL, 0);
		break;
	case MKV__CTL__CONTROL__BODY_STOP:
		on_stop();
		break;
	default:
		mkv_log(MKV_EV_NOTE, "got=%d fds=%u", (int)m->body_case, n_fds);
		break;
	}
}

/* 0 at the end of the socket. */
static int
one(void)
{
	static uint8_t buf[65536];
	struct pollfd p = { .fd = CTL, .events = POLLIN };
	Mkv__Ctl__Control *m;
	unsigned n_fds = 4;
	int fds[4];
	ssize_t n;

	(void)poll(&p, 1, -1);
	n = mkv_os_ctl_recv(CTL, buf, sizeof(buf), fds, &n_fds);
	if (n == MKV_E_AGAIN)
		return (1);
	if (n <= 0 || (m = mkv__ctl__control__unpack(NULL, (size_t)n, buf)) == NULL)
		return (0);
	on_message(m, n_fds);
	for (unsigned i = 0; i < n_fds; i++)
		if (m->body_case != MKV__CTL__CONTROL__BODY_LISTENER || !does("linger="))
			close(fds[i]);
	mkv__ctl__control__free_unpacked(m, NULL);
	return (1);
}

int
main(int argc, char *argv[])
{
	char path[1024];
	FILE *f;

	signal(SIGPIPE, SIG_IGN);			/* what is told after the supervisor's end must not end us, as it does not end a worker */
	snprintf(name, sizeof(name), "%s", argc > 1 ? argv[1] : "?");
	snprintf(path, sizeof(path), "%s.behave.%s", argv[0], name);
	is_drive = strncmp(name, "drive", 5) == 0;
	if ((f = fopen(path, "re")) != NULL) {
		if (fgets(behave, sizeof(behave), f) == NULL)
			behave[0] = '\0';
		fclose(f);
	}
	behave[strcspn(behave, "\n")] = '\0';
	if (does("say_fds"))
		say_fds();
	if (does("die_before_hello"))
		_exit(9);
	send_hello();
	while (one())
		continue;
	usleep((useconds_t)does_number("linger=") * 1000);
	return (0);
}
