#!/usr/bin/env python3
"""NumPy arrays as files, in the order of calls of the KV-cache benchmark of MLPerf Storage: the load of the group `preload` of bench/compare.

    numpy_files.py DIR BYTES COUNT

Puts are np.save and fsync, with open and close in the time; gets are np.load after the page cache was told to forget the file. Making and
comparing the arrays is not in the time. Prints one JSON object.
"""
import json
import os
import statistics
import sys
import time

import numpy as np


def put(path, data):
    with open(path, "wb") as f:
        np.save(f, data, allow_pickle=False)
        f.flush()
        os.fsync(f.fileno())


def get(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    return np.load(path, allow_pickle=False)


def timed(call, *args):
    since = time.perf_counter()
    out = call(*args)
    return time.perf_counter() - since, out


def summary(seconds, size):
    return {"gib_per_s": size * len(seconds) / sum(seconds) / (1 << 30), "p50_ms": 1e3 * statistics.median(seconds)}


def main(top, size, count):
    base = np.random.default_rng(1).integers(0, 255, size, dtype=np.uint8)
    names = [os.path.join(top, f"array_{n:04}.npy") for n in range(count)]
    puts, gets = [], []
    for n, name in enumerate(names):
        base[:8] = np.frombuffer(n.to_bytes(8, "little"), dtype=np.uint8)
        puts.append(timed(put, name, base)[0])
    for _ in range(2):
        for n, name in enumerate(names):
            seconds, back = timed(get, name)
            base[:8] = np.frombuffer(n.to_bytes(8, "little"), dtype=np.uint8)
            if not np.array_equal(back, base):
                sys.exit(f"{name}: other bytes than were put")
            gets.append(seconds)
    for name in names:
        os.unlink(name)
    print(json.dumps({"put": summary(puts, size), "get": summary(gets, size)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
