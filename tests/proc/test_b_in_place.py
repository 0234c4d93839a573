"""
b: gets that a server's front writes straight into the caller's region (local_get: in_place): of all sizes, by many, and what is seen of them when the caller has left.
"""
import ctypes
import os
import random
import signal
import threading
import time

import mkv
import pytest
from harness import MIB, content
from test_b_local import NAME, counted, put_get, region_shown, until

PAGE = 4096


def huge_pages_free():
    with open("/proc/meminfo") as f:
        return any(line.startswith("HugePages_Free:") and int(line.split()[1]) > 0 for line in f)


@pytest.fixture(autouse=True)
def in_place(monkeypatch):
    if huge_pages_free():
        pytest.skip("huge pages are set aside here: regions lie in them, and what is got into less than one of them goes through the window")
    monkeypatch.setenv("MEMKV_LOCAL_GET", "in_place")


def client(s, **options):
    return mkv.Client(s.addr, transport="local", **options)


def pages(size):
    return (size + PAGE - 1) // PAGE * PAGE


@pytest.mark.parametrize("mode", ["file", "memory"])
def test_of_all_sizes(server_factory, mode):
    """The bytes of the value and no other; behind its end the caller's page stays as it was."""
    s = server_factory(mode=mode)
    with client(s, connections=1) as c:     # another would be shown the region by its first get
        region = mkv.Region(c, 40 * MIB)
        region_shown(c, s, region)
        for i, size in enumerate((65536, 65537, 131073, MIB - 1, MIB, 3 * MIB + 5, 4 * MIB, 4 * MIB + 1, 20 * MIB, 32 * MIB)):
            value, key, at = content(b"k", i, size), b"k%d" % i, PAGE * (1 + i)
            c.put(key, value, 30.0)
            for off, room in ((0, pages(size)), (12345, pages(size // 2)), (size - 70000 if size > 70000 else 0, 20 * PAGE)):
                region.poison()
                before = c.metric("memkv_client_local_region_get_bytes_total")
                n = min(size - off, room)
                assert c.get_at(key, region.base + at, room, 30.0, off=off) == n
                assert region.view[at:at + n] == value[off:off + n] and region.untouched(at, at + n), (size, off)
                assert c.metric("memkv_client_local_region_get_bytes_total") - before == (n if room >= 65536 else 0)
        assert c.metric("memkv_client_local_torn_total") == 0
        region.free()


@pytest.mark.parametrize("how", ["deadline", "request", "cancel"])
def test_the_caller_has_left(server_factory, how):
    """The front stands still with the request before it; what it writes once it goes on again is not seen."""
    s = server_factory(sets=["server.ping_timeout=30s"])
    value, size = content(b"k", 1, 3 * MIB), 3 * MIB
    with client(s, connections=1) as c:
        region = mkv.Region(c, 8 * MIB)
        region_shown(c, s, region)
        c.put(b"k", value, 30.0)
        region.poison()
        at = region.base + MIB
        pid = s.status_rows()[NAME]["pid"]
        written = counted(s, "memkv_front_region_get_bytes_total")
        os.kill(pid, signal.SIGSTOP)
        try:
            if how == "deadline":
                with pytest.raises(mkv.Miss) as e:
                    c.get_at(b"k", at, size, 0.1)
                assert e.value.status == mkv.TIMEOUT
            else:
                number = c.submit(mkv.OP_GET, b"k", [(at, size)], 0.1 if how == "request" else 60.0)
                time.sleep(0.05)
                if how == "cancel":
                    assert mkv.LIB.mkv_cancel(c.p, number) == 0
                assert c.completion()[1] == (mkv.CANCELLED if how == "cancel" else mkv.TIMEOUT)
            ctypes.memset(at, 0x5a, size)               # it is the caller's again
        finally:
            os.kill(pid, signal.SIGCONT)
        # A put by the same session is answered when what came before it has been carried out, or given up.
        for i in range(4):
            put_get(c, b"after%d" % i, 200000)
        if how == "cancel":
            until(lambda: counted(s, "memkv_front_region_get_bytes_total") > written)
        assert region.view[MIB:MIB + size] == b"\x5a" * size and region.untouched(MIB, MIB + size)
        assert c.metric("memkv_client_local_torn_total") == 1
        assert c.get_at(b"k", at, size, 30.0) == size and region.view[MIB:MIB + size] == value
        c.put_at(b"back", at, size, 30.0)
        assert c.get(b"back", size, 30.0) == value
        region.free()


def test_a_region_that_is_freed_while_the_server_may_write(server_factory):
    """Its get has been left; the server is told to drop it when it has answered, and not before: what else is on the session goes on."""
    s = server_factory(sets=["server.ping_timeout=30s"])
    size = MIB                  # of more than that the server is told that nobody waits
    with client(s, connections=1) as c:
        region, other = mkv.Region(c, size), mkv.Region(c, size)
        for r in (region, other):
            region_shown(c, s, r)
        c.put(b"k", content(b"k", 1, size), 30.0)
        pid = s.status_rows()[NAME]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(mkv.Miss):
                c.get_at(b"k", region.base, size, 0.1)
            until(lambda: mkv.LIB.mkv_region_free(region.p) != mkv.BUSY)        # the I/O thread ends the request in its own time
            c.submit(mkv.OP_GET, b"k", [(other.base, size)], 60.0)
            time.sleep(0.05)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert c.completion()[1] == size
        until(lambda: counted(s, "memkv_front_regions") == 2)      # the window, and the other one
        assert c.metric("memkv_client_sessions_lost_total") == 0
        other.free()


@pytest.mark.parametrize("mode", ["memory", "file"])
def test_the_front_dies(server_factory, mode):
    """In the middle of gets: each of them is right, by whichever front, and the region goes on to be used, but for what a drive may still read into."""
    s = server_factory(mode=mode)
    size, n = MIB, 8
    values = [content(b"v", i, size) for i in range(n)]
    with client(s, connections=1) as c:
        region = mkv.Region(c, (n + 1) * size)
        region_shown(c, s, region)
        for i, v in enumerate(values):
            c.put(b"v%d" % i, v, 30.0)
        for _ in range(3):
            pid = s.status_rows()[NAME]["pid"]
            os.kill(pid, signal.SIGSTOP)
            region.poison()
            for i in range(n):
                c.submit(mkv.OP_GET, b"v%d" % i, [(region.base + i * size, size)], 60.0)
            time.sleep(0.05)
            os.kill(pid, signal.SIGKILL)
            done = [c.completion()[1] for _ in range(n)]
            assert done == [size] * n, done
            for i, v in enumerate(values):
                assert region.view[i * size:(i + 1) * size] == v, i
            until(lambda pid=pid: s.status_rows()[NAME]["pid"] not in (0, pid) and s.status_rows()[NAME]["state"] == "RUNNING")
        region_shown(c, s, region, n * size)
        for i, whole in ((0, mode == "memory"), (n, True)):     # a front that is dead writes nothing; a drive may
            before = c.metric("memkv_client_local_region_get_bytes_total")
            assert c.get_at(b"v0", region.base + i * size, size, 30.0) == size and region.view[i * size:(i + 1) * size] == values[0]
            assert c.metric("memkv_client_local_region_get_bytes_total") - before == (size if whole else 0)
        assert (c.metric("memkv_client_local_torn_total") == 0) == (mode == "memory")
        region.free()


def test_by_many_who_leave_early(server_factory):
    """Deadlines from nothing to enough, on a server that is busy: what a get returned is right, what it left is the caller's."""
    s = server_factory()
    wrong, seen, share = [], {"hit": 0, "left": 0}, 2 * MIB

    def work(c, base, number):
        rnd = random.Random(number)
        view = (ctypes.c_char * share).from_address(base)
        for i in range(60):
            size = rnd.randrange(17, 512) * PAGE
            value, key = content(b"t%d" % number, i, size), b"t%d-%d" % (number, i % 3)
            try:
                c.put(key, value, 30.0)
                got = c.get_at(key, base, size, rnd.choice((0.0002, 0.0005, 0.001, 0.003, 30.0)))
            except mkv.Miss as e:
                if e.status != mkv.TIMEOUT:
                    wrong.append((number, i, e.status))
                seen["left"] += 1
                ctypes.memset(base, i % 256, size)
                time.sleep(0.005)
                if view.raw[:size] != bytes([i % 256]) * size:
                    wrong.append((number, i, "late bytes"))
                continue
            seen["hit"] += 1
            if got != size or view.raw[:size] != value:
                wrong.append((number, i, size, got))

    with client(s, io_threads=2) as c:
        regions = [mkv.Region(c, share) for _ in range(5)]
        region_shown(c, s, regions[0])
        threads = [threading.Thread(target=work, args=(c, r.base, i)) for i, r in enumerate(regions)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(300)
        assert not wrong, wrong[:5]
        assert seen["hit"] > 20 and seen["left"] > 5, seen
        assert c.metric("memkv_client_local_region_get_bytes_total") > 0 and c.metric("memkv_client_corrupt_total") == 0
        for r in regions:
            r.free()
