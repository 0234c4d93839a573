/*
 * The program memkv. Everything is in the library beside it, where tests reach it.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include "common/base/os.h"

int
main(int argc, char **argv)
{
	mkv_os_std_fds();
	return (cli_main(argc, argv));
}
