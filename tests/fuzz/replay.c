/*
 * main() of a fuzz target that is not linked with libFuzzer: replays the corpus of the target, then mutations of it.
 *
 * One thread. The target is LLVMFuzzerTestOneInput(); what it finds wrong it says by abort(). Inputs are copied to a heap block of
 * exactly their size, so that a sanitizer or the allocator sees a read behind the end. Mutations come from a fixed seed: a run is a
 * function of the corpus, MKV_FUZZ_SEED and MKV_FUZZ_RUNS. Exit: 0; 1 the corpus cannot be read or is empty; a signal if the target failed,
 * after the input was written to the file <target>.crash in the current directory.
 */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define INPUT_MAX	(1u << 20)
#define FILES_MAX	4096u
#define RUNS_DEFAULT	2000u		/* mutations of each file */

struct input {
	uint8_t	*p;
	size_t	bytes;
};

static struct input corpus[FILES_MAX];
static unsigned corpus_count;
static char crash_path[256];
static const uint8_t *current;		/* what the target is looking at: for on_crash() */
static size_t current_bytes;

static uint64_t
next_random(uint64_t *s)
{
	/* xorshift64*: any generator would do, but it must be the same everywhere. */
	*s ^= *s >> 12;
	*s ^= *s << 25;
	*s ^= *s >> 27;
	return (*s * UINT64_C(2685821657736338717));
}

static void
on_crash(int sig)
{
	int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd >= 0) {
		if (write(fd, current, current_bytes) < 0)
			_exit(1);
		close(fd);
	}
	signal(sig, SIG_DFL);
	raise(sig);
}

static void
run_one(const uint8_t *p, size_t bytes)
{
	uint8_t *copy = malloc(bytes != 0 ? bytes : 1);

	if (copy == NULL)
		abort();
	memcpy(copy, p, bytes);
	current = copy;
	current_bytes = bytes;
	LLVMFuzzerTestOneInput(copy, bytes);
	free(copy);
}

static size_t
mutate(uint8_t *p, size_t bytes, uint64_t *rnd)
{
	static const uint8_t edges[] = { 0, 1, 0x7f, 0x80, 0xff };
	unsigned changes = 1 + (unsigned)(next_random(rnd) % 4);

	while (changes-- > 0) {
		uint64_t r = next_random(rnd);
		size_t at = bytes != 0 ? (size_t)(r >> 8) % bytes : 0;

		switch (r % 6) {
		case 0:
			bytes = at;				/* cut */
			break;
		case 1:
			if (bytes < INPUT_MAX)
				p[bytes++] = (uint8_t)(r >> 40);	/* grow */
			break;
		case 2:
			if (bytes != 0)
				p[at] ^= (uint8_t)(1u << (r >> 40) % 8);
			break;
		case 3:
			if (bytes != 0)
				p[at] = edges[(r >> 40) % sizeof(edges)];
			break;
		case 4:
			if (bytes != 0)
				p[at] = (uint8_t)(r >> 40);
			break;
		default:
			if (bytes - at >= 4)
				memset(p + at, r & 256 ? 0xff : 0, 4);	/* a length field at its ends */
			break;
		}
	}
	return (bytes);
}

static int
add_file(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct input in = { NULL, 0 };

	if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > INPUT_MAX || corpus_count == FILES_MAX) {
		fprintf(stderr, "%s: not a file that can be an input\n", path);
		if (fd >= 0)
			close(fd);
		return (-1);
	}
	in.bytes = (size_t)st.st_size;
	in.p = malloc(in.bytes + 1);
	if (in.p == NULL || read(fd, in.p, in.bytes) != (ssize_t)in.bytes) {
		fprintf(stderr, "%s: cannot be read\n", path);
		free(in.p);
		close(fd);
		return (-1);
	}
	close(fd);
	corpus[corpus_count++] = in;
	return (0);
}

static int
add_directory(const char *path)
{
	struct dirent **names;
	char full[4096];
	int n = scandir(path, &names, NULL, alphasort), bad = 0;

	if (n < 0) {
		perror(path);
		return (-1);
	}
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.') {
			int want = snprintf(full, sizeof(full), "%s/%s", path, names[i]->d_name);

			bad |= want < (int)sizeof(full) ? add_file(full) : -1;
		}
		free(names[i]);
	}
	free(names);
	return (bad);
}

static unsigned long
setting(const char *name, unsigned long otherwise)
{
	const char *s = getenv(name);

	return (s != NULL && *s != '\0' ? strtoul(s, NULL, 0) : otherwise);
}

/* The corpus of <target>_fuzz is the directory <target> in MKV_FUZZ_CORPUS. */
static int
load(int argc, char **argv, const char *target)
{
	const char *root = getenv("MKV_FUZZ_CORPUS");
	char path[4096];
	int bad = 0;

	for (int i = 1; i < argc; i++)
		bad |= add_file(argv[i]);
	if (argc > 1)
		return (bad);
	snprintf(path, sizeof(path), "%s/%s", root != NULL ? root : "corpus", target);
	return (add_directory(path));
}

int
main(int argc, char **argv)
{
	const char *base = strrchr(argv[0], '/');
	unsigned long runs = setting("MKV_FUZZ_RUNS", setting("MEMKV_TEST_FULL", 0) != 0 ? RUNS_DEFAULT * 50 : RUNS_DEFAULT);
	uint64_t rnd = setting("MKV_FUZZ_SEED", 1) * 2 + 1;
	uint8_t *scratch = malloc(INPUT_MAX + 1);
	char target[64];

	snprintf(target, sizeof(target), "%s", base != NULL ? base + 1 : argv[0]);
	snprintf(crash_path, sizeof(crash_path), "%s.crash", target);
	if (strstr(target, "_fuzz") != NULL)
		*strstr(target, "_fuzz") = '\0';
	if (scratch == NULL || load(argc, argv, target) != 0 || corpus_count == 0) {
		fprintf(stderr, "%s: no corpus\n", target);
		return (1);
	}
	signal(SIGABRT, on_crash);
	signal(SIGSEGV, on_crash);
	signal(SIGBUS, on_crash);
	for (unsigned i = 0; i < corpus_count; i++) {
		run_one(corpus[i].p, corpus[i].bytes);
		for (unsigned long n = 0; n < runs; n++) {
			memcpy(scratch, corpus[i].p, corpus[i].bytes);
			run_one(scratch, mutate(scratch, corpus[i].bytes, &rnd));
		}
		free(corpus[i].p);
	}
	free(scratch);
	printf("%s: %u files, %lu mutations of each\n", target, corpus_count, runs);
	return (0);
}
