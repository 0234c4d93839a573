"""
The calls of the MLPerf-Storage KV-cache benchmark (kv_cache_benchmark, NVMeBackend), in its order: run by test_b_preload.py below libmemkv_preload.so.

    preload_numpy.py DIR       prints one JSON line: puts, gets and bytes of payload, to be compared with what the library counted
"""
import glob
import hashlib
import json
import mmap
import os
import sys

import numpy as np

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench"))

from numpy_files import get as load, put  # noqa: E402

HEADER = 128
WHOLE = (1 << 20) + (64 << 10)        # what is larger is fetched in two


def get(path):
    if not os.path.exists(path):
        raise KeyError(path)
    return np.array(load(path))


def array(name, items):
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(items).astype(np.float16)


def main(top):
    os.makedirs(os.path.join(top, "rank_0"), exist_ok=True)
    top = os.path.join(top, "rank_0")
    for old in glob.glob(os.path.join(top, "*.npy")):
        os.unlink(old)
    said = {"puts": 0, "put_bytes": 0, "gets": 0, "get_bytes": 0}
    names = {}
    for i, items in enumerate((1, 100, 2047, 2048, 65536, 1 << 20, 10_000_001, 20_000_000)):
        names[os.path.join(top, f"user_0001_req_{i:06}.npy")] = items
    for path, items in names.items():
        put(path, array(path, items))
        said["puts"] += 1
        said["put_bytes"] += 2 * items + HEADER
    first = next(iter(names))
    names[first] = 50                        # over it, shorter and longer
    for items in (70_000, 50):
        put(first, array(first, items))
        said["puts"] += 1
        said["put_bytes"] += 2 * items + HEADER
    for _ in range(2):
        for path, items in names.items():
            back = get(path)
            assert back.dtype == np.float16 and np.array_equal(back, array(path, items)), path
            said["gets"] += 1 if 2 * items + HEADER <= WHOLE else 2
            said["get_bytes"] += 2 * items + HEADER
    assert sorted(glob.glob(os.path.join(top, "*.npy"))) == sorted(names)
    os.unlink(first)
    try:
        get(first)
        raise AssertionError("it is still there")
    except KeyError:
        pass
    room = os.statvfs(top)
    assert 0 < room.f_bavail <= room.f_blocks
    array(first, 5000).tofile(os.path.join(top, "raw.tmp"))         # SGLang's file backend
    os.rename(os.path.join(top, "raw.tmp"), os.path.join(top, "raw.bin"))
    said["puts"] += 2                                               # one at close, one under the new name
    said["put_bytes"] += 2 * 5000 * 2
    said["gets"] += 2
    said["get_bytes"] += 2 * 5000 * 2
    assert np.array_equal(np.fromfile(os.path.join(top, "raw.bin"), dtype=np.float16), array(first, 5000))
    with open(list(names)[5], "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        assert m[HEADER:] == array(list(names)[5], 1 << 20).tobytes()
    said["gets"] += 1
    said["get_bytes"] += 2 * (1 << 20) + HEADER
    print(json.dumps(said))


main(sys.argv[1])
