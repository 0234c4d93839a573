/*
 * memkv doctor: this machine. Keeps nothing; the program of the server that is asked for the configuration ends with the call, after 20 s at the latest.
 */
#include "config.h"
#include "clients/cli/doctor_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clients/cli/cli.h"
#include "common/base/clock.h"
#include "common/base/os.h"

#define REAL_PROGRAM		"memkv-supervisor"
#define REAL_ANSWER_MAX		(1u << 20)
#define REAL_WAIT_NS		(20 * MKV_NS_PER_SEC)

static int
real_limit(enum doctor_limit which, uint64_t *soft, uint64_t *hard)
{
	struct rlimit l;

	if (getrlimit(which == DOCTOR_LIMIT_MEMLOCK ? RLIMIT_MEMLOCK : RLIMIT_NOFILE, &l) != 0)
		return (-errno);
	*soft = l.rlim_cur == RLIM_INFINITY ? UINT64_MAX : (uint64_t)l.rlim_cur;
	*hard = l.rlim_max == RLIM_INFINITY ? UINT64_MAX : (uint64_t)l.rlim_max;
	return (0);
}

static int
real_system(char name[65], char release[65])
{
	struct utsname u;

	if (uname(&u) != 0)
		return (-errno);
	snprintf(name, 65, "%s", u.sysname);
	snprintf(release, 65, "%s", u.release);
	return (0);
}

static int
real_bind(const char *host, uint16_t port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE }, *ai;
	int fd, one = 1, r = 0;
	char number[8];

	snprintf(number, sizeof(number), "%u", port);
	if (getaddrinfo(host, number, &hints, &ai) != 0)
		return (-EADDRNOTAVAIL);
	fd = socket(ai->ai_family, SOCK_STREAM, 0);
	if (fd < 0)
		r = -errno;
	else if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 || bind(fd, ai->ai_addr, ai->ai_addrlen) != 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	freeaddrinfo(ai);
	return (r);
}

static int
real_space(const char *path, uint64_t *filesystem, uint64_t *free_bytes)
{
	struct statvfs fs;
	struct stat st;

	if (stat(path, &st) != 0 || statvfs(path, &fs) != 0)
		return (-errno);
	*filesystem = (uint64_t)st.st_dev;
	*free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	return (0);
}

static int
real_uid(void)
{
	return ((int)geteuid());
}

static const char *
real_env(const char *name)
{
	return (getenv(name));
}

/* ---- the server's own checker ---- */

static pid_t
real_spawn(const char *program, const char *file, int *out)
{
	char check[] = "--check-config", json[] = "--json", config[] = "--config", *name = strdup(program), *named = file != NULL ? strdup(file) : NULL;
	char *argv[] = { name, check, json, named != NULL ? config : NULL, named, NULL };
	int pipes[2], null;
	pid_t pid = -1;

	if (name != NULL && (file == NULL || named != NULL) && pipe(pipes) == 0) {
		pid = fork();
		if (pid == 0) {
			null = open("/dev/null", O_RDWR);
			(void)dup2(null, STDIN_FILENO);
			(void)dup2(null, STDERR_FILENO);
			(void)dup2(pipes[1], STDOUT_FILENO);
			(void)mkv_os_close_from(STDERR_FILENO + 1);
			execv(program, argv);
			_exit(127);
		}
		close(pipes[1]);
		*out = pipes[0];
		if (pid < 0)
			close(pipes[0]);
	}
	free(name);
	free(named);
	return (pid);
}

/* All it says, a NUL behind it; NULL: too much, or not in time. */
static char *
real_collect(int fd)
{
	uint64_t until = mkv_now_ns() + REAL_WAIT_NS, now;
	char *text = malloc(REAL_ANSWER_MAX + 1);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t at = 0;
	ssize_t n = 1;

	while (text != NULL && n > 0 && at < REAL_ANSWER_MAX && (now = mkv_now_ns()) < until) {
		if (poll(&p, 1, (int)((until - now) / MKV_NS_PER_MS) + 1) <= 0)
			continue;
		n = read(fd, text + at, REAL_ANSWER_MAX - at);
		if (n > 0)
			at += (size_t)n;
	}
	if (text == NULL || n != 0) {
		free(text);
		return (NULL);
	}
	text[at] = '\0';
	return (text);
}

static json_t *
real_config(const struct doctor *d, const char *file, char *why, size_t why_bytes)
{
	char program[PATH_MAX], *text;
	json_t *answer = NULL;
	int fd = -1, status;
	pid_t pid;

	snprintf(why, why_bytes, "%s, which checks it, is not installed here", REAL_PROGRAM);
	if (cli_program(d->argv0, REAL_PROGRAM, program) != 0)
		return (NULL);
	snprintf(why, why_bytes, "%.180s gave no answer", program);
	if ((pid = real_spawn(program, file, &fd)) < 0)
		return (NULL);
	text = real_collect(fd);
	close(fd);
	if (text == NULL)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (text != NULL)
		answer = json_loads(text, 0, NULL);
	free(text);
	return (answer);
}

static int
real_client(const char *file, char *why, size_t why_bytes)
{
	struct mkv_client_opts o = { .size = sizeof(o), .config_file = file };
	struct mkv_client *c;
	int r = mkv_client_open(&c, &o, why, why_bytes);

	if (r == 0)
		mkv_client_close(c);
	return (r);
}

const struct doctor_ops doctor_real = {
	.limit = real_limit, .system = real_system, .clock = mkv_os_clock_synchronised, .uring = mkv_os_uring_try, .dcb = mkv_os_dcb, .bind = real_bind, .space = real_space,
	.uid = real_uid,
	.env = real_env, .client = real_client, .config = real_config,
};
