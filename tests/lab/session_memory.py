#!/usr/bin/env python3
"""
What a server needs of memory for a session over RDMA (RC), in the guest of run-lab: user memory of the fronts and kernel memory, a session. Both ends are in one
kernel, so it goes step by step: queue pairs at the client, tethers (TCP, both ends), ATTACH (the server's end alone), the client's ends connected and used once.

  tests/lab/run-lab --nics 4 --drives 0 --mem 4G --timeout 1800 --env MEMKV_STAGE build -- python3 tests/lab/session_memory.py --sessions 1000
"""
import argparse
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "proc")]

import lab  # noqa: E402
import rdma  # noqa: E402
from rdma_wire import Channel, Peer, Session  # noqa: E402
from wireclient import PING  # noqa: E402

KERNEL = ("Slab", "VmallocUsed", "KernelStack", "PageTables", "Percpu")


def pss(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Pss:")) * 1024


def snapshot(s, peer):
    with open("/proc/meminfo") as f:
        info = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in f}
    fronts = [r["pid"] for n, r in s.status().items() if n.startswith("front:rdma:")]
    users = sum(pss(p) for p in fronts)
    return {"user": users, "kernel": sum(info[k] for k in KERNEL), "slab": info["Slab"], "vmalloc": info["VmallocUsed"],
            "all": info["MemTotal"] - info["MemAvailable"] - pss(os.getpid()) - pss(peer.proc.pid)}


def step(before, after, n):
    return {k: round((after[k] - before[k]) / n) for k in before}


def measure(n, rails):
    """Bytes a session: {step: {what: bytes}}, and how many were there at once."""
    with rdma.server(["rdma.srq_depth=8191"], nics=rdma.NICS[1:1 + rails]) as s, Peer(area=1 << 20) as peer:
        rdma.wait_rails(s, rails)
        for i in range(8 * rails):              # whatever is made once is there
            w = Session(s, peer, 1 + i % rails)
            w.attach(2)
            w.close()
        rdma.until(lambda: s.metric_sum("memkv_front_channels") == 0, 30)
        base, at = peer.ends, [snapshot(s, peer)]
        numbers = [peer.ask("open", base + i, 2) for i in range(n)]
        at.append(snapshot(s, peer))
        sessions = [Session(s, peer, 1 + i % rails) for i in range(n)]
        at.append(snapshot(s, peer))
        far = []
        for w, end in zip(sessions, numbers):
            h, a = w.ask_attach(end)
            assert h.status == 0, (h.status, len(far))
            far.append(a)
        at.append(snapshot(s, peer))
        rdma.until(lambda: s.metric_sum("memkv_front_channels") == n, 10)
        for i, (w, a) in enumerate(zip(sessions, far)):
            peer.connect(base + i, a)
            peer.ask("receives", base + i, 2)
            chan = Channel(w, base + i, a)
            chan.post(chan.frame(PING))
            assert chan.take()[0].status == 0
        at.append(snapshot(s, peer))
        return dict(zip(("client's queue pair", "tether, both ends", "attach", "client's end connected, a ping"), (step(a, b, n) for a, b in zip(at, at[1:]))))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sessions", type=int, default=1000)
    p.add_argument("--rails", type=int, default=len(rdma.NICS) - 1)
    a = p.parse_args()
    for name, row in measure(a.sessions, a.rails).items():
        print(json.dumps({"step": name, "sessions": a.sessions, "rails": a.rails, "bytes_a_session": row}), flush=True)
    print(lab.sh("uname", "-r").stdout.strip())


if __name__ == "__main__":
    main()
