"""
Drives that fail, wait, answer wrongly or are full, under a verified load, by device-mapper. Runs in the guest of run-lab.

What clients may hear is a miss or a busy, with its reason, inside their deadline; never a wrong byte. What was on the drive may be missing afterwards.
"""
import os
import tempfile
import time

import pytest

import lab
import mkv
from harness import MIB, Load, content, unmount
from test_d_life import ctl, drive, fill, states, wait_states
from test_drives import memkv, set_up

pytestmark = pytest.mark.over_rdma_full
SETS = ["server.crash_limit=1000", "server.backoff_max=200ms"]


class FaultLoad(Load):
    """What was put may be missing for any reason there is; then the version is forgotten. It is never another one than may be there."""

    def one_get(self, c, k):
        lost = len(self.lost)
        super().one_get(c, k)
        if len(self.lost) > lost and self.lost[-1][2] != 0:
            self.lost.pop()


class Storm:
    def __init__(self, s, threads=2):
        self.s = s
        self.loads = [FaultLoad(s.addr, f"w{i}", keys=24, size=n) for i, n in zip(range(threads), (70000, 1500000))]
        for ld in self.loads:
            ld.start()

    def go_on(self, seconds=1.0, limit=60):
        """Everyone gets something done, some of it after now."""
        t = time.monotonic()
        lab.wait_for(lambda: all(ld.last_ok > t + seconds for ld in self.loads), limit)

    def end(self):
        for ld in self.loads:
            ld.finish()
        for ld in self.loads:
            assert not ld.broken and not ld.wrong and not ld.lost and ld.late == 0 and ld.puts > 0, \
                f"{ld.broken} {ld.wrong[:3]} {ld.lost[:3]} {ld.late} {ld.puts}\n{self.s.log_tail(80)}"
            odd = {k: n for k, n in ld.statuses.items() if k[1] not in (mkv.MISS, mkv.BUSY) or k[2] == 0}
            assert not odd, f"(call, status, reason): {odd}\n{self.s.log_tail(80)}"
        print("statuses", [ld.statuses for ld in self.loads])


def serve(servers, m, drives, more=()):
    s = servers(set_up(m.path, *drives[1:]), sets=SETS + list(more))
    bad = [r["id"] for r in drive(s, "list")["rows"] if os.path.realpath(r["media"]) == os.path.realpath(m.path)][0]
    fill(s, 60, size=200000)
    return s, bad


def whole(s, n=60, size=200000, versions=(1,), prefix="k"):
    """What is there of what fill() put, is right."""
    hits = 0
    with mkv.Client(s.addr) as c:
        for i in range(n):
            k = f"{prefix}{i}".encode()
            try:
                got = c.get(k, size, 20.0)
                assert any(got == content(k, v, size) for v in versions), f"wrong bytes of {k}"
                hits += 1
            except mkv.Miss as e:
                assert e.status == mkv.MISS and e.reason != 0, (k, e)
    return hits


def come_back(s, i):
    """By hand, if it has not by itself."""
    if states(s)[i] != "online":
        ctl(s, "start", f"drive:{i}")
    wait_states(s, {i: "online"}, timeout=90)


@pytest.mark.over_rdma
def test_every_io_fails(blank_drives, mapped, servers):
    m = mapped(0)
    s, bad = serve(servers, m, blank_drives)
    storm = Storm(s)
    storm.go_on()
    m.errors()
    lab.wait_for(lambda: states(s)[bad] == "failed", 90)
    storm.go_on()
    assert whole(s) > 0
    m.good()
    come_back(s, bad)
    storm.go_on()
    storm.end()
    assert whole(s) > 0
    assert s.stop() == 0


def test_one_place_fails(blank_drives, mapped, servers):
    """An eighth of the drive, in the middle: values there are misses, what is written goes on, here or elsewhere."""
    m = mapped(0)
    s, bad = serve(servers, m, blank_drives)
    storm = Storm(s)
    storm.go_on()
    m.errors_in(m.size // 16, m.size // 8)
    storm.go_on(4.0)
    assert whole(s) > 0
    m.good()
    come_back(s, bad)
    storm.go_on()
    storm.end()
    assert s.stop() == 0


@pytest.mark.over_rdma
def test_io_hangs(blank_drives, mapped, servers):
    m = mapped(0)
    s, bad = serve(servers, m, blank_drives, more=["drive.io_timeout=3s", "drive.drain_timeout=2s"])
    storm = Storm(s)
    storm.go_on()
    m.hang()
    lab.wait_for(lambda: states(s)[bad] == "failed", 90)
    storm.go_on()
    assert whole(s) > 0
    m.resume()
    wait_states(s, {bad: "online"}, timeout=90)
    storm.go_on()
    storm.end()
    assert whole(s) == 60, "nothing was lost, it only waited"
    assert s.stop() == 0


def test_io_is_slow(blank_drives, mapped, servers):
    m = mapped(0)
    s, _ = serve(servers, m, blank_drives)
    storm = Storm(s)
    m.slow(40, 80)
    storm.go_on(3.0)
    assert set(states(s).values()) == {"online"}
    m.good()
    storm.end()
    assert whole(s) == 60
    assert s.stop() == 0


def test_reads_return_wrong_bytes(blank_drives, mapped, servers):
    m = mapped(0)
    s, bad = serve(servers, m, blank_drives)
    storm = Storm(s)
    storm.go_on()
    m.flakey(0, 60, "corrupt_bio_byte", "4100", "r", "90", "0")
    whole(s)
    storm.go_on(3.0)
    assert s.metric_sum("memkv_drive_corrupt_total") > 0, "no wrong byte was met"
    m.good()
    come_back(s, bad)
    storm.go_on()
    storm.end()
    assert whole(s) > 0
    assert s.stop() == 0


def test_a_file_is_cut(blank_drives, servers):
    """Short reads: half of the file is gone, and what is written behind its end leaves a hole."""
    place = mounted(blank_drives[1])
    other = mounted(blank_drives[2])
    s, f = file_server(servers, place, other)
    try:
        storm = Storm(s)
        storm.go_on()
        os.truncate(f, 40 * MIB)
        whole(s)
        storm.go_on(3.0)
        storm.end()
        assert whole(s) > 0
        s.stop()
    finally:
        s.kill()
        unmount(place)
        unmount(other)


def test_no_space_behind_a_file(blank_drives, servers):
    """The filesystem is full, and the file has a hole where its space was."""
    place = mounted(blank_drives[1])
    other = mounted(blank_drives[2])
    s, f = file_server(servers, place, other)
    try:
        storm = Storm(s)
        storm.go_on()
        lab.sh("fallocate", "--punch-hole", "--offset", 60 * MIB, "--length", 60 * MIB, f)
        lab.sh("dd", "if=/dev/zero", f"of={place}/filler", "bs=1M", check=False)
        assert os.statvfs(place).f_bavail * os.statvfs(place).f_frsize < 64 * 1024
        storm.go_on(3.0)
        whole(s)
        os.unlink(f"{place}/filler")
        for i, state in states(s).items():
            if state != "online":
                ctl(s, "start", f"drive:{i}")
        wait_states(s, {0: "online", 1: "online"}, timeout=90)
        storm.go_on()
        storm.end()
        assert s.stop() == 0
    finally:
        s.kill()
        unmount(place)
        unmount(other)


def mounted(device):
    place = tempfile.mkdtemp()
    lab.sh("mkfs.ext4", "-q", "-F", "-m", "0", device, 200 * 1024)
    lab.sh("mount", device, place)
    return place


def file_server(servers, place, elsewhere):
    """Two drives in file mode: one on that filesystem, one on another."""
    f = os.path.join(place, "store")
    other = os.path.join(elsewhere, "store")
    r = memkv("setup", "--drives", f"{f},{other}", "--file-size", "128MiB", "--shard-size", "1MiB", "--config-out", f"{place}.yaml")
    assert r.returncode == 0, r.stderr
    s = servers(f"{place}.yaml", sets=SETS)
    fill(s, 60, size=200000)
    return s, f
