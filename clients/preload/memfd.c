/*
 * Anonymous files in memory: the one call of the platform that the preload library makes.
 *
 * Any thread of the program. The descriptor is the caller's. Fails as the kernel does.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "clients/preload/preload_priv.h"

/* Programs use low numbers and expect them in order: ours are above, if the limit allows. */
#define MEMFD_NUMBER_MIN	700

int
mkv_pl_memfd(const char *name)
{
	int fd, high;

	if ((fd = memfd_create(name, MFD_CLOEXEC)) < 0)
		return (-1);
	if ((high = REAL(fcntl)(fd, F_DUPFD_CLOEXEC, MEMFD_NUMBER_MIN)) >= 0) {
		(void)REAL(close)(fd);
		fd = high;
	}
	(void)fchmod(fd, 0644);
	return (fd);
}
