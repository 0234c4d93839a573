#!/usr/bin/env bash
# Shell scripts are clean under shellcheck; Python files parse.
. "$(dirname "$0")/lint.sh"

command -v shellcheck >/dev/null || lint_skip "no shellcheck"
mapfile -t scripts < <(
	{ lint_files -true; find . -maxdepth 1 -type f | sed 's,^\./,,'; } | while read -r file; do
		case $file in
		*.sh) echo "$file" ;;
		*) head -n 3 "$file" | grep -aq 'temporary wrapper script' && continue	# of libtool, in a build inside the tree
		   [[ ! $(head -c 40 "$file" | head -n 1 | tr -d '\0') =~ ^'#!'.*[/\ ](ba)?sh$ ]] || echo "$file" ;;
		esac
	done | grep -vxE 'configure~?|config.status|libtool'
)
for file in "${scripts[@]}"; do
	if ! out=$(shellcheck -x -P SCRIPTDIR -f gcc "$file"); then
		while read -r line; do
			lint_breach "${line%%: *}" "${line#*: }"
		done <<<"$out"
	fi
done
if command -v python3 >/dev/null; then
	while read -r file; do
		out=$(python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$file" 2>&1) ||
			lint_breach "$file" "$(tail -n 1 <<<"$out")"
	done < <(lint_files -name '*.py')
fi
lint_end
