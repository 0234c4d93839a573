/*
 * memkv-front, loop thread: the front's keys (derived by the supervisor for this front alone, never a credential) and the secrets of namespaces for
 * key digests. Owns both tables; they are wiped in mkv_front_destroy().
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

int
mkv_front_key(struct mkv_front *f, uint32_t key_id, const uint8_t key[32], int dev, int revoked)
{
	struct mkv_front_key_row *row = NULL;

	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	for (unsigned i = 0; i < MKV_FRONT_KEYS_MAX && row == NULL; i++)
		if (f->key[i].key_id == key_id)
			row = &f->key[i];
	if (revoked) {
		if (row != NULL && key_id != 0)
			mkv_wipe(row, sizeof(*row));
		return (0);
	}
	for (unsigned i = 0; i < MKV_FRONT_KEYS_MAX && row == NULL; i++)
		if (f->key[i].key_id == 0)
			row = &f->key[i];
	if (row == NULL)
		return (MKV_E_NOSPACE);
	row->key_id = key_id;
	row->dev = dev != 0;
	memcpy(row->key, key, sizeof(row->key));
	return (0);
}

const struct mkv_front_key_row *
mkv_auth_key(const struct mkv_front *f, uint32_t key_id, int loopback)
{
	if (key_id == 0)
		return (NULL);
	for (unsigned i = 0; i < MKV_FRONT_KEYS_MAX; i++)
		if (f->key[i].key_id == key_id)
			return (!f->key[i].dev || loopback ? &f->key[i] : NULL);
	return (NULL);
}

const uint8_t *
mkv_ns_secret(struct mkv_front *f, const void *ns, size_t ns_bytes)
{
	struct mkv_ns_row *row;

	MKV_ASSERT(ns_bytes <= MKV_WIRE_NS_MAX);
	for (unsigned i = 0; i < FRONT_NS_CACHE; i++) {
		row = &f->ns[i];
		if (row->used && row->ns_bytes == ns_bytes && memcmp(row->ns, ns, ns_bytes) == 0)
			return (row->secret);
	}
	row = &f->ns[f->ns_next++ % FRONT_NS_CACHE];
	row->used = 0;
	if (mkv_digest_secret(f->conf.store_secret, ns, ns_bytes, row->secret) != 0)
		return (NULL);
	memcpy(row->ns, ns, ns_bytes);
	row->ns_bytes = (uint16_t)ns_bytes;
	row->used = 1;
	return (row->secret);
}
