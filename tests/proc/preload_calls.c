/*
 * Every family of calls that libmemkv_preload.so takes from libc, on names below one directory: run by test_b_preload.py with the library and without
 * it, since what a file does on the disk is what it must do in the store.
 *
 * One process, one thread (forks in between). Owns nothing. preload_calls DIR; exits 0, or 1 and says the line that does not hold.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(x)	((x) ? (void)0 : fail(#x, __LINE__))
#define BIG		(3u << 20)

static char big[BIG], back[BIG];
static char path_text[2][PATH_MAX];
static const char *top;

static void
fail(const char *what, int line)
{
	fprintf(stderr, "line %d: %s does not hold (%s)\n", line, what, strerror(errno));
	exit(1);
}

static const char *
at(unsigned which, const char *name)
{
	(void)snprintf(path_text[which], sizeof(path_text[which]), "%s/%s", top, name);
	return (path_text[which]);
}

static void
put(const char *name, const void *bytes, size_t n)
{
	int fd = open(at(0, name), O_WRONLY | O_CREAT | O_TRUNC, 0666);

	CHECK(fd >= 0);
	CHECK(write(fd, bytes, n) == (ssize_t)n);
	CHECK(close(fd) == 0);
}

/* The file's bytes are these. */
static int
holds(const char *name, const void *bytes, size_t n)
{
	int fd = open(at(0, name), O_RDONLY);
	ssize_t got;

	if (fd < 0)
		return (0);
	got = read(fd, back, sizeof(back));
	CHECK(close(fd) == 0);
	return (got == (ssize_t)n && memcmp(back, bytes, n) == 0);
}

static int
absent(const char *name)
{
	struct stat st;

	return (stat(at(0, name), &st) == -1 && errno == ENOENT && access(at(0, name), F_OK) == -1 && open(at(0, name), O_RDONLY) == -1 && errno == ENOENT);
}

static int handler_fd;
static volatile sig_atomic_t handler_writes;

static void
on_alarm(int sig)
{
	int e = errno;

	(void)sig;
	handler_writes += write(handler_fd, "h", 1) == 1;
	errno = e;
}

/* write() may be called by a signal handler, also on the file that its thread is writing or storing. */
static void
check_handler(void)
{
	struct itimerval often = { .it_interval = { .tv_usec = 3000 }, .it_value = { .tv_usec = 3000 } }, never = { .it_value = { .tv_usec = 0 } };
	struct stat st;
	unsigned i;

	CHECK((handler_fd = open(at(0, "handled"), O_WRONLY | O_CREAT | O_APPEND | O_TRUNC, 0666)) >= 0);
	CHECK(signal(SIGALRM, on_alarm) != SIG_ERR && setitimer(ITIMER_REAL, &often, NULL) == 0);
	for (i = 0; i < 600; i++) {
		CHECK(write(handler_fd, big, 1 << 12) == 1 << 12);
		if (i % 4 == 0)
			while (fsync(handler_fd) != 0)
				CHECK(errno == EINTR);
	}
	CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0 && signal(SIGALRM, SIG_DFL) != SIG_ERR);
	CHECK(close(handler_fd) == 0);
	CHECK(stat(at(0, "handled"), &st) == 0 && st.st_size == 600 * (1 << 12) + handler_writes);
	CHECK(unlink(at(0, "handled")) == 0);		/* no two runs are alike */
}

static void
check_reads(void)
{
	struct iovec iov[2] = { { back, 10 }, { back + 10, 90 } };
	struct stat st, st2;
	void *map;
	int fd, copy, to;

	put("big", big, BIG);
	CHECK((fd = open(at(0, "big"), O_RDONLY)) >= 0);
	CHECK(fstat(fd, &st) == 0 && st.st_size == BIG && S_ISREG(st.st_mode));
	CHECK(stat(at(0, "big"), &st2) == 0 && st2.st_ino == st.st_ino && st2.st_dev == st.st_dev && st2.st_size == BIG);
	CHECK(lseek(fd, 0, SEEK_END) == BIG);
	CHECK(pread(fd, back, 100, BIG - 50) == 50 && memcmp(back, big + BIG - 50, 50) == 0);
	CHECK(preadv(fd, iov, 2, 1000) == 100 && memcmp(back, big + 1000, 100) == 0);
	CHECK(lseek(fd, 5, SEEK_SET) == 5 && readv(fd, iov, 2) == 100 && memcmp(back, big + 5, 100) == 0);
	CHECK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
	CHECK((copy = dup(fd)) >= 0 && read(copy, back, 20) == 20 && memcmp(back, big + 105, 20) == 0);
	CHECK(lseek(fd, 0, SEEK_CUR) == 125 && close(copy) == 0);
	CHECK(write(fd, "x", 1) == -1 && errno == EBADF);
	CHECK((map = mmap(NULL, BIG, PROT_READ, MAP_PRIVATE, fd, 0)) != MAP_FAILED && memcmp(map, big, BIG) == 0 && munmap(map, BIG) == 0);
	CHECK((to = open(at(0, "sent"), O_RDWR | O_CREAT | O_EXCL, 0666)) >= 0);
	CHECK(lseek(fd, 0, SEEK_SET) == 0 && sendfile(to, fd, NULL, BIG) == BIG);
	CHECK(close(fd) == 0 && close(to) == 0 && holds("sent", big, BIG));
	CHECK(open(at(0, "sent"), O_RDWR | O_CREAT | O_EXCL, 0666) == -1 && errno == EEXIST);
	CHECK((fd = open(at(0, "sent"), O_RDONLY)) >= 0 && (copy = fcntl(fd, F_DUPFD_CLOEXEC, 50)) >= 50 && close(fd) == 0);
	CHECK(read(copy, back, BIG) == BIG && memcmp(back, big, BIG) == 0 && close(copy) == 0);
}

static void
check_writes(void)
{
	struct iovec iov[2] = { { big, 10 }, { big + 10, 90 } };
	int fd, copy;
	void *map;

	CHECK((fd = open(at(0, "w"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) >= 0);
	CHECK(writev(fd, iov, 2) == 100 && pwrite(fd, big + 100, 50, 100) == 50 && fsync(fd) == 0 && holds("w", big, 150));
	CHECK(ftruncate(fd, 70) == 0 && fdatasync(fd) == 0 && holds("w", big, 70));
	CHECK((copy = dup2(fd, 60)) == 60 && close(fd) == 0 && pwrite(copy, "end", 3, 70) == 3 && close(copy) == 0);
	CHECK(holds("w", big, 70) == 0 && read(-1, back, 1) == -1);
	CHECK((fd = open(at(0, "w"), O_WRONLY | O_APPEND)) >= 0 && write(fd, "more", 4) == 4 && close(fd) == 0);
	CHECK((fd = open(at(0, "w"), O_RDWR)) >= 0 && read(fd, back, 100) == 77 && memcmp(back + 70, "endmore", 7) == 0);
	CHECK(pwrite(fd, "END", 3, 70) == 3 && close(fd) == 0);
	CHECK((fd = open(at(0, "w"), O_RDWR)) >= 0 && pread(fd, back, 100, 70) == 7 && memcmp(back, "ENDmore", 7) == 0);
	CHECK((map = mmap(NULL, 77, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) != MAP_FAILED);
	memcpy(map, "mapped", 6);
	CHECK(munmap(map, 77) == 0 && close(fd) == 0);
	CHECK((fd = open(at(0, "w"), O_RDONLY)) >= 0 && read(fd, back, 6) == 6 && memcmp(back, "mapped", 6) == 0 && close(fd) == 0);
	CHECK(truncate(at(0, "w"), 3) == 0 && holds("w", "map", 3));
	put("w", "", 0);
	CHECK(holds("w", "", 0));
	CHECK((fd = creat(at(0, "empty"), 0666)) >= 0 && close(fd) == 0 && holds("empty", "", 0));
}

/* NumPy's way: the header by write(), the body by a stream over a duplicate, which libc closes by itself. */
static void
check_streams(void)
{
	FILE *f = NULL;
	int fd;

	CHECK((fd = open(at(0, "np"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) >= 0);
	CHECK(write(fd, big, 128) == 128 && (f = fdopen(fcntl(fd, F_DUPFD_CLOEXEC, 0), "wb")) != NULL);
	CHECK(fseeko(f, 128, SEEK_SET) == 0 && fwrite(big + 128, 1, BIG - 128, f) == BIG - 128 && fclose(f) == 0);
	CHECK(lseek(fd, BIG, SEEK_SET) == BIG && fsync(fd) == 0 && holds("np", big, BIG) && close(fd) == 0 && holds("np", big, BIG));
	CHECK((fd = open(at(0, "np"), O_RDONLY)) >= 0 && read(fd, back, 4096) == 4096);
	CHECK((f = fdopen(dup(fd), "rb")) != NULL && fseeko(f, 128, SEEK_SET) == 0 && fread(back + 128, 1, BIG - 128, f) == BIG - 128);
	CHECK(memcmp(back, big, BIG) == 0 && fclose(f) == 0 && close(fd) == 0);
	CHECK((f = fopen(at(0, "f"), "w")) != NULL && fprintf(f, "hello %d", 1) == 7 && fclose(f) == 0 && holds("f", "hello 1", 7));
	CHECK((f = fopen(at(0, "f"), "a")) != NULL && fputs(", 2", f) >= 0 && fclose(f) == 0 && holds("f", "hello 1, 2", 10));
	CHECK((f = fopen(at(0, "f"), "r")) != NULL && fgets((char *)back, 100, f) != NULL && strcmp(back, "hello 1, 2") == 0 && fclose(f) == 0);
	CHECK(fopen(at(0, "none"), "r") == NULL && errno == ENOENT);
	CHECK((f = fopen(at(0, "same"), "w")) != NULL && fputs("aaaa", f) >= 0 && fflush(f) == 0 && fsync(fileno(f)) == 0);
	CHECK(fseek(f, 0, SEEK_SET) == 0 && fputs("bbbb", f) >= 0 && fclose(f) == 0 && holds("same", "bbbb", 4));
}

/* A stream's position, its end and what was pushed back, around reads that are longer than any buffer. */
static void
check_long_streams(void)
{
	FILE *f;

	put("long", big, BIG);
	CHECK((f = fopen(at(0, "long"), "rb")) != NULL && fileno(f) > 2 && fgetc(f) == (unsigned char)big[0]);
	CHECK(fread(back, 2, 1 << 20, f) == 1 << 20 && memcmp(back, big + 1, 2 << 20) == 0 && ftell(f) == 1 + (2 << 20));
	CHECK(fgetc(f) == (unsigned char)big[1 + (2 << 20)] && ungetc('x', f) == 'x' && ftell(f) == 1 + (2 << 20));
	CHECK(fread(back, 1, 100000, f) == 100000 && back[0] == 'x' && memcmp(back + 1, big + 2 + (2 << 20), 99999) == 0);
	CHECK(fseek(f, -100, SEEK_CUR) == 0 && fread(back, 1, 200, f) == 200 && memcmp(back, big + 99901 + (2 << 20), 200) == 0 && !feof(f));
	CHECK(fread(back, 7, BIG / 7, f) == (BIG - 100101 - (2 << 20)) / 7 && feof(f) && !ferror(f) && ftell(f) == BIG);
	CHECK(fread(back, 1, BIG, f) == 0 && fseek(f, 0, SEEK_SET) == 0 && !feof(f) && fread(back, 1, BIG, f) == BIG && memcmp(back, big, BIG) == 0);
	CHECK(!feof(f) && fgetc(f) == EOF && feof(f) && fclose(f) == 0);
	CHECK((f = fopen(at(0, "long"), "r+b")) != NULL && fseek(f, 100, SEEK_SET) == 0 && fread(back, 1, 1 << 20, f) == 1 << 20);
	CHECK(fseek(f, 0, SEEK_CUR) == 0 && fwrite("written", 1, 7, f) == 7 && fflush(f) == 0 && fseek(f, -10, SEEK_CUR) == 0);
	CHECK(fread(back, 1, 20, f) == 20 && memcmp(back + 3, "written", 7) == 0 && fclose(f) == 0);
	CHECK((f = fopen(at(0, "long"), "r+b")) != NULL && fseek(f, 1000, SEEK_SET) == 0 && fputc('w', f) == 'w' && fseek(f, 10, SEEK_CUR) == 0);
	CHECK(ftell(f) == 1011 && fclose(f) == 0);
	CHECK((f = fopen(at(0, "long"), "w+b")) != NULL && fwrite(big, 1, BIG, f) == BIG && ftell(f) == BIG && fputc('e', f) == 'e');
	rewind(f);
	CHECK(fread(back, 1, BIG, f) == BIG && memcmp(back, big, BIG) == 0 && fgetc(f) == 'e' && fclose(f) == 0);
	CHECK((f = fopen(at(0, "long"), "a+b")) != NULL && fwrite("end", 1, 3, f) == 3 && ftell(f) == BIG + 4 && fseek(f, -4, SEEK_END) == 0);
	CHECK(fread(back, 1, 5, f) == 4 && memcmp(back, "eend", 4) == 0 && feof(f) && fclose(f) == 0);
	CHECK((f = fopen(at(0, "long"), "rb")) != NULL && fwrite("x", 1, 1, f) == 0 && ferror(f) && fclose(f) == 0);
	CHECK((f = fopen(at(0, "long"), "wb")) != NULL && fread(back, 1, BIG, f) == 0 && ferror(f) && fputs("short", f) >= 0 && fclose(f) == 0);
	CHECK(fdopen(-1, "rb") == NULL && errno == EBADF && holds("long", "short", 5));
}

static void
check_names(void)
{
	struct stat st;
	int fd;

	CHECK(absent("n1"));
	put("n1", "one", 3);
	CHECK(rename(at(0, "n1"), at(1, "n2")) == 0 && absent("n1") && holds("n2", "one", 3));
	CHECK((fd = open(at(0, "n3.tmp"), O_WRONLY | O_CREAT | O_EXCL, 0666)) >= 0 && write(fd, "thr", 3) == 3);
	CHECK(rename(at(0, "n3.tmp"), at(1, "n2")) == 0 && write(fd, "ee", 2) == 2 && close(fd) == 0);
	CHECK(absent("n3.tmp") && holds("n2", "three", 5));
	CHECK(rename(at(0, "none"), at(1, "n2")) == -1 && errno == ENOENT && holds("n2", "three", 5));
	CHECK((fd = open(at(0, "n4"), O_WRONLY | O_CREAT, 0666)) >= 0 && write(fd, "x", 1) == 1 && unlink(at(0, "n4")) == 0);
	CHECK(close(fd) == 0 && absent("n4") && unlink(at(0, "n4")) == -1 && errno == ENOENT);
	CHECK(remove(at(0, "n2")) == 0 && absent("n2"));
	CHECK(access(at(0, "w"), R_OK | W_OK) == 0 && access(at(0, "w"), X_OK) == -1 && utimensat(AT_FDCWD, at(0, "w"), NULL, 0) == 0);
	CHECK(mkdir(at(0, "d"), 0777) == 0 && mkdir(at(0, "d/e"), 0777) == 0 && mkdir(at(0, "w"), 0777) == -1 && errno == EEXIST);
	put("d/e/x", "deep", 4);
	CHECK(rmdir(at(0, "d/e")) == -1 && errno == ENOTEMPTY && stat(at(0, "d/e"), &st) == 0 && S_ISDIR(st.st_mode));
	CHECK(holds("d/../d/./e//x", "deep", 4) && chdir(at(0, "d")) == 0);
	CHECK((fd = open("e/x", O_RDONLY)) >= 0 && read(fd, back, 9) == 4 && close(fd) == 0);
	CHECK((fd = open("e", O_RDONLY | O_DIRECTORY)) >= 0 && fstatat(fd, "x", &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size == 4);
	CHECK(unlinkat(fd, "x", 0) == 0 && close(fd) == 0 && chdir("/") == 0 && rmdir(at(0, "d/e")) == 0 && rmdir(at(0, "d")) == 0);
	CHECK(open(at(0, "none/x"), O_WRONLY | O_CREAT, 0666) == -1 && errno == ENOENT);
}

static void *
read_and_end(void *arg)
{
	char some[100];

	CHECK(pthread_cancel(pthread_self()) == 0);
	(void)!pread(*(int *)arg, some, sizeof(some), 0);
	pthread_testcancel();
	return (arg);
}

/* A thread that is cancelled in a read leaves nothing locked behind. */
static void
check_cancelled(void)
{
	pthread_t thread;
	void *got;
	int fd;

	put("cancelled", big, BIG);
	CHECK((fd = open(at(0, "cancelled"), O_RDONLY)) >= 0 && pthread_create(&thread, NULL, read_and_end, &fd) == 0);
	CHECK(pthread_join(thread, &got) == 0 && got == PTHREAD_CANCELED);
	CHECK(read(fd, back, BIG) == BIG && memcmp(back, big, BIG) == 0 && close(fd) == 0);
}

static int
by_name(const struct dirent **a, const struct dirent **b)
{
	return (strcmp((*a)->d_name, (*b)->d_name));
}

static void
check_lists(void)
{
	struct dirent **list, *e;
	struct statvfs vfs;
	int n, seen = 0;
	DIR *dir;

	CHECK(mkdir(at(0, "l"), 0777) == 0 && mkdir(at(0, "l/sub"), 0777) == 0);
	put("l/a", "1", 1);
	put("l/b", "2", 1);
	put("l/sub/c", "3", 1);
	CHECK((dir = opendir(at(0, "l"))) != NULL);
	while ((e = readdir(dir)) != NULL)
		seen += e->d_name[0] == 'a' || e->d_name[0] == 'b' ? 1 : strcmp(e->d_name, "sub") == 0 ? 10 : e->d_name[0] == '.' ? 100 : 1000;
	CHECK(seen == 212 && closedir(dir) == 0);
	CHECK((n = scandir(at(0, "l"), &list, NULL, by_name)) == 5 && strcmp(list[2]->d_name, "a") == 0 && strcmp(list[4]->d_name, "sub") == 0);
	while (n > 0)
		free(list[--n]);
	free(list);
	CHECK(statvfs(at(0, "l"), &vfs) == 0 && vfs.f_blocks > 0 && vfs.f_bavail <= vfs.f_blocks);
}

/* What a child does with descriptors that it did not open. */
static void
check_children(void)
{
	int fd, status, go[2];
	FILE *f;
	pid_t pid;

	CHECK(pipe(go) == 0 && (f = fopen(at(0, "half"), "w")) != NULL);
	CHECK((fd = open(at(0, "child"), O_WRONLY | O_CREAT | O_TRUNC, 0666)) >= 0 && write(fd, "par", 3) == 3);
	if ((pid = fork()) == 0)		/* closes what it has, as before an exec: nothing is half visible by that */
		_exit(close(fd) == 0 && (getenv("MEMKV_PRELOAD_PREFIX") == NULL || absent("child")) ? 0 : 1);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(write(fd, "ent", 3) == 3 && close(fd) == 0 && holds("child", "parent", 6));
	if ((pid = fork()) == 0) {
		put("own", "child's", 7);
		_exit(holds("child", "parent", 6) ? 0 : 1);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0 && holds("own", "child's", 7));
	if ((pid = fork()) == 0) {		/* what the parent writes meanwhile is not this one's to commit */
		CHECK(read(go[0], back, 1) == 1);
		_exit(0);
	}
	CHECK(fputs("half", f) >= 0 && fflush(f) == 0 && write(go[1], "", 1) == 1 && waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(fputs(" and half", f) >= 0 && fclose(f) == 0 && holds("half", "half and half", 13));
	if ((pid = fork()) == 0) {		/* ends with a file open */
		CHECK((fd = open(at(0, "left"), O_WRONLY | O_CREAT, 0666)) >= 0 && write(fd, "open", 4) == 4);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0 && holds("left", "open", 4));
	CHECK((fd = open(at(0, "range"), O_WRONLY | O_CREAT, 0666)) >= 0 && write(fd, "r", 1) == 1 && close_range((unsigned)fd, (unsigned)fd, 0) == 0);
	CHECK(close(fd) == -1 && errno == EBADF && holds("range", "r", 1));
}

int
main(int argc, char **argv)
{
	size_t i;

	if (argc != 2)
		return (2);
	top = argv[1];
	for (i = 0; i < BIG; i++)
		big[i] = (char)(i * 2654435761u >> 13);
	check_handler();
	check_reads();
	check_writes();
	check_streams();
	check_long_streams();
	check_cancelled();
	check_names();
	check_lists();
	check_children();
	return (0);
}
