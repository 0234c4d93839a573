"""NVMe drives: set up, served from, killed on, pulled and put back. Runs in the guest of run-lab."""
import json
import os
import struct
import subprocess
import tempfile
import time

import pytest

import lab
import mkv
from harness import MEMKV, MIB, Load, content, unmount
from test_d_life import OFFLINE, Life, ctl, drive, fill, read_all, states, wait_states


def memkv(*args):
    return subprocess.run([MEMKV, *map(str, args)], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def rows(r):
    return [json.loads(line) for line in r.stdout.splitlines()]


def set_up(*drives, more=()):
    """The path of the configuration."""
    r = memkv("setup", "--drives", ",".join(drives), "--shard-size", "1MiB", *more)
    assert r.returncode == 0 and "mode: direct" in r.stdout, r.stderr
    fd, path = tempfile.mkstemp(suffix=".yaml")
    with os.fdopen(fd, "w") as f:
        f.write(r.stdout)
    return path


@pytest.mark.over_rdma_full
def test_served_verified_killed_and_warm(blank_drives, servers):
    """Values in one piece and in several, four threads; `kill -9` of everything in the middle; all that was acknowledged is there."""
    s = servers(set_up(*blank_drives))
    s.pin_ports()
    loads = [Load(s.addr, f"t{i}", keys=6, size=n) for i, n in enumerate((4096, 70000, MIB, 3 * MIB + 5))]
    for ld in loads:
        ld.start()
    for _ in range(2):
        time.sleep(4)
        s.kill()
        s.start(timeout=120)
    time.sleep(1)
    for ld in loads:
        ld.finish()
        ld.verify_all(s.addr)
        assert not ld.broken and not ld.wrong and not ld.lost and ld.puts > 3, (ld.broken, ld.wrong, ld.lost, ld.puts, s.log_tail())
    assert s.stop() == 0
    r = memkv("drive", "check", "--data", *blank_drives)
    assert r.returncode == 0, r.stdout + r.stderr


def test_refusals(blank_drives):
    d = blank_drives[0]
    other = blank_drives[1]
    assert memkv("setup", "--drives", d).returncode == 0
    uuid = rows(memkv("drive", "info", "--json", d))[0]["uuid"]
    r = memkv("setup", "--drives", f"{d},{other}")
    assert r.returncode == 1 and "--idempotent" in r.stderr and "nothing was changed" in r.stderr, r.stderr
    assert rows(memkv("drive", "list", "--json", other))[0]["state"] == "empty"
    assert memkv("setup", "--drives", d, "--idempotent").returncode == 0
    assert rows(memkv("drive", "info", "--json", d))[0]["uuid"] == uuid
    assert memkv("setup", "--drives", d, "--force").returncode == 0
    assert rows(memkv("drive", "info", "--json", d))[0]["uuid"] != uuid


def test_foreign_mounted_and_partitioned_drives(blank_drives):
    d = blank_drives[0]
    real = os.path.realpath(d)
    lab.sh("mkfs.ext4", "-q", "-F", d)
    r = memkv("setup", "--drives", d)
    assert r.returncode == 1 and "ext4" in r.stderr, r.stderr
    mnt = tempfile.mkdtemp()
    lab.sh("mount", d, mnt)
    r = memkv("setup", "--drives", d, "--force")
    assert r.returncode == 1 and f"mounted at {mnt}" in r.stderr, r.stderr
    unmount(mnt)
    lab.blank(0)
    entry = struct.pack("<BBBBBBBBII", 0, 0, 2, 0, 0x83, 0, 0, 0, 2048, 200000)
    with open(d, "r+b") as f:
        f.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    lab.sh("blockdev", "--rereadpt", d)
    part = lab.wait_for(lambda: os.path.exists(real + "p1") and real + "p1")
    r = memkv("setup", "--drives", d)
    assert r.returncode == 1 and "partition" in r.stderr, r.stderr
    lab.sh("mkfs.ext4", "-q", "-F", part)
    lab.sh("mount", part, mnt)
    r = memkv("setup", "--drives", d, "--force")
    assert r.returncode == 1 and f"{part} is mounted at {mnt}" in r.stderr, r.stderr
    unmount(mnt)
    r = memkv("setup", "--drives", d, "--force")
    assert r.returncode == 0, r.stderr


def test_formatting_discards(blank_drives):
    """What lay on the drive is gone from it: this one reads discarded blocks as zeroes."""
    d = blank_drives[2]
    with open(d, "r+b", buffering=0) as f:
        f.write(b"x" * MIB * 4)
        f.seek(100 * MIB)
        f.write(b"y" * MIB * 4)
        os.fsync(f.fileno())
    assert memkv("setup", "--drives", d).returncode == 1
    assert memkv("setup", "--drives", d, "--force").returncode == 0
    with open(d, "rb", buffering=0) as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        f.seek(101 * MIB)
        assert f.read(MIB) == bytes(MIB)


@pytest.mark.over_rdma_full
def test_a_pulled_drive_is_isolated_and_comes_back(blank_drives, servers):
    s = servers(set_up(*blank_drives), sets=["server.crash_limit=3", "server.backoff_max=200ms"])
    by_media = {r["media"]: r["id"] for r in drive(s, "list")["rows"]}
    media = [m for m in by_media if os.path.realpath(m) == os.path.realpath(blank_drives[1])]
    gone = by_media[media[0]]
    fill(s, 120)
    life = Life(s, threads=2)
    life.go_on()
    lab.pull(1)
    lab.wait_for(lambda: states(s)[gone] in ("failed", "absent"), 60)
    life.go_on()
    hits, reasons = read_all(s, 120)
    assert 0 < hits < 120 and set(reasons) == {OFFLINE}, (hits, reasons)
    fill(s, 40, version=2)
    lab.plug(1)
    ctl(s, "start", f"drive:{gone}")
    wait_states(s, {i: "online" for i in by_media.values()}, timeout=60)
    life.go_on()
    assert read_all(s, 40, versions=(2,))[0] == 40
    hits, _ = read_all(s, 120, versions=(1, 2))
    assert hits >= 40
    life.end()
    with mkv.Client(s.addr) as c:
        c.put(b"after", content(b"after", 1, 3 * MIB), 20)
        assert c.get(b"after", 3 * MIB) == content(b"after", 1, 3 * MIB)
    assert s.stop() == 0


@pytest.mark.over_rdma_full
def test_what_is_freed_is_discarded(blank_drives, servers):
    """Half of the values leave; the drive is told of their blocks, the other half stays as it is, also after a kill."""
    s = servers(set_up(blank_drives[0]), sets=["storage.trim=auto"])
    fill(s, 40, size=3 * MIB)
    with mkv.Client(s.addr) as c:
        for i in range(0, 40, 2):
            assert c.delete(f"k{i}".encode(), 20.0) == 0
    lab.wait_for(lambda: s.metric_sum("memkv_drive_trim_bytes_total") >= 40 * MIB, 90)
    assert s.metric_sum("memkv_drive_trim_errors_total") == 0
    hits, reasons = read_all(s, 40, size=3 * MIB)
    assert hits == 20, reasons
    s.pin_ports()
    s.kill()
    s.start(timeout=120)
    hits, reasons = read_all(s, 40, size=3 * MIB)
    assert hits == 20, reasons
    assert s.stop() == 0
    r = memkv("drive", "check", "--data", blank_drives[0])
    assert r.returncode == 0, r.stdout + r.stderr
