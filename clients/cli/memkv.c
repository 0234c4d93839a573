/*
 * The program memkv. Everything is in the library beside it, where tests reach it.
 */
#include "config.h"
#include "clients/cli/cli.h"

int
main(int argc, char **argv)
{
	return (cli_main(argc, argv));
}
