"""
p: drives that write puts straight from memory of clients on this host (integrity.verify_put: off): which bytes are stored, and what becomes of a value whose writer changes its memory
meanwhile, or dies, or whose drive does.
"""
import os
import signal
import struct
import threading
import time

import pytest

import mkv
import wireclient as wc
from harness import MIB, content
from test_d_wrong_bytes import failures, media
from test_p_direct import BUSY, RETRY, kill_in_mid_transfer, lent, server_on, shown, total, wire_and_memory
from test_p_regions import wait_for

OFF = "integrity.verify_put=off"
PART = 4 * MIB


@pytest.fixture(params=["file", "direct"])
def served(server_factory, tmp_path, request):
    with server_on(request.param, 2, server_factory, tmp_path, OFF, "storage.scrub.rate=0") as s:
        yield s


def straight(s):
    return total(s, "front_region_direct_put_bytes_total")


def put_from(w, key, value, off):
    """As Wire.put_from(), of any size; the bytes are whatever lies in the region."""
    rid = None
    for at in range(0, len(value), PART):
        piece, more = value[at:at + PART], at + PART < len(value)
        body = w.put_body(key if at == 0 else b"", piece, off=at, total=len(value) if not more else wc.SIZE_UNKNOWN)
        rid = w.send(wc.PUT, body + struct.pack("<QII", off + at, len(piece), 1), flags=wc.F_REMOTE | wc.F_PAYLOAD | (wc.F_MORE if more else 0), rid=rid, payload_bytes=len(piece))
    return w.recv()[0].status


def read(s, key, room):
    """The value, read and checked over TCP, or why it is missed."""
    with mkv.Client(s.addr) as c:
        try:
            return c.get(key, room, 20)
        except mkv.Miss as e:
            assert e.status == mkv.MISS, e
            return e.reason


def test_values_of_all_sizes(served):
    w, m = wire_and_memory(served)
    for i, n in enumerate([1, 4096, 65535, 65536, 65537, 69631, 100000, MIB - 1, MIB, MIB + 4095, PART, PART + 1, PART + 65536, 6 * MIB + 4097]):
        value, key, at = content(b"size", i, n), b"size/%d" % n, 4096 * (i % 5) + (i % 7 == 6)
        m.view[at:at + n] = value
        before = straight(served), total(served, "front_region_put_bytes_total")
        assert put_from(w, key, value, at) == 0
        assert read(served, key, n) == value
        parts = [min(PART, n - k) for k in range(0, n, PART)]
        whole = sum(p // 4096 * 4096 for p in parts if p >= 65536 and at % 4096 == 0)
        assert (straight(served) - before[0], total(served, "front_region_put_bytes_total") - before[1]) == (whole, n - whole), (n, at)
    w.close()


def test_the_library_writes_without_a_copy(served):
    """From a region, though its gets go through the window, and from other memory, through the window."""
    sizes = (65536, 100000, MIB, 3 * MIB + 1, 6 * MIB)
    with mkv.Client(f"local://{served.local}", transport="local", connections=1) as c:
        region = mkv.Region(c, 8 * MIB)

        def all_straight():
            """Some requests later both are whole, and shown."""
            before = straight(served)
            c.put(b"first", bytes(MIB))
            c.put_at(b"second", region.base, MIB)
            return straight(served) - before == 2 * MIB and total(served, "front_regions_lent") == 4

        shown(served, all_straight)
        before = straight(served), total(served, "front_region_put_bytes_total")
        for n in sizes:
            value = content(b"lib", 1, n)
            region.view[4096:4096 + n] = value
            c.put_at(b"lib/%d" % n, region.base + 4096, n)
            c.put(b"lib/other/%d" % n, value)
            assert c.get(b"lib/%d" % n, n) == c.get(b"lib/other/%d" % n, n) == value
        copied = total(served, "front_region_put_bytes_total") - before[1]
        assert straight(served) - before[0] + copied == 2 * sum(sizes) and copied < 2 * 4096 * (len(sizes) + 1)
        region.free()
    assert wait_for(lambda: total(served, "drive_regions") == 0), "the memory of a client that is gone is given back"


def test_by_default_everything_is_verified(server_factory, tmp_path):
    with server_on("file", 2, server_factory, tmp_path) as s:
        w, m = wire_and_memory(s)
        value = content(b"on", 1, 6 * MIB)
        m.view[:len(value)] = value
        assert put_from(w, b"on", value, 0) == 0 and read(s, b"on", len(value)) == value
        m.view[MIB] ^= 1
        assert put_from(w, b"on/wrong", value[:PART], 0) == wc.CORRUPT
        assert straight(s) == 0 and total(s, "drive_unverified_objects") == 0
        w.close()


def healthy(s):
    """Nothing is held against a medium."""
    assert {r["state"] for n, r in s.status().items() if n.startswith("drive:")} == {"RUNNING"}, s.status()
    assert total(s, "drive_corrupt_total") == total(s, "drive_write_errors_total") == total(s, "drive_read_errors_total") == total(s, "drive_bad_places_total") == 0


def test_a_writer_who_changes_its_memory(server_factory, tmp_path):
    """The drives stand still with the put, so it is certain that other bytes are stored than those of the CRCs: a miss that names its writer."""
    with server_on("file", 2, server_factory, tmp_path, OFF, "storage.scrub.rate=0", "server.ping_timeout=30s") as s:
        w, m = wire_and_memory(s)
        value = content(b"torn", 1, MIB)
        m.view[:MIB] = value
        assert w.put_from(b"torn", value, 1, 0) == 0 and read(s, b"torn", MIB) == value
        drives = [s.status()[f"drive:{i}"]["pid"] for i in range(2)]
        for pid in drives:
            os.kill(pid, signal.SIGSTOP)
        try:
            w.send_put_from(b"torn", value, 1, 0)
            assert w.ping(), "the front has passed it on"
            m.view[300000] ^= 255
        finally:
            for pid in drives:
                os.kill(pid, signal.SIGCONT)
        assert w.recv()[0].status == 0
        assert read(s, b"torn", MIB) == mkv.REASON_WRITER_CRC
        assert total(s, "drive_writer_crc_total") == 1
        healthy(s)
        w.close()
        s.stop()
        assert [failures(media(s, i)) for i in range(2)] == [[], []]


def test_a_writer_who_never_rests(served):
    """Two versions, one written over the other all the time: whoever reads has one of them whole, or a miss."""
    w, m = wire_and_memory(served)
    versions, stop = [content(b"rest", i, MIB) for i in range(2)], threading.Event()

    def scribble():
        while not stop.is_set():
            for v in versions:
                m.view[:MIB] = v

    t = threading.Thread(target=scribble)
    t.start()
    seen = set()
    try:
        for i in range(60):
            assert w.put_from(b"rest/%d" % i, versions[i % 2], 1, 0) == 0
            got = read(served, b"rest/%d" % i, MIB)
            seen.add(got if isinstance(got, int) else "whole")
            assert got in (versions[i % 2], mkv.REASON_WRITER_CRC)
    finally:
        stop.set()
        t.join()
    assert mkv.REASON_WRITER_CRC in seen, "nothing was changed in time: the test shows nothing"
    assert straight(served) == 60 * MIB
    healthy(served)
    w.close()


def test_a_drive_killed_in_the_middle(served):
    w, m = wire_and_memory(served)
    values = [content(b"dead", i, 2 * MIB) for i in range(4)]
    for i, v in enumerate(values):
        m.view[2 * MIB * i:2 * MIB * (i + 1)] = v
    for name in ("drive:0", "drive:1"):
        for turn in range(3):
            todo = {w.send_put_from(b"dead/%d" % i, v, 1, 2 * MIB * i): i for i, v in enumerate(values)}
            if turn == 0:
                os.kill(served.status()[name]["pid"], signal.SIGKILL)
            while todo:
                h, _, _ = w.recv()
                i = todo.pop(h.request_id)
                assert h.status in (0, RETRY, BUSY), h.status
                if h.status != 0:
                    time.sleep(0.01)
                    todo[w.send_put_from(b"dead/%d" % i, values[i], 1, 2 * MIB * i)] = i
        for i, v in enumerate(values):
            assert read(served, b"dead/%d" % i, 2 * MIB) == v
    lent(served, 1)
    before = straight(served)
    assert w.put_from(b"dead/0", values[0], 1, 0) == 0 and straight(served) - before == 2 * MIB
    assert w.drop_region(1) == 0 and wait_for(lambda: total(served, "drive_regions") == 0)
    w.close()


CLIENT = """
import sys
sys.path[:0] = {paths!r}
from test_p_direct import Memory, Wire
from harness import content
w, m = Wire({path!r}, timeout=60).handshake(), Memory()
assert w.region(1, m.fd, m.size) == 0
value = content(b"killed", 1, 1 << 20)
m.view[:1 << 20] = value
assert w.put_from(b"killed/0", value, 1, 0) == 0
print("at work", flush=True)
while True:
    for i in range(8):
        w.send_put_from(b"killed/%d" % i, value, 1, 0)
    for i in range(8):
        w.recv()
"""


def test_a_client_killed_in_mid_transfer(served):
    pids = served.all_pids()
    kill_in_mid_transfer(served, CLIENT, straight)
    for i in range(8):
        assert read(served, b"killed/%d" % i, MIB) in (content(b"killed", 1, MIB), mkv.REASON_NEVER)
    assert served.all_pids() == pids
    healthy(served)


def test_a_caller_leaves_a_hung_drive_at_his_deadline(server_factory, tmp_path):
    """Through the library: back in time. His put is there whole, or not at all, whatever he does to his memory from then on."""
    with server_on("file", 1, server_factory, tmp_path, OFF, "storage.scrub.rate=0", "server.ping_timeout=30s") as s, mkv.Client(f"local://{s.local}", transport="local", connections=1) as c:
        region, value = mkv.Region(c, 2 * MIB), content(b"late", 1, MIB)
        region.view[:MIB] = value

        def is_straight():
            before = straight(s)
            c.put_at(b"late/0", region.base, MIB)
            return straight(s) - before == MIB

        shown(s, is_straight)
        pid = s.status()["drive:0"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            for i in range(3):
                began = time.monotonic()
                with pytest.raises(mkv.Miss) as e:
                    c.put_at(b"late/1", region.base, MIB, 0.2)
                assert e.value.status == mkv.TIMEOUT and time.monotonic() - began < 2
                region.view[4096 * i] ^= 255
        finally:
            os.kill(pid, signal.SIGCONT)
        assert read(s, b"late/1", MIB) in (value, mkv.REASON_WRITER_CRC, mkv.REASON_NEVER)
        region.view[:MIB] = value
        c.put_at(b"late/1", region.base, MIB)
        assert read(s, b"late/1", MIB) == value
        healthy(s)
        region.free()
