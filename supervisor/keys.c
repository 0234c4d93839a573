/*
 * Process: supervisor, loop thread.
 * Owns: the credential in use and the one before it. Wiped when replaced twice and at the end.
 * What can fail: a text that is no key; the system's id files, when no key is configured.
 */
#include "config.h"

#include "supervisor/keys_priv.h"

#include <string.h>

#include "common/base/err.h"

int
keys_set(struct keys *k, const char *hex)
{
	struct key fresh = { 0 };
	int r;

	fresh.dev = hex == NULL || hex[0] == '\0';
	r = fresh.dev ? mkv_key_dev(fresh.cred) : mkv_key_parse(hex, fresh.cred);
	if (r == 0) {
		fresh.id = fresh.dev ? MKV_KEY_ID_DEV : mkv_key_id(fresh.cred);
		if (fresh.id != k->now.id)
			k->before = k->now;
		k->now = fresh;
	}
	mkv_wipe(&fresh, sizeof(fresh));
	return (r);
}

void
keys_wipe(struct keys *k)
{
	mkv_wipe(k, sizeof(*k));
}
