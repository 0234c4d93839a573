"""
b: the KV-cache benchmark of MLPerf Storage, unchanged, on a directory of the disk and on one of libmemkv_preload.so. Its folder (kv_cache_benchmark of
mlcommons/storage, docs/operate/preload.md) is named by MEMKV_KVCACHE_BENCH; it is in no package registry. It counts a read that failed as one of no time, so
what it says is held against what the library counted and what the store has.
"""
import json
import os
import re
import subprocess

import pytest

from preload_shim import LINUX, numpy_python, shim  # noqa: F401

BENCH = os.environ.get("MEMKV_KVCACHE_BENCH", "")
HEADER = 128

pytestmark = [LINUX, pytest.mark.skipif(not BENCH, reason="MEMKV_KVCACHE_BENCH does not name the folder kv_cache_benchmark of mlcommons/storage")]

ROUND_TRIP = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from kv_cache.backends import NVMeBackend
r = np.random.default_rng(7)
arrays = {f"key_{n}": r.standard_normal(n).astype(np.float16) for n in (1, 2, 100, 1984, 1985, 4096, 32768, 100000, 131009, 1 << 20, 5000001, 20000000)}
b = NVMeBackend(sys.argv[2])
for key, a in arrays.items():
    b.write(key, a)
arrays["key_4096"] = arrays["key_100"]
b.write("key_4096", arrays["key_4096"])
for key, a in [*arrays.items(), *reversed(arrays.items())]:
    back, timing = b.read(key)
    assert back.dtype == a.dtype and np.array_equal(back, a) and timing.device > 0, key
b.delete("key_1")
try:
    b.read("key_1")
    raise SystemExit("it is still there")
except KeyError:
    pass
again = NVMeBackend(sys.argv[2])
assert not list(again.base_path.glob("*.npy"))
"""


def shape(v):
    """Names and kinds of what a results file has, without what differs from run to run: how long lists are, and keys with numbers in them."""
    if isinstance(v, dict):
        return {k: shape(x) for k, x in v.items() if not re.search(r"\d", k) or k.endswith("_ms")}
    return "list" if isinstance(v, list) else "number" if isinstance(v, (int, float)) else type(v).__name__


def run(python, top, place, out, env):
    """With small objects, so that some seconds have many of them, and more of them than the capacity, so that some are evicted."""
    with open(os.path.join(BENCH, "config.yaml")) as f:
        small = re.sub(r"context_range: \[.*\]", "context_range: [64, 256]", f.read())
    (top / "config.yaml").write_text(small)
    command = [python, os.path.join(BENCH, "kv-cache.py"), "--config", str(top / "config.yaml"), "--model", "tiny-1b", "--num-users", "4", "--duration", "8",
               "--gpu-mem-gb", "0", "--cpu-mem-gb", "0", "--max-concurrent-allocs", "4", "--generation-mode", "none", "--storage-capacity-gb", "0.05",
               "--seed", "42", "--cache-dir", str(place), "--output", str(top / out)]
    r = subprocess.run(command, env=env, cwd=top, capture_output=True, text=True, timeout=180)
    assert r.returncode == 0, r.stderr[-3000:]
    return json.loads((top / out).read_text())


def test_a_round_trip_of_its_own_backend(shim):
    python = numpy_python("yaml")
    shim.run(python, "-c", ROUND_TRIP, BENCH, shim.anchor)
    assert shim.keys() == [] and shim.counted()["get_errors"] == shim.counted()["put_errors"] == 0


def test_the_whole_benchmark(shim):
    python = numpy_python("yaml")
    plain = shim.top / "plain"
    plain.mkdir()
    on_disk = run(python, shim.top, plain, "plain.json", {k: v for k, v in os.environ.items() if not k.startswith("MEMKV_")})
    stored = run(python, shim.top, shim.anchor, "stored.json", shim.env)
    assert shape(stored) == shape(on_disk)
    for said in (on_disk, stored):
        assert said["requests_completed"] > 10 and min(said["prefill_latencies"] + said["decode_latencies"]) > 0
    cache, c = stored["summary"]["cache_stats"], shim.counted()
    assert c["put_errors"] == c["get_errors"] == c["get_misses"] == 0, c
    assert c["put_count"] == cache["write_iops"] and c["put_bytes"] == cache["total_write_bytes"] + HEADER * cache["write_iops"], (c, cache)
    assert c["get_bytes"] == cache["total_read_bytes"] + HEADER * cache["read_iops"], (c, cache)
    assert c["delete_count"] > 0 and len(shim.keys()) == cache["storage_entries"]
