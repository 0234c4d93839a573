#!/usr/bin/env bash
# Near to the kvcache workload of MLPerf Storage: many users who read more than they write, three runs; the store alone, GiB/s and latency.
# shellcheck source=scripts/bench-common.sh
. "$(dirname "${BASH_SOURCE[0]}")/bench-common.sh"

# shellcheck disable=SC2034
BENCH_ABOUT="Near to the kvcache workload of MLPerf Storage: many users who read more than they write, three runs; the store alone, GiB/s and latency."
bench_options "$@"
sizes=(2MiB 5MiB) keys=256
[ "$BENCH_QUICK" -eq 0 ] || { sizes=(1MiB) keys=64; }
bench_server
bench_head
for size in "${sizes[@]}"; do
	bench_row fill "$size" 16 1 --keys "$keys"
	for _ in 1 2 3; do
		bench_row mixed "$size" 16 1 --keys "$keys" --read-percent 80 --duration "$BENCH_SECONDS"
	done
done
