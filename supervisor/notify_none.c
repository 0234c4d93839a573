/*
 * Process: supervisor. Where there is no systemd to talk to.
 */
#include "config.h"

#include "supervisor/sup_priv.h"

void
notify_ready(struct mkv_sup *s)
{
	(void)s;
}

void
notify_stopping(void)
{
}

void
notify_close(void)
{
}
