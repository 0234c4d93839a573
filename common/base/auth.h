/*
 * Keys and MACs (docs/internals/crypto.md): HMAC-SHA256, HKDF-SHA256, the handshake's derivations, counters. OpenSSL below.
 * A struct mkv_mac is one keyed EVP_MAC context re-armed for each message; one loop thread, one direction of one channel.
 * Key material is wiped when freed and never logged.
 */
#ifndef MKV_BASE_AUTH_H
#define MKV_BASE_AUTH_H

#include <stddef.h>
#include <stdint.h>

#define MKV_KEY_BYTES	32
#define MKV_MAC_BYTES	32

struct mkv_mac;

/* Known-answer test, two messages in a row; MKV_E_SYSTEM if the library is unusable. Once per process before the jail. */
int	mkv_auth_init(void);

int	mkv_mac_create(struct mkv_mac **out, const uint8_t key[MKV_KEY_BYTES]);
void	mkv_mac_destroy(struct mkv_mac **m);			/* accepts NULL */
/* MAC over a||b; b may be NULL. Returns 0 or MKV_E_SYSTEM. */
int	mkv_mac_sign(struct mkv_mac *m, const void *a, size_t a_bytes, const void *b, size_t b_bytes, uint8_t out[MKV_MAC_BYTES]);
/* 0 if mac fits, MKV_E_AUTH if not; constant time. */
int	mkv_mac_check(struct mkv_mac *m, const void *a, size_t a_bytes, const void *b, size_t b_bytes, const uint8_t mac[MKV_MAC_BYTES]);

int	mkv_hkdf(const uint8_t *ikm, size_t ikm_bytes, const uint8_t *salt, size_t salt_bytes, const void *info, size_t info_bytes,
	    uint8_t *out, size_t out_bytes);
int	mkv_sha256(const void *a, size_t a_bytes, const void *b, size_t b_bytes, uint8_t out[32]);
int	mkv_random(void *buf, size_t bytes);			/* getrandom; MKV_E_SYSTEM */

/* The dev key: from /etc/machine-id, else the kernel's boot id. Same for every process on the host. 0 or MKV_E_SYSTEM. */
int	mkv_key_dev(uint8_t key[MKV_KEY_BYTES]);
/* What names this host until it boots again, to those on it: from the kernel's boot id, which it does not give away. 0 or MKV_E_SYSTEM: it has none. */
int	mkv_key_host(uint8_t id[16]);
/* 64 hex digits -> key. MKV_E_INVAL. */
int	mkv_key_parse(const char *hex, uint8_t key[MKV_KEY_BYTES]);
/* Number that names a credential on the wire (mkv_hdr.key_id): first 4 bytes (LE) of SHA-256("memkv key id" || key), moved by 2
 * where that is 0 or MKV_KEY_ID_DEV, which stands for the dev key whatever it is. 0 only when memory is out. */
#define MKV_KEY_ID_DEV	1u
uint32_t mkv_key_id(const uint8_t key[MKV_KEY_BYTES]);

/*
 * What the supervisor gives to a front instead of the credential itself, and what a client computes after `hello`:
 * HKDF(ikm = credential, salt = none, info = "memkv1 front" || front_id as u32 LE).
 */
int	mkv_key_front(const uint8_t cred[MKV_KEY_BYTES], uint32_t front_id, uint8_t out[MKV_KEY_BYTES]);

enum mkv_dir { MKV_DIR_C2S = 1, MKV_DIR_S2C = 2 };

/*
 * Session key of one direction and channel: PRK = Extract(salt = nonce_c || nonce_s, ikm = front key);
 * Expand(PRK, "memkv1" || u8 dir || u16 channel || u32 front_id || SHA-256(hello frame || hello reply frame)).
 * transcript: that SHA-256.
 */
int	mkv_key_session(const uint8_t front_key[MKV_KEY_BYTES], const uint8_t nonce_c[32], const uint8_t nonce_s[32],
	    enum mkv_dir dir, uint16_t channel, uint32_t front_id, const uint8_t transcript[32], uint8_t out[MKV_KEY_BYTES]);

void	mkv_wipe(void *p, size_t bytes);			/* not optimised away */

#endif
