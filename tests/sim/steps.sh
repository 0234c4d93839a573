#!/bin/sh
# A death at each step of each history with MKV_FULL or MEMKV_TEST_FULL=1; else at one point in MKV_STEPS_EVERY, every day at others. As many fewer as MKV_SIM_SEEDS asks for.
every=17
[ -z "${MKV_SIM_SEEDS:-}" ] || every=$((500 * every / (MKV_SIM_SEEDS + 1) + 1))
every=${MKV_STEPS_EVERY:-$every}
[ "${MEMKV_TEST_FULL:-0}" = 0 ] && [ -z "${MKV_FULL:-}" ] || every=1
exec ./steps_test -w "$(nproc)" -e "$every" -o "$(($(date +%s) / 86400 % every))"
