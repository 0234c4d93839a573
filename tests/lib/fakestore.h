/*
 * The values of a fakeserver: a list in memory. Whoever finds, puts or drops holds the lock, and uses what was found under it alone.
 */
#ifndef MKV_TESTS_FAKESTORE_H
#define MKV_TESTS_FAKESTORE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/wire.h"

struct fake_obj {
	struct fake_obj	*next;
	char		ns[64];
	uint8_t		key[MKV_WIRE_KEY_MAX], *value;
	size_t		key_bytes, bytes;
	uint64_t	put_id;
	int		pin;
};

struct fakestore {
	pthread_mutex_t	lock;
	struct fake_obj	*head;
	unsigned	n;
};

void		fakestore_init(struct fakestore *s);
void		fakestore_fini(struct fakestore *s);
/* Where the object hangs; NULL is there if there is none. */
struct fake_obj	**fakestore_find(struct fakestore *s, const char *ns, const void *key, size_t key_bytes);
/* value: from malloc(), the store's from here on. */
void		fakestore_put(struct fakestore *s, const char *ns, const void *key, size_t key_bytes, uint8_t *value, size_t bytes, uint64_t put_id, int pin);
void		fakestore_drop(struct fakestore *s, struct fake_obj **o);

#endif
