#!/usr/bin/env python3
"""
memkv over RDMA beside perftest, in the guest of run-lab --nics 2: the same size, one after the other, so that what the machine does meanwhile hits both. Prints for
each size the median of the ratios, its quartiles, and what does not vary: work requests, doorbells, completions and system calls of the front and packets of its
device an operation. --latency: one small value at a time beside ib_send_lat, whose round trip is twice what it prints.

  tests/lab/run-lab --nics 2 --drives 0 --mem 4G --timeout 6000 --env MEMKV_STAGE build -- python3 tests/lab/compare_rdma.py --latency
"""
import argparse
import json
import math
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
TOOL = {"put": "ib_read_bw", "get": "ib_write_bw"}
COUNTS = ("work_requests", "doorbells", "completions")
TOLD = 0.6              # a front tells its counts twice a second
TRACE = "/sys/kernel/tracing"
CALLS = f"{TRACE}/events/raw_syscalls/sys_enter"


def size_of(text):
    n, unit = re.fullmatch(r"(\d+)(KiB|MiB)", text).groups()
    return int(n) * UNITS[unit]


def perftest(tool, args):
    """Its output. The one who asks is rxe1, where memkv's server is: it READs and WRITEs."""
    args = ["-F", "-x", "1", "-p", "18515", *args]
    far = subprocess.Popen([tool, "-d", rdma.NICS[0], *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            time.sleep(0.2)
            r = subprocess.run([tool, "-d", rdma.NICS[1], *args, rdma.ADDRESSES[0]], capture_output=True, text=True, timeout=180)
            if r.returncode == 0:
                return r.stdout
            assert far.poll() is None, r.stdout + r.stderr
        raise AssertionError(r.stdout + r.stderr)
    finally:
        far.kill()              # it may wait for ever for a run that is over here
        far.wait()


def row_of(out, size):
    rows = [line.split() for line in out.splitlines() if re.match(rf"\s*{size}\s", line)]
    assert rows, out
    return rows[0]


def good(measure):
    """perftest now and then prints 0 or infinity, where processors are emulated: then once more."""
    for _ in range(20):
        x = measure()
        if 0 < x < math.inf:
            return x
    raise AssertionError("perftest gives no number")


def bandwidth(tool, size, seconds, connections):
    """Bytes a second."""
    depth = min(128, max(16, (128 << 20) // size) // connections)         # its own 128 of 16 MiB would take longer than the run
    args = ["-s", str(size), "-D", str(seconds), "-q", str(connections), "-t", str(depth), "--report_gbits"]
    return good(lambda: float(row_of(perftest(tool, args), size)[3]) * 1e9 / 8)


def message_us(size):
    """One way, as it is typical."""
    return good(lambda: float(row_of(perftest("ib_send_lat", ["-s", str(size), "-n", "500"]), size)[4]))


def traced(pid):
    """System calls of that process since they are counted."""
    tasks = set(os.listdir(f"/proc/{pid}/task"))
    with open(f"{CALLS}/hist") as f:
        return sum(int(m[2]) for m in re.finditer(r"common_pid:\s*(\d+) .*hitcount:\s*(\d+)", f.read()) if m[1] in tasks)


def counts(s, pid):
    time.sleep(TOLD)
    n = {k: s.metric_sum(f"memkv_front_{k}_total") for k in COUNTS}
    for name in ("sent_pkts", "rcvd_pkts"):
        with open(f"/sys/class/infiniband/{rdma.NICS[1]}/ports/1/hw_counters/{name}") as f:
            n["packets"] = n.get("packets", 0) + int(f.read())
    n["system_calls"] = traced(pid)
    return n


def keys_of(size):
    return max(8, min(64, (64 << 20) // size))


def memkv(s, op, size, connections, more):
    env = dict(os.environ, MEMKV_AUTH_KEY=rdma.KEY, MEMKV_RDMA_DEVICES=rdma.NICS[0])
    args = [MEMKV, "bench", op, "--servers", s.addr, "--transport", "rdma", "--size", str(size), "--keys", str(keys_of(size)),
            "--connections", str(connections), "--deadline", "60s", "--json", *more]
    r = subprocess.run(args, capture_output=True, text=True, timeout=240, env=env)
    assert r.returncode == 0, r.stdout + r.stderr
    return json.loads(r.stdout.splitlines()[-1])


def per_op(s, op, size, connections, more):
    """In a run of its own: so many operations, the connections and (get) the keys beforehand taken off by a second run with twice as many."""
    pid = s.status()["front:rdma:" + rdma.NICS[1]]["pid"]
    took, n = [], max(16, min(64, (64 << 20) // size))
    for ops in (n, 2 * n):
        before = counts(s, pid)
        row = memkv(s, op, size, connections, more + ["--ops", str(ops)])
        after = counts(s, pid)
        took.append((row["ops"], {k: after[k] - before[k] for k in after}))
    (n1, a), (n2, b) = took
    return {k: round((b[k] - a[k]) / max(1, n2 - n1), 2) for k in a}


def spread(values):
    q = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"ratio": round(statistics.median(values), 3), "quartiles": [round(q[0], 3), round(q[2], 3)]}


def fill(s, size, more):
    """A get finds values of its own size under all keys; puts choose theirs by chance and leave some of the size before."""
    memkv(s, "fill", size, 1, more + ["--concurrency", "2"])


def compare_bandwidth(s, a, size, connections, op, more):
    tool = TOOL[op]
    ours, theirs = [], []
    fill(s, size, more)
    for _ in range(a.pairs):
        theirs.append(bandwidth(tool, size, a.seconds, connections))
        row = memkv(s, op, size, connections, more + ["--concurrency", "8", "--duration", f"{a.seconds}s"])
        ours.append(row["bytes"] / row["seconds"])
    return {"op": op, "size": size, "connections": connections, "crc": not a.no_crc, "pairs": a.pairs, **spread([o / t for o, t in zip(ours, theirs)]),
            "memkv_mib_s": round(statistics.median(ours) / (1 << 20), 1), tool + "_mib_s": round(statistics.median(theirs) / (1 << 20), 1),
            "per_op": per_op(s, op, size, connections, more + ["--concurrency", "8"])}


def compare_latency(s, a, size, op, more):
    ours, theirs = [], []
    fill(s, size, more)
    for _ in range(a.pairs):
        theirs.append(message_us(size))
        ours.append(memkv(s, op, size, 1, more + ["--concurrency", "1", "--duration", f"{a.seconds}s"])["latency_us"]["p50"])
    return {"latency_of": op, "size": size, "pairs": a.pairs, **spread([o / (2 * t) for o, t in zip(ours, theirs)]),
            "memkv_p50_us": round(statistics.median(ours), 1), "ib_send_lat_us": round(statistics.median(theirs), 1),
            "per_op": per_op(s, op, size, 1, more + ["--concurrency", "1"])}


def count_calls():
    if not os.path.exists(f"{TRACE}/events"):
        subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACE], check=True)
    with open(f"{CALLS}/trigger", "w") as f:
        f.write("hist:keys=common_pid:size=4096")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pairs", type=int, default=9)
    p.add_argument("--seconds", type=int, default=3)
    p.add_argument("--sizes", default="64KiB,256KiB,1MiB,4MiB,16MiB")
    p.add_argument("--connections", default="1,8")
    p.add_argument("--latency", action="store_true", help="beside ib_send_lat as well, values of 64 and 4096 bytes")
    p.add_argument("--no-crc", action="store_true", help="integrity off at both ends")
    a = p.parse_args()
    more = ["--no-crc"] if a.no_crc else []
    count_calls()
    with rdma.server(["integrity.verify_put=off"] if a.no_crc else []) as s:
        rdma.wait_rails(s)
        for size in (64, 4096) if a.latency else ():
            for op in TOOL:
                print(json.dumps(compare_latency(s, a, size, op, more)), flush=True)
        for size in map(size_of, filter(None, a.sizes.split(","))):
            for connections in map(int, a.connections.split(",")):
                for op in TOOL:
                    print(json.dumps(compare_bandwidth(s, a, size, connections, op, more)), flush=True)


if __name__ == "__main__":
    main()
