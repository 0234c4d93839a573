/*
 * Begin and end of the preload library.
 *
 * The thread that loads and that ends the program. Owns nothing. It reads the environment and looks at the descriptors that it was given; it connects
 * to nobody, since the library is also loaded by shells and launchers that never touch a prefix.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "clients/preload/preload_priv.h"

/* By exit(), _exit() or a destructor, whichever comes first; a second time there is nothing left to do. */
void
mkv_pl_end(bool flush)
{
	int e = errno;

	if (!mkv_pl_path_any() || mkv_pl_store_inside() || !mkv_pl_object_mine())
		return;
	if (!mkv_pl_object_none()) {
		/* libc does so after us; _exit() does not. It waits for streams that another thread is reading, so only where one may be an object's. */
		if (flush && (mkv_pl_object_streams() || mkv_pl_stream_any()))
			(void)fflush(NULL);
		mkv_pl_object_end_all();
	}
	mkv_pl_stats_write();
	errno = e;
}

__attribute__((constructor)) static void
init(void)
{
	int e = errno;

	mkv_pl_path_init(getenv("MEMKV_PRELOAD_PREFIX"));
	mkv_pl_store_init();
	mkv_pl_dir_init();
	mkv_pl_stream_init();
	mkv_pl_object_adopt_all();
	errno = e;
}

__attribute__((destructor)) static void
fini(void)
{
	mkv_pl_end(true);
}
