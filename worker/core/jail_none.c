/*
 * No jail: platforms that have none of its parts (macOS). The queue is enabled all the same, and READY names all that is missing.
 *
 * Process and thread: as jail.c. Owns nothing, cannot fail.
 */
#include "config.h"
#include "worker/core/jail.h"

#include "common/base/assert.h"

unsigned
mkv_jail_enter(struct mkv_ioq *q, unsigned may, const char *user MKV_UNUSED)
{
	mkv_assert_prepare();
	if (q != NULL && mkv_ioq_jail(q, may & ~(unsigned)(MKV_JAIL_MAY_VERBS | MKV_JAIL_KEEP_CREDENTIALS)) != 0)
		return (MKV_JAIL_ALL);
	return (MKV_JAIL_ALL & ~(unsigned)MKV_JAIL_RING);
}
