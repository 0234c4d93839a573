"""What fails under blocks that go by RDMA, and that nothing wrong comes of it. Runs in the guest of run-lab --nics 2."""
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

import lab
import mkv
import rdma
from harness import MIB, Load, content
from test_rdma_blocks import Dialer

pytestmark = pytest.mark.skipif(len(rdma.NICS) < 2, reason="run-lab --nics 2")
FULL = os.environ.get("MEMKV_TEST_FULL") == "1"

CHILD = """
import sys
sys.path[:0] = {path!r}
import rdma, mkv
from harness import content
class S: addr = {addr!r}
with rdma.client(S, {transport!r}) as c:
    region = rdma.Region(c, 8 << 20)
    print("up", flush=True)
    wrong = 0
    while True:
        n = rdma.get_into(c, b"big", region, 4096, 4 << 20, 30)
        wrong += region.view[4096:4096 + n] != content(b"big", 1, 4 << 20)
        print("wrong" if wrong else "good", flush=True)
"""


@pytest.fixture
def served():
    with rdma.server() as s:
        rdma.wait_rails(s)
        yield s


def child_of(s, transport="rdma"):
    code = CHILD.format(path=[p for p in sys.path if "tests" in p], addr=s.addr, transport=transport)
    p = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert p.stdout.readline() == "up\n"
    return p


def storm(s, transport="auto", sizes=(70000, MIB, 5 * MIB), deadline=20.0, devices=rdma.NICS[0] if rdma.NICS else ""):
    loads = [Load(s.addr, f"s{transport}{i}", keys=4, size=n, deadline=deadline) for i, n in enumerate(sizes)]
    for ld in loads:
        ld.mkv = Dialer(s, transport, rdma_devices=devices)
        ld.start()
    rdma.until(lambda: all(ld.puts > 2 for ld in loads), 120)
    return loads


def moves_on(loads, more=3, timeout=120):
    before = [ld.puts for ld in loads]
    rdma.until(lambda: all(ld.puts >= b + more for ld, b in zip(loads, before)), timeout)


def none_failed(s, loads, errors=False):
    for ld in loads:
        assert not ld.broken and not ld.wrong and not ld.lost and ld.late == 0, (ld.broken, ld.wrong, ld.lost, ld.late, s.log_tail())
        assert errors or (ld.put_errors == 0 and ld.misses == 0), (ld.statuses, s.log_tail())


def all_good(s, loads, errors=False):
    for ld in loads:
        ld.finish()
    with rdma.client(s, "tcp") as c:
        for ld in loads:
            for k in ld.keys:
                if ld.acked[k]:
                    ld.check(k, c.get(k, ld.size, 20), ld.acked[k], ld.tried[k])
    none_failed(s, loads, errors)


class Cut:
    """RoCE's packets (UDP) to the server's node are lost, TCP's are not."""

    def __enter__(self):
        port = "port1"
        lab.sh("tc", "qdisc", "add", "dev", port, "root", "handle", "1:", "prio")
        lab.sh("tc", "qdisc", "add", "dev", port, "parent", "1:3", "handle", "30:", "netem", "loss", "100%")
        lab.sh("tc", "filter", "add", "dev", port, "parent", "1:", "protocol", "ip", "u32", "match", "ip", "protocol", "17", "0xff", "flowid", "1:3")
        return self

    def __exit__(self, *_):
        lab.sh("tc", "qdisc", "del", "dev", "port1", "root")


def test_auto_goes_down_and_up_again_without_an_error(served):
    """Rounds of a fabric that loses RDMA and brings it back: every call of `auto` is answered well inside its deadline, by TCP meanwhile."""
    loads = storm(served, deadline=10.0)
    began = time.monotonic()
    for i in range(100 if FULL else 3):
        print(f"round {i} after {time.monotonic() - began:.0f} s", flush=True)          # how far it came, should it be cut off (pytest -s)
        down = [rdma.metric(ld.client, "memkv_client_rdma_downgrades_total") for ld in loads]
        with Cut():
            rdma.until(lambda: all(rdma.metric(ld.client, "memkv_client_rdma_downgrades_total") > d for ld, d in zip(loads, down)), 60)
            moves_on(loads, 2)         # the second put of each began after that
            up = [rdma.metric(ld.client, "memkv_client_rdma_upgrades_total") for ld in loads]    # before it is back: the next try may be at once
        rdma.until(lambda: all(rdma.metric(ld.client, "memkv_client_rdma_upgrades_total") > u for ld, u in zip(loads, up)), 90)
        moves_on(loads, 2)
        none_failed(served, loads)
    all_good(served, loads)


@pytest.mark.parametrize("what", ["nic0", "port1", "nic1"])
def test_a_link_goes_down_and_comes_back(served, what):
    """The client's own, the far side of the server's, the server's own: TCP is cut off with it, so calls may miss meanwhile; then all is as before."""
    loads = storm(served)
    with rdma.LinkDown(what):
        time.sleep(3)
    moves_on(loads)
    up = lambda ld: rdma.metric(ld.client, "memkv_client_rail_sessions") > 0    # noqa: E731
    rdma.until(lambda: all(up(ld) for ld in loads), 90)
    all_good(served, loads, errors=True)


def test_loss_and_reordering(served):
    for how in (["loss", "1%"], ["delay", "1ms", "reorder", "95%", "50%"]):
        for port in ("port0", "port1"):
            lab.sh("tc", "qdisc", "add", "dev", port, "root", "netem", *how)
        loads = storm(served, deadline=30.0)
        moves_on(loads, 5, 300)
        for port in ("port0", "port1"):
            lab.sh("tc", "qdisc", "del", "dev", port, "root")
        all_good(served, loads)


def test_a_client_is_stopped_and_killed_in_the_middle(served):
    """Others go on, the stopped one goes on when it is woken, and what a killed one had is free again."""
    with rdma.client(served) as c:
        c.put(b"big", content(b"big", 1, 4 * MIB))
    loads = storm(served, "rdma", sizes=(70000, MIB))
    stopped, killed = child_of(served), child_of(served)
    for p in (stopped, killed):
        assert p.stdout.readline() == "good\n"
    os.kill(stopped.pid, signal.SIGSTOP)
    killed.kill()
    killed.wait(10)
    time.sleep(3)
    moves_on(loads)
    os.kill(stopped.pid, signal.SIGCONT)
    for _ in range(3):
        assert stopped.stdout.readline() == "good\n"
    stopped.kill()
    stopped.wait(10)
    all_good(served, loads)
    assert served.status()["front:rdma:" + rdma.NICS[1]]["restarts"] == 0, served.log_tail()
    free = lambda: served.metric_sum("memkv_front_stage_free_bytes") == served.metric_sum("memkv_front_stage_bytes")    # noqa: E731
    rdma.until(free, 60)


def front_pid(s):
    return s.status()["front:rdma:" + rdma.NICS[1]]["pid"]


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def killed(pid):
    os.kill(pid, signal.SIGKILL)
    yield


def cut_off(_pid):
    return rdma.LinkDown("port1")


# Deaths in a row make a front FATAL. A longer get, so that the cut comes in the middle of it.
@pytest.mark.parametrize("how, rounds, size, deadline", [(stopped, 8, 8 * MIB, 0.5), (killed, 2, 8 * MIB, 0.5), (cut_off, 3, 40 * MIB, 4.0)], ids=["stopped", "killed", "cut_off"])
def test_no_byte_after_the_call_has_returned(served, how, rounds, size, deadline):
    """The front is stopped, killed or cut off somewhere in the middle of a get: the call ends at its deadline, and when the front goes on nothing reaches the memory."""
    rnd = random.Random(7)
    with rdma.client(served) as c:
        region = rdma.Region(c, size + 2 * MIB)
        c.put(b"big", content(b"big", 1, size), 60)
        assert rdma.get_into(c, b"big", region, 4096, size, 60) == size
        timed_out = 0
        for _ in range(4 * rounds if FULL and how is not killed else rounds):
            pid = front_pid(served)
            got = []
            t = threading.Thread(target=lambda: got.append(attempt(c, region, size, deadline)))
            t.start()
            time.sleep(rnd.uniform(0, 0.25))
            with how(pid):
                t.join(30)
                assert got and not t.is_alive()
                region.poison()
            time.sleep(1.0)
            assert region.untouched(0, 0), "bytes landed after the call had returned"
            timed_out += got[0] < 0
            rdma.until(lambda: works(c, region, size), 60)
        assert timed_out > 0, "no call was cut off: this test has shown nothing"
        region.free()


def attempt(c, region, size, deadline):
    try:
        return rdma.get_into(c, b"big", region, 4096, size, deadline)
    except mkv.Miss as e:
        return e.status


def works(c, region, size):
    try:
        ok = rdma.get_into(c, b"big", region, 4096, size, 20) == size
        return ok and region.view[4096:4096 + size] == content(b"big", 1, size)
    except mkv.Miss:
        return False


def test_its_device_is_deleted_under_load(served):
    """The command returns, since the front notices, drains and ends; `auto` goes on by TCP without an error, and by RDMA when there is a device again."""
    loads = storm(served)
    with rdma.DeviceDeleted(rdma.NICS[1]):
        moves_on(loads)
    up = lambda ld: rdma.metric(ld.client, "memkv_client_rail_sessions") > 0    # noqa: E731
    rdma.until(lambda: all(up(ld) for ld in loads), 120)
    moves_on(loads)
    all_good(served, loads)


def test_a_killed_front_costs_a_reconnect(served):
    loads = storm(served)
    for _ in range(2):
        os.kill(front_pid(served), signal.SIGKILL)
        moves_on(loads)
        rdma.wait_rails(served)
    all_good(served, loads)


def test_of_two_rails_one_fails():
    """Values are spread over both rails of a server; with one of them down the other has all, without an error, and both again when it is back."""
    with rdma.server(nics=rdma.NICS) as s:
        rdma.wait_rails(s, 2)
        loads = storm(s, devices=",".join(rdma.NICS))
        live = lambda n: all(rdma.metric(ld.client, "memkv_client_rail_sessions", rail=str(r)) > 0 for ld in loads for r in n)    # noqa: E731
        sent = lambda nic: s.metric_sum("memkv_front_work_requests_total", process="front:rdma:" + nic)    # noqa: E731
        rdma.until(lambda: live((1, 2)), 60)
        before = [sent(nic) for nic in rdma.NICS]
        moves_on(loads)
        rdma.until(lambda: all(sent(nic) > b for nic, b in zip(rdma.NICS, before)), 30)
        with rdma.LinkDown("nic0"):
            rdma.until(lambda: all(rdma.metric(ld.client, "memkv_client_rail_sessions", rail="1") == 0 for ld in loads), 60)
            moves_on(loads)
            assert live((2,))
        rdma.until(lambda: live((1, 2)), 120)
        all_good(s, loads)
