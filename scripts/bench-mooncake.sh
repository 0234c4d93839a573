#!/usr/bin/env bash
# Replays a Mooncake trace against stores that hold 5 to 100 percent of its distinct blocks: hit ratio as a function of capacity.
# shellcheck source=scripts/bench-common.sh
. "$(dirname "${BASH_SOURCE[0]}")/bench-common.sh"

# shellcheck disable=SC2034
BENCH_ABOUT="Replays a Mooncake trace against stores that hold 5 to 100 percent of its distinct blocks: hit ratio as a function of capacity."
# shellcheck disable=SC2034
BENCH_WORDS="[TRACE]"
bench_options "$@"
trace=${BENCH_REST[0]:-$MKV_TOP/tests/data/mooncake_conversation_sample.jsonl}
block=$((64 << 10)) shares=(5 10 20 50 100) limit=()
[ "$BENCH_QUICK" -eq 0 ] || { shares=(20 100); limit=(--limit 100); }
[ -z "$BENCH_SERVERS" ] || mkv_die "this script starts servers of the capacities that it measures"

# replay_field JSON NAME: a number of the part on the replay.
replay_field() {
	sed -n "s/.*\"replay\":.*\"$2\":\\([0-9.eE+-]*\\).*/\\1/p" <<<"$1"
}

replay_percent() {
	awk -v v="$(replay_field "$1" "$2")" 'BEGIN { printf "%.2f", 100 * v }'
}

distinct=$(replay_field "$("$BENCH_MEMKV" bench replay --driver null --trace "$trace" --block-bytes "$block" --json "${limit[@]}" | tail -n 1)" distinct)
printf '%8s %12s %9s %10s %10s %13s\n' share_% capacity hits_% ceiling_% GiB/s request_p99_us
for share in "${shares[@]}"; do
	BENCH_CAPACITY=$((distinct * block * share / 100))
	# The whole trace needs room for what a store keeps beside the blocks.
	[ "$share" -lt 100 ] || BENCH_CAPACITY=$((BENCH_CAPACITY * 11 / 10))
	bench_server
	json=$(bench_run replay --trace "$trace" --block-bytes "$block" --concurrency 16 "${limit[@]}")
	printf '%8s %12s %9s %10s %10.3f %13.0f\n' "$share" "$BENCH_CAPACITY" "$(replay_percent "$json" hit_ratio)" "$(replay_percent "$json" ceiling)" \
	    "$(bench_field "$json" gib_per_s)" "$(bench_field "$json" p99)"
	bench_server_end
done
