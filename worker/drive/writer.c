/*
 * Who put what nobody has proved: remembered in memory for the latest such puts, for the log line of bytes that turn out never to have matched. Drive's
 * loop thread; owns the table.
 *
 * A place by digest; the next put there takes it. Nothing of it is on the medium: after a start, or when a later put has the place, the writer is unknown,
 * and the put's id is all that is left. What a front says of its client is passed on as it is; only the session and its credential were proved to the front.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define WRITERS_MAX	4096u

int
writer_init(struct mkv_engine *e)
{
	e->writer = calloc(WRITERS_MAX, sizeof(*e->writer));
	return (e->writer != NULL ? 0 : MKV_E_NOMEM);
}

void
writer_fini(struct mkv_engine *e)
{
	free(e->writer);
}

static struct writer *
writer_at(struct mkv_engine *e, struct mkv_digest d)
{
	return (&e->writer[(d.lo >> 16) % WRITERS_MAX]);
}

void
writer_note(struct mkv_engine *e, const struct mkv_drv_req *q)
{
	*writer_at(e, q->digest) = (struct writer){ .digest = q->digest, .put_id = q->put_id, .who = q->writer };
}

static int
writer_address(char *dst, size_t bytes, const struct mkv_drv_writer *w)
{
	static const uint8_t none[16], mapped[12] = { [10] = 0xff, [11] = 0xff };
	int n = 0;

	if (memcmp(w->addr, none, sizeof(none)) == 0)
		return (snprintf(dst, bytes, "none"));
	if (memcmp(w->addr, mapped, sizeof(mapped)) == 0)
		return (snprintf(dst, bytes, "%u.%u.%u.%u:%u", w->addr[12], w->addr[13], w->addr[14], w->addr[15], w->port));
	for (unsigned i = 0; i < 16; i += 2)
		n += snprintf(dst + n, bytes - (size_t)n, "%s%x", i == 0 ? "[" : ":", (unsigned)w->addr[i] << 8 | w->addr[i + 1]);
	return (n + snprintf(dst + n, bytes - (size_t)n, "]:%u", w->port));
}

void
writer_text(struct mkv_engine *e, struct mkv_digest d, uint64_t put_id, char dst[WRITER_TEXT_BYTES])
{
	const struct writer *w = writer_at(e, d);
	char address[64], id[33];

	if (w->who.session == 0 || !mkv_digest_eq(w->digest, d) || w->put_id != put_id) {
		(void)snprintf(dst, WRITER_TEXT_BYTES, "writer=unknown");
		return;
	}
	(void)writer_address(address, sizeof(address), &w->who);
	for (unsigned i = 0; i < 16; i++)
		(void)snprintf(id + 2 * i, 3, "%02x", w->who.client[i]);
	(void)snprintf(dst, WRITER_TEXT_BYTES, "writer=%s session=%" PRIx64 " key_id=%" PRIu32 " client=%s", address, w->who.session, w->who.key_id, id);
}
