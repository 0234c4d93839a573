/*
 * Metric pages: the table is sound, values arrive and outlive a process, labels without a name, pages of another build, garbage.
 */
#include "config.h"
#include "common/shm/metric.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/hist.h"
#include "common/base/os.h"
#include "proto/wire.h"
#include "tests/lib/death.h"
#include "tests/lib/fail.h"
#include "tests/lib/rnd.h"

static int
page_create(void)
{
	int fd = mkv_os_shm_create("metric-test", mkv_metrics_bytes(), 0);

	assert_true(fd >= 0);
	assert_int_equal(mkv_metrics_format(fd), 0);
	return (fd);
}

static int
ends_with(const char *s, const char *end)
{
	return (strlen(s) > strlen(end) && strcmp(s + strlen(s) - strlen(end), end) == 0);
}

static void
table_is_sound(void **state)
{
	static const char *const prefix[] = { [MKV_METRIC_FRONT] = "memkv_front_", [MKV_METRIC_DRIVE] = "memkv_drive_",
		[MKV_METRIC_SUPERVISOR] = "memkv_supervisor_" };
	const struct mkv_metric_row *row;

	(void)state;
	for (unsigned i = 0; i < MKV_M_COUNT; i++) {
		row = &mkv_metric_table[i];
		assert_int_equal(strncmp(row->name, prefix[row->proc], strlen(prefix[row->proc])), 0);
		assert_int_equal(strspn(row->name, "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(row->name));
		assert_int_equal(ends_with(row->name, "_total"), row->kind == MKV_METRIC_COUNTER);
		if (row->kind == MKV_METRIC_HISTOGRAM)
			assert_true(ends_with(row->name, "_seconds") && row->label == MKV_METRIC_NONE);
		assert_true(strlen(row->help) > 5);
		assert_null(strpbrk(row->help, "\n\\"));
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(row->name, mkv_metric_table[j].name);
	}
}

static void
labels(void **state)
{
	unsigned n = mkv_metric_label_count(MKV_METRIC_REASON), ops = 0;

	(void)state;
	assert_int_equal(n, MKV_REASON_COUNT + 1);
	for (unsigned i = 0; i < MKV_REASON_COUNT; i++)
		assert_string_equal(mkv_metric_label_value(MKV_METRIC_REASON, i), mkv_reason_label(i));
	assert_string_equal(mkv_metric_label_value(MKV_METRIC_REASON, n - 1), "other");
	assert_null(mkv_metric_label_value(MKV_METRIC_REASON, n));
	assert_string_equal(mkv_metric_label_value(MKV_METRIC_OP, MKV_WIRE_PUT), "put");
	assert_null(mkv_metric_label_value(MKV_METRIC_OP, 0));
	n = mkv_metric_label_count(MKV_METRIC_OP);
	assert_string_equal(mkv_metric_label_value(MKV_METRIC_OP, n - 1), "other");
	for (unsigned i = 0; i < n; i++)
		ops += mkv_metric_label_value(MKV_METRIC_OP, i) != NULL;
#define MKV_OP(name, num, label, flags, body_max)	ops--;
#include "proto/wire_ops.def"
#undef MKV_OP
	assert_int_equal(ops, 1);
	assert_int_equal(mkv_metric_label_count(MKV_METRIC_NONE), 1);
	assert_string_equal(mkv_metric_label_name(MKV_METRIC_REASON), "reason");
	assert_string_equal(mkv_metric_label_name(MKV_METRIC_OP), "op");
	assert_string_equal(mkv_metric_label_name(MKV_METRIC_CLASS), "class");
	assert_string_equal(mkv_metric_label_value(MKV_METRIC_CLASS, 0), "get");
}

/* Every value of every row has a place of its own. */
static void
places_do_not_overlap(void **state)
{
	struct mkv_metrics *m;
	unsigned n;

	(void)state;
	assert_int_equal(mkv_metrics_open_private(&m), 0);
	for (unsigned id = 0; id < MKV_M_COUNT; id++) {
		n = mkv_metric_label_count(mkv_metric_table[id].label);
		for (unsigned l = 0; l < n; l++) {
			if (mkv_metric_label_value(mkv_metric_table[id].label, l) == NULL)
				continue;
			assert_true(mkv_metric_get(m, id, l) == 0);
			if (mkv_metric_table[id].kind == MKV_METRIC_HISTOGRAM)
				for (unsigned i = 0; i < 1000 + id; i++)
					mkv_metric_time(m, id, i * 1000003ull);
			else
				mkv_metric_add(m, id, l, id * 100 + l + 1);
		}
	}
	for (unsigned id = 0; id < MKV_M_COUNT; id++) {
		n = mkv_metric_label_count(mkv_metric_table[id].label);
		for (unsigned l = 0; l < n; l++)
			if (mkv_metric_table[id].kind == MKV_METRIC_HISTOGRAM)
				assert_true(mkv_metric_get(m, id, l) == 1000 + id);
			else if (mkv_metric_label_value(mkv_metric_table[id].label, l) != NULL)
				assert_true(mkv_metric_get(m, id, l) == id * 100 + l + 1);
	}
	mkv_metrics_close(&m);
	assert_null(m);
	mkv_metrics_close(&m);
}

static void
foreign_labels_are_other(void **state)
{
	struct mkv_metrics *m;
	unsigned other = mkv_metric_label_count(MKV_METRIC_OP) - 1;

	(void)state;
	assert_int_equal(mkv_metrics_open_private(&m), 0);
	mkv_metric_add(m, MKV_M_front_requests_total, 0, 1);		/* a number no operation has */
	mkv_metric_add(m, MKV_M_front_requests_total, 255, 1);
	mkv_metric_add(m, MKV_M_front_requests_total, UINT32_MAX, 1);
	assert_true(mkv_metric_get(m, MKV_M_front_requests_total, other) == 3);
	mkv_metric_add(m, MKV_M_drive_puts_total, 5, 2);		/* a label where the row has none */
	assert_true(mkv_metric_get(m, MKV_M_drive_puts_total, 0) == 2);
	mkv_metrics_close(&m);
}

static void
no_page_is_no_problem(void **state)
{
	(void)state;
	mkv_metric_add(NULL, MKV_M_front_requests_total, 0, 1);
	mkv_metric_set(NULL, MKV_M_front_parked, 0, 1);
	mkv_metric_time(NULL, MKV_M_front_get_seconds, 1);
	assert_true(mkv_metric_get(NULL, MKV_M_front_requests_total, 0) == 0);
}

static void
a_restart_resets_nothing(void **state)
{
	struct mkv_metrics *m;
	int fd = page_create(), status;
	pid_t pid;

	(void)state;
	for (unsigned life = 1; life <= 3; life++) {
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			if (mkv_metrics_open(&m, fd, 1) != 0)
				_exit(1);
			mkv_metric_add(m, MKV_M_drive_puts_total, 0, 10);
			mkv_metric_set(m, MKV_M_drive_objects, 0, life);
			mkv_metric_time(m, MKV_M_drive_read_seconds, 1000);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	assert_int_equal(mkv_metrics_open(&m, fd, 0), 0);
	assert_true(mkv_metric_get(m, MKV_M_drive_puts_total, 0) == 30);
	assert_true(mkv_metric_get(m, MKV_M_drive_objects, 0) == 3);
	assert_true(mkv_metric_hist(m, MKV_M_drive_read_seconds)->sum_ns == 3000);
	mkv_metrics_close(&m);
	close(fd);
}

static void
pages_of_another_build(void **state)
{
	struct mkv_metrics *m;
	struct rnd r;
	void *p;
	int fd;

	(void)state;
	rnd_init(&r, 40);
	fd = mkv_os_shm_create("metric-test", mkv_metrics_bytes(), 0);
	assert_int_equal(mkv_metrics_open(&m, fd, 0), MKV_E_VERSION);	/* not formatted */
	assert_null(m);
	close(fd);
	fd = mkv_os_shm_create("metric-test", 4096, 0);
	assert_int_equal(mkv_metrics_open(&m, fd, 0), MKV_E_VERSION);	/* too small */
	assert_int_equal(mkv_metrics_format(fd), MKV_E_INVAL);
	close(fd);
	assert_int_equal(mkv_metrics_open(&m, -1, 0), MKV_E_SYSTEM);
	for (unsigned i = 0; i < 16; i++) {
		fd = page_create();
		assert_int_equal(mkv_os_shm_map(fd, 4096, 1, 0, &p), 0);
		((uint8_t *)p)[i] ^= (uint8_t)(1 + rnd_below(&r, 255));
		mkv_os_shm_unmap(p, 4096);
		assert_int_equal(mkv_metrics_open(&m, fd, 1), MKV_E_VERSION);
		close(fd);
	}
}

static void
garbage_can_be_read(void **state)
{
	struct mkv_metrics *m;
	struct rnd r;
	void *p;
	int fd = page_create();

	(void)state;
	rnd_init(&r, 41);
	assert_int_equal(mkv_metrics_open(&m, fd, 0), 0);
	assert_int_equal(mkv_os_shm_map(fd, mkv_metrics_bytes(), 1, 0, &p), 0);
	rnd_fill(&r, p, mkv_metrics_bytes());	/* the head as well: it was read once */
	for (unsigned id = 0; id < MKV_M_COUNT; id++) {
		for (unsigned l = 0; l < mkv_metric_label_count(mkv_metric_table[id].label); l++)
			(void)mkv_metric_get(m, id, l);
		if (mkv_metric_table[id].kind == MKV_METRIC_HISTOGRAM)
			(void)mkv_hist_quantile_ns(mkv_metric_hist(m, id), 0.99);
	}
	mkv_os_shm_unmap(p, mkv_metrics_bytes());
	mkv_metrics_close(&m);
	close(fd);
}

static void *
add_many(void *arg)
{
	for (unsigned i = 0; i < 50000; i++)
		mkv_metric_add(arg, MKV_M_front_get_total, 0, 1);
	return (NULL);
}

static void
threads_lose_nothing(void **state)
{
	struct mkv_metrics *m;
	pthread_t t[3];

	(void)state;
	assert_int_equal(mkv_metrics_open_private(&m), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, add_many, m), 0);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_true(mkv_metric_get(m, MKV_M_front_get_total, 0) == 150000);
	mkv_metrics_close(&m);
}

static void
set_a_counter(void *arg)
{
	mkv_metric_set(arg, MKV_M_front_get_total, 0, 1);
}

static void
time_a_gauge(void *arg)
{
	mkv_metric_time(arg, MKV_M_front_parked, 1);
}

static void
mistakes_and_memory(void **state)
{
	struct mkv_metrics *m;
	int fd = page_create();

	(void)state;
	assert_int_equal(mkv_metrics_open_private(&m), 0);
	assert_true(death_by_assert(set_a_counter, m));
	assert_true(death_by_assert(time_a_gauge, m));
	mkv_metrics_close(&m);
	for (unsigned n = 1; n <= 2; n++) {
		fail_alloc(n);
		assert_int_equal(mkv_metrics_open_private(&m), MKV_E_NOMEM);
		assert_int_equal(fail_alloc(1), 1);
		assert_int_equal(mkv_metrics_open(&m, fd, 1), MKV_E_NOMEM);
		assert_int_equal(fail_alloc(0), 1);
		assert_null(m);
	}
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_is_sound),
		cmocka_unit_test(labels),
		cmocka_unit_test(places_do_not_overlap),
		cmocka_unit_test(foreign_labels_are_other),
		cmocka_unit_test(no_page_is_no_problem),
		cmocka_unit_test(a_restart_resets_nothing),
		cmocka_unit_test(pages_of_another_build),
		cmocka_unit_test(garbage_can_be_read),
		cmocka_unit_test(threads_lose_nothing),
		cmocka_unit_test(mistakes_and_memory),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
