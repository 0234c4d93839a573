"""
One of two servers is dead, or stopped as a whole, under clients by RDMA: calls to it end inside their deadlines, after a few of them at once, those to the
other go on as ever; and when it is back its values go by RDMA again. Runs in the guest of run-lab --nics 2.
"""
import contextlib
import os
import signal
import statistics
import time

import pytest

import mkv
import rdma
from harness import FULL, content
from test_rdma_load import HANGS

pytestmark = pytest.mark.skipif(len(rdma.NICS) < 2, reason="run-lab --nics 2")
N, ROOM = 300000, 400000
DEADLINE = 1.0
DOWN, LATE = 9, 7               # reasons


@pytest.fixture(scope="module")
def two():
    with rdma.server(mode="file", drives=1) as a, rdma.server(mode="file", drives=1) as b:
        for s in (a, b):
            rdma.wait_rails(s)
            s.pin_ports()
        yield a, b


def split(c, n=24):
    """Keys of each server, put."""
    keys = ([], [])
    for i in range(n):
        k = b"dead/%d" % i
        keys[c.server_of(k)].append(k)
        c.put(k, content(k, 1, N), 60)
    assert min(map(len, keys)) > 3
    return keys


def killed(s):
    s.kill()
    yield
    s.start(timeout=180)


def stopped(s):
    """Its supervisor first, which would end a child that is silent."""
    pids = s.all_pids()
    for p in pids:
        os.kill(p, signal.SIGSTOP)
    yield
    for p in reversed(pids):
        os.kill(p, signal.SIGCONT)


def one_get(c, key, region):
    """(Status, reason, seconds). What came is right, and what did not come in time never does."""
    region.poison()
    began = time.monotonic()
    try:
        n, status, reason = rdma.get_into(c, key, region, rdma.GUARD, ROOM, DEADLINE), 0, 0
    except mkv.Miss as e:
        n, status, reason = 0, e.status, e.reason
    took = time.monotonic() - began
    if status == 0:
        assert region.view[rdma.GUARD:rdma.GUARD + n] == content(key, 1, N)
        assert region.untouched(rdma.GUARD, rdma.GUARD + n)
    else:
        region.poison()
        time.sleep(0.01)
        assert region.untouched(0, 0)
    return status, reason, took


def one_put(c, key):
    began = time.monotonic()
    try:
        c.put(key, content(key, 1, N), DEADLINE)
        status = 0
    except mkv.Miss as e:
        status = e.status
    return status, time.monotonic() - began


def while_dead(c, keys, dead, region, seconds=12.0):
    """Calls to both in turn; what was heard of each."""
    gets, puts, others, end = [], [], [], time.monotonic() + seconds
    while time.monotonic() < end:
        for k, other in zip(keys[dead], keys[1 - dead]):
            gets.append(one_get(c, k, region))
            puts.append(one_put(c, k))
            others.append(one_get(c, other, region))
    return gets, puts, others


def check_dead(gets, puts, others):
    late = max(t for _, _, t in gets + [(0, 0, t) for _, t in puts] + others) - DEADLINE
    heard = {(status, reason) for status, reason, _ in gets}
    print(f"{len(gets)} gets: {heard}, median {statistics.median(t for _, _, t in gets) * 1e3:.1f} ms; latest {late * 1e3:.1f} ms behind its deadline")
    assert late < HANGS
    assert heard <= {(mkv.TIMEOUT, LATE), (mkv.MISS, DOWN)} and (mkv.MISS, DOWN) in heard, heard
    assert {status for status, _ in puts} <= {mkv.TIMEOUT, mkv.UNREACHABLE}, puts
    assert statistics.median(t for _, _, t in gets) < DEADLINE / 2, "its keys cost time all the while"
    served = [t for status, _, t in others if status == 0]
    assert len(served) >= 0.9 * len(others), [o for o in others if o[0] != 0]


def wait_back(c, keys, name, region):
    """Its values by RDMA, nothing of the breaker left."""
    rdma.until(lambda: all(one_get(c, k, region)[0] == 0 for k in keys), 90)
    assert rdma.metric(c, "memkv_client_rail_sessions", server=name) > 0
    rdma.until(lambda: rdma.metric(c, "memkv_client_breaker_state", server=name) == 0, 30)
    for k in keys:
        assert one_get(c, k, region)[0] == 0, k


WAYS = [("rdma", killed), ("rdma", stopped)] + [("auto", killed), ("auto", stopped)] * FULL


@pytest.mark.parametrize("transport, how", WAYS, ids=lambda x: getattr(x, "__name__", x))
def test_one_of_two_servers_is_dead(two, transport, how):
    names = ",".join(f"n{i}={s.addr}" for i, s in enumerate(two))
    with mkv.Client(names, transport=transport, auth_key=rdma.KEY, rdma_devices=rdma.NICS[0]) as c:
        region = rdma.Region(c, ROOM + 2 * rdma.GUARD)
        keys = split(c)
        for d in (0, 1):
            wait_back(c, keys[d], f"n{d}", region)
        with contextlib.contextmanager(how)(two[1]):
            check_dead(*while_dead(c, keys, 1, region))
            assert rdma.metric(c, "memkv_client_breaker_opened_total") > 0 < rdma.metric(c, "memkv_client_breaker_refused_total")
        wait_back(c, keys[1], "n1", region)
        region.free()
