/*
 * Keys and MACs on OpenSSL 3.
 *
 * Any process. A struct mkv_mac belongs to one loop thread; everything else may be called from any thread. The algorithms are fetched
 * once per process (a fetch costs more than a MAC) and kept for its life; a keyed context is re-armed for every message instead of being
 * made anew, which mkv_auth_init() proves to work by signing two messages in a row. What can fail is memory and a library without
 * SHA-256: MKV_E_NOMEM, MKV_E_SYSTEM.
 *
 * A program may call exit() while threads of ours are at work, and OpenSSL takes itself down in there. auth_end() runs before that: it lets nobody in any more, which
 * is MKV_E_SYSTEM to them, and waits for those who are inside.
 *
 *   auth_inside   how many calls are in OpenSSL, and AUTH_OVER once the program is ending; any thread
 */
#include "config.h"
#include "common/base/auth.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"

#define MAC_MAGIC	0x3ac5e91du
#define RANDOM_MAX	256u			/* getentropy(3) gives no more in one call */
#define AUTH_OVER	0x80000000u
#define AUTH_END_NS	(1000 * MKV_NS_PER_MS)	/* a call takes microseconds, if its thread has a processor */
#define AUTH_LOOK_NS	(50 * MKV_NS_PER_US)

_Static_assert(MKV_MAC_BYTES == 32, "HMAC-SHA256");

struct mkv_mac {
	uint32_t	magic;
	EVP_MAC_CTX	*ctx;			/* keyed; every message begins with a re-arm */
};

static pthread_once_t auth_once = PTHREAD_ONCE_INIT;
static EVP_MAC *auth_hmac;			/* this and the next are valid after auth_fetch(), for the life of the process */
static EVP_KDF *auth_kdf;
static EVP_MD *auth_sha256;
static int auth_able;
static _Atomic uint32_t auth_inside;

/* ---- The end of the program ------------------------------------------------------------------------------------------------ */

static void
auth_end(void)
{
	const struct timespec look = { .tv_nsec = AUTH_LOOK_NS };
	uint64_t until = mkv_now_ns() + AUTH_END_NS;

	atomic_fetch_or_explicit(&auth_inside, AUTH_OVER, memory_order_relaxed);
	/* Acquire: pairs with auth_leave(). */
	while (atomic_load_explicit(&auth_inside, memory_order_acquire) != AUTH_OVER && mkv_now_ns() < until)
		(void)nanosleep(&look, NULL);
}

/* Of those who were inside none came along. */
static void
auth_forked(void)
{
	atomic_fetch_and_explicit(&auth_inside, AUTH_OVER, memory_order_relaxed);
}

/* 1: OpenSSL is there until auth_leave(). */
static int
auth_enter(void)
{
	/* Acquire: pairs with auth_leave(); one word, so either auth_end() sees that we are in, or we that it is over. */
	if ((atomic_fetch_add_explicit(&auth_inside, 1, memory_order_acquire) & AUTH_OVER) == 0)
		return (1);
	atomic_fetch_sub_explicit(&auth_inside, 1, memory_order_release);
	return (0);
}

static void
auth_leave(void)
{
	/* Release: what we did there has happened before auth_end() lets OpenSSL go. */
	atomic_fetch_sub_explicit(&auth_inside, 1, memory_order_release);
}

/* What was registered last is called first, so OpenSSL's end has to be registered already: LOAD_CONFIG does that, and is what it would do for a fetch. */
static void
auth_fetch(void)
{
	if (OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL) != 1)
		return;
	auth_hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	auth_kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	auth_sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	auth_able = auth_hmac != NULL && auth_kdf != NULL && auth_sha256 != NULL && atexit(auth_end) == 0 && pthread_atfork(NULL, NULL, auth_forked) == 0;
}

/* 0: in, until auth_leave(). */
static int
auth_begin(void)
{
	(void)pthread_once(&auth_once, auth_fetch);
	if (!auth_enter())
		return (MKV_E_SYSTEM);
	if (auth_able)
		return (0);
	auth_leave();
	return (MKV_E_SYSTEM);
}

/* ---- MACs ------------------------------------------------------------------------------------------------------------------ */

/* NULL: memory, or a digest that OpenSSL does not have. */
static EVP_MAC_CTX *
mac_keyed(const uint8_t key[MKV_KEY_BYTES])
{
	EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(auth_hmac);
	OSSL_PARAM params[2];
	char digest[] = "SHA256";

	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0);
	params[1] = OSSL_PARAM_construct_end();
	if (ctx != NULL && EVP_MAC_init(ctx, key, MKV_KEY_BYTES, params))
		return (ctx);
	EVP_MAC_CTX_free(ctx);
	return (NULL);
}

int
mkv_mac_create(struct mkv_mac **out, const uint8_t key[MKV_KEY_BYTES])
{
	struct mkv_mac *m;

	*out = NULL;
	if (auth_begin() != 0)
		return (MKV_E_SYSTEM);
	if ((m = calloc(1, sizeof(*m))) != NULL) {
		m->magic = MAC_MAGIC;
		m->ctx = mac_keyed(key);
	}
	auth_leave();
	if (m == NULL)
		return (MKV_E_NOMEM);
	if (m->ctx == NULL) {
		mkv_mac_destroy(&m);
		return (MKV_E_SYSTEM);
	}
	TAKE(*out, m);
	return (0);
}

void
mkv_mac_destroy(struct mkv_mac **mp)
{
	struct mkv_mac *m = *mp;

	*mp = NULL;
	if (m == NULL)
		return;
	MKV_CHECK_OBJ(m, MAC_MAGIC);
	if (auth_enter()) {			/* else the end of the program frees it */
		EVP_MAC_CTX_free(m->ctx);	/* wipes the key */
		auth_leave();
	}
	m->magic = 0;
	free(m);
}

static int
mac_sign(struct mkv_mac *m, const void *a, size_t a_bytes, const void *b, size_t b_bytes, uint8_t out[MKV_MAC_BYTES])
{
	size_t bytes = 0;

	if (!EVP_MAC_init(m->ctx, NULL, 0, NULL) || !EVP_MAC_update(m->ctx, a, a_bytes))
		return (MKV_E_SYSTEM);
	if (b != NULL && !EVP_MAC_update(m->ctx, b, b_bytes))
		return (MKV_E_SYSTEM);
	if (!EVP_MAC_final(m->ctx, out, &bytes, MKV_MAC_BYTES) || bytes != MKV_MAC_BYTES)
		return (MKV_E_SYSTEM);
	return (0);
}

int
mkv_mac_sign(struct mkv_mac *m, const void *a, size_t a_bytes, const void *b, size_t b_bytes, uint8_t out[MKV_MAC_BYTES])
{
	int r;

	MKV_CHECK_OBJ(m, MAC_MAGIC);
	if (!auth_enter())
		return (MKV_E_SYSTEM);
	r = mac_sign(m, a, a_bytes, b, b_bytes, out);
	auth_leave();
	return (r);
}

int
mkv_mac_check(struct mkv_mac *m, const void *a, size_t a_bytes, const void *b, size_t b_bytes, const uint8_t mac[MKV_MAC_BYTES])
{
	uint8_t own[MKV_MAC_BYTES];
	int r = mkv_mac_sign(m, a, a_bytes, b, b_bytes, own);

	if (r == 0 && CRYPTO_memcmp(own, mac, MKV_MAC_BYTES) != 0)
		r = MKV_E_AUTH;
	mkv_wipe(own, sizeof(own));
	return (r);
}

/* ---- Derivations and digests ----------------------------------------------------------------------------------------------- */

static int
hkdf(const uint8_t *ikm, size_t ikm_bytes, const uint8_t *salt, size_t salt_bytes, const void *info, size_t info_bytes, uint8_t *out, size_t out_bytes)
{
	char digest[] = "SHA256";
	OSSL_PARAM params[5], *p = params;
	EVP_KDF_CTX *ctx;
	int r;

	if ((ctx = EVP_KDF_CTX_new(auth_kdf)) == NULL)
		return (MKV_E_NOMEM);
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)ikm, ikm_bytes);
	if (salt_bytes != 0)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)salt, salt_bytes);
	if (info_bytes != 0)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)info, info_bytes);
	*p = OSSL_PARAM_construct_end();
	r = EVP_KDF_derive(ctx, out, out_bytes, params) > 0 ? 0 : MKV_E_SYSTEM;
	EVP_KDF_CTX_free(ctx);
	return (r);
}

int
mkv_hkdf(const uint8_t *ikm, size_t ikm_bytes, const uint8_t *salt, size_t salt_bytes, const void *info, size_t info_bytes,
    uint8_t *out, size_t out_bytes)
{
	int r;

	if ((r = auth_begin()) != 0)
		return (r);
	r = hkdf(ikm, ikm_bytes, salt, salt_bytes, info, info_bytes, out, out_bytes);
	auth_leave();
	return (r);
}

static int
sha256(const void *a, size_t a_bytes, const void *b, size_t b_bytes, uint8_t out[32])
{
	EVP_MD_CTX *ctx;
	int r = 0;

	if ((ctx = EVP_MD_CTX_new()) == NULL)
		return (MKV_E_NOMEM);
	if (!EVP_DigestInit_ex2(ctx, auth_sha256, NULL) || !EVP_DigestUpdate(ctx, a, a_bytes) ||
	    (b != NULL && !EVP_DigestUpdate(ctx, b, b_bytes)) || !EVP_DigestFinal_ex(ctx, out, NULL))
		r = MKV_E_SYSTEM;
	EVP_MD_CTX_free(ctx);
	return (r);
}

int
mkv_sha256(const void *a, size_t a_bytes, const void *b, size_t b_bytes, uint8_t out[32])
{
	int r;

	if ((r = auth_begin()) != 0)
		return (r);
	r = sha256(a, a_bytes, b, b_bytes, out);
	auth_leave();
	return (r);
}

/* ---- Random bytes, wiping -------------------------------------------------------------------------------------------------- */

int
mkv_random(void *buf, size_t bytes)
{
	uint8_t *p = buf;
	size_t n;

	for (; bytes > 0; bytes -= n, p += n) {
		n = MKV_MIN(bytes, RANDOM_MAX);
		if (getentropy(p, n) != 0)
			return (MKV_E_SYSTEM);
	}
	return (0);
}

void
mkv_wipe(void *p, size_t bytes)
{
	OPENSSL_cleanse(p, bytes);
}

/* The answers were computed with another library; the key is 00 01 .. 1f. */
int
mkv_auth_init(void)
{
	static const char *const text[2] = { "memkv known answer 1", "memkv known answer 2" };
	static const uint8_t want[2][MKV_MAC_BYTES] = {
	    { 0x98, 0x22, 0xb3, 0x88, 0x45, 0xe8, 0x6b, 0x72, 0xf6, 0x02, 0x41, 0x07, 0x4d, 0x13, 0x23, 0x23,
	      0xd7, 0x35, 0xa2, 0x30, 0xeb, 0xf8, 0x3a, 0xe4, 0xe1, 0x00, 0x93, 0xdb, 0xa8, 0x6e, 0xb7, 0x5f },
	    { 0xcc, 0xb7, 0x65, 0x36, 0x2b, 0x9d, 0xa5, 0xee, 0x3f, 0xf1, 0xd7, 0xa5, 0x86, 0x94, 0x7f, 0x34,
	      0xd3, 0xb7, 0x40, 0xad, 0x26, 0xaa, 0xb9, 0x4a, 0x8d, 0x02, 0xbd, 0xc4, 0x00, 0xb5, 0x6a, 0xc6 },
	};
	uint8_t key[MKV_KEY_BYTES];
	struct mkv_mac *m;
	int r;

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)i;
	if ((r = mkv_mac_create(&m, key)) != 0)
		return (r);
	for (size_t i = 0; i < 2 && r == 0; i++)
		r = mkv_mac_check(m, text[i], strlen(text[i]), NULL, 0, want[i]);
	mkv_mac_destroy(&m);
	return (r == 0 ? 0 : MKV_E_SYSTEM);
}
