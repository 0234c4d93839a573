#!/usr/bin/env bash
# Manual pages are clean under mandoc's lint.
. "$(dirname "$0")/lint.sh"

mapfile -t pages < <(lint_files -name '*.[1-8]')
[ "${#pages[@]}" -gt 0 ] || lint_skip "no manual pages"
command -v mandoc >/dev/null || lint_skip "no mandoc"
for page in "${pages[@]}"; do
	while read -r line; do
		lint_breach "$page" "${line#mandoc: }"
	done < <(mandoc -T lint -W warning "$page" 2>&1 || true)
done
lint_end
