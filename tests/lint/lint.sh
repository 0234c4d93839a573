# shellcheck shell=bash
# What the lint programs share. Each looks at the tree in MKV_LINT_TOP (the one it lies in, unless the self-test gives another),
# prints one line for each breach, FILE:LINE: what and why, and exits 0 kept, 1 broken, 77 cannot be told here.

set -euo pipefail
MKV_LINT_TOP=${MKV_LINT_TOP:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
MKV_LINT_BUILD=${MKV_LINT_BUILD:-$MKV_LINT_TOP/build}
MKV_LINT_ROOMS='proto common worker supervisor clients bench tests examples scripts contrib docs m4 debian rpm .ci'
lint_broken=0
cd "$MKV_LINT_TOP"

# lint_files [FIND-EXPRESSION...]: sources below the rooms, without what a build or Python makes.
lint_files() {
	local room rooms=()
	for room in $MKV_LINT_ROOMS; do
		[ ! -d "$room" ] || rooms+=("$room")
	done
	[ "${#rooms[@]}" -gt 0 ] || return 0
	find "${rooms[@]}" \( -name .libs -o -name .deps -o -name __pycache__ -o -name .pytest_cache \) -prune -o \
	    -type f ! -name '*.pb-c.[ch]' ! -name Makefile.in ! -name 'libtool.m4' ! -name 'lt*.m4' ! -name '*.log' ! -name '*.trs' \( "$@" \) -print | LC_ALL=C sort
}

# lint_breach PLACE TEXT
lint_breach() {
	printf '%s: %s\n' "$1" "$2"
	lint_broken=1
}

# lint_breaches: the same for a stream of "PLACE<tab>TEXT".
lint_breaches() {
	local place text
	while IFS=$'\t' read -r place text; do
		lint_breach "$place" "$text"
	done
}

lint_end() {
	exit "$lint_broken"
}

lint_skip() {
	echo "skipped: $*"
	exit 77
}

# lint_code FILE: C without its comments and without what stands in strings; lines keep their numbers.
lint_code() {
	awk '
	BEGIN { in_comment = 0 }
	{
		line = $0; out = ""; n = length(line); i = 1; quote = ""
		while (i <= n) {
			c = substr(line, i, 1); two = substr(line, i, 2)
			if (in_comment) {
				if (two == "*/") { in_comment = 0; i += 2; out = out " "; continue }
				i++; continue
			}
			if (quote != "") {
				if (c == "\\") { i += 2; continue }
				if (c == quote) { quote = ""; out = out c }
				i++; continue
			}
			if (two == "/*") { in_comment = 1; i += 2; continue }
			if (two == "//") break
			if (c == "\"" || c == "\047") { quote = c; out = out c; i++; continue }
			out = out c; i++
		}
		print out
	}' "$1"
}
