"""
More requests by RDMA than a rail has buffers for: those who find none wait in order, until their deadlines. Runs in the guest of run-lab --steady --nics 2.
"""
import json
import os
import signal
import subprocess
import time

import pytest

import rdma
from harness import MIB
from test_p_abuse import memory_of
from transport import KEY

pytestmark = pytest.mark.skipif(len(rdma.NICS) < 2, reason="run-lab --nics 2")
OVERLOAD = os.path.join(os.path.dirname(os.environ.get("MEMKV_STAGE", "")), "tests", "lab", "overload")
RAIL = f"front:rdma:{rdma.NICS[1]}" if len(rdma.NICS) > 1 else ""
CALLERS = 8


class Overload:
    """The program overload against s: callers by 4 handles, values of 4 MiB."""

    def __init__(self, s, deadline_ms, seconds):
        env = dict(os.environ, MEMKV_TRANSPORT="rdma", MEMKV_RDMA_DEVICES=rdma.NICS[0], MEMKV_AUTH_KEY=KEY)
        self.proc = subprocess.Popen([OVERLOAD, s.addr, "4", str(CALLERS), str(4 * MIB), str(deadline_ms), str(seconds)], stdout=subprocess.PIPE, text=True, env=env)
        self.expect("begin")

    def expect(self, word):
        line = self.proc.stdout.readline()
        assert line == word + "\n", (line, self.proc.poll())

    def result(self):
        self.expect("over")
        r = json.loads(self.proc.stdout.readline())
        assert self.proc.wait(60) == 0
        return r

    def close(self):
        self.proc.kill()
        self.proc.wait(10)
        self.proc.stdout.close()


def watch(s, pids, seconds):
    """(most requests that waited at the rail, least bytes free there, most memory of the server) in so many seconds."""
    end, waited, free, memory = time.monotonic() + seconds, 0, 1 << 62, 0
    while time.monotonic() < end:
        waited = max(waited, s.metric_sum("memkv_front_parked", process=RAIL))
        free = min(free, s.metric_sum("memkv_front_stage_free_bytes", process=RAIL))
        memory = max(memory, memory_of(pids))
        time.sleep(0.5)
    return waited, free, memory


def test_more_requests_than_buffers():
    """
    A rail with 8 MiB of buffers, and 32 MiB that are asked for; for two seconds its drive does nothing at all. All that callers hear is that they were late; nobody goes away
    empty every time, and in the end everything is free again.
    """
    with rdma.server(mode="file", drives=1, drive_bytes="512MiB", sets=["memory.max_size=16MiB", "server.ping_timeout=60s"]) as s:
        rdma.wait_rails(s)
        pids, drive = s.all_pids(), s.children("drive")[0]
        load, before = Overload(s, 1500, 8), memory_of(pids)
        try:
            waited, free, memory = watch(s, pids, 3)
            os.kill(drive, signal.SIGSTOP)
            stopped = watch(s, pids, 2)
            os.kill(drive, signal.SIGCONT)
            r = load.result()
        finally:
            os.kill(drive, signal.SIGCONT)
            load.close()
        print(r, "waited", waited, stopped[0], "free", free, stopped[1], f"memory {before / MIB:.1f}, at most {max(memory, stopped[2]) / MIB:.1f} MiB")
        assert waited > 0 and free < 4 * MIB, "it was not too much"
        assert r["wrong"] == r["stray"] == r["lost"] == 0 and r["least"] > 0, r
        assert r["late_ms"]["max"] < 1500, "a deadline later: that hangs"
        for what in [*r["put"], *r["get"]]:
            assert what.split("/")[0] in ("TIMEOUT", "BUSY") or what in ("MISS/never_stored", "MISS/timed_out"), r
        assert max(memory, stopped[2]) - before < 16 * MIB
        rdma.free_again(s)
        assert s.all_pids() == pids
