"""
Values by RDMA that lie on NVMe drives without a filesystem (direct mode): every size, through a kill of everything; one of 1 GiB; bits that change on the
medium. Runs in the guest of run-lab --nics 2.
"""
import os
import random

import pytest

import mkv
import rdma
from harness import FULL, MIB, content
from test_d_wrong_bytes import places
from test_drives import memkv, set_up
from test_rdma_blocks import SIZES, STRIPED

pytestmark = pytest.mark.skipif(len(rdma.NICS) < 2, reason="run-lab --nics 2")
LARGE = (64 if FULL else 20) * MIB
STEP = 32 * MIB
DAMAGED = (mkv.REASON_CORRUPT, mkv.REASON_LOST)        # lost: the other pieces of a value go when it is known


@pytest.fixture
def direct(blank_drives):
    with rdma.server(config=set_up(*blank_drives)) as s:
        rdma.wait_rails(s)
        s.pin_ports()
        yield s


def put(c, region, key, n, rnd, version=1):
    off = rdma.GUARD + rnd.randrange(5000)
    region.view[off:off + n] = content(key, version, n)
    rdma.put_from(c, key, region, off, n, 60)


def get(c, region, key, n, rnd, version=1):
    """0, or why it is a miss. Not one byte beside what was asked for."""
    region.poison()
    off, reason = rdma.GUARD + rnd.randrange(5000), 0
    try:
        assert rdma.get_into(c, key, region, off, n, 60) == n
        assert region.view[off:off + n].tobytes() == content(key, version, n), f"WRONG BYTES for {key}"
    except mkv.Miss as e:
        assert e.status == mkv.MISS, (key, e)
        reason = e.reason
    assert region.untouched(off, off + n), key
    return reason


def test_round_trips_and_a_kill_of_everything(direct, blank_drives):
    rnd = random.Random(21)
    sizes = SIZES + STRIPED + [LARGE]
    with rdma.client(direct) as c:
        region = rdma.Region(c, LARGE + MIB)
        for n in sizes:
            put(c, region, b"n/%d" % n, n, rnd)
            assert get(c, region, b"n/%d" % n, n, rnd) == 0
        direct.kill()
        direct.start(timeout=180)
        rdma.wait_rails(direct)
        rdma.until(lambda: c.exists(b"n/1") == 1, 60)
        for n in sizes:
            assert get(c, region, b"n/%d" % n, n, rnd) == 0, n
        assert direct.metric_sum("memkv_front_work_requests_total") > len(sizes), "it went another way"
        region.free()
    assert direct.stop() == 0
    r = memkv("drive", "check", "--data", *blank_drives)
    assert r.returncode == 0, r.stdout + r.stderr


@pytest.mark.skipif(not FULL, reason="1 GiB: only with ./check --full")
def test_one_gib(direct):
    """More than RDMA takes of memory that is no region. Twice, from and to an odd address."""
    n = 1024 * MIB
    with rdma.client(direct) as c:
        region = rdma.Region(c, n + 3 * rdma.GUARD)
        off = rdma.GUARD + 1357
        for i in range(n // STEP):
            region.view[off + i * STEP:off + (i + 1) * STEP] = content(b"gib/%d" % i, 1, STEP)
        rdma.put_from(c, b"gib", region, off, n, 600)
        region.poison()
        assert rdma.get_into(c, b"gib", region, off, n, 600) == n
        for i in range(n // STEP):
            assert region.view[off + i * STEP:off + (i + 1) * STEP].tobytes() == content(b"gib/%d" % i, 1, STEP), i
        assert region.untouched(off, off + n)
        assert direct.metric_sum("memkv_front_work_requests_total") >= 2 * 1024, "it went another way"
        region.free()


def flip_bit(device, off, bit):
    with open(device, "r+b", buffering=0) as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        f.seek(off)
        b = f.read(1)[0]
        f.seek(off)
        f.write(bytes([b ^ (1 << bit)]))
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def range_of(c, region, key, n, at, room):
    """0, or why a part of it is a miss."""
    region.poison()
    try:
        got = rdma.range_into(c, key, at, region, rdma.GUARD, room, 60)
        assert region.view[rdma.GUARD:rdma.GUARD + got].tobytes() == content(key, 1, n)[at:at + room], f"WRONG BYTES for {key} at {at}"
        reason = 0
    except mkv.Miss as e:
        assert e.status == mkv.MISS, (key, e)
        reason = e.reason
    assert region.untouched(rdma.GUARD, rdma.GUARD + room)
    return reason


def test_a_bit_changes_on_the_medium(direct, blank_drives):
    """One bit of a value, anywhere in its first chunk: a miss `corrupt` of it, of its ranges there, and of nothing else; it can be put again."""
    rnd = random.Random(22)
    keys = {b"bit/%d" % i: (4096, 65536, 300001, MIB, 3 * MIB + 5)[i % 5] for i in range(20)}
    bad = [k for i, k in enumerate(keys) if i // 5 % 2 == 0]
    with rdma.client(direct) as c:
        region = rdma.Region(c, 8 * MIB)
        for k, n in keys.items():
            put(c, region, k, n, rnd)
        where, wanted = {}, {content(k, 1, 64): k for k in bad}
        for d in blank_drives:
            where.update({k: (d, at) for k, at in places(d, wanted).items()})
        assert sorted(where) == sorted(bad), where
        for k in bad:
            d, at = where[k]
            flip_bit(d, at + rnd.randrange(min(keys[k], 65536)), rnd.randrange(8))
        for k, n in keys.items():
            assert get(c, region, k, n, rnd) == (mkv.REASON_CORRUPT if k in bad else 0), k
        for k, n in keys.items():
            assert get(c, region, k, n, rnd) in (DAMAGED if k in bad else [0]), k
        for k in bad:
            assert range_of(c, region, k, keys[k], 0, 70000) in DAMAGED
            assert range_of(c, region, k, keys[k], keys[k] // 2, 1000) in (0, *DAMAGED)
        assert direct.metric_sum("memkv_drive_corrupt_total") >= len(bad)
        for k in bad:
            put(c, region, k, keys[k], rnd, version=2)
            assert get(c, region, k, keys[k], rnd, version=2) == 0
        region.free()
    assert {r["state"] for n, r in direct.status().items() if n.startswith("drive:")} == {"RUNNING"}, "a drive was given up for it"
