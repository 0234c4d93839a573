/*
 * libc's own functions, behind those of the preload library.
 *
 * Any thread of the program, before main() too. Owns a table that is written once. Fails: a name that this libc has not stays NULL; such names are
 * newer than the oldest libc that this is built for, and whoever called one had it.
 */
#include "config.h"

#include <dlfcn.h>

#include "clients/preload/preload_priv.h"

static struct mkv_pl_real real;
static pthread_once_t real_once = PTHREAD_ONCE_INIT;

static void
real_find(void)
{
#define PL_CALL(ret, name, params)	*(void **)&real.name = dlsym(RTLD_NEXT, #name);
#include "clients/preload/calls.def"
#undef PL_CALL
}

const struct mkv_pl_real *
mkv_pl_real(void)
{
	(void)pthread_once(&real_once, real_find);
	return (&real);
}
