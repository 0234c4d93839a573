/*
 * A line on the terminal while a long transfer runs; none where standard error is no terminal.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/units.h"

#define PROGRESS_FIRST_NS	(500 * MKV_NS_PER_MS)	/* what is quicker needs no line */
#define PROGRESS_EVERY_NS	(200 * MKV_NS_PER_MS)

void
cli_progress_begin(struct cli_progress *p, const struct cli *c, const char *what, uint64_t total)
{
	p->on = !c->o.quiet && isatty(STDERR_FILENO);
	p->what = what;
	p->total = total;
	p->start_ns = mkv_now_ns();
	p->shown_ns = 0;
}

void
cli_progress_at(struct cli_progress *p, uint64_t done)
{
	uint64_t now;
	char a[32], b[32], r[32], of[64] = "";

	if (!p->on)
		return;
	now = mkv_now_ns();
	if (now - p->start_ns < PROGRESS_FIRST_NS || now - p->shown_ns < PROGRESS_EVERY_NS)
		return;
	p->shown_ns = now;
	if (p->total > 0)
		snprintf(of, sizeof(of), " of %s, %.0f %%", mkv_size_human(b, sizeof(b), p->total), 100.0 * (double)done / (double)p->total);
	fprintf(stderr, "\r%s %s%s, %s/s\033[K", p->what, mkv_size_human(a, sizeof(a), done), of,
	    mkv_size_human(r, sizeof(r), (uint64_t)((double)done * 1e9 / (double)(now - p->start_ns))));
	fflush(stderr);
}

void
cli_progress_end(struct cli_progress *p)
{
	if (p->on && p->shown_ns != 0)
		fputs("\r\033[K", stderr);
}
