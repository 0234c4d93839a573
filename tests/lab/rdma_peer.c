/*
 * The queue pairs of a client that a test plays by hand: rdma_peer DEVICE FILE. One thread; commands come as lines on standard input, each is answered by one
 * line. The test speaks the wire's control part itself (rdma_wire.py) and has FILE mapped too, which is the memory that the far end may be given.
 *
 * It does what it is told, right or wrong: common/rdma would refuse much of it, so only the device is opened by that. Owns everything until it ends; ends with
 * its input. What goes wrong with verbs is an answer ("no ..."), what is wrong with a command ends the program.
 */
#include "config.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/rdma/dev.h"

#define ENDS		2048u
#define MSG_BYTES	16384u		/* four times what a receive takes */
#define MSGS		64u
#define RECV_BYTES	4096u
#define SEND_WRS	64u
#define CQES		8192
#define WAIT_NS		(30 * MKV_NS_PER_SEC)
#define LINE_BYTES	(2 * MSG_BYTES + 256u)
#define WORDS		9u

#define CHECK(e)	do { if (!(e)) { fprintf(stderr, "rdma_peer: line %d: not so: %s (%s)\n", __LINE__, #e, strerror(errno)); exit(1); } } while (0)

struct end {
	struct ibv_qp	*qp;
	unsigned	recvs;
};

static struct {
	const struct mkv_verbs *v;
	struct mkv_rdma_dev *dev;
	struct ibv_cq	*sent, *came;
	struct end	end[ENDS];
	uint8_t		*area;			/* FILE */
	size_t		area_bytes;
	struct ibv_mr	*area_mr, *msg_mr;
	uint8_t		*msg;
	unsigned	msg_next;
} me;

static uint64_t
number(const char *word)
{
	char *end;
	uint64_t n = strtoull(word, &end, 0);

	CHECK(end != word && *end == '\0');
	return (n);
}

static struct end *
end_of(const char *word)
{
	uint64_t i = number(word);

	CHECK(i < ENDS);
	return (&me.end[i]);
}

/* How many bytes. */
static uint32_t
from_hex(const char *word, uint8_t *out, uint32_t room)
{
	size_t n = strlen(word) / 2;
	unsigned byte;

	CHECK(n <= room && strlen(word) % 2 == 0);
	for (size_t i = 0; i < n; i++) {
		CHECK(sscanf(word + 2 * i, "%2x", &byte) == 1);
		out[i] = (uint8_t)byte;
	}
	return ((uint32_t)n);
}

static void
say_hex(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		printf("%02x", p[i]);
	putchar('\n');
}

/* One completion of that queue, of this queue pair or of any. 0: none in time. */
static int
take_one(struct ibv_cq *cq, const struct ibv_qp *qp, uint64_t limit_ns, struct ibv_wc *wc)
{
	uint64_t until = mkv_now_ns() + limit_ns;
	int n;

	for (;;) {
		CHECK((n = me.v->poll_cq(cq, 1, wc)) >= 0);
		if (n == 1 && (qp == NULL || wc->qp_num == qp->qp_num))
			return (1);
		if (n == 0 && mkv_now_ns() >= until)
			return (0);
		if (n == 0)
			nanosleep(&(struct timespec){ .tv_nsec = 200 * 1000 }, NULL);
	}
}

/* ---- Memory ---------------------------------------------------------------------------------------------------------------- */

/* register OFFSET BYTES: the far end may read and write them. ok ADDRESS KEY */
static void
do_register(char **w)
{
	uint64_t off = number(w[1]), bytes = number(w[2]);

	CHECK(me.area_mr == NULL && off <= me.area_bytes && bytes <= me.area_bytes - off);
	me.area_mr = me.v->reg_mr(me.dev->pd, me.area + off, bytes, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
	CHECK(me.area_mr != NULL);
	printf("ok %" PRIu64 " %" PRIu32 "\n", (uint64_t)(uintptr_t)(me.area + off), me.area_mr->rkey);
}

/* deregister */
static void
do_deregister(char **w MKV_UNUSED)
{
	CHECK(me.area_mr != NULL && me.v->dereg_mr(me.area_mr) == 0);
	me.area_mr = NULL;
	puts("ok");
}

/* ---- Queue pairs ----------------------------------------------------------------------------------------------------------- */

/* open END RECEIVES: a queue pair that takes so many. ok NUMBER PSN GID MTU READS_IN READS_OUT */
static void
do_open(char **w)
{
	struct end *e = end_of(w[1]);
	struct ibv_qp_init_attr i = { .send_cq = me.sent, .recv_cq = me.came, .qp_type = IBV_QPT_RC, .sq_sig_all = 1, .qp_context = e,
		.cap = { .max_send_wr = SEND_WRS, .max_recv_wr = (uint32_t)MKV_MAX(number(w[2]), 1u), .max_send_sge = 1, .max_recv_sge = 1 } };
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_INIT, .port_num = me.dev->port, .qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE };

	CHECK(e->qp == NULL);
	if ((e->qp = me.v->create_qp(me.dev->pd, &i)) == NULL) {
		printf("no queue pair: %s\n", strerror(errno));
		return;
	}
	CHECK(me.v->modify_qp(e->qp, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0);
	printf("ok %u %u ", (unsigned)e->qp->qp_num, (unsigned)(e->qp->qp_num * 7919u & 0xffffff));
	for (unsigned k = 0; k < 16; k++)
		printf("%02x", me.dev->gid.raw[k]);
	printf(" %u %u %u\n", (unsigned)me.dev->mtu_bytes, me.dev->rd_atomic_in, me.dev->rd_atomic_out);
}

/* connect END NUMBER PSN GID MTU READS_IN READS_OUT TIMER: to the far end's, which waits by TIMER (min_rnr_timer) for a receive. ok */
static void
do_connect(char **w)
{
	struct end *e = end_of(w[1]);
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_256, .dest_qp_num = (uint32_t)number(w[2]), .rq_psn = (uint32_t)number(w[3]),
		.max_dest_rd_atomic = (uint8_t)MKV_MIN(me.dev->rd_atomic_in, number(w[7])), .min_rnr_timer = (uint8_t)number(w[8]),
		.ah_attr = { .port_num = me.dev->port, .is_global = 1, .grh = { .sgid_index = (uint8_t)me.dev->gid_index, .hop_limit = 64 } } };
	struct ibv_qp_attr s = { .qp_state = IBV_QPS_RTS, .sq_psn = e->qp->qp_num * 7919u & 0xffffff, .timeout = 14, .retry_cnt = 6, .rnr_retry = 6,
		.max_rd_atomic = (uint8_t)MKV_MIN(me.dev->rd_atomic_out, number(w[6])) };

	for (uint32_t bytes = 256; bytes < MKV_MIN(number(w[5]), me.dev->mtu_bytes); bytes *= 2)
		a.path_mtu++;
	CHECK(from_hex(w[4], a.ah_attr.grh.dgid.raw, 16) == 16);
	CHECK(me.v->modify_qp(e->qp, &a, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
	    IBV_QP_MIN_RNR_TIMER) == 0);
	CHECK(me.v->modify_qp(e->qp, &s, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC) == 0);
	puts("ok");
}

/* close END */
static void
do_close(char **w)
{
	struct end *e = end_of(w[1]);

	CHECK(e->qp != NULL && me.v->destroy_qp(e->qp) == 0);
	memset(e, 0, sizeof(*e));
	puts("ok");
}

/* ---- Messages -------------------------------------------------------------------------------------------------------------- */

/* receives END N: so many more. ok */
static void
do_receives(char **w)
{
	struct end *e = end_of(w[1]);
	uint64_t n = number(w[2]);
	uint8_t *p = mmap(NULL, n * RECV_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct ibv_mr *mr;

	CHECK(p != MAP_FAILED && (mr = me.v->reg_mr(me.dev->pd, p, n * RECV_BYTES, IBV_ACCESS_LOCAL_WRITE)) != NULL);
	for (uint64_t i = 0; i < n; i++) {
		struct ibv_sge sge = { (uintptr_t)(p + i * RECV_BYTES), RECV_BYTES, mr->lkey };
		struct ibv_recv_wr wr = { .wr_id = sge.addr, .sg_list = &sge, .num_sge = 1 }, *bad;

		CHECK(e->qp->context->ops.post_recv(e->qp, &wr, &bad) == 0);
	}
	puts("ok");
}

static void
post(struct end *e, struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad;

	CHECK(me.v->post_send(e->qp, wr, &bad) == 0);
}

/* The status of what was posted last, as verbs number them; "no completion" if it does not come. */
static void
say_status(const struct end *e)
{
	struct ibv_wc wc;

	if (take_one(me.sent, e->qp, WAIT_NS, &wc))
		printf("ok %d\n", (int)wc.status);
	else
		puts("no completion");
}

/* post END HEX: one message, and nobody waits for its completion. ok. send END HEX: ok STATUS */
static void
do_message(char **w)
{
	struct end *e = end_of(w[1]);
	uint8_t *p = me.msg + (size_t)(me.msg_next++ % MSGS) * MSG_BYTES;
	struct ibv_sge sge = { (uintptr_t)p, from_hex(w[2], p, MSG_BYTES), me.msg_mr->lkey };
	struct ibv_send_wr wr = { .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1 };

	post(e, &wr);
	if (strcmp(w[0], "send") == 0)
		say_status(e);
	else
		puts("ok");
}

/* take END MILLISECONDS: the next message that came: ok HEX; "no message"; "no receive STATUS" */
static void
do_take(char **w)
{
	struct ibv_wc wc;

	if (!take_one(me.came, end_of(w[1])->qp, number(w[2]) * MKV_NS_PER_MS, &wc))
		puts("no message");
	else if (wc.status != IBV_WC_SUCCESS)
		printf("no receive %d\n", (int)wc.status);
	else {
		printf("ok ");
		say_hex((const uint8_t *)(uintptr_t)wc.wr_id, wc.byte_len);
	}
}

/* read END OFFSET BYTES ADDRESS KEY: what no client of memkv does. ok STATUS. write: the other way */
static void
do_remote(char **w)
{
	struct end *e = end_of(w[1]);
	uint64_t off = number(w[2]);
	struct ibv_sge sge = { (uintptr_t)(me.area + off), (uint32_t)number(w[3]), me.area_mr != NULL ? me.area_mr->lkey : 0 };
	struct ibv_send_wr wr = { .opcode = strcmp(w[0], "read") == 0 ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge,
		.num_sge = 1, .wr.rdma = { .remote_addr = number(w[4]), .rkey = (uint32_t)number(w[5]) } };

	CHECK(me.area_mr != NULL && off + sge.length <= me.area_bytes);
	post(e, &wr);
	say_status(e);
}

/* ---- The program ----------------------------------------------------------------------------------------------------------- */

static void
obey(char *line)
{
	static const struct {
		const char *name;
		unsigned words;
		void	(*run)(char **w);
	} command[] = { { "register", 3, do_register }, { "deregister", 1, do_deregister }, { "open", 3, do_open }, { "connect", 9, do_connect },
		{ "close", 2, do_close }, { "receives", 3, do_receives }, { "post", 3, do_message }, { "send", 3, do_message }, { "take", 3, do_take },
		{ "read", 6, do_remote }, { "write", 6, do_remote } };
	char *w[WORDS + 1] = { NULL }, *rest = NULL;
	unsigned n = 0;

	for (char *p = strtok_r(line, " \n", &rest); p != NULL && n < WORDS; p = strtok_r(NULL, " \n", &rest))
		w[n++] = p;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(command) && n > 0; i++) {
		if (strcmp(w[0], command[i].name) == 0) {
			CHECK(n == command[i].words);
			command[i].run(w);
			return;
		}
	}
	fprintf(stderr, "rdma_peer: no such command: %s\n", line);
	exit(1);
}

static void
map_file(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	CHECK(fd >= 0 && fstat(fd, &st) == 0);
	me.area_bytes = (size_t)st.st_size;
	me.area = mmap(NULL, me.area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(me.area != MAP_FAILED);
	close(fd);
}

int
main(int argc, char **argv)
{
	struct mkv_rdma_conf c = { .gid_index = -1, .traffic_class = -1, .service_level = -1 };
	static char line[LINE_BYTES];
	char why[512] = "";

	CHECK(argc == 3);
	setvbuf(stdout, NULL, _IOLBF, 0);
	c.device = argv[1];
	if ((me.v = mkv_verbs_load(why, sizeof(why))) == NULL || mkv_rdma_dev_open(&me.dev, me.v, &c, why, sizeof(why)) != 0) {
		fprintf(stderr, "rdma_peer: %s\n", why);
		return (1);
	}
	map_file(argv[2]);
	CHECK((me.sent = me.v->create_cq(me.dev->ctx, CQES, NULL, NULL, 0)) != NULL && (me.came = me.v->create_cq(me.dev->ctx, CQES, NULL, NULL, 0)) != NULL);
	me.msg = mmap(NULL, MSGS * MSG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(me.msg != MAP_FAILED && (me.msg_mr = me.v->reg_mr(me.dev->pd, me.msg, MSGS * MSG_BYTES, IBV_ACCESS_LOCAL_WRITE)) != NULL);
	while (fgets(line, sizeof(line), stdin) != NULL)
		obey(line);
	return (0);
}
