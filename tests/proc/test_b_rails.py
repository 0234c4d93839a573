"""
b: a server whose RDMA devices cannot be had serves all the same, says why, and answers clients that ask for one. Devices that are there: tests/lab.
"""
import os
import signal
import subprocess
import time

import mkv
from harness import MEMKVCTL, MIB, Server, content
from wireclient import Wire

NONE = "memkv_none0"            # no machine has it
NAME = f"front:rdma:{NONE}"
UNREACHABLE, UNSUPPORTED = 7, 19


def rails_listed(s):
    """(number, state, device) of each rail in HELLO's reply."""
    w = Wire("127.0.0.1", s.port)
    try:
        assert w.hello().status == 0
        return [(int.from_bytes(r[0:2], "little"), int.from_bytes(r[2:4], "little"), r[48:80].rstrip(b"\0").decode()) for r in w.rails]
    finally:
        w.close()


def asked(s, rail):
    w = Wire("127.0.0.1", s.port)
    try:
        h = w.hello(rail=rail)
        return h.status, h.deadline_us
    finally:
        w.close()


def put_get(s, key):
    with mkv.Client(s.addr) as c:
        value = content(key, 1, MIB)
        c.put(key, value, 30.0)
        assert c.get(key, MIB, 30.0) == value


def test_a_device_that_cannot_be_had():
    with Server(sets=[f"rdma.devices=[{NONE}, {NONE}b]"]) as s:
        put_get(s, b"one")
        rows = s.status_rows()
        for n in (NAME, NAME + "b"):
            assert rows[n]["state"] in ("BACKOFF", "STARTING", "FATAL"), rows[n]
        out = subprocess.run([MEMKVCTL, "status", "--control", s.control], capture_output=True, text=True,
                             timeout=30, check=False).stdout
        line = [ln for ln in out.splitlines() if ln.startswith(NAME + " ")]
        assert line and len(line[0].split()) > 4, out       # with words
        assert rails_listed(s) == [(1, 0, NONE), (2, 0, NONE + "b")]
        status, again_us = asked(s, 1)
        assert status == UNREACHABLE and again_us > 0
        assert asked(s, 3)[0] == UNSUPPORTED
        # A TCP front that starts later knows as much.
        pid = s.status_rows()["front:tcp:0"]["pid"]
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 20
        while s.status_rows()["front:tcp:0"]["pid"] in (0, pid) or s.status_rows()["front:tcp:0"]["state"] != "RUNNING":
            assert time.monotonic() < end
            time.sleep(0.05)
        assert rails_listed(s) == [(1, 0, NONE), (2, 0, NONE + "b")]
        put_get(s, b"two")
        assert s.stop() == 0


def test_staging_is_shared_with_rails():
    s = Server(sets=["memory.max_size=16MiB", "network.shards=1", f"rdma.devices=[{NONE}, {NONE}b]"])
    try:
        assert s.start(expect_fail=True) == 2
        assert "3 front processes (1 for TCP, 2 for rdma.devices, 0 for local.path) are too little" in s.log_tail()
    finally:
        s.close()
