/*
 * The smallest client: put one block, get it back. Build: cc put_get.c $(pkg-config --cflags --libs memkv)
 */
#include <stdio.h>
#include <string.h>

#include <memkv/memkv.h>

#define DEADLINE_US	1000000			/* each call has one */

int
main(void)
{
	static const char key[] = "example", value[] = "a block of KV cache";
	struct mkv_object obj = { .size = sizeof(obj) };
	struct mkv_client *c;
	char why[256], buf[64];
	int64_t n;
	int r;

	if (mkv_client_open(&c, NULL, why, sizeof(why)) != 0) {		/* MEMKV_SERVERS, else 127.0.0.1:9900 */
		(void)fprintf(stderr, "open: %s\n", why);
		return (2);
	}
	if ((r = mkv_put(c, key, strlen(key), value, sizeof(value), NULL, DEADLINE_US, NULL)) != 0)
		(void)fprintf(stderr, "put: %s\n", mkv_strerror(r));
	n = mkv_get(c, key, strlen(key), buf, sizeof(buf), DEADLINE_US, &obj);
	if (n >= 0)
		(void)printf("%s\n", buf);
	else if (n == MKV_ERR_MISS)
		(void)fprintf(stderr, "miss: %s\n", mkv_miss_text(obj.reason));
	else
		(void)fprintf(stderr, "get: %s\n", mkv_strerror((int)n));
	mkv_client_close(c);
	return (n >= 0 ? 0 : 1);
}
