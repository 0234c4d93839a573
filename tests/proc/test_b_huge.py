"""b: values larger than 4 GiB, and puts that take longer than the deadline of a call."""
import json
import os
import struct
import subprocess
import tempfile
import time

import pytest

from harness import FULL, MEMKV, MIB, Server, cli

GIB = 1024 * MIB


def test_put_that_takes_long():
    """--deadline is of each call: a stream whose parts keep coming ends well, however long all of it takes."""
    part = os.urandom(8 * MIB)
    with Server(drive_bytes="256MiB") as s:
        p = subprocess.Popen([MEMKV, "put", "long", "-", "--deadline", "5s", "--servers", s.addr], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        began = time.monotonic()
        while time.monotonic() - began < 8:
            p.stdin.write(part)
            p.stdin.flush()
            time.sleep(1)
        p.stdin.close()
        assert p.wait(60) == 0, p.stderr.read()
        size = json.loads(cli("stat", "long", "--json", server=s).stdout)["bytes"]
        assert size >= 4 * len(part) and size % len(part) == 0
        got = cli("get", "long", server=s)
        assert got.returncode == 0 and got.stdout == part * (size // len(part))


def blocks(size, seed):
    """So many bytes, 64 MiB at a time: each MiB begins with its number."""
    block = bytearray(seed)
    for at in range(0, size, len(block)):
        for k in range(0, len(block), MIB):
            struct.pack_into("<Q", block, k, (at + k) // MIB)
        yield memoryview(block)[:min(len(block), size - at)]


def piece_of(size, seed, off, n):
    """The same, any range of it."""
    out = bytearray()
    for mib in range(off // MIB, (off + n - 1) // MIB + 1):
        m = bytearray(seed[mib % 64 * MIB:(mib % 64 + 1) * MIB])
        struct.pack_into("<Q", m, 0, mib)
        out += m[:min(MIB, size - mib * MIB)]
    at = off % MIB
    return bytes(out[at:at + n])


@pytest.mark.skipif(not FULL, reason="17 GiB of disk and some minutes: only with MEMKV_TEST_FULL=1")
def test_values_of_gibibytes():
    """A value of 7.6 GiB from a file to five drives and back, with the default deadline; ranges on both sides of 4 GiB and at the end; its space is free again."""
    size, seed = 7 * GIB + 614 * MIB + 12345, os.urandom(64 * MIB)
    times = {}

    def timed(name, *args, **kw):
        t = time.monotonic()
        r = cli(*args, server=s, timeout=900, **kw)
        times[name] = round(time.monotonic() - t, 1)
        return r

    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="memkv-huge-") as d, \
            Server(data=d, drives=5, drive_bytes="2GiB", sets=["memory.max_size=256MiB"]) as s:
        path = os.path.join(d, "value")
        with open(path, "wb") as f:
            for b in blocks(size, seed):
                f.write(b)
        r = timed("put", "put", "v", path)
        assert (r.returncode, r.stderr) == (0, b""), r
        os.unlink(path)
        assert json.loads(cli("stat", "v", "--json", server=s).stdout)["bytes"] == size
        assert str(size).encode() in cli("list", server=s).stdout
        assert s.metric_sum("memkv_drive_used_bytes") >= size
        for off, n in ((0, 10), (4 * GIB - 7, 14), (4 * GIB, 5 * MIB), (2 * GIB - 1, 2), (size - 100, 100), (size - 5 * MIB, 5 * MIB)):
            r = cli("get", "v", "--range", f"{off}:{n}", server=s)
            assert r.returncode == 0 and r.stdout == piece_of(size, seed, off, n), (off, n, r.stderr)
        t = time.monotonic()
        p = subprocess.Popen([MEMKV, "get", "v", "--servers", s.addr], stdout=subprocess.PIPE)
        for b in blocks(size, seed):
            assert p.stdout.read(len(b)) == b
        assert p.stdout.read(1) == b"" and p.wait(60) == 0
        times["get"] = round(time.monotonic() - t, 1)
        assert cli("put", "v", "-", server=s, stdin=b"small").returncode == 0
        t = time.monotonic()
        while s.metric_sum("memkv_drive_used_bytes") > 64 * MIB:
            assert time.monotonic() - t < 120
            time.sleep(0.2)
        times["freed"] = round(time.monotonic() - t, 1)
        assert cli("get", "v", server=s).stdout == b"small"
        print(json.dumps({"bytes": size, **times}))
