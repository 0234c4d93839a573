"""b: values of every awkward size go in and come back, in all modes, over one and five drives, and survive a restart."""
import contextlib
import json
import os
import subprocess

import pytest

import mkv
import transport
from harness import FULL, MIB, Server, cli, content

SIZES = [0, 1, 4095, 4096, 65535, 65536, 65537, 4 * MIB, 4 * MIB + 1, 64 * MIB]
MODES = [("file", 1, ""), pytest.param("file", 5, "", marks=pytest.mark.over_rdma_full), pytest.param("memory", 1, "", marks=pytest.mark.over_rdma), ("memory", 5, ""), ("file", 1, "threads"), ("file", 5, "threads")]


def key_of(size):
    return f"size/{size}".encode()


ODD = bytes(range(256)) * 2                                     # 512 bytes, with NULs


def check_odd_key_and_ranges(c):
    """Of values that are there: the longest key, and ranges on and beside the borders of checksums, blocks and pieces."""
    c.put(ODD, b"odd key")
    assert c.get(ODD, 100) == b"odd key"
    for other in (ODD[:-1], ODD[:-1] + b"\0"):
        assert c.exists(other) == 0
    big = content(key_of(4 * MIB + 1), 1, 4 * MIB + 1)
    for off, n in [(0, 1), (1, 1), (4095, 2), (65535, 2), (65536, 65536), (4 * MIB - 1, 2), (4 * MIB, 10), (100, 3 * MIB), (4 * MIB + 1, 5)]:
        assert c.get_range(key_of(4 * MIB + 1), off, n, 60) == big[off:off + n], (off, n)


@pytest.mark.parametrize("mode,drives,io", MODES)
def test_round_trips(server_factory, mode, drives, io):
    s = server_factory(mode=mode, drives=drives, drive_bytes="512MiB" if drives > 1 else "1GiB",
                       sets=[f"storage.io={io}"] if io else [])
    with mkv.Client(s.addr) as c:
        for n in SIZES:
            c.put(key_of(n), content(key_of(n), 1, n), 60)
        for n in SIZES:
            assert c.stat(key_of(n)).value_bytes == n
            assert c.get(key_of(n), n, 60) == content(key_of(n), 1, n), n
        with pytest.raises(mkv.Miss) as e:
            c.get(key_of(65536), 65535)
        assert e.value.status == mkv.TOOBIG
        check_odd_key_and_ranges(c)
        assert c.exists(ODD) == 1 and c.exists(b"never") == 0
        with pytest.raises(mkv.Miss) as e:
            c.get(b"never", 10)
        assert (e.value.status, e.value.reason) == (mkv.MISS, mkv.REASON_NEVER)
        assert c.delete(ODD) == 0
        with pytest.raises(mkv.Miss) as e:
            c.get(ODD, 10)
        assert e.value.status == mkv.MISS and e.value.reason == 4
        assert c.delete(ODD) == mkv.MISS
    if mode == "file":
        s.pin_ports()
        assert s.stop() == 0, s.log_tail()
        s.start()
        with mkv.Client(s.addr) as c:
            for n in SIZES:
                assert c.get(key_of(n), n, 60) == content(key_of(n), 1, n), n
            assert c.exists(ODD) == 0


@contextlib.contextmanager
def direct_server(where, drives, drive_bytes):
    """A server, not yet started, on loop devices; a skip where there are none."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    devices = []
    try:
        for i in range(drives):
            img = where / f"disk{i}"
            img.write_bytes(b"")
            os.truncate(img, drive_bytes)
            out = subprocess.run(["losetup", "--show", "--direct-io=on", "-f", str(img)], capture_output=True, text=True)
            if out.returncode != 0:
                pytest.skip(f"no loop device: {out.stderr.strip()}")
            devices.append(out.stdout.strip())
        s = Server(mode="direct", drives=0, sets=["storage.drives=[" + ", ".join(f"{{media: {d}}}" for d in devices) + "]"])
        s.sets.remove("storage.drives=[]")
        try:
            yield s
        finally:
            s.close()
    finally:
        for d in devices:
            subprocess.run(["losetup", "-d", d], check=False)


def put_and_get_one_gib(addr):
    n = 1024 * MIB
    with mkv.Client(addr) as c:
        value = content(b"gib", 1, n)
        c.put(b"gib", value, 240)
        assert c.get(b"gib", n, 240) == value


@pytest.mark.parametrize("mode", ["file", "memory", "direct"])
@pytest.mark.parametrize("drives", [1, 5])
def test_one_gib(server_factory, tmp_path, mode, drives):
    if not FULL and (mode, drives) != ("file", 5):
        pytest.skip("1 GiB otherwise than in five files: only with ./check --full")
    drive_bytes = 2048 * MIB if drives == 1 else 512 * MIB
    if mode == "direct":
        with direct_server(tmp_path, drives, drive_bytes) as s:
            put_and_get_one_gib(s.start().addr)
    else:
        put_and_get_one_gib(server_factory(mode=mode, drives=drives, drive_bytes=str(drive_bytes)).addr)


@pytest.mark.parametrize("drives", [1, 5])
def test_direct_mode_on_loop_devices(tmp_path, drives):
    with direct_server(tmp_path, drives, 512 * MIB) as s:
        s.start()
        with mkv.Client(s.addr) as c:
            for n in SIZES:
                c.put(key_of(n), content(key_of(n), 1, n), 60)
                assert c.get(key_of(n), n, 60) == content(key_of(n), 1, n)
            check_odd_key_and_ranges(c)
        s.pin_ports()
        s.kill()
        s.start()
        with mkv.Client(s.addr) as c:
            for n in SIZES:
                assert c.get(key_of(n), n, 60) == content(key_of(n), 1, n)
            check_odd_key_and_ranges(c)


@pytest.mark.over_rdma
def test_overwrite_if_absent_ttl(server_factory):
    import time
    s = server_factory()
    with mkv.Client(s.addr) as c:
        c.put(b"k", b"one")
        c.put(b"k", b"two2")
        assert c.get(b"k", 10) == b"two2"
        with pytest.raises(mkv.Miss) as e:
            c.put(b"k", b"three", flags=mkv.IF_ABSENT)
        assert e.value.status == mkv.EXISTS
        c.put(b"new", b"x", flags=mkv.IF_ABSENT)
        assert c.put(b"k", b"two2").same == 1
        assert c.put(b"k", b"two2", flags=mkv.OVERWRITE).same == 0
        c.put(b"t", b"short lived", ttl_ms=300)
        assert c.get(b"t", 100) == b"short lived"
        time.sleep(0.5)
        with pytest.raises(mkv.Miss) as e:
            c.get(b"t", 100)
        assert e.value.reason == 3


@pytest.mark.over_rdma
@pytest.mark.parametrize("mode", ["file", "memory"])
def test_what_is_there_is_not_stored_again(server_factory, mode):
    """A put of the same bytes: by TCP they are received and checked, by RDMA they stay where they are, and nothing is written; unless the put says otherwise."""
    s = server_factory(mode=mode)
    n = 3 * MIB
    data = content(b"same", 1, n)
    names = ["drive_writes_total", "drive_puts_total", "drive_touches_total", "front_received_bytes_total", "front_put_same_total", "front_put_unread_total"]

    def grown(since):
        return [int(s.metric_sum("memkv_" + k)) - v for k, v in zip(names, since)]

    with mkv.Client(s.addr) as c:
        assert c.put(b"same", data).same == 0
        at = grown([0] * len(names))
        for _ in range(3):
            assert c.put(b"same", data).same == 1
        assert grown(at) == ([0, 0, 3, 0, 3, 3] if transport.OVER_RDMA else [0, 0, 3, 3 * n, 3, 0])
        at = grown([0] * len(names))
        assert c.put(b"same", data, flags=mkv.OVERWRITE).same == 0
        assert c.put(b"same", content(b"same", 2, n)).same == 0
        assert grown(at)[1:] == [2, 0, 2 * n, 0, 0]
        assert c.get(b"same", n) == content(b"same", 2, n)


@pytest.mark.over_rdma
def test_lists(server_factory):
    s = server_factory(drives=3, drive_bytes="128MiB")
    keys = [f"chain/{i}".encode() for i in range(4096)]
    with mkv.Client(s.addr) as c:
        for k in keys[:100]:
            c.put(k, k)
        assert c.match(keys) == 100
        there, _ = c.exists_batch(keys)
        assert there == [1] * 100 + [0] * 3996
        c.delete(keys[50])
        assert c.match(keys) == 50
        assert sum(c.delete_batch(keys[:100])) == 99
        assert c.match(keys) == 0


def test_full_pool_evicts(server_factory):
    s = server_factory(drive_bytes="256MiB")
    n = MIB
    with mkv.Client(s.addr) as c:
        for i in range(600):
            k = f"e/{i}".encode()
            c.put(k, content(k, 1, n), 30)
        kept = lost = 0
        for i in range(600):
            k = f"e/{i}".encode()
            try:
                assert c.get(k, n) == content(k, 1, n)
                kept += 1
            except mkv.Miss as e:
                assert e.status == mkv.MISS and e.reason in (2, 1), (e.status, e.reason)
                lost += 1
        assert kept >= 150 and lost >= 300, (kept, lost)
        assert s.metric_sum("memkv_drive_evicted_total") >= lost


@pytest.mark.over_rdma_full
def test_command_line(server_factory, tmp_path):
    s = server_factory()
    f = tmp_path / "v"
    f.write_bytes(content(b"f", 1, 5 * MIB))
    assert cli("put", "f", str(f), server=s).returncode == 0
    o = tmp_path / "o"
    assert cli("get", "f", "-o", str(o), server=s).returncode == 0
    assert o.read_bytes() == f.read_bytes()
    assert cli("get", "f", "--range", "4096:10", server=s).stdout == f.read_bytes()[4096:4106]
    assert cli("put", "p", "-", server=s, stdin=b"piped" * 2000000).returncode == 0      # size unknown, more than one part
    assert cli("get", "p", server=s).stdout == b"piped" * 2000000
    st = json.loads(cli("stat", "f", "--json", server=s).stdout)
    assert 5 * MIB in st.values()
    assert cli("exists", "f", server=s).returncode == 0
    assert cli("exists", "nope", server=s).returncode == 3
    assert cli("get", "nope", server=s).returncode == 3
    assert cli("delete", "f", server=s).returncode == 0
    assert cli("get", "f", server=s).returncode == 3
    assert cli("match", "p", "nope", server=s).returncode == 0
    assert cli("get", "f", "--nonsense", server=s).returncode == 2
    s.stop()
    assert cli("get", "p", "--deadline", "500ms", server=s).returncode == 4


@pytest.mark.over_rdma_full
def test_wrong_key_is_refused(server_factory):
    s = server_factory(sets=["network.auth_key=" + "ab" * 32])
    with mkv.Client(s.addr, auth_key="ab" * 32) as c:
        c.put(b"k", b"v")
    for bad in ({"auth_key": "cd" * 32}, {}):
        with mkv.Client(s.addr, **bad) as c:
            with pytest.raises(mkv.Miss) as e:
                c.put(b"k", b"v2", 2)
            assert e.value.status == mkv.AUTH
    for command in (["get", "k"], ["list"], ["bench", "get", "--ops", "1"]):
        r = cli(*command, server=s)
        assert r.returncode == 5, r
        assert b"MEMKV_AUTH_KEY" in r.stderr, r
