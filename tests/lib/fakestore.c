/*
 * The values of a fakeserver. See fakestore.h.
 *
 * The test's process, any of the fake's threads and the test's own. Owns the list and the values. Memory that is not there ends the test.
 */
#include "config.h"
#include "tests/lib/fakestore.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"

void
fakestore_init(struct fakestore *s)
{
	memset(s, 0, sizeof(*s));
	(void)pthread_mutex_init(&s->lock, NULL);
}

void
fakestore_fini(struct fakestore *s)
{
	while (s->head != NULL)
		fakestore_drop(s, &s->head);
	(void)pthread_mutex_destroy(&s->lock);
}

struct fake_obj **
fakestore_find(struct fakestore *s, const char *ns, const void *key, size_t key_bytes)
{
	struct fake_obj **o = &s->head;

	while (*o != NULL && ((*o)->key_bytes != key_bytes || strcmp((*o)->ns, ns) != 0 || memcmp((*o)->key, key, key_bytes) != 0))
		o = &(*o)->next;
	return (o);
}

void
fakestore_drop(struct fakestore *s, struct fake_obj **o)
{
	struct fake_obj *gone = *o;

	*o = gone->next;
	free(gone->value);
	free(gone);
	s->n--;
}

void
fakestore_put(struct fakestore *s, const char *ns, const void *key, size_t key_bytes, uint8_t *value, size_t bytes, uint64_t put_id, int pin)
{
	struct fake_obj **at = fakestore_find(s, ns, key, key_bytes), *o;

	if (*at != NULL)
		fakestore_drop(s, at);
	o = calloc(1, sizeof(*o));
	MKV_ASSERT(o != NULL);
	memcpy(o->ns, ns, strlen(ns) + 1);
	memcpy(o->key, key, key_bytes);
	o->key_bytes = key_bytes;
	o->value = value;
	o->bytes = bytes;
	o->put_id = put_id;
	o->pin = pin;
	o->next = s->head;
	s->head = o;
	s->n++;
}
