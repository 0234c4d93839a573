/*
 * Process: supervisor, loop thread. Tells systemd that we are ready, stopping, and alive (WatchdogSec=).
 * What can fail: nothing that matters; without NOTIFY_SOCKET every call is a no-op.
 */
#include "config.h"

#include "supervisor/sup_priv.h"

#include <systemd/sd-daemon.h>

static uv_timer_t notify_timer;

static void
notify_on_timer(uv_timer_t *t)
{
	(void)t;
	(void)sd_notify(0, "WATCHDOG=1");
}

void
notify_ready(struct mkv_sup *s)
{
	uint64_t us;

	(void)sd_notify(0, "READY=1");
	if (sd_watchdog_enabled(0, &us) <= 0 || notify_timer.data != NULL)
		return;
	(void)uv_timer_init(s->loop, &notify_timer);
	notify_timer.data = s;
	(void)uv_timer_start(&notify_timer, notify_on_timer, 0, us / 2000);
}

void
notify_stopping(void)
{
	(void)sd_notify(0, "STOPPING=1");
}

void
notify_close(void)
{
	if (notify_timer.data == NULL)
		return;
	notify_timer.data = NULL;
	uv_close((uv_handle_t *)&notify_timer, NULL);
}
