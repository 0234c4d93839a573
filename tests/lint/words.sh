#!/usr/bin/env bash
# Work that calls itself unfinished, paths that only exist on somebody's machine, and documents that are not in this tree.
. "$(dirname "$0")/lint.sh"

unfinished='\<(TODO|FIXME|XXX|HACK)\>|\<for now\>|\<not (yet )?implemented\>|\<unimplemented\>|\<stub(bed)? out\>'
machine='(^|[^A-Za-z0-9_.$}])/(work|farm|root|tmp/b-[a-z]+)(/|\>)'
absent='\<(DESIGN|STYLE|MISSION)( section)? [D0-9]'

search() {
	local pattern=$1 text=$2 file line rest
	while IFS=: read -r file line rest; do
		lint_breach "$file:$line" "$text: ${rest#"${rest%%[![:space:]]*}"}"
	done < <(printf '%s\n' "${files[@]}" | xargs -d '\n' grep -HnIE "$pattern" || true)
}

mapfile -t files < <(
	lint_files -true | grep -vE '^(tests/lint/(words|selftest)\.sh|tests/data/|CONTRIBUTING)'
	ls configure.ac Makefile.am quickstart check ./*.md 2>/dev/null || true
)
[ "${#files[@]}" -gt 0 ] || lint_end
search "$unfinished" "unfinished by its own words"
search "$machine" "a path of one machine"
search "$absent" "a document that is not in this tree"
lint_end
