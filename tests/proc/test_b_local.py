"""
b: a server's unix socket: who comes by it, what a client does while its front is away, and what is left of it when the server ends.
"""
import ctypes
import mmap
import os
import re
import signal
import subprocess
import threading
import time

import mkv
import pytest
from harness import MEMKV, MIB, Load, Server, cli, content

NAME = "front:local"


def client(s, transport, servers=None):
    return mkv.Client(servers or s.addr, transport=transport)


def put_get(c, key, size=3 * MIB + 5):
    value = content(key, 1, size)
    c.put(key, value, 30.0)
    assert c.get(key, size, 30.0) == value


def counted(s, name, process=NAME):
    return s.metrics().get(f'{name}{{process="{process}"}}', 0)


def got_by_reference(s):
    """Bytes in windows: copied there by the front, or read there by a drive."""
    return counted(s, "memkv_front_region_get_bytes_total") + counted(s, "memkv_front_region_direct_get_bytes_total")


def until(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def goes_local(c, s):
    """Requests until one of them is counted by the local front."""
    def one():
        before = counted(s, "memkv_front_put_total")
        c.put(b"probe", os.urandom(64), 30.0)
        return counted(s, "memkv_front_put_total") > before
    until(one)


@pytest.mark.parametrize("mode", ["file", "memory"])
def test_every_way(server_factory, mode):
    s = server_factory(mode=mode)
    path = os.path.join(s.data, "memkv.sock")
    assert s.local == path and s.status_rows()[NAME]["state"] == "RUNNING"
    with client(s, "local") as c:
        put_get(c, b"by address")
    assert counted(s, "memkv_front_put_total") == 1 and counted(s, "memkv_front_put_total", "front:tcp:0") == 0
    for transport in ("auto", "local"):
        with client(s, transport, f"local://{path}") as c:
            put_get(c, transport.encode())
    assert counted(s, "memkv_front_put_total", "front:tcp:0") == 0
    with client(s, "tcp") as c:
        assert c.get(b"by address", 4 * MIB, 30.0) == content(b"by address", 1, 3 * MIB + 5)
    with client(s, "auto") as c:
        put_get(c, b"goes over")
        goes_local(c, s)
    assert re.search(rf"event=session_local session=[0-9a-f]+ uid={os.getuid()} client_pid={os.getpid()}", s.log_tail(10000))


def test_command_line(server_factory, tmp_path):
    s = server_factory()
    value = tmp_path / "value"
    value.write_bytes(content(b"k", 1, 100000))
    name = f"local://{s.local}"
    for args in (("put", "k", str(value)), ("exists", "k"), ("stat", "k"), ("info",)):
        r = cli(*args, "--servers", name, "--transport", "auto")
        assert r.returncode == 0, r.stderr
    assert b"local" in r.stdout
    assert cli("get", "k", "--servers", name, "--transport", "local").stdout == value.read_bytes()
    r = cli("put", "k", str(value), "--servers", name, "--transport", "tcp")
    assert r.returncode == 2 and b"host:port" in r.stderr
    r = cli("put", "k", str(value), "--servers", name + ".none", "--transport", "local")
    assert r.returncode == 4, r.stderr


def test_without(server_factory):
    s = server_factory(sets=["local.path=-"])
    assert s.local == "-" and NAME not in s.status_rows()
    with client(s, "auto") as c:
        put_get(c, b"k")
    r = cli("put", "k", "-", server=s, stdin=b"x", timeout=30)
    assert r.returncode == 0
    r = subprocess.run([MEMKV, "exists", "k", "--servers", s.addr, "--transport", "local"], capture_output=True, timeout=30, check=False)
    assert r.returncode == 2 and b"local.path" in r.stderr, r.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_its_front_dies_or_stands_still(server_factory, how):
    """Nothing is lost, nothing is late: requests go by TCP meanwhile, and come back."""
    s = server_factory(sets=["server.ping_timeout=2s", "server.ping_interval=200ms"])

    loads = [Load(s.addr, f"load{i}", options={"transport": "auto"}) for i in range(2)]
    try:
        for x in loads:
            x.start()
        until(lambda: counted(s, "memkv_front_put_total") > 20)
        for _ in range(2):
            pid = s.status_rows()[NAME]["pid"]
            os.kill(pid, how)
            until(lambda pid=pid: s.status_rows()[NAME]["pid"] not in (0, pid) and s.status_rows()[NAME]["state"] == "RUNNING")
            before = counted(s, "memkv_front_put_total")
            until(lambda before=before: counted(s, "memkv_front_put_total") > before + 20)
    finally:
        for x in loads:
            x.stop_flag.set()
        for x in loads:
            x.join(60)
    for x in loads:
        assert not x.broken and not x.wrong and not x.lost and x.late == 0, (x.broken, x.wrong, x.lost, x.late)
        assert x.put_errors == 0 and x.misses == 0, x.statuses
    assert got_by_reference(s) > 0         # of the front that is there now


def test_what_is_left_of_it(server_factory):
    s = server_factory()
    path = s.local
    other = Server(sets=[f"local.path={path}"])
    assert other.start(expect_fail=True) == 1
    assert "another server listens there; set local.path" in other.log_tail()
    other.close()
    s.kill()
    assert os.path.exists(path)
    s.start()                                   # what the killed one left is replaced
    with client(s, "local") as c:
        put_get(c, b"again")
    s.stop()
    assert not os.path.exists(path)


# ---- values by reference ----

def by_reference(c, s):
    """Until values go by reference both ways: the window has been shown."""
    def one():
        put_get(c, b"probe", 65536)
        return got_by_reference(s) > 0 and counted(s, "memkv_front_region_put_bytes_total") > 0
    until(one)


def region_shown(c, s, region, off=0):
    """Until puts from the region, at `off`, go without a copy of the client's: more regions than the windows."""
    before = counted(s, "memkv_front_regions")

    def one():
        c.put_at(b"shown", region.base + off, 65536, 30.0)
        return counted(s, "memkv_front_regions") > before
    until(one)


class Guarded:
    """Memory between two pages that nobody may touch; the value lies at the end of it."""

    def __init__(self, size):
        self.page = mmap.PAGESIZE
        self.room = (size + self.page - 1) // self.page * self.page
        self.map = mmap.mmap(-1, self.room + 2 * self.page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        libc = ctypes.CDLL(None, use_errno=True)
        for at in (start, start + self.page + self.room):
            assert libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(self.page), 0) == 0
        self.at, self.size = start + self.page + self.room - size, size

    def fill(self, value):
        ctypes.memmove(self.at, bytes(value), self.size)

    def bytes(self):
        return ctypes.string_at(self.at, self.size)


SIZES = [1, 4095, 4096, 4097, 65535, 65536, 65537, 131073, MIB - 1, MIB, 3 * MIB + 5, 4 * MIB, 4 * MIB + 1, 16 * MIB, 16 * MIB + 1, 20 * MIB]


@pytest.mark.parametrize("mode", ["file", "memory"])
def test_by_reference_of_all_sizes(server_factory, mode):
    """Through the window, from a region, into memory whose every side is guarded."""
    s = server_factory(mode=mode)
    with client(s, "local") as c:
        by_reference(c, s)
        region = mkv.Region(c, 24 * MIB)
        region_shown(c, s, region)
        for i, size in enumerate(SIZES):
            value, memory, key = content(b"k", i, size), Guarded(size), b"k%d" % i
            memory.fill(value)
            c.put_at(key, memory.at, size, 30.0)
            memory.fill(b"\0" * size)
            assert c.get_at(key, memory.at, size, 30.0) == size
            assert memory.bytes() == value, size
            off = (7919 * i) % 65536
            ctypes.memmove(region.base + off, bytes(value), size)
            before = counted(s, "memkv_front_region_put_bytes_total")
            c.put_at(key + b"r", region.base + off, size, 30.0)
            assert counted(s, "memkv_front_region_put_bytes_total") - before == (size if size >= 65536 else 0)
            region.poison()
            assert c.get_at(key + b"r", region.base + off, size, 30.0) == size
            assert region.view[off:off + size] == value and region.untouched(off, off + size), size
            for begin, n in ((0, 1), (size // 3, 70000), (size - 1, 5), (65530, 65600)):
                assert c.get_range(key, begin, n, 30.0) == value[begin:begin + n], (size, begin, n)
        region.free()
        until(lambda: counted(s, "memkv_front_regions") <= 2)           # the connections' windows are left


def test_by_reference_by_many(server_factory):
    s = server_factory()
    wrong = []

    def work(c, number):
        try:
            region = mkv.Region(c, 2 * MIB)
            for i in range(40):
                size = 1 + (number * 104729 + i * 7919) * 97 % (2 * MIB)
                value, key = content(b"t%d" % number, i, size), b"t%d-%d" % (number, i % 5)
                ctypes.memmove(region.base, bytes(value), size)
                c.put_at(key, region.base, size, 30.0)
                if c.get(key, size, 30.0) != value or c.get_range(key, size // 2, size, 30.0) != value[size // 2:]:
                    wrong.append((number, i, size))
            region.free()
        except Exception as e:      # noqa: BLE001 - reported by the test
            wrong.append(repr(e))

    with mkv.Client(s.addr, transport="local", io_threads=2) as c:
        threads = [threading.Thread(target=work, args=(c, i)) for i in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(300)
        assert not wrong, wrong
        assert got_by_reference(s) > 10 * MIB and counted(s, "memkv_front_region_put_bytes_total") > 10 * MIB


def test_deadline_while_its_front_stands_still(server_factory):
    """The caller has his memory back at once, and what the front does afterwards reaches neither it nor another value."""
    s = server_factory(sets=["server.ping_timeout=30s"])
    value, other = content(b"k", 1, 3 * MIB), content(b"o", 1, 3 * MIB)
    with client(s, "local") as c:
        by_reference(c, s)
        region = mkv.Region(c, 4 * MIB)
        region_shown(c, s, region)
        c.put(b"k", value, 30.0)
        memory = Guarded(3 * MIB)
        memory.fill(b"\xa5" * 3 * MIB)
        region.poison()
        pid = s.status_rows()[NAME]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            for what in (lambda: c.get_at(b"k", memory.at, 3 * MIB, 0.1), lambda: c.put_at(b"left", region.base, 3 * MIB, 0.1)):
                with pytest.raises(mkv.Miss) as e:
                    what()
                assert e.value.status == mkv.TIMEOUT
            ctypes.memmove(region.base, bytes(other), 3 * MIB)          # it is the caller's again
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: c.get(b"k", 3 * MIB, 30.0) == value)
        assert memory.bytes() == b"\xa5" * 3 * MIB
        try:
            left = c.get(b"left", 3 * MIB, 30.0)
            assert left == bytes([mkv.POISON]) * 3 * MIB               # as it was when it was put, or nothing
        except mkv.Miss as e:
            assert e.status == mkv.MISS
        assert region.view[:3 * MIB] == other
        put_get(c, b"after", 3 * MIB)
        region.free()


def test_region_in_use_is_not_freed(server_factory):
    s = server_factory(sets=["server.ping_timeout=30s"])
    with client(s, "local") as c:
        region = mkv.Region(c, 4 * MIB)
        region_shown(c, s, region)
        pid = s.status_rows()[NAME]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            number = c.submit(mkv.OP_PUT, b"k", [(region.base, 4 * MIB)], 60.0)
            time.sleep(0.1)
            assert mkv.LIB.mkv_region_free(region.p) == mkv.BUSY
        finally:
            os.kill(pid, signal.SIGCONT)
        done = c.completion()
        assert done[0] == number and done[1] == 0, done
        assert c.get(b"k", 4 * MIB, 30.0) == bytes([mkv.POISON]) * 4 * MIB
        region.free()


def test_where_regions_are_refused(server_factory):
    s = server_factory(sets=["local.region_max=0"])
    with client(s, "local") as c:
        region = mkv.Region(c, 4 * MIB)
        for i in range(5):
            put_get(c, b"k%d" % i)
            c.put_at(b"r", region.base, 4 * MIB, 30.0)
        assert c.get(b"r", 4 * MIB, 30.0) == bytes([mkv.POISON]) * 4 * MIB
        region.free()
    assert got_by_reference(s) == 0
