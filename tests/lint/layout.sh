#!/usr/bin/env bash
# What a reader may count on in any file: a head that says what it is, tabs, an end within reach; and a README in every room.
. "$(dirname "$0")/lint.sh"

lines_max=900

while read -r file; do
	awk -v file="$file" -v lines_max="$lines_max" '
	FNR == 1 && file ~ /\.c$/ && !/^\/\*/ { printf "%s:1\tthe file does not begin with a comment that says what it is\n", file }
	/[ \t]+$/ { printf "%s:%d\tblanks at the end of the line\n", file, FNR }
	/^        / { printf "%s:%d\tindented by spaces: tabs of 8\n", file, FNR }
	/\r/ { printf "%s:%d\tcarriage return\n", file, FNR }
	END { if (FNR > lines_max) printf "%s\t%d lines: more than %d want to be two rooms\n", file, FNR, lines_max }
	' "$file"
done < <(lint_files -name '*.c' -o -name '*.h') >"${report:=$(mktemp)}"
trap 'rm -f "$report"' EXIT
lint_breaches <"$report"

while read -r dir; do
	[ -e "$dir/README.md" ] || lint_breach "$dir" "no README.md: purpose, processes, invariants"
done < <(lint_files -name '*.[ch]' -o -name '*.py' -o -name '*.sh' | sed -E 's,/[^/]*$,,' | LC_ALL=C sort -u |
    grep -vE '^(clients/include|\.ci|tests/[a-z]+/.+)')
lint_end
