/*
 * Names of the parts of the jail, as READY carries them and `status` shows them. Any process; no state.
 */
#include "config.h"
#include "worker/core/jail.h"

const char *
mkv_jail_part_name(unsigned part)
{
	switch (part) {
	case MKV_JAIL_RING:
		return ("ring");
	case MKV_JAIL_NO_NEW_PRIVS:
		return ("no_new_privs");
	case MKV_JAIL_LANDLOCK:
		return ("landlock");
	case MKV_JAIL_USER:
		return ("user");
	case MKV_JAIL_SECCOMP:
		return ("seccomp");
	default:
		return ("unknown");
	}
}
