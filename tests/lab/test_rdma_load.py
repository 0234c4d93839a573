"""
More than a server can take at once over RDMA: more sessions than receives, a disk that is too slow. What callers may hear of it is busy or late, and no byte
lands in what a caller has back. Runs in the guest of run-lab --nics 2.
"""
import os
import random
import signal
import time

import pytest

import lab
import mkv
import rdma
from harness import MIB, content, mounted
from rdma_wire import BUSY, PEER, Peer, Session
from test_c_kill import Throttle
from wireclient import PUT

pytestmark = pytest.mark.skipif(len(rdma.NICS) < 2, reason="run-lab --nics 2")
HANGS = 1.0                         # later than that behind its deadline is no matter of an emulated processor
RETRY = 14


@pytest.mark.skipif(not os.path.exists(PEER), reason="built without rdma-core (Debian: libibverbs-dev)")
def test_who_comes_too_often_hears_when_to_come_again():
    """Receives for a few sessions only: the next ATTACH is told BUSY, and one that leaves makes room. A put whose drive dies is told RETRY. Both say when."""
    with rdma.server(mode="file", sets=["rdma.srq_depth=64"], drives=1) as s, Peer() as p:
        rdma.wait_rails(s)
        p.register(0, 8 * MIB)
        sessions, h = [], None
        for i in range(20):
            w = Session(s, p)
            numbers = p.ask("open", i, 16)
            h, far = w.ask_attach(numbers)
            if h.status != 0:
                break
            p.connect(i, far)
            sessions.append(w)
        assert h.status == BUSY and 0 < h.deadline_us <= 1_000_000 and len(sessions) > 1, (h.status, h.deadline_us, len(sessions))
        for w in sessions:
            w.close()
        p.ends = 20
        rdma.until(lambda: s.metric_sum("memkv_front_channels") == 0, 30)
        chan = Session(s, p).attach()
        assert chan.put(b"k", content(b"k", 1, MIB)) == 0
        drive = s.children("drive")[0]
        os.kill(drive, signal.SIGSTOP)
        chan.post(chan.put_frame(b"k", content(b"k", 2, MIB), [chan.seg(0, MIB)], deadline_us=30_000_000))
        time.sleep(1)
        os.kill(drive, signal.SIGKILL)
        h, _ = chan.take(30)
        assert h.op == PUT and h.status == RETRY and 0 < h.deadline_us <= 1_000_000, (h.op, h.status, h.deadline_us)


@pytest.fixture
def on_disk():
    """A place on the last drive."""
    with mounted(lab.DRIVES[-1]) as place:
        yield place


def timed_get(c, key, region, off, deadline):
    """(status, seconds)."""
    began = time.monotonic()
    try:
        rdma.get_into(c, key, region, off, 4 * MIB, deadline)
        status = 0
    except mkv.Miss as e:
        status = e.status
    return status, time.monotonic() - began


def test_gets_of_a_slow_disk_end_at_their_deadlines(on_disk):
    """The disk gives 1 MiB/s, each value has 4: a get ends at its deadline, and what the disk brings later goes nowhere. Each has a place of its own."""
    rnd = random.Random(9)
    keys = [b"slow/%d" % i for i in range(12)]
    with rdma.server(mode="file", data=on_disk, drives=1, drive_bytes="256MiB") as s, rdma.client(s) as c:
        rdma.wait_rails(s)
        for k in keys:
            c.put(k, content(k, 1, 4 * MIB), 30)
        region = rdma.Region(c, len(keys) * 5 * MIB)
        th = Throttle(on_disk, 0)
        assert th.dir is not None, "no cgroup that limits a disk"
        try:
            for pid in s.children("drive"):
                th.add(pid)
            th.limit(0, MIB)
            late = []
            for i, k in enumerate(keys):
                deadline = rnd.uniform(0.1, 0.8)
                status, took = timed_get(c, k, region, i * 5 * MIB + rdma.GUARD, deadline)
                region.poison()
                assert status in (mkv.TIMEOUT, mkv.MISS), status
                late.append(took - deadline)
            fences = rdma.metric(c, "memkv_client_fences_total")
            print("late", [f"{x * 1e3:.1f}" for x in sorted(late)], "ms; fences", fences)
            assert max(late) < HANGS and min(late) > -0.2, late
            time.sleep(2)
            assert region.untouched(0, 0), "bytes came after the call had returned"
        finally:
            th.limit(0)
        rdma.until(lambda: timed_get(c, keys[0], region, rdma.GUARD, 10.0)[0] == 0, 60)
        for k in keys:
            region.poison()
            assert timed_get(c, k, region, rdma.GUARD, 20.0)[0] == 0
            assert region.view[rdma.GUARD:rdma.GUARD + 4 * MIB] == content(k, 1, 4 * MIB)
            assert region.untouched(rdma.GUARD, rdma.GUARD + 4 * MIB)
        region.free()
        rdma.free_again(s)
        s.kill()
        th.remove()
