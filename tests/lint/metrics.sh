#!/usr/bin/env bash
# docs/operate/metrics.md lists every row of metrics.def and client_metrics.def, as they are now.
# `metrics.sh --write` puts the tables there anew.
. "$(dirname "$0")/lint.sh"

page=docs/operate/metrics.md
server_rows=common/tbl/metrics.def
client_rows=clients/lib/client_metrics.def

# server_table PROCESS: its rows. A row in milliseconds leaves in seconds, as supervisor/admin/metrics.c has it.
server_table() {
	printf '| Name | Kind | Label | Meaning |\n|---|---|---|---|\n'
	awk -v process="$1" '
	match($0, /^MKV_METRIC\(/) {
		rest = substr($0, RLENGTH + 1)
		split(rest, field, ",")
		for (i = 1; i <= 4; i++)
			gsub(/[ \t]/, "", field[i])
		if (field[3] != process)
			next
		help = rest
		sub(/^[^"]*"/, "", help)
		sub(/"\)[ \t]*$/, "", help)
		gsub(/\\"/, "\"", help)
		sub(/_milliseconds$/, "_seconds", field[1])
		printf "| `memkv_%s` | %s | %s | %s |\n", field[1], tolower(field[2]), field[4] == "NONE" ? "" : "`" tolower(field[4]) "`", help
	}' "$server_rows"
}

# The backquotes below are markdown.
# shellcheck disable=SC2016
client_table() {
	printf '| Name | Meaning |\n|---|---|\n'
	sed -nE 's/^CLIENT_COUNTER\(([a-z_]+),[ \t]*"(.*)"\)$/| `memkv_client_\1` | \2 |/p' "$client_rows"
	sed -nE 's/^CLIENT_GAUGE\(([a-z_]+),[ \t]*"(.*)",[ \t]*"(.*)"\)$/| `memkv_client_\1{\2}` | \3 |/p' "$client_rows"
	sed -nE 's/^CLIENT_STAGE\([A-Z]+,[ \t]*"([a-z]+)",[ \t]*"(.*)"\)$/| `memkv_client_stage_seconds{stage="\1"}` | \2 |/p' "$client_rows"
}

tables() {
	local process
	for process in FRONT DRIVE SUPERVISOR; do
		printf '\n### %s\n\n' "$(tr '[:upper:]' '[:lower:]' <<<"$process" | sed 's/^./\u&/')"
		server_table "$process"
	done
	printf '\n### Client\n\n'
	client_table
}

# What is written by hand ends with this line.
mark='<!-- The tables below are written by tests/lint/metrics.sh --write. -->'

if [ ! -r "$server_rows" ] || [ ! -r "$client_rows" ]; then
	lint_skip "no tables of metrics"
fi
if ! grep -qxF -- "$mark" "$page" 2>/dev/null; then
	lint_breach "$page" "the line before the tables is gone: $mark"
	lint_end
fi
whole=$(sed "/^<!-- The tables below/q" "$page"; tables)
if [ "${1:-}" = --write ]; then
	printf '%s\n' "$whole" >"$page"
fi
line=$(diff <(printf '%s\n' "$whole") "$page" | sed -nE '1s/^[0-9,]+[acd]([0-9]+).*/\1/p' || true)
[ -z "$line" ] || lint_breach "$page:$line" "differs from the rows; run tests/lint/metrics.sh --write"
lint_end
