#!/usr/bin/env bash
# The shape of InfiniStore's benchmark: 100 MiB in blocks of 32 KiB to 2 MiB, steps of 32 blocks, one connection; write, then read.
# shellcheck source=scripts/bench-common.sh
. "$(dirname "${BASH_SOURCE[0]}")/bench-common.sh"

# shellcheck disable=SC2034
BENCH_ABOUT="The shape of InfiniStore's benchmark: 100 MiB in blocks of 32 KiB to 2 MiB, steps of 32 blocks, one connection; write, then read."
bench_options "$@"
total=$((100 << 20)) blocks=(32 64 128 256 512 1024 2048)
[ "$BENCH_QUICK" -eq 0 ] || { total=$((16 << 20)); blocks=(32 512); }
bench_server
bench_head
for kib in "${blocks[@]}"; do
	keys=$((total / (kib << 10)))
	bench_row fill "${kib}KiB" 1 32 --keys "$keys" --connections 1
	bench_row get "${kib}KiB" 1 32 --keys "$keys" --connections 1 --ops "$keys"
done
