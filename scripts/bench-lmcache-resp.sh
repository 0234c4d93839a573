#!/usr/bin/env bash
# The shape of LMCache's RESP client benchmark: chunks of 0.5 to 8 MiB, 8 workers, 500 keys; set, get, exists.
# shellcheck source=scripts/bench-common.sh
. "$(dirname "${BASH_SOURCE[0]}")/bench-common.sh"

# shellcheck disable=SC2034
BENCH_ABOUT="The shape of LMCache's RESP client benchmark: chunks of 0.5 to 8 MiB, 8 workers, 500 keys; set, get, exists."
BENCH_CAPACITY=6GiB
bench_options "$@"
sizes=(512KiB 1MiB 2MiB 4MiB 8MiB) keys=500
[ "$BENCH_QUICK" -eq 0 ] || { sizes=(512KiB 1MiB) keys=32; }
bench_server
bench_head
for size in "${sizes[@]}"; do
	bench_row fill "$size" 8 1 --keys "$keys" --connections 8
	bench_row get "$size" 8 1 --keys "$keys" --connections 8 --duration "$BENCH_SECONDS"
done
bench_row exists "${sizes[0]}" 8 1 --keys "$keys" --connections 8 --duration "$BENCH_SECONDS"
