/*
 * The auth keys: this is the only place that reads them. Fronts get what is derived for them, never the credential.
 */
#ifndef MKV_SUPERVISOR_KEYS_PRIV_H
#define MKV_SUPERVISOR_KEYS_PRIV_H

#include <stdint.h>

#include "common/base/auth.h"

struct key {
	uint32_t	id;			/* on the wire; 0: none */
	int		dev;			/* derived from the host: loopback peers only */
	uint8_t		cred[MKV_KEY_BYTES];
};

struct keys {
	struct key	now, before;		/* before: replaced by the last reload, to be revoked */
};

/* hex: 64 hex digits, NULL or "" for the dev key. 0, MKV_E_INVAL (not a key), MKV_E_SYSTEM. On failure k is as it was. */
int	keys_set(struct keys *k, const char *hex);
void	keys_wipe(struct keys *k);

#endif
