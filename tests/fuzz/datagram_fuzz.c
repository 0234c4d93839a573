/*
 * Fuzz target: what a rail's front takes for a datagram. A session with control by datagrams, then the input as datagrams. Each begins with a control byte: bit 0 sign it and
 * give it a new counter and the session, bit 1 make its magic and version right, bit 2 make body_bytes what is left of it (256 bytes at most), bit 3 send it twice.
 * Wrong would be: an assertion or a sanitizer's report, a byte that answers what is not signed, a front that holds something when all is closed.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"
#include "tests/unit/front_ctl_up.h"

#include "common/base/assert.h"

#define DATAGRAM_MOST	(MKV_WIRE_HDR_BYTES + 256u)

static struct t *fuzz_t;

/* Segments that point nowhere break the channel: then another session. */
static struct t *
fuzz_open(void)
{
	if (fuzz_t != NULL && mkv_rail_quiet(fuzz_t->rail)) {
		t_close(fuzz_t);
		free(fuzz_t);
		fuzz_t = NULL;
	}
	if (fuzz_t == NULL)
		fuzz_t = ctl_opened(&t_datagrams);
	return (fuzz_t);
}

static size_t
fuzz_datagram(struct t *t, const uint8_t *data, size_t bytes, int *is_signed)
{
	_Alignas(8) uint8_t buf[DATAGRAM_MOST] = { 0 };
	struct mkv_hdr *h = (struct mkv_hdr *)(void *)buf;
	size_t n = MKV_MIN(bytes - 1, sizeof(buf));
	uint8_t how = data[0];

	memcpy(buf, data + 1, n);
	if (n >= sizeof(*h)) {
		if (how & 2) {
			memcpy(h->magic, "MKV\1", 4);
			h->version = MKV_WIRE_VERSION;
			h->flags &= MKV_WIRE_F_KNOWN & ~MKV_WIRE_F_REPLY;
			h->status = h->reason = 0;
		}
		if (how & 4) {
			n &= ~(size_t)7;
			h->body_bytes = (uint32_t)(n - sizeof(*h));
		}
		if (how & 1) {
			h->session_id = t->c.session;
			h->counter = ++t->counter;
			h->channel = 1;
			(void)mkv_mac_sign(t->out, h, MKV_WIRE_SIGNED_BYTES, h + 1, n - sizeof(*h), h->mac);
			*is_signed = 1;
		}
	}
	for (unsigned i = how & 8 ? 2 : 1; i > 0; i--)
		if (sendto(t->net->udp, buf, n, 0, (struct sockaddr *)&t->net->server.ss, t->net->server.bytes) != (ssize_t)n)
			abort();
	return (1 + MKV_MIN(bytes - 1, (size_t)DATAGRAM_MOST));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct t *t = fuzz_open();
	unsigned came = t->net->came;
	int is_signed = 0;

	for (size_t at = 0; at < bytes;)
		at += fuzz_datagram(t, data + at, bytes - at, &is_signed);
	for (unsigned i = 0; i < 4; i++)
		t_pump(t);
	if (!is_signed && t->net->came != came)
		abort();
	t->n_msg = t->at_msg = 0;
	return (0);
}
