/*
 * memkv doctor: what on this host is in the way of a server or a client. Reads and asks, changes nothing; doctor.c runs the checks of doctor.def.
 * Exit status: 0 nothing is wrong, 1 something is, 2 usage.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include "clients/cli/doctor_priv.h"

int
cmd_doctor(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	static struct doctor d;			/* large */
	int status;

	d = (struct doctor){ .ops = &doctor_real, .root = "", .argv0 = c->argv0, .config_file = c->o.config_file };
	d.scope = (c->o.server ? DOCTOR_SERVER : 0) | (c->o.client ? DOCTOR_CLIENT : 0);
	if (d.scope == 0)
		d.scope = DOCTOR_SERVER | DOCTOR_CLIENT;
	doctor_run(&d);
	if (c->o.json)
		doctor_print_json(&d, stdout, c->o.verbose);
	else
		doctor_print(&d, stdout, c->o.verbose);
	status = d.count[DOCTOR_FAIL] > 0 ? CLI_FAILED : CLI_DONE;
	doctor_fini(&d);
	return (status);
}
