/*
 * Which key: the derivations and the texts keys come from. docs/internals/crypto.md has them in one table.
 *
 * Any process, any thread; no state. Intermediate secrets are wiped before return. Everything hashed is laid out byte by byte, little
 * endian, so that the results do not depend on a compiler's padding.
 */
#include "config.h"
#include "common/base/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define KEY_BOOT_ID	"/proc/sys/kernel/random/boot_id"
#define KEY_HOST_ID_MIN	32u			/* hex digits of /etc/machine-id; the boot id has hyphens besides */
#define KEY_HOST_ID_MAX	64u

static uint8_t *
key_put_le(uint8_t *p, uint32_t v, unsigned bytes)
{
	for (; bytes > 0; bytes--, v >>= 8)
		*p++ = (uint8_t)v;
	return (p);
}

static int
key_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return (c - '0');
	if (c >= 'a' && c <= 'f')
		return (c - 'a' + 10);
	if (c >= 'A' && c <= 'F')
		return (c - 'A' + 10);
	return (-1);
}

int
mkv_key_parse(const char *hex, uint8_t key[MKV_KEY_BYTES])
{
	uint8_t k[MKV_KEY_BYTES];
	int hi, lo;

	if (strlen(hex) != 2 * MKV_KEY_BYTES)
		return (MKV_E_INVAL);
	for (size_t i = 0; i < MKV_KEY_BYTES; i++) {
		hi = key_hex_digit(hex[2 * i]);
		lo = key_hex_digit(hex[2 * i + 1]);
		if (hi < 0 || lo < 0)
			return (MKV_E_INVAL);
		k[i] = (uint8_t)(hi << 4 | lo);
	}
	memcpy(key, k, sizeof(k));
	mkv_wipe(k, sizeof(k));
	return (0);
}

uint32_t
mkv_key_id(const uint8_t key[MKV_KEY_BYTES])
{
	static const char label[] = "memkv key id";
	uint8_t sum[32];
	uint32_t id;

	if (mkv_sha256(label, sizeof(label) - 1, key, MKV_KEY_BYTES, sum) != 0)
		return (0);
	id = (uint32_t)sum[0] | (uint32_t)sum[1] << 8 | (uint32_t)sum[2] << 16 | (uint32_t)sum[3] << 24;
	return (id > MKV_KEY_ID_DEV ? id : id + MKV_KEY_ID_DEV + 1);
}

/* Hex digits of an id file into id; how many, 0 if the file is not there or holds no id (an image that has not booted yet). */
static size_t
key_read_host_id(const char *path, char id[KEY_HOST_ID_MAX])
{
	char text[128];
	ssize_t got;
	size_t n = 0;
	int fd;

	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return (0);
	do
		got = read(fd, text, sizeof(text));
	while (got < 0 && errno == EINTR);
	close(fd);
	for (ssize_t i = 0; i < got && n < KEY_HOST_ID_MAX; i++)
		if (key_hex_digit(text[i]) >= 0)
			id[n++] = text[i];
		else if (text[i] != '-')
			break;
	return (n >= KEY_HOST_ID_MIN ? n : 0);
}

int
mkv_key_host(uint8_t host[16])
{
	static const char info[] = "memkv1 host id";
	char id[KEY_HOST_ID_MAX];
	size_t n = key_read_host_id(KEY_BOOT_ID, id);

	return (n == 0 ? MKV_E_SYSTEM : mkv_hkdf((const uint8_t *)id, n, NULL, 0, info, sizeof(info) - 1, host, 16));
}

int
mkv_key_dev(uint8_t key[MKV_KEY_BYTES])
{
	static const char *const path[] = { "/etc/machine-id", KEY_BOOT_ID };
	static const char info[] = "memkv1 dev key";
	char id[KEY_HOST_ID_MAX];
	size_t n = 0;

	for (size_t i = 0; i < MKV_ARRAY_LEN(path) && n == 0; i++)
		n = key_read_host_id(path[i], id);
	if (n == 0)
		return (MKV_E_SYSTEM);
	return (mkv_hkdf((const uint8_t *)id, n, NULL, 0, info, sizeof(info) - 1, key, MKV_KEY_BYTES));
}

int
mkv_key_front(const uint8_t cred[MKV_KEY_BYTES], uint32_t front_id, uint8_t out[MKV_KEY_BYTES])
{
	static const char label[] = "memkv1 front";
	uint8_t info[sizeof(label) - 1 + 4];

	memcpy(info, label, sizeof(label) - 1);
	key_put_le(info + sizeof(label) - 1, front_id, 4);
	return (mkv_hkdf(cred, MKV_KEY_BYTES, NULL, 0, info, sizeof(info), out, MKV_KEY_BYTES));
}

int
mkv_key_session(const uint8_t front_key[MKV_KEY_BYTES], const uint8_t nonce_c[32], const uint8_t nonce_s[32],
    enum mkv_dir dir, uint16_t channel, uint32_t front_id, const uint8_t transcript[32], uint8_t out[MKV_KEY_BYTES])
{
	static const char label[] = "memkv1";
	uint8_t salt[64], info[sizeof(label) - 1 + 1 + 2 + 4 + 32], *p = info;

	memcpy(salt, nonce_c, 32);
	memcpy(salt + 32, nonce_s, 32);
	memcpy(p, label, sizeof(label) - 1);
	p = key_put_le(p + sizeof(label) - 1, (uint32_t)dir, 1);
	p = key_put_le(p, channel, 2);
	p = key_put_le(p, front_id, 4);
	memcpy(p, transcript, 32);
	MKV_ASSERT(p + 32 == info + sizeof(info));
	return (mkv_hkdf(front_key, MKV_KEY_BYTES, salt, sizeof(salt), info, sizeof(info), out, MKV_KEY_BYTES));
}
