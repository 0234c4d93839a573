#!/usr/bin/env bash
# The shape of dfkv's benchmark: 16 threads with batches of 8 values of 4 MiB, written, then read after a restart of the server (file mode).
# shellcheck source=scripts/bench-common.sh
. "$(dirname "${BASH_SOURCE[0]}")/bench-common.sh"

# shellcheck disable=SC2034
BENCH_ABOUT="The shape of dfkv's benchmark: 16 threads with batches of 8 values of 4 MiB, written, then read after a restart of the server (file mode)."
BENCH_MODE="file"
bench_options "$@"
size=4MiB keys=512 c=16
[ "$BENCH_QUICK" -eq 0 ] || { size=1MiB keys=64 c=4; }
bench_server
bench_head
bench_row fill "$size" "$c" 8 --keys "$keys"
bench_server_again
bench_row get "$size" "$c" 8 --keys "$keys" --ops "$keys"
bench_row get "$size" "$c" 8 --keys "$keys" --duration "$BENCH_SECONDS"
