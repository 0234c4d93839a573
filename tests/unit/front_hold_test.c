/*
 * Memory mode: pieces of a value that lie with drives until it is their turn to leave, and drives that die meanwhile. What leaves are the value's bytes.
 */
#include "config.h"

#include "tests/unit/front_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/err.h"

#define PART	(1u << 20)
#define BYTES	(3 * PART)

/* How many pieces of the value are at a drive; of them the first, by its bytes; the manifest. */
static unsigned
pieces_at(const struct rig_drive *d, const uint8_t *want, int *first, int *manifest)
{
	unsigned n = 0;

	*first = *manifest = 0;
	for (const struct rig_object *o = d->obj; o < d->obj + RIG_OBJECTS; o++) {
		*manifest |= o->used && (o->flags & MKV_DRV_F_MANIFEST) != 0;
		if (!o->used || (o->flags & MKV_DRV_F_PIECE) == 0)
			continue;
		*first |= memcmp(o->data, want, PART) == 0;
		n++;
	}
	return (n);
}

static void
empty(struct rig_drive *d)
{
	for (struct rig_object *o = d->obj; o < d->obj + RIG_OBJECTS; o++) {
		free(o->data);
		memset(o, 0, sizeof(*o));
	}
}

static void
put_in_parts(struct rig_client *c, uint64_t id, const char *key, const uint8_t *want)
{
	uint8_t body[1024];

	for (uint32_t at = 0; at < BYTES; at += PART) {
		const size_t n = rig_put_body(body, key, at == 0 ? strlen(key) : 0, want + at, PART, at, BYTES, 0);

		(void)rig_send(c, MKV_WIRE_PUT, at + PART < BYTES ? MKV_WIRE_F_MORE : 0, id, body, n, want + at, PART);
	}
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.status, 0);
}

/* A value whose first piece is alone at a drive, which is returned; the others and the manifest are at the other one. */
static unsigned
put_split(struct rig *r, struct rig_client *c, char key[16], uint8_t *want)
{
	int first, manifest;

	for (unsigned i = 0; i < 500; i++) {
		empty(&r->drive[0]);
		empty(&r->drive[1]);
		snprintf(key, 16, "k%u", i);
		rig_fill(want, BYTES, 7 + i);
		put_in_parts(c, 1000 + i, key, want);
		for (unsigned d = 0; d < 2; d++)
			if (pieces_at(&r->drive[d], want, &first, &manifest) == 1 && first && !manifest)
				return (d);
	}
	fail_msg("they are never split so");
	return (0);
}

/* Another life of the drive: what it has lies elsewhere now, and where it lay something else does. */
static void
live_again(struct rig *r, unsigned drive)
{
	struct rig_drive *d = &r->drive[drive];

	memset(d->arena, 0xee, RIG_ARENA / 2);
	for (unsigned i = 0, n = 0; i < RIG_OBJECTS; i++) {
		if (!d->obj[i].used || d->obj[i].data == NULL)
			continue;
		d->obj[i].arena_off = RIG_ARENA / 2 + n++ * PART;
		memcpy(d->arena + d->obj[i].arena_off, d->obj[i].data, d->obj[i].bytes);
	}
	d->holds = 0;
	rig_drive_up(r, drive, d->epoch + 1);
}

/* The drive of the later pieces dies while they wait for the first. */
static void
wait_for_their_turn(struct rig *r, struct rig_client *c)
{
	uint8_t *want = malloc(BYTES), *got = malloc(BYTES), body[1024];
	char key[16];
	unsigned first = put_split(r, c, key, want);
	struct rig_drive *f = &r->drive[first], *other = &r->drive[1 - first];
	size_t have = 0;

	f->hold = 1;
	other->count[MKV_DRV_GET] = 0;
	(void)rig_send(c, MKV_WIRE_GET, 0, 5000, body, rig_get_body(body, key, strlen(key), 0, BYTES), NULL, 0);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && (f->n_held == 0 || other->count[MKV_DRV_GET] < 3); i++)
		rig_pump_ms(r, 1);
	assert_true(f->n_held == 1 && other->holds == 3);
	rig_drive_kill(r, 1 - first);
	live_again(r, 1 - first);
	rig_drive_answer_held(f);
	do {
		assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
		assert_int_equal(c->f.hdr.status, 0);
		assert_true(have + c->f.hdr.payload_bytes <= BYTES);
		memcpy(got + have, c->f.payload, c->f.hdr.payload_bytes);
		have += c->f.hdr.payload_bytes;
	} while (c->f.hdr.flags & MKV_WIRE_F_MORE);
	assert_int_equal(have, BYTES);
	assert_memory_equal(got, want, BYTES);
	free(want);
	free(got);
}

static void
pieces_wait_for_their_turn(void **state)
{
	const struct rig_conf conf = { .drives = 2, .memory_mode = 1 };

	(void)state;
	rig_with(&conf, wait_for_their_turn);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(pieces_wait_for_their_turn) };

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
