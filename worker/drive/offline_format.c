/*
 * Formatting one medium, in a process of its own: the engine makes an empty store and closes it in order. Owns the medium while it runs.
 *
 * What lay on a block device before is discarded where the device can, and its first and last MiB are zeroed, where signatures and other stores'
 * superblocks live. A crash on the way leaves a medium without a store, or a whole one: superblocks are the last thing written.
 */
#include "config.h"

#include "worker/drive/offline_priv.h"

#include <string.h>

#include "common/base/err.h"
#include "common/base/os.h"

#define FORMAT_EDGE	(1ull << 20)
#define FORMAT_DISCARD	(4ull << 30)		/* of one call: progress can be seen */

/* A device that cannot discard is none the worse. */
static void
format_discard(struct offline_format *f, struct offline_store *s)
{
	struct mkv_os_medium m;

	if (mkv_os_medium_query(s->fd, &m) != 0 || !m.is_block)
		return;
	for (uint64_t at = 0; at < s->bytes; at += FORMAT_DISCARD) {
		if (mkv_os_discard(s->fd, at, MKV_MIN(FORMAT_DISCARD, s->bytes - at)) != 0)
			return;
		f->progress(f->arg, (unsigned)(at * 90 / s->bytes));
	}
}

static int
format_erase(struct offline_store *s)
{
	uint64_t edge = MKV_MIN(FORMAT_EDGE, s->bytes);
	int r = offline_zero(s, edge, 0);

	if (r == 0)
		r = offline_zero(s, edge, s->bytes - edge);
	if (r == 0)
		r = offline_flush(s);
	probe_reread(s->fd);
	return (r);
}

int
offline_format(struct offline_format *f)
{
	struct offline_store s;
	struct mkv_engine_info info;
	int r = offline_open(&s, f->path, f->why, sizeof(f->why));

	if (r != 0)
		return (r);
	format_discard(f, &s);
	if (f->erase && (r = format_erase(&s)) != 0)
		snprintf(f->why, sizeof(f->why), "%s cannot be written: %s", f->path, mkv_err(r));
	f->progress(f->arg, 95);
	s.opts.extent_bytes = f->extent_bytes;
	s.opts.may_format = 1;
	if (r == 0 && (r = offline_engine(&s, f->path, f->why, sizeof(f->why))) == 0) {
		mkv_engine_info(s.e, &info);
		memcpy(f->uuid, info.uuid, 16);
		f->bytes = s.bytes;
		f->data_bytes = info.total_bytes;
		if ((r = offline_engine_close(&s)) != 0)
			snprintf(f->why, sizeof(f->why), "%s: the new store cannot be closed: %s", f->path, mkv_err(r));
	}
	offline_close(&s);
	f->progress(f->arg, 100);
	return (r);
}
