/*
 * Inside libmemkv, one function at a time: moments that a server in the same process cannot bring about at will, such as a caller that leaves between
 * two steps of the loop.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int	fake_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list);
static void	fake_freeaddrinfo(struct addrinfo *list);

#define getaddrinfo	fake_getaddrinfo
#define freeaddrinfo	fake_freeaddrinfo
#include "clients/lib/loop.c"
#include "clients/lib/resolve.c"
#include "clients/lib/tcp_rx.c"

static struct mkv_client client;
static struct loop loop;
static struct server server;
static struct op op;

static int
setup(void **state)
{
	(void)state;
	memset(&client, 0, sizeof(client));
	memset(&loop, 0, sizeof(loop));
	memset(&op, 0, sizeof(op));
	client.cf.n_servers = client.cf.connections = 1;
	loop.c = &client;
	assert_int_equal(mkv_timers_init(&loop.timers, 16), 0);
	mkv_server_init(&server, &loop, 0);
	assert_int_equal(server.tr->open(&server), 0);
	op.magic = OP_MAGIC;
	op.c = &client;
	op.loop = &loop;
	mkv_leg_init(&op.one, &op, &server, MKV_WIRE_PUT);
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	mkv_server_fini(&server);
	mkv_timers_fini(&loop.timers);
	return (0);
}

/* ---- streams ---- */

static void
on_deadline(struct mkv_timer *t, uint64_t now_ns)
{
	(void)t;
	(void)now_ns;
}

/* At his deadline he takes his sink along; what is left is the op's own timer. */
static void
test_part_out_after_its_caller_left(void **state)
{
	(void)state;
	op.kind = OPK_STREAM;
	op.own = OP_LEFT;
	op.timer.fire = on_deadline;
	mkv_timer_arm(&loop.timers, &op.timer, mkv_now_ns());
	mkv_op_part_done(&op);
	assert_true(op.timer.heap_idx != 0);
	mkv_timer_disarm(&loop.timers, &op.timer);
}

/* It waits for a session while its caller frees what the part lay in. */
static void
test_stream_without_its_caller_finds_a_session(void **state)
{
	struct conn *c = &((struct pool *)server.pool)->conn[0];

	(void)state;
	op.kind = OPK_STREAM;
	op.own = OP_LEFT;
	op.part_bytes = c->part_bytes = 65536;
	c->credits = 4;
	c->state = CONN_READY;
	mkv_leg_set_state(&op.one, LEG_WAITING);
	assert_int_equal(server.tr->send(&server, &op.one), 0);
	assert_int_equal(op.one.state, LEG_QUEUED);
	c->part_bytes = 131072;
	assert_int_equal(server.tr->send(&server, &op.one), MKV_E_AGAIN);
	assert_ptr_equal(mkv_slot_release(c, op.one.slot), &op.one);
}

/* ---- late answers ---- */

/* An error that comes while the end of a put still waits for its turn: the server drops parts until it has that end. */
static void
test_late_error_before_the_end_went_out(void **state)
{
	struct conn *c = &((struct pool *)server.pool)->conn[0];
	struct mkv_hdr h = { .op = MKV_WIRE_PUT };
	struct slot *s;

	(void)state;
	c->credits = 4;
	s = mkv_slot_take(c, NULL);
	assert_non_null(s);
	s->midway = MKV_WIRE_PUT;
	mkv_list_push_tail(&c->notices, &s->notice);
	assert_int_equal(rx_late(c, s, &h), 0);
	assert_false(mkv_list_empty(&c->notices));
	s->midway = 0;
	assert_int_equal(rx_late(c, s, &h), 0);
	assert_true(mkv_list_empty(&c->notices));
	assert_int_equal(c->n_out, 0);
}

/* A CANCEL that is none: no slot that is free is freed again. */
static void
test_cancel_of_nothing(void **state)
{
	struct conn *c = &((struct pool *)server.pool)->conn[0];
	struct mkv_hdr h = { .op = MKV_WIRE_CANCEL };
	struct slot *s;

	(void)state;
	c->credits = 4;
	s = mkv_slot_take(c, NULL);
	assert_int_equal(mkv_slot_release(c, s) == NULL, 1);
	s = mkv_slot_take(c, NULL);
	assert_int_equal(rx_late(c, s, &h), 0);
	assert_int_equal(c->n_out, 0);
}

/* ---- an op between its caller and the loop ---- */

static struct op ops[2];
static unsigned sends;

/* While the loop begins the first op, another thread hands in the second and cancels it at once. */
static int
send_meanwhile(struct server *s, struct leg *l)
{
	(void)s;
	(void)l;
	if (sends++ == 0) {
		mkv_loop_hand_in(&loop, &ops[1]);
		assert_int_equal(mkv_loop_poke(&loop, &ops[1], 1), 1);
	}
	return (MKV_E_AGAIN);
}

static void
want_nothing(struct server *s, int waiting)
{
	(void)s;
	(void)waiting;
}

static const struct transport_ops busy = { .send = send_meanwhile, .want = want_nothing };

static void
pool_begin(void)
{
	client.pool = ops;
	client.loop = &loop;
	client.cf.io_threads = 1;
	client.cf.inflight_max = MKV_ARRAY_LEN(ops);
	(void)pthread_mutex_init(&client.mutex, NULL);
	(void)pthread_cond_init(&client.freed, NULL);
	(void)pthread_cond_init(&client.completed, NULL);
	client.bell_ring = -1;
	mkv_list_init(&client.free);
	mkv_list_init(&client.done);
	(void)pthread_mutex_init(&loop.mutex, NULL);
	mkv_list_init(&loop.inbox);
	mkv_list_init(&loop.pokes);
	mkv_list_init(&loop.live);
	loop.server = &server;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(ops); i++) {
		memset(&ops[i], 0, sizeof(ops[i]));
		ops[i].magic = OP_MAGIC;
		ops[i].c = &client;
		mkv_list_push_tail(&client.free, &ops[i].link);
	}
}

static struct op *
pool_take(void)
{
	struct op *o;
	int err;

	o = mkv_op_take(&client, mkv_now_ns() + 1000 * MKV_NS_PER_SEC, 0, &err);
	assert_non_null(o);
	o->kind = OPK_GET;
	return (o);
}

static void
test_cancel_beside_the_turn(void **state)
{
	(void)state;
	pool_begin();
	server.tr = &busy;
	sends = 0;
	assert_ptr_equal(pool_take(), &ops[0]);
	assert_ptr_equal(pool_take(), &ops[1]);
	assert_int_equal(mkv_loop_poke(&loop, &ops[1], 1), 0);	/* filled, and not the loop's yet */
	ops[0].own = ops[1].own = OP_LOOP;
	mkv_loop_hand_in(&loop, &ops[0]);
	assert_int_equal(loop_take(&loop), 0);
	assert_ptr_equal(ops[1].link.next, &loop.inbox);	/* as it was handed in */
	assert_int_equal(mkv_op_own(&ops[1]), OP_LOOP);
	assert_int_equal(loop_take(&loop), 0);
	assert_int_equal(mkv_op_own(&ops[1]), OP_DONE);
	assert_int_equal(ops[1].result, MKV_E_CANCELLED);
	assert_ptr_equal(mkv_list_pop(&client.done), &ops[1].link);
	mkv_op_put_back(&ops[1]);
	mkv_op_abort(&ops[0], MKV_E_CLOSED);
	assert_ptr_equal(mkv_list_pop(&client.done), &ops[0].link);
	mkv_op_put_back(&ops[0]);
	assert_int_equal(loop.timers.count, 0);
	server.tr = &mkv_client_tcp;
}

/* What is put back twice, or while the loop has it, ends the process there, not where the next caller gets the same op as another. */
static void
test_put_back_by_who_does_not_own(void **state)
{
	static const enum op_own wrong[] = { OP_FREE, OP_LOOP, OP_LENT };
	const struct rlimit none = { 0, 0 };
	int status;
	pid_t pid;

	(void)state;
	pool_begin();
	for (unsigned i = 0; i < MKV_ARRAY_LEN(wrong); i++) {
		struct op *o = pool_take();

		if ((pid = fork()) == 0) {
			(void)signal(SIGABRT, SIG_DFL);
			(void)setrlimit(RLIMIT_CORE, &none);
			(void)close(STDERR_FILENO);
			o->own = wrong[i];
			mkv_op_put_back(o);
			_exit(0);
		}
		assert_true(pid > 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
		mkv_op_put_back(o);
	}
}

/* ---- names ---- */

#define ADDRESSES	3u

static struct sockaddr_in fake_sa[ADDRESSES];
static struct addrinfo fake_ai[ADDRESSES];

static int
fake_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list)
{
	(void)host;
	(void)port;
	if (hints->ai_flags & AI_NUMERICHOST)
		return (EAI_NONAME);
	for (unsigned i = 0; i < ADDRESSES; i++) {
		fake_sa[i].sin_family = AF_INET;
		fake_sa[i].sin_addr.s_addr = i;
		fake_ai[i] = (struct addrinfo){ .ai_addr = (struct sockaddr *)&fake_sa[i], .ai_addrlen = sizeof(fake_sa[i]),
			.ai_next = i + 1 < ADDRESSES ? &fake_ai[i + 1] : NULL };
	}
	*list = fake_ai;
	return (0);
}

static void
fake_freeaddrinfo(struct addrinfo *list)
{
	assert_ptr_equal(list, fake_ai);
}

static void
test_addresses_take_turns(void **state)
{
	struct sockaddr_storage sa;
	struct resolver *r;
	socklen_t bytes;
	int got = MKV_E_AGAIN;

	(void)state;
	assert_int_equal(mkv_resolver_open(&r, &client), 0);
	for (unsigned i = 0; i < 2 * ADDRESSES; i++) {
		for (unsigned k = 0; k < 5000 && (got = mkv_resolver_ask(r, 0, &sa, &bytes)) == MKV_E_AGAIN; k++)
			(void)usleep(1000);
		assert_int_equal(got, 0);
		assert_int_equal(((struct sockaddr_in *)&sa)->sin_addr.s_addr, i % ADDRESSES);
		assert_int_equal(mkv_resolver_ask(r, 0, &sa, &bytes), 0);
		mkv_resolver_forget(r, 0);
	}
	mkv_resolver_close(&r);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_part_out_after_its_caller_left), T(test_stream_without_its_caller_finds_a_session), T(test_late_error_before_the_end_went_out),
		T(test_cancel_of_nothing), T(test_cancel_beside_the_turn), T(test_put_back_by_who_does_not_own), T(test_addresses_take_turns),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
