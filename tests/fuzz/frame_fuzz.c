/*
 * Fuzz target: a front with a fake drive, and a client that passed the handshake and then sends the input as frames. Each frame of the input begins with a
 * control byte: bit 0 sign it and give it the right counter and session, bit 1 make its magic and version right, bit 2 make body_bytes what the input still has.
 * Wrong would be: an assertion or a sanitizer's report, or a front that still holds a request, buffer or slot when the client has gone.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/front_rig.h"

#define SETTLE_NS	(20 * MKV_NS_PER_SEC)	/* a hang, not a measure of speed */

static struct rig rig;
static struct rig_client client;

static void
fuzz_open(void)
{
	static int opened;
	const struct rig_conf conf = { .drives = 2, .kind = MKV_IOQ_POLL, .stage_bytes = 8 << 20 };

	if (!opened)
		rig_open(&rig, &conf);
	opened = 1;
}

/* One frame from the input; returns how many bytes of it were used. */
static size_t
fuzz_frame(const uint8_t *data, size_t bytes)
{
	uint8_t how = data[0];
	struct mkv_hdr h;
	size_t used = 1, body;

	if (bytes < 1 + sizeof(h)) {
		rig_write(&client, data + 1, bytes - 1);
		return (bytes);
	}
	memcpy(&h, data + 1, sizeof(h));
	used += sizeof(h);
	if (how & 2) {
		memcpy(h.magic, "MKV\1", 4);
		h.version = MKV_WIRE_VERSION;
		h.flags &= MKV_WIRE_F_KNOWN & ~MKV_WIRE_F_REPLY;
		h.status = h.reason = 0;
	}
	if (how & 4)
		h.body_bytes = (uint32_t)MKV_MIN(bytes - used, (size_t)256) & ~7u;
	body = MKV_MIN(bytes - used, (size_t)h.body_bytes);
	if (how & 1) {
		h.session_id = client.session;
		h.counter = ++client.counter;
		h.channel = 0;
		mkv_mac_sign(client.c2s, &h, MKV_WIRE_SIGNED_BYTES, data + used, body, h.mac);
	}
	rig_write(&client, &h, sizeof(h));
	rig_write(&client, data + used, body);
	used += body;
	if (h.payload_bytes != 0 && h.payload_bytes <= bytes - used) {
		rig_write(&client, data + used, h.payload_bytes);
		used += h.payload_bytes;
	}
	return (used);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct mkv_stage_stat st;
	size_t at = 0;

	fuzz_open();
	rig_client_open(&rig, &client);
	rig_client_handshake(&client);
	while (at < bytes && !client.closed) {
		at += fuzz_frame(data + at, bytes - at);
		rig_pump(&rig);
		while (rig_recv(&client, 0) == 1)
			continue;
	}
	rig_client_close(&client);
	for (uint64_t end = mkv_now_ns() + SETTLE_NS; (rig.f->n_reqs != 0 || rig.f->n_conns != 0) && mkv_now_ns() < end;)
		rig_pump(&rig);
	mkv_stage_stat(rig.stage, &st);
	if (rig.f->n_reqs != 0 || rig.f->n_conns != 0 || st.front_bytes + st.drive_bytes != 0 || st.slots_free != st.slots_total)
		abort();
	return (0);
}
