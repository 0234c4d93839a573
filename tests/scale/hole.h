/*
 * A medium whose data area is a hole: what is written there is not kept, what is read is zero. Millions of objects then cost their metadata only.
 * Superblocks, journal, checkpoints and pages go to the medium below, as do flushes. Tests only, the engine's thread.
 */
#ifndef MKV_TESTS_HOLE_H
#define MKV_TESTS_HOLE_H

#include "worker/drive/media.h"

/*
 * under: becomes the new medium's, which closes it. Its bytes from data_off on, if it has any, must read as zero; total_bytes of the new one may be
 * more than it has, by terabytes.
 */
struct mkv_media *hole_create(struct mkv_media *under, uint64_t data_off, uint64_t total_bytes);

#endif
