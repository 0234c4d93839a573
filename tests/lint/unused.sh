#!/usr/bin/env bash
# An external function has a caller in the product: tests alone keep nothing alive. Public functions (clients/include) are the product's face; those of
# the preload library are called by other people's programs.
. "$(dirname "$0")/lint.sh"

# NAME<tab>WHY it is kept for the tests.
allowed=$(cat "$MKV_LINT_TOP/tests/lint/unused.allow" 2>/dev/null || true)

products() {
	lint_files -name '*.c' -o -name '*.h' -o -name '*.def' | grep -vE '^(tests|examples)/'
}

# NAME<tab>FILE:LINE of each external definition: a name at the line's begin, its type alone on the line before.
defined() {
	# shellcheck disable=SC2046
	awk 'FNR == 1 { before = "" }
	    /^[a-z_][a-z_0-9]*\(/ && before !~ /^static|^$|;$|^[#}]/ { n = $0; sub(/\(.*/, "", n); if (n != "main") print n "\t" FILENAME ":" FNR }
	    { before = $0 }' $(products | grep '\.c$')
}

# Every word of the product, but for prototypes and the lines that define a function. Comments are no callers.
used() {
	# shellcheck disable=SC2046
	sed -E 's://.*$::; s:/\*[^*]*\*/::g' $(products) | awk '
	    in_comment { if (/\*\//) in_comment = 0; next }
	    /^[ \t]*\/\*/ { if (!/\*\//) in_comment = 1; next }
	    /^[a-z_][a-z_0-9]*\(/ { sub(/^[a-z_][a-z_0-9]*/, "") }
	    /^[a-z].*[\t *][a-z_][a-z_0-9]*\(.*[;,]$/ && !/=/ { next }
	    { print }' | grep -oE '\<[a-z_][a-z_0-9]+\>' | LC_ALL=C sort -u
}

public=$(cat clients/include/memkv/*.h clients/preload/preload.map 2>/dev/null || true)
while IFS=$'\t' read -r name place; do
	grep -qw "$name" <<<"$public" || grep -qxE "$name([[:space:]].*)?" <<<"$allowed" || lint_breach "$place" "nobody outside the tests calls $name()"
done < <(join -t $'\t' -v 1 <(defined | LC_ALL=C sort -t $'\t' -k 1,1) <(used))
lint_end
