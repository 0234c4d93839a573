/*
 * memkv-front as a rail: the device joined with the process (worker/core). Loop thread.
 */
#ifndef MKV_WORKER_FRONT_RAIL_LIFE_H
#define MKV_WORKER_FRONT_RAIL_LIFE_H

#include "proto/wire.h"
#include "worker/core/core.h"
#include "worker/front/front.h"

/* start(), before the jail: open the device named by CONFIGURE and describe it. 0; else mkv_worker_fail*() has said why. */
int		mkv_rail_begin(struct mkv_worker *w, struct mkv_front *f, struct mkv_wire_rail *row);
/* What the jail must leave to it: MKV_JAIL_*. */
unsigned	mkv_rail_may(void);
/* After the jail: listen to the device. */
void		mkv_rail_watch(struct mkv_worker *w);
/* Once a turn: a device that is going away ends the process, in order. */
void		mkv_rail_look(struct mkv_worker *w);
void		mkv_rail_end(void);				/* before the front is destroyed */
/* Between the wire's form and the control socket's; the bytes stay in row. */
void		mkv_rail_message(Mkv__Ctl__Rail *m, struct mkv_wire_rail *row);

#endif
