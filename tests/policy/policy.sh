#!/bin/sh
# Both traces and the synthetic ones at all capacities; fails where a promise of docs/internals/eviction.md is broken or its tables are not what comes out.
command -v python3 >/dev/null || { echo "python3 is not here"; exit 77; }
python3 -c 'import lzma' 2>/dev/null || { echo "this python3 reads no .xz"; exit 77; }
exec python3 "${srcdir:-.}/eviction" --program ./policy_sim --check
