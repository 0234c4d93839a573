# shellcheck shell=bash
# What the bench-*.sh scripts share: options, a server of their own unless one is named, rows of a table. Sourced; names begin with
# bench_ or BENCH_. The scripts repeat the shapes of published runs; what they print is what was measured here, nothing else.

set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

BENCH_DRIVER=memkv
BENCH_SERVERS=${MEMKV_SERVERS:-}
BENCH_MODE=memory
BENCH_CAPACITY=4GiB
BENCH_SECONDS=5
BENCH_QUICK=0			# read by the scripts
export BENCH_QUICK
BENCH_VERIFY=()
BENCH_MEMKV=${BENCH_MEMKV:-$MKV_STAGE/bin/memkv}
BENCH_REST=()
bench_dir=
bench_log=

bench_usage() {
	cat <<END
usage: ${0##*/} [OPTION]... ${BENCH_WORDS:-}

$BENCH_ABOUT

  --driver NAME     memkv (default), redis, memcached, files, memcpy, null
  --servers LIST    use this server; without it a memkv server is started and ended
  --mode NAME       of the server that is started: memory (default), file
  --capacity SIZE   of the server that is started (default $BENCH_CAPACITY)
  --seconds S       of each measurement (default $BENCH_SECONDS)
  --verify          check every byte
  --quick           shorter and smaller: does it work?
END
}

# bench_options "$@": what is no option goes to BENCH_REST.
bench_options() {
	while [ $# -gt 0 ]; do
		case $1 in
		--driver) BENCH_DRIVER=${2:?}; shift ;;
		--servers) BENCH_SERVERS=${2:?}; shift ;;
		--mode) BENCH_MODE=${2:?}; shift ;;
		--capacity) BENCH_CAPACITY=${2:?}; shift ;;
		--seconds) BENCH_SECONDS=${2:?}; shift ;;
		--verify) BENCH_VERIFY=(--verify) ;;
		--quick) BENCH_QUICK=1 BENCH_SECONDS=0.5 ;;
		-h | --help) bench_usage; exit 0 ;;
		-*) bench_usage >&2; exit 2 ;;
		*) BENCH_REST+=("$1") ;;
		esac
		shift
	done
	[ -x "$BENCH_MEMKV" ] || mkv_die "$BENCH_MEMKV is not there: build it with ./check build, or name it in BENCH_MEMKV"
	trap bench_leave EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

bench_leave() {
	mkv_server_stop
	[ -z "$bench_dir" ] || rm -rf "$bench_dir"
}

# bench_server: start one, unless --servers named one or the driver is another.
bench_server() {
	local media
	if [ "$BENCH_DRIVER" = files ] && [ -z "$BENCH_SERVERS" ]; then
		bench_dir=$(mktemp -d)
		BENCH_SERVERS=$bench_dir
	fi
	[ "$BENCH_DRIVER" = memkv ] && [ -z "$BENCH_SERVERS" ] || return 0
	bench_dir=${bench_dir:-$(mktemp -d)}
	bench_log=$bench_dir/server.log
	media=arena0
	[ "$BENCH_MODE" = memory ] || media=$bench_dir/drive0.dat
	MKV_STAGE=$(cd "$(dirname "$BENCH_MEMKV")/.." && pwd)
	mkv_server_start "$bench_log" --set "server.data_dir=$bench_dir/data" --set network.address=127.0.0.1:0 \
	    --set admin.address=127.0.0.1:0 --set "storage.mode=$BENCH_MODE" \
	    --set "storage.drives=[{media: $media, max_size: $BENCH_CAPACITY}]" || mkv_die "the server did not start"
	bench_own=1
}
bench_own=0

bench_servers() {
	if [ "$bench_own" -eq 1 ]; then mkv_ready data; else printf '%s\n' "$BENCH_SERVERS"; fi
}

# The server stops and starts again on the same data: what is read next was read from the drive.
bench_server_again() {
	[ "$bench_own" -eq 1 ] || return 0
	[ "$BENCH_MODE" = file ] || mkv_die "only a server in file mode keeps its data: --mode file"
	mkv_server_stop
	bench_server
}

# bench_run OP OPTION...: the JSON object of one run.
bench_run() {
	local op=$1 args=() out
	shift
	[ "$bench_own" -eq 0 ] || args+=(--server-pid "$MKV_SERVER_PID")
	[ -z "$(bench_servers)" ] || args+=(--servers "$(bench_servers)")
	[ "$BENCH_DRIVER" = null ] || args+=("${BENCH_VERIFY[@]}")
	out=$("$BENCH_MEMKV" bench "$op" --driver "$BENCH_DRIVER" --json "${args[@]}" "$@") || { printf '%s\n' "$out" >&2; return 1; }
	tail -n 1 <<<"$out"
}

# bench_field JSON NAME: a number out of the object (the first of that name).
bench_field() {
	sed -n "s/.*\"$2\":\\([0-9.eE+-]*\\).*/\\1/p" <<<"${1/\"replay\":*/}"
}

bench_head() {
	printf '%-8s %10s %6s %6s %10s %12s %10s %10s %10s %8s\n' op size c batch GiB/s ops/s p50_us p99_us p99.9_us hits_%
}

# bench_row OP SIZE C BATCH OPTION...: run and print a row of the table.
bench_row() {
	local op=$1 size=$2 c=$3 batch=$4 json hits ops
	shift 4
	json=$(bench_run "$op" --size "$size" --concurrency "$c" --batch "$batch" "$@")
	hits=$(bench_field "$json" hits)
	ops=$(bench_field "$json" ops)
	printf '%-8s %10s %6s %6s %10.3f %12.0f %10.0f %10.0f %10.0f %8.1f\n' "$op" "$size" "$c" "$batch" "$(bench_field "$json" gib_per_s)" \
	    "$(bench_field "$json" ops_per_s)" "$(bench_field "$json" p50)" "$(bench_field "$json" p99)" "$(bench_field "$json" p999)" \
	    "$(awk -v h="$hits" -v o="$ops" 'BEGIN { print (o > 0 ? 100 * h / o : 0) }')"
}

bench_server_end() {
	mkv_server_stop
	rm -rf "$bench_dir"
	bench_dir='' bench_own=0
}
