#!/usr/bin/env bash
# The tables: a number or a name has one row, and a number that was shipped keeps its name for ever.
# tests/lint/shipped lists what was shipped: "FILE NAME NUMBER". `tables.sh --ship` adds the rows of a release.
. "$(dirname "$0")/lint.sh"

shipped=tests/lint/shipped
# Table, macro, field of the name, field of the number (0: has none).
tables='
common/tbl/errors.def	MKV_ERR		1 2
common/tbl/reasons.def	MKV_REASON	1 2
common/tbl/events.def	MKV_EVENT	1 0
common/tbl/failures.def	MKV_FAILURE	1 2
common/tbl/ioclasses.def	MKV_IOCLASS	1 2
common/tbl/metrics.def	MKV_METRIC	1 0
common/tbl/params.def	MKV_PARAM	1 0
common/tbl/procs.def	MKV_PROC	1 0
proto/wire_ops.def	MKV_OP		1 2
clients/cli/doctor.def	DOCTOR_FINDING	2 0
clients/cli/doctor.def	DOCTOR_CHECK	2 0
'

# rows FILE MACRO NAME-FIELD NUMBER-FIELD: "LINE NAME NUMBER"
rows() {
	lint_code_strings "$1" | awk -v macro="$2" -v name="$3" -v number="$4" '
	match($0, "^" macro "\\(") {
		rest = substr($0, RLENGTH + 1)
		n = split(rest, field, ",")
		for (i = 1; i <= n; i++)
			gsub(/[ \t")]/, "", field[i])
		print NR, field[name], (number > 0 ? field[number] : "-")
	}'
}

# Comments away, strings kept: names may be strings.
lint_code_strings() {
	sed -E 's,/\*[^*]*\*/,,g' "$1"
}

check_table() {
	local file=$1 macro=$2 line name number
	declare -A by_name=() by_number=()
	local count=0
	while read -r line name number; do
		count=$((count + 1))
		[ -z "${by_name[$name]:-}" ] || lint_breach "$file:$line" "$name stands already in line ${by_name[$name]}"
		by_name[$name]=$line
		[ "$number" != - ] || continue
		[ -z "${by_number[$number]:-}" ] || lint_breach "$file:$line" "number $number is taken by line ${by_number[$number]}"
		by_number[$number]=$line
		check_shipped "$file" "$line" "$name" "$number"
	done < <(rows "$@")
	[ "$count" -gt 0 ] || lint_breach "$file" "no row of $macro found"
}

check_shipped() {
	local file=$1 line=$2 name=$3 number=$4 f n x
	[ -r "$shipped" ] || return 0
	while read -r f n x; do
		[ "$f" = "$file" ] || continue
		if [ "$n" = "$name" ] && [ "$x" != "$number" ]; then
			lint_breach "$file:$line" "$name was shipped as number $x"
		elif [ "$n" != "$name" ] && [ "$x" = "$number" ]; then
			lint_breach "$file:$line" "number $number was shipped as $n and is never reused"
		fi
	done <"$shipped"
}

while read -r file macro name number; do
	[ -r "$file" ] || continue
	if [ "${1:-}" = --ship ] && [ "$number" -gt 0 ]; then
		rows "$file" "$macro" "$name" "$number" | awk -v file="$file" '{ print file, $2, $3 }' >>"$shipped"
	fi
	check_table "$file" "$macro" "$name" "$number"
done <<<"$tables"
[ "${1:-}" != --ship ] || LC_ALL=C sort -u -o "$shipped" "$shipped"
lint_end
