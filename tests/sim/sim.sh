#!/bin/sh
# The sample of plain `make check`, all of it with MEMKV_TEST_FULL=1, or MKV_SIM_SEEDS of them.
count=500
[ "${MEMKV_TEST_FULL:-0}" = 0 ] || count=20000
command -v python3 >/dev/null || { echo "python3 is not here"; exit 77; }
python3 "${srcdir:-.}/mutants" --fit "${srcdir:-.}/../.." || exit 1
exec python3 "${srcdir:-.}/run" --from 1 --count "${MKV_SIM_SEEDS:-$count}" --program ./sim_test -- -l
