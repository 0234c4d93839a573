"""
p: memory that clients on this host pass (regions), as libmemkv would never pass it: what a client does to its memory is its own affair, and nobody else's.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

import mkv
import wireclient as wc
from harness import MIB, content
from wireclient import Wire

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
INVAL, TOOBIG, NOSPACE = 1, 10, 12
SIZE = 8 * MIB
SO_PASSRIGHTS = 83
LIBC = ctypes.CDLL(None, use_errno=True)


class Memory:
    def __init__(self, size=SIZE, seals=SEALS, fill=True):
        self.fd, self.size = os.memfd_create("client", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), size
        os.ftruncate(self.fd, size)
        if fill:
            os.posix_fallocate(self.fd, 0, size)
        if seals:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        self.view = mmap.mmap(self.fd, size)

    def punch(self, off, n):
        r = LIBC.fallocate(self.fd, 3, ctypes.c_long(off), ctypes.c_long(n))        # PUNCH_HOLE | KEEP_SIZE
        assert r == 0, os.strerror(ctypes.get_errno())


def values(s, name):
    return sum(v for k, v in s.metrics().items() if k.split("{")[0] == f"memkv_{name}" and "front:local" in k)


def wait_for(what, timeout=20):
    end = time.monotonic() + timeout
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


@pytest.fixture(params=["file", "memory"])
def served(server_factory, tmp_path, request):
    sets = [f"local.path={tmp_path}/l.sock", "local.region_max=64MiB", "network.handshake_timeout=30s"]
    if request.param == "memory":
        sets.append("storage.mode=memory")
    s = server_factory(drive_bytes="256MiB", sets=sets)
    s.local = f"{tmp_path}/l.sock"
    return s


def wire(s):
    return Wire(s.local, timeout=30).handshake()


def honest(s):
    """Somebody else is served, whatever happened."""
    with mkv.Client(f"local://{s.local}", transport="local") as c:
        for n in (1, 70000, 3 * MIB):
            c.put(b"honest/%d" % n, content(b"honest", n, n))
            assert c.get(b"honest/%d" % n, n) == content(b"honest", n, n)


def test_values_go_between_regions_and_drives(served):
    w, m = wire(served), Memory()
    assert w.region(1, m.fd, m.size) == 0
    for i, n in enumerate((1, 4095, 4096, 65536, 65537, 300001, MIB)):
        value, at = content(b"region", i, n), 8192 * i + i
        m.view[at:at + n] = value
        key = b"region/%d" % n
        assert w.put_from(key, value, 1, at) == 0
        m.view[:] = b"\xa5" * m.size
        assert w.get_into(key, 1, at + 3, n + 100) == (0, n)
        assert m.view[at + 3:at + 3 + n] == value
        assert m.view[:at + 3] == b"\xa5" * (at + 3) and m.view[at + 3 + n:at + n + 200] == b"\xa5" * 197
        assert w.get(key)[2] == value
        h, _, got = w.get(key, off=n // 2)
        assert (h.status, got) == (0, value[n // 2:])
    assert values(served, "front_region_put_bytes_total") > MIB and values(served, "front_region_get_bytes_total") > MIB
    assert w.drop_region(1) == 0
    assert w.get_into(b"region/1", 1, 0, 100)[0] == wc.PROTO
    w.close()


def test_what_is_no_region_is_refused(served):
    w, good = wire(served), Memory()
    pid = served.status()["front:local"]["pid"]
    before = len(os.listdir(f"/proc/{pid}/fd"))
    with open(os.path.join(os.path.dirname(served.local), "plain"), "w+b") as plain:
        plain.write(bytes(SIZE))
        plain.flush()
        assert w.region(1, plain.fileno(), SIZE) == INVAL
    for bad in (Memory(fill=False), Memory(seals=0), Memory(seals=fcntl.F_SEAL_SHRINK)):
        assert w.region(1, bad.fd, bad.size) == INVAL
    assert w.region(1, good.fd, good.size + 4096) == INVAL
    assert w.region(1, Memory(20 * MIB).fd, 20 * MIB) == TOOBIG
    keep = [Memory() for _ in range(3)]
    assert [w.region(10 + i, m.fd, m.size) for i, m in enumerate(keep)] == [0, 0, NOSPACE], "one process has a half of what counts twice"
    assert values(served, "front_regions_refused_total") == 7
    assert w.drop_region(10) == 0 and w.drop_region(11) == 0
    assert wait_for(lambda: len(os.listdir(f"/proc/{pid}/fd")) == before), "what was passed is closed"
    honest(served)
    w.close()


def test_memory_that_changes_under_its_reader(served):
    """Punched, scribbled on, while it is read and written: wrong bytes are refused, good ones are there, nobody has a signal."""
    w, m = wire(served), Memory()
    pids, stop = served.all_pids(), threading.Event()
    value = content(b"scribble", 1, 262144)
    assert w.region(1, m.fd, m.size) == 0

    def scribble():
        i = 0
        while not stop.is_set():
            m.view[i % 262144] ^= 255
            if i % 64 == 0:
                m.punch(4096 * (i % 50), 65536)
            i += 7919

    t = threading.Thread(target=scribble)
    t.start()
    seen = set()
    try:
        for i in range(30):
            key = b"scribble/%d" % i
            m.view[:262144] = value
            status = w.put_from(key, value, 1, 0)
            seen.add(status)
            assert status in (0, wc.CORRUPT)
            h, _, got = w.get(key)
            assert (h.status, got) == (0, value) if status == 0 else h.status == wc.MISS
            assert w.get_into(b"scribble/0", 1, 0, m.size)[0] in (0, wc.MISS)
    finally:
        stop.set()
        t.join()
    assert wc.CORRUPT in seen, "nothing was scribbled in time: the test shows nothing"
    honest(served)
    assert served.all_pids() == pids
    w.close()


CLIENT = """
import os, sys
sys.path[:0] = {paths!r}
from test_p_regions import Memory, Wire
import wireclient as wc
w, m = Wire({path!r}, timeout=60).handshake(), Memory()
assert w.region(1, m.fd, m.size) == 0
value = bytes(1 << 20)
assert w.put_from(b"killed", value, 1, 0, flags=wc.PUT_NO_CRC) == 0
print("at work", flush=True)
while True:
    for i in range(8):
        w.send_put_from(b"killed/%d" % i, value, 1, i << 19, flags=wc.PUT_NO_CRC)
    for i in range(8):
        w.recv()
    w.get_into(b"killed", 1, 0, m.size)
"""


def test_a_client_killed_in_mid_transfer_leaves_nothing(served):
    pids = served.all_pids()
    free = values(served, "front_stage_free_bytes")
    script = CLIENT.format(paths=[p for p in sys.path if p], path=served.local)
    for i in range(4):
        p = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        try:
            assert p.stdout.readline() == "at work\n"
            assert values(served, "front_regions") <= 1
            time.sleep(0.05 + 0.03 * i)
        finally:
            p.send_signal(signal.SIGKILL)
            p.wait(20)
    assert wait_for(lambda: values(served, "front_regions") == 0 and values(served, "front_in_flight") == 0)
    assert wait_for(lambda: values(served, "front_stage_free_bytes") == free)
    assert values(served, "front_region_bytes") == 0
    honest(served)
    assert served.all_pids() == pids


def lingering():
    """A socket whose last close waits a minute for its peer."""
    with socket.create_server(("127.0.0.1", 0)) as at:
        fd = socket.create_connection(at.getsockname())
        peer, _ = at.accept()
    fd.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    fd.setblocking(False)
    try:
        while True:
            fd.send(bytes(MIB))
    except BlockingIOError:
        pass
    return fd, peer


def test_a_descriptor_whose_close_hangs_holds_up_nobody(served):
    w, began = wire(served), time.monotonic()
    front, peers = served.status()["front:local"]["pid"], []
    for _ in range(3):
        fd, peer = lingering()
        peers.append(peer)
        frame = w.frame(wc.REGION, struct.pack("<IIQ", 1, 0, SIZE))
        os.kill(front, signal.SIGSTOP)          # its close is to be the last, not ours
        try:
            assert socket.send_fds(w.sock, [frame], [fd.fileno()]) == len(frame)
            fd.close()
        finally:
            os.kill(front, signal.SIGCONT)
        assert w.recv()[0].status == INVAL
    assert w.ping()
    honest(served)
    assert time.monotonic() - began < 30, "somebody waited for a close"
    for p in peers:
        p.close()
    w.close()


def test_who_is_in_no_session_passes_nothing(served):
    w = Wire(served.local, timeout=30)
    try:
        assert w.sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) in (0, 1)
    except OSError:
        pytest.skip("this kernel has no SO_PASSRIGHTS (Linux 6.16)")
    with pytest.raises(OSError) as e:
        socket.send_fds(w.sock, [b"M"], [0])
    assert e.value.errno == errno.EPERM
    assert w.handshake() and w.ping()
    w.close()
