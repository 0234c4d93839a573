#!/usr/bin/env bash
# Who may include what: the walls between the rooms, and which file may use which library.
. "$(dirname "$0")/lint.sh"

# Of ours: room, then the prefixes it may include. The longest room that matches a file counts. A room may always include itself.
ours='
proto			common/base/
common/base		common/tbl/ proto/wire
common/shm		common/base/ common/tbl/ proto/
common/rdma		common/base/ common/tbl/ proto/
worker/core		common/base/ common/tbl/ common/shm/ proto/
worker/front		common/ worker/core/ proto/
worker/drive		common/base/ common/tbl/ common/shm/ worker/core/ proto/
supervisor		common/base/ common/tbl/ common/shm/ proto/
clients/lib		common/base/ common/tbl/ common/rdma/ proto/wire
clients/cli		common/base/ common/tbl/ bench/
clients/nixl
clients/preload
bench			common/base/ common/tbl/
examples
tests			common/ worker/ proto/ supervisor/ clients/ bench/
'

# Of others: header (a pattern), then the files or rooms that may use it. What is not named here is free for all.
theirs='
liburing*		common/base/os_uring.c worker/drive/media_uring.c tests/
linux/io_uring.h	common/base/os_uring.c common/base/os_linux.c worker/drive/media_uring.c
linux/landlock.h	common/base/os_linux.c
linux/dcbnl.h		common/base/os_dcb.c tests/
sys/eventfd.h		common/base/os_linux.c tests/
sys/pidfd.h		common/base/os_linux.c
sys/event.h		common/base/os_darwin.c
openssl/*		common/base/ supervisor/ tests/
isa-l*			common/base/ tests/
xxhash.h		common/base/ tests/
protobuf-c/*		proto/ tests/
uv.h			supervisor/ tests/
libwebsockets.h		supervisor/
yaml.h			supervisor/ clients/lib/ tests/
cyaml/*			supervisor/ clients/lib/
jansson.h		supervisor/ clients/cli/ bench/ tests/
systemd/*		supervisor/
seccomp.h		worker/core/ tests/
cap-ng.h		worker/core/ tests/
blkid/*			worker/drive/probe_linux.c
infiniband/*		common/rdma/ worker/front/ tests/
rdma/*			common/rdma/ worker/front/ tests/
cmocka.h		tests/
Python.h		clients/python/
'

# room_of FILE: the longest room of the first table that holds it.
room_of() {
	local file=$1 best="" room
	while read -r room _; do
		if [[ -n $room && $file == "$room"/* && ${#room} -gt ${#best} ]]; then
			best=$room
		fi
	done <<<"$ours"
	printf '%s\n' "$best"
}

check_ours() {
	local place=$1 file=$2 header=$3 room=$4 allowed prefix
	case $header in
	config.h | memkv/*.h) return ;;
	*/*) ;;
	*) lint_breach "$place" "\"$header\" must be included by its path from the top"; return ;;
	esac
	# A room's inner directory (supervisor/admin) shares its private headers.
	if [[ $header == *_priv.h && $header != "$room"/* && $file != tests/* ]]; then
		lint_breach "$place" "$header is private to ${header%/*}"
	fi
	[[ $header != "$room"/* ]] || return 0
	allowed=$(awk -v room="$room" '$1 == room { $1 = ""; print }' <<<"$ours")
	for prefix in $allowed; do
		[[ $header != "$prefix"* ]] || return 0
	done
	lint_breach "$place" "$room may not include $header (it may include:${allowed:- nothing of ours but itself})"
}

check_theirs() {
	local place=$1 file=$2 header=$3 pattern where one
	while read -r pattern where; do
		# shellcheck disable=SC2053
		[[ -n $pattern && $header == $pattern ]] || continue
		for one in $where; do
			[[ $file != "$one"* ]] || return 0
		done
		lint_breach "$place" "<$header> is for: $where"
		return 0
	done <<<"$theirs"
}

includes() {
	grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]' "$1" |
	    sed -E 's/^([0-9]+):[^<"]*([<"])([^>"]*)[>"].*/\1\t\2\t\3/' || true
}

while read -r file; do
	room=$(room_of "$file")
	[ -n "$room" ] || { lint_breach "$file" "no row for this directory in tests/lint/includes.sh"; continue; }
	first=1
	while IFS=$'\t' read -r line kind header; do
		if [[ $kind == '"' ]]; then
			if [[ $first -eq 1 && $file == *.c && $header != config.h ]]; then
				lint_breach "$file:$line" "the first include of a .c file is \"config.h\""
			fi
			check_ours "$file:$line" "$file" "$header" "$room"
		else
			check_theirs "$file:$line" "$file" "$header"
		fi
		first=0
	done < <(includes "$file")
done < <(lint_files -name '*.c' -o -name '*.h' | grep -vE '^(clients/include|clients/python|docs|contrib)/')
lint_end
