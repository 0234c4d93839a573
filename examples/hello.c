/*
 * The smallest whole client: put a block, get it back, say why something else is not there.
 *
 * cc hello.c $(pkg-config --cflags --libs memkv) && MEMKV_SERVERS=127.0.0.1:9900 ./a.out
 * Any process, one thread. Exit: 0; 1 with a sentence on the standard error.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <memkv/memkv.h>

#define SECOND	UINT64_C(1000000)

static int
failed(const char *what, int64_t result)
{
	fprintf(stderr, "%s: %s\n", what, mkv_strerror((int)result));
	return (1);
}

static int
round_trip(struct mkv_client *c)
{
	static const char key[] = "hello", value[] = "a block of KV cache";
	struct mkv_object obj = { .size = sizeof(obj) };
	char buf[64];
	int64_t n;

	n = mkv_put(c, key, strlen(key), value, sizeof(value), NULL, 10 * SECOND, NULL);
	if (n != 0)
		return (failed("put", n));
	n = mkv_get(c, key, strlen(key), buf, sizeof(buf), SECOND, NULL);
	if (n < 0)
		return (failed("get", n));
	printf("got %" PRId64 " bytes: %s\n", n, buf);
	n = mkv_get(c, "nothing", 7, buf, sizeof(buf), SECOND, &obj);
	if (n != MKV_ERR_MISS)
		return (failed("get of what is not there", n));
	printf("a miss: %s\n", mkv_miss_text(obj.reason));
	return (0);
}

int
main(void)
{
	struct mkv_client *c;
	char why[256];
	int status;

	if (mkv_client_open(&c, NULL, why, sizeof(why)) != 0) {
		fprintf(stderr, "open: %s\n", why);
		return (1);
	}
	status = round_trip(c);
	mkv_client_close(c);
	return (status);
}
