"""
Fronts of RDMA devices that are there (soft-RoCE): listed, asked for, killed, deleted and brought back, while the rest of the server goes on.
"""
import os
import signal
import time

import pytest

import rdma
from harness import MIB, Load, Server, content
from wireclient import Wire

NICS = os.environ.get("LAB_NICS", "").split()
MODULE = os.path.join(os.environ.get("MEMKV_STAGE", ""), "lib", "libmemkv-rdma.so.0")
pytestmark = pytest.mark.skipif(not os.path.exists(MODULE), reason="built without rdma-core (Debian: libibverbs-dev)")
NAMES = [f"front:rdma:{n}" for n in NICS[:2]]


@pytest.fixture
def server():
    s = Server(sets=[f"rdma.devices=[{', '.join(NICS[:2])}]", "network.shards=1"], mode="memory", drive_bytes="64MiB")
    try:
        yield s.start(timeout=120)
    finally:
        s.close()


def wait_state(s, name, states, other_than=0, limit=60):
    end = time.monotonic() + limit
    while True:
        row = s.status_rows()[name]
        if row["state"] in states and row["pid"] != other_than:
            return row
        assert time.monotonic() < end, (row, s.log_tail(80))
        time.sleep(0.1)


def hello(s, rail=0):
    w = Wire("127.0.0.1", s.port, timeout=30)
    h = w.hello(rail=rail)
    return w, h


def listed(s):
    w, h = hello(s)
    w.close()
    assert h.status == 0
    return {int.from_bytes(r[0:2], "little"): int.from_bytes(r[2:4], "little") for r in w.rails}


def wait_listed(s, want, limit=60):
    end = time.monotonic() + limit
    while listed(s) != want:
        assert time.monotonic() < end, (listed(s), s.log_tail(80))
        time.sleep(0.1)


def test_a_session_by_each_rail(server):
    for name in NAMES:
        row = wait_state(server, name, ("RUNNING",))
        assert "user" in row["jail_missing"] and "seccomp" not in row["jail_missing"], row
    wait_listed(server, {1: 1, 2: 1})
    for n in (1, 2):
        w, h = hello(server, n)
        assert h.status == 0 and w.front_id == 1 + n
        assert w.connect() == 0
        assert w.put(b"key%d" % n, content(b"k", n, MIB)) == 0
        assert w.get(b"key%d" % n)[2] == content(b"k", n, MIB)
        w.close()
    assert server.metric_sum("memkv_front_rail_taken_total", process=NAMES[0]) == 1


def test_its_front_is_killed_under_load(server):
    rows = {n: wait_state(server, n, ("RUNNING",)) for n in (*NAMES, "front:tcp:0", "drive:0")}
    wait_listed(server, {1: 1, 2: 1})
    load = Load(server.addr, "w", size=64 << 10)
    load.start()
    for _ in range(3):
        pid = server.status_rows()[NAMES[0]]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_state(server, NAMES[0], ("RUNNING",), other_than=pid)
        wait_listed(server, {1: 1, 2: 1})
        w, h = hello(server, 1)
        assert h.status == 0 and w.connect() == 0 and w.ping()
        w.close()
    load.finish()
    assert not load.wrong and not load.lost and not load.broken, (load.wrong, load.lost, load.broken)
    assert load.puts > 0
    after = server.status_rows()
    assert {n: after[n]["pid"] for n in ("front:tcp:0", "drive:0", NAMES[1])} == {n: rows[n]["pid"] for n in ("front:tcp:0", "drive:0", NAMES[1])}


def test_its_device_is_deleted_and_comes_back(server):
    wait_state(server, NAMES[1], ("RUNNING",))
    wait_listed(server, {1: 1, 2: 1})
    with rdma.DeviceDeleted(NICS[1]):
        row = wait_state(server, NAMES[1], ("BACKOFF", "STARTING"))
        wait_listed(server, {1: 1, 2: 0})
        w, h = hello(server, 2)
        w.close()
        assert h.status == 7, "UNREACHABLE"
        time.sleep(3)
        row = server.status_rows()[NAMES[1]]
        assert row["state"] in ("BACKOFF", "STARTING") and NICS[1] in row["detail"], row
        assert server.status_rows()[NAMES[0]]["state"] == "RUNNING"
    wait_state(server, NAMES[1], ("RUNNING",))
    wait_listed(server, {1: 1, 2: 1})
