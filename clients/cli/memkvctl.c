/*
 * The program memkvctl. Everything is in the library beside it, where tests reach it.
 */
#include "config.h"
#include "clients/cli/ctl.h"

#include "common/base/os.h"

int
main(int argc, char **argv)
{
	mkv_os_std_fds();
	return (ctl_main(argc, argv));
}
