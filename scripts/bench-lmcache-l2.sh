#!/usr/bin/env bash
# The shape of LMCache's second-level adapter check: objects of 16 MiB, 80 keys, 3 in flight, lookups that hit 80 %.
# shellcheck source=scripts/bench-common.sh
. "$(dirname "${BASH_SOURCE[0]}")/bench-common.sh"

# shellcheck disable=SC2034
BENCH_ABOUT="The shape of LMCache's second-level adapter check: objects of 16 MiB, 80 keys, 3 in flight, lookups that hit 80 %."
bench_options "$@"
size=16MiB keys=80
[ "$BENCH_QUICK" -eq 0 ] || { size=1MiB keys=32; }
bench_server
bench_head
bench_row fill "$size" 3 1 --keys "$keys"
bench_row get "$size" 3 1 --keys "$keys" --duration "$BENCH_SECONDS"
bench_row exists "$size" 3 32 --keys "$keys" --hit-rate 80 --duration "$BENCH_SECONDS"
bench_row match "$size" 3 32 --keys "$keys" --hit-rate 80 --duration "$BENCH_SECONDS"
