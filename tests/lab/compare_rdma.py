#!/usr/bin/env python3
"""
memkv over RDMA beside perftest, in the guest of run-lab --nics 2: the same size, the same bytes under way, one after the other, so that what the machine does
meanwhile hits both. Prints for each size the median of the ratios, its quartiles, and what does not vary: work requests, doorbells and completions an operation.

  tests/lab/run-lab --nics 2 --mem 4G --timeout 3000 --env MEMKV_STAGE build -- python3 tests/lab/compare_rdma.py --pairs 9 --sizes 1MiB
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "proc")]

import rdma  # noqa: E402
from harness import MEMKV  # noqa: E402

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}
SERVER_OF = {"put": ("ib_read_bw", "memkv_front_received_bytes_total"), "get": ("ib_write_bw", "memkv_front_sent_bytes_total")}
COUNTS = ("work_requests", "doorbells", "completions")


def size_of(text):
    n, unit = re.fullmatch(r"(\d+)(KiB|MiB)", text).groups()
    return int(n) * UNITS[unit]


def perftest(tool, size, seconds, connections):
    """Bytes a second. The one who asks is rxe1, where memkv's server is: it READs and WRITEs."""
    args = ["-s", str(size), "-D", str(seconds), "-F", "-q", str(connections), "-x", "1", "--report_gbits", "-p", "18515"]
    far = subprocess.Popen([tool, "-d", rdma.NICS[0], *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            time.sleep(0.2)
            r = subprocess.run([tool, "-d", rdma.NICS[1], *args, rdma.ADDRESSES[0]], capture_output=True, text=True,
                               timeout=seconds * 5 + 60)
            if r.returncode == 0:
                break
            assert far.poll() is None, r.stdout + r.stderr
        rows = [line.split() for line in r.stdout.splitlines() if re.match(rf"\s*{size}\s", line)]
        assert rows, r.stdout + r.stderr
        return float(rows[0][3]) * 1e9 / 8
    finally:
        if far.poll() is None:
            far.terminate()
        far.wait(10)


def counts(s):
    return {k: s.metric_sum(f"memkv_front_{k}_total") for k in COUNTS}


def memkv(s, op, size, seconds, connections, no_crc):
    env = dict(os.environ, MEMKV_AUTH_KEY=rdma.KEY, MEMKV_RDMA_DEVICES=rdma.NICS[0])
    keys = max(8, min(64, (64 << 20) // size))
    args = [MEMKV, "bench", op, "--servers", s.addr, "--transport", "rdma", "--size", str(size), "--keys", str(keys), "--concurrency", "8",
            "--duration", f"{seconds}s", "--connections", str(connections), "--json"] + (["--no-crc"] if no_crc else [])
    before = counts(s)
    r = subprocess.run(args, capture_output=True, text=True, timeout=seconds * 5 + 120, env=env)
    assert r.returncode == 0, r.stdout + r.stderr
    row = json.loads(r.stdout.splitlines()[-1])
    after = counts(s)
    return row["bytes"] / row["seconds"], {k: (after[k] - before[k]) / max(1, row["ops"]) for k in COUNTS}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pairs", type=int, default=9)
    p.add_argument("--seconds", type=int, default=3)
    p.add_argument("--sizes", default="64KiB,1MiB,4MiB")
    p.add_argument("--connections", default="1,8")
    p.add_argument("--no-crc", action="store_true", help="integrity off at both ends")
    a = p.parse_args()
    sets = ["integrity.verify_put=off"] if a.no_crc else []
    with rdma.server(sets) as s:
        rdma.wait_rails(s)
        for size in map(size_of, a.sizes.split(",")):
            for connections in map(int, a.connections.split(",")):
                for op, (tool, _) in SERVER_OF.items():
                    ratios, ours, theirs, n = [], [], [], {}
                    for _ in range(a.pairs):
                        theirs.append(perftest(tool, size, a.seconds, connections))
                        bw, n = memkv(s, op, size, a.seconds, connections, a.no_crc)
                        ours.append(bw)
                        ratios.append(bw / theirs[-1])
                    q = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
                    print(json.dumps({"op": op, "size": size, "connections": connections, "crc": not a.no_crc, "pairs": a.pairs,
                                      "ratio": round(statistics.median(ratios), 3), "quartiles": [round(q[0], 3), round(q[2], 3)],
                                      "memkv_mib_s": round(statistics.median(ours) / (1 << 20), 1),
                                      tool + "_mib_s": round(statistics.median(theirs) / (1 << 20), 1),
                                      "per_op": {k: round(v, 2) for k, v in n.items()}}), flush=True)


if __name__ == "__main__":
    main()
