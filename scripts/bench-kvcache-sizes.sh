#!/usr/bin/env bash
# Block sizes of real models, in blocks of 16, 64 and 256 tokens: one rank of Llama-3.1-70B at TP8, DeepSeek-V3, Llama-3.1-8B, Qwen3-8B.
# shellcheck source=scripts/bench-common.sh
. "$(dirname "${BASH_SOURCE[0]}")/bench-common.sh"

# shellcheck disable=SC2034
BENCH_ABOUT="Block sizes of real models, in blocks of 16, 64 and 256 tokens: one rank of Llama-3.1-70B at TP8, DeepSeek-V3, Llama-3.1-8B, Qwen3-8B."
bench_options "$@"
# 70B/TP8 16: 640KiB; DeepSeek-V3 16: 1098KiB, 64: 4390KiB; 8B 16: 2MiB, 64: 8MiB, 256: 32MiB; Qwen3-8B 16: 2304KiB
sizes=(640KiB 1098KiB 2MiB 2304KiB 4390KiB 8MiB 32MiB) keys=64 depths=(1 8)
[ "$BENCH_QUICK" -eq 0 ] || { sizes=(640KiB 1098KiB) keys=32 depths=(4); }
bench_server
bench_head
for size in "${sizes[@]}"; do
	bench_row fill "$size" 4 1 --keys "$keys"
	for c in "${depths[@]}"; do
		bench_row get "$size" "$c" 1 --keys "$keys" --duration "$BENCH_SECONDS"
		bench_row put "$size" "$c" 1 --keys "$keys" --duration "$BENCH_SECONDS"
	done
done
