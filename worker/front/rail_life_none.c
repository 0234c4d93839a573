/*
 * memkv-front in a build without RDMA: the front of an RDMA device says so and is not started again.
 */
#include "config.h"

#include "worker/front/rail_life.h"

int
mkv_rail_begin(struct mkv_worker *w, struct mkv_front *f MKV_UNUSED, struct mkv_wire_rail *row MKV_UNUSED)
{
	return (mkv_worker_fail(w, 1, "memkv was built without RDMA: build it where rdma-core's headers are (Debian: libibverbs-dev)"));
}

unsigned
mkv_rail_may(void)
{
	return (0);
}

void
mkv_rail_watch(struct mkv_worker *w MKV_UNUSED)
{
}

void
mkv_rail_look(struct mkv_worker *w MKV_UNUSED)
{
}

void
mkv_rail_end(void)
{
}

void
mkv_rail_message(Mkv__Ctl__Rail *m MKV_UNUSED, struct mkv_wire_rail *row MKV_UNUSED)
{
}
