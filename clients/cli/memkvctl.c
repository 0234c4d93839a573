/*
 * The program memkvctl. Everything is in the library beside it, where tests reach it.
 */
#include "config.h"
#include "clients/cli/ctl.h"

int
main(int argc, char **argv)
{
	return (ctl_main(argc, argv));
}
