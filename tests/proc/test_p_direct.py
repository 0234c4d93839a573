"""
p: drives that read straight into memory of clients on this host: which bytes go there, how long that memory is theirs, and what a client or a drive may do meanwhile.
"""
import contextlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest

import mkv
import wireclient as wc
from harness import MIB, content
from test_b_basic import direct_server
from test_b_in_place import huge_pages_free
from test_p_regions import Memory, wait_for
from wireclient import Wire

GUARD = b"\xa5"
RETRY, BUSY = 14, 13


@contextlib.contextmanager
def server_on(kind, drives, server_factory, tmp_path, *more):
    sets = [f"local.path={tmp_path}/l.sock", *more]
    with contextlib.ExitStack() as stack:
        if kind == "direct":
            s = stack.enter_context(direct_server(tmp_path, drives, 512 * MIB))
            s.sets += sets
            s.start()
        else:
            s = server_factory(drives=drives, drive_bytes="256MiB", sets=sets)
        s.local = f"{tmp_path}/l.sock"
        yield s


@pytest.fixture(params=["file", "direct"])
def served(server_factory, tmp_path, request):
    with server_on(request.param, 2, server_factory, tmp_path) as s:
        yield s


def total(s, name):
    return sum(v for k, v in s.metrics().items() if k.split("{")[0] == f"memkv_{name}")


def straight(s):
    return total(s, "front_region_direct_get_bytes_total")


def shown(s, enough):
    """Drives have the regions that it takes, or the test is skipped where no drive can have any."""
    there = wait_for(enough)
    if not there and any(row.get("io") == "threads" for row in s.status().values()):
        pytest.skip("no io_uring here")
    assert there


def lent(s, n):
    """Each drive has n regions."""
    shown(s, lambda: total(s, "front_regions_lent") == 2 * n == total(s, "drive_regions"))


def wire_and_memory(s, n=1):
    w, m = Wire(s.local, timeout=60).handshake(), Memory()
    assert w.region(1, m.fd, m.size, stable=True) == 0
    lent(s, n)
    return w, m


def test_the_library_reads_without_a_copy_in_the_server(served):
    sizes = (65536, 100000, MIB, 3 * MIB + 1, 9 * MIB)
    with mkv.Client(f"local://{served.local}", transport="local", connections=1) as c:
        for n in sizes:
            c.put(b"lib/%d" % n, content(b"lib", n, n))
        # Some requests later the window is whole, and shown.
        shown(served, lambda: c.get(b"lib/65536", 65536) and total(served, "front_regions_lent") == 2)
        before = straight(served), total(served, "front_region_get_bytes_total")
        for n in sizes:
            assert c.get(b"lib/%d" % n, n) == content(b"lib", n, n)
            assert c.get(b"lib/%d" % n, 20 * MIB) == content(b"lib", n, n)
        assert c.get_range(b"lib/%d" % (9 * MIB), 4097, MIB) == content(b"lib", 9 * MIB, 9 * MIB)[4097:4097 + MIB]
        assert straight(served) - before[0] >= sum(sizes) * 9 // 10
    assert wait_for(lambda: total(served, "drive_regions") == 0), "the memory of a client that is gone is given back"


def test_a_get_in_place_is_copied_nowhere(served, monkeypatch):
    monkeypatch.setenv("MEMKV_LOCAL_GET", "in_place")
    with mkv.Client(f"local://{served.local}", transport="local", connections=1) as c:
        value, region = content(b"place", 1, 4 * MIB), mkv.Region(c, 8 * MIB)
        c.put(b"place", value)

        def is_straight():
            before = straight(served), c.metric("memkv_client_local_region_get_bytes_total")
            c.get_at(b"place", region.base + MIB, 4 * MIB)
            return straight(served) - before[0] == c.metric("memkv_client_local_region_get_bytes_total") - before[1] == 4 * MIB

        if huge_pages_free():
            pytest.skip("huge pages are set aside here: the region lies in them, and 1 MiB is in the middle of one")
        shown(served, is_straight)
        before = straight(served), total(served, "front_region_get_bytes_total")
        region.poison()
        assert c.get_at(b"place", region.base + MIB, 4 * MIB) == 4 * MIB
        assert region.view[MIB:5 * MIB] == value and region.untouched(MIB, 5 * MIB)
        assert (straight(served) - before[0], total(served, "front_region_get_bytes_total") - before[1]) == (4 * MIB, 0)
        region.free()


def test_no_byte_but_the_values_changes(served):
    w, m = wire_and_memory(served)
    for i, n in enumerate([*range(1, 8194, 977), 4095, 4096, 4097, 8191, 8192, 8193, 65535, 65536, 65537, MIB, MIB + 1, 5 * MIB + 4095]):
        value, key, at = content(b"poison", i, n), b"poison/%d" % n, 4096 * (i % 5) + (i % 3 == 2)
        with mkv.Client(served.addr) as c:
            c.put(key, value)
        m.view[:] = GUARD * m.size
        before = straight(served)
        assert w.get_into(key, 1, at, max(n, 70000)) == (0, n)
        assert m.view[:] == GUARD * at + value + GUARD * (m.size - at - n)
        assert (straight(served) - before == n // 4096 * 4096) == (at % 4096 == 0 or n < 4096), (n, at)
    assert w.drop_region(1) == 0
    assert total(served, "drive_regions") == 0 and wait_for(lambda: total(served, "front_regions_lent") == 0)
    w.close()


def test_a_drive_that_comes_back_is_shown_the_regions_again(served):
    w, m = wire_and_memory(served)
    value = content(b"again", 1, MIB)
    for i in range(8):
        assert w.put(b"again/%d" % i, value) == 0
    for name in ("drive:0", "drive:1"):
        os.kill(served.status()[name]["pid"], signal.SIGKILL)
        for i in range(8):                          # while it is away, too
            while (r := w.get_into(b"again/%d" % i, 1, 0, MIB))[0] != 0:
                assert r[0] in (RETRY, BUSY), r
            assert m.view[:MIB] == value

    def all_straight():
        before = straight(served)
        for i in range(8):
            m.view[:MIB] = GUARD * MIB
            assert w.get_into(b"again/%d" % i, 1, 0, MIB) == (0, MIB) and m.view[:MIB] == value
        return straight(served) - before == 8 * MIB

    assert wait_for(all_straight)
    lent(served, 1)
    w.close()


def test_a_front_that_dies_leaves_no_region_at_a_drive(served):
    w, _ = wire_and_memory(served)
    assert w.put(b"front", content(b"front", 1, MIB)) == 0
    for i in range(3):
        w.send(wc.GET, w.get_body(b"front") + struct.pack("<QII", i * MIB, MIB, 1), flags=wc.F_REMOTE)
    os.kill(served.status()["front:local"]["pid"], signal.SIGKILL)
    assert wait_for(lambda: total(served, "drive_regions") == 0)
    w, m = wire_and_memory(served)
    assert w.get_into(b"front", 1, 0, MIB) == (0, MIB) and m.view[:MIB] == content(b"front", 1, MIB)
    w.close()


def test_memory_that_goes_while_a_drive_reads(served):
    """Pages are punched out and put back under it: no drive sees an error of its medium in that, and others are served."""
    w, m = wire_and_memory(served)
    pids, stop = served.all_pids(), threading.Event()
    assert w.put(b"punched", content(b"punched", 1, MIB)) == 0

    def punch():
        i = 0
        while not stop.is_set():
            m.punch(65536 * (i % 16), 65536)
            i += 1

    t = threading.Thread(target=punch)
    t.start()
    try:
        for _ in range(200):
            assert w.get_into(b"punched", 1, 0, MIB) == (0, MIB)
    finally:
        stop.set()
        t.join()
    assert straight(served) > 100 * MIB and total(served, "drive_read_errors_total") == 0
    with mkv.Client(f"local://{served.local}", transport="local", connections=1) as c:
        assert c.get(b"punched", MIB) == content(b"punched", 1, MIB), "what it did to its memory stayed there"
    assert served.all_pids() == pids
    w.close()


def test_memory_with_holes_is_refused_when_a_drive_comes_back(served):
    """Whole when it was passed, not any more when it is shown again: that is its client's affair, and nobody else's."""
    w, m = wire_and_memory(served)
    assert w.put(b"holes", content(b"holes", 1, MIB)) == 0
    front, drive = (served.status()[name]["pid"] for name in ("front:local", "drive:0"))
    m.punch(0, m.size)
    os.kill(drive, signal.SIGKILL)
    assert wait_for(lambda: served.status()["drive:0"]["pid"] != drive and served.status()["drive:0"]["state"] == "RUNNING")
    other, whole = Wire(served.local, timeout=60).handshake(), Memory()
    assert other.region(1, whole.fd, whole.size, stable=True) == 0
    assert wait_for(lambda: total(served, "front_regions_lent") == 3 == total(served, "drive_regions"))
    assert other.get_into(b"holes", 1, 0, MIB) == (0, MIB) and whole.view[:MIB] == content(b"holes", 1, MIB)
    assert served.status()["front:local"]["pid"] == front
    for x in (w, other):
        assert x.drop_region(1) == 0
        x.close()


CLIENT = """
import sys
sys.path[:0] = {paths!r}
from test_p_direct import Memory, Wire
w, m = Wire({path!r}, timeout=60).handshake(), Memory()
assert w.region(1, m.fd, m.size, stable=True) == 0
print("at work", flush=True)
while True:
    w.get_into(b"killed", 1, 0, m.size)
"""


def kill_in_mid_transfer(s, client, moved):
    """Five programs, each while drives are at work in its memory, by moved(s); what they had is given back."""
    script = client.format(paths=[p for p in sys.path if p], path=s.local)
    for i in range(5):
        p = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        try:
            before = moved(s)
            assert p.stdout.readline() == "at work\n"
            shown(s, lambda before=before: moved(s) > before)
            time.sleep(0.03 * i)
        finally:
            p.send_signal(signal.SIGKILL)
            p.wait(20)
    assert wait_for(lambda: total(s, "drive_regions") == 0 and total(s, "front_regions") == 0 and total(s, "front_region_bytes") == 0)


def test_a_client_killed_in_mid_transfer(served):
    pids, value = served.all_pids(), content(b"killed", 1, 4 * MIB)
    with mkv.Client(served.addr) as c:
        c.put(b"killed", value)
    kill_in_mid_transfer(served, CLIENT, straight)
    with mkv.Client(f"local://{served.local}", transport="local", connections=1) as c:
        assert c.get(b"killed", 4 * MIB) == value
    assert served.all_pids() == pids


def test_a_drive_that_hangs_keeps_the_memory_and_nobody_waiting(server_factory, tmp_path):
    with server_on("file", 2, server_factory, tmp_path) as s:
        w, m = wire_and_memory(s)
        assert w.put(b"hung", content(b"hung", 1, MIB)) == 0
        drives = [s.status()[f"drive:{i}"]["pid"] for i in range(2)]
        for pid in drives:
            os.kill(pid, signal.SIGSTOP)
        try:
            rid = w.send(wc.GET, w.get_body(b"hung") + struct.pack("<QII", 0, MIB, 1), flags=wc.F_REMOTE, deadline_us=300000)
            assert w.ping(), "others of that session have their answers"
            assert wait_for(lambda: total(s, "front_expired_total") == 1)
            drop = w.send(wc.REGION, struct.pack("<IIQ", 1, 1, 0))
            assert w.ping(), "its deadline has passed, and its answer keeps away with the memory"
        finally:
            for pid in drives:
                os.kill(pid, signal.SIGCONT)
        answers = {}
        while len(answers) < 2:
            h, _, _ = w.recv()
            answers[h.request_id] = h.status
        assert list(answers) == [rid, drop] and answers[drop] == 0 and answers[rid] != 0
        m.view[:] = GUARD * m.size
        time.sleep(0.3)
        assert m.view[:] == GUARD * m.size, "no late byte"
        w.close()


def test_a_caller_leaves_a_hung_drive_at_his_deadline(server_factory, tmp_path):
    """Through the library: back in time, other values are served by the same connection, and no late byte is in any of them."""
    with server_on("file", 1, server_factory, tmp_path) as s, mkv.Client(f"local://{s.local}", transport="local", connections=1) as c:
        values = [content(b"late", i, MIB) for i in range(4)]
        for i, v in enumerate(values):
            c.put(b"late/%d" % i, v)
        shown(s, lambda: c.get(b"late/0", MIB) and total(s, "front_regions_lent") == 1)
        pid = s.status()["drive:0"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(mkv.Miss) as e:
                    c.get(b"late/1", MIB, 0.2)
                assert e.value.status == mkv.TIMEOUT and time.monotonic() - began < 2
        finally:
            os.kill(pid, signal.SIGCONT)
        before = straight(s)
        for _ in range(5):
            for i, v in enumerate(values):
                assert c.get(b"late/%d" % i, MIB) == v
        assert straight(s) > before


def test_a_client_that_goes_while_its_memory_is_asked_back(server_factory, tmp_path):
    """Nobody is there any more to be answered when the drive goes on: its requests have ended, once each."""
    with server_on("file", 2, server_factory, tmp_path) as s:
        pids = s.all_pids()
        for _ in range(3):
            w, m = wire_and_memory(s)
            drives = [s.status()[f"drive:{i}"]["pid"] for i in range(2)]
            for pid in drives:
                os.kill(pid, signal.SIGSTOP)
            try:
                w.send(wc.REGION, struct.pack("<IIQ", 1, 1, 0))
                assert w.ping()
                w.close()
                assert wait_for(lambda: total(s, "front_sessions") == 0)
            finally:
                for pid in drives:
                    os.kill(pid, signal.SIGCONT)
            assert wait_for(lambda: total(s, "front_regions") == 0 and total(s, "drive_regions") == 0)
            assert wait_for(lambda: total(s, "front_in_flight") == 0)
            os.close(m.fd)
        assert s.all_pids() == pids


def test_a_stop_when_a_drive_has_died_for_good(server_factory, tmp_path):
    """With memory that it may still write to. It was kept from its client to the end; it keeps nobody from ending in order."""
    with server_on("file", 2, server_factory, tmp_path, "server.crash_limit=1") as s, mkv.Client(f"local://{s.local}", transport="local", connections=1) as c:
        for i in range(16):
            c.put(b"good/%d" % i, content(b"good", i, MIB))
        shown(s, lambda: c.get(b"good/0", MIB) and total(s, "front_regions_lent") == 2)
        pid = s.status()["drive:0"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        for i in range(16):
            with contextlib.suppress(mkv.Miss):
                c.get(b"good/%d" % i, MIB, 0.1)
        os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: s.status_rows()["drive:0"]["state"] == "FATAL")
        assert wait_for(lambda: total(s, "front_in_flight") > 0)       # told twice a second
        assert s.stop() == 0, s.log_tail()
        with open(s.log) as f:
            stopped = [line for line in f if "event=child_stopped" in line]
        assert len(stopped) == 3 and all('why="exit status 0"' in line for line in stopped), stopped
