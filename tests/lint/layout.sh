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

# told DIR: it has a README.md, or the nearest README.md above it, within its room, says `NEXT/` of the directory on the way down to it.
told() {
	local above=$1 next
	[ ! -e "$1/README.md" ] || return 0
	while [[ $above == */* ]]; do
		next=${above##*/}
		above=${above%/*}
		[ -e "$above/README.md" ] || continue
		grep -qF "\`$next/" "$above/README.md"
		return
	done
	return 1
}

# The directories of all files, and those above them.
while read -r dir; do
	told "$dir" || lint_breach "$dir" "no README.md, and the one above does not name it: purpose, processes, invariants"
done < <(lint_files -name '*' | awk '{ while (sub("/[^/]*$", "")) print }' | LC_ALL=C sort -u)
lint_end
