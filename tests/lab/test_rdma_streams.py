"""
Puts in parts of clients that have RDMA: the parts go by a connection (docs/internals/rdma.md says why), what is got of them goes by RDMA. Runs in the guest of
run-lab --nics 2.
"""
import time

import pytest

import mkv
import rdma
from harness import MIB, content
from test_rdma_faults import Cut

pytestmark = pytest.mark.skipif(len(rdma.NICS) < 2, reason="run-lab --nics 2")
TOLD = 0.6           # a front tells its counts twice a second
BIG = 13 * MIB + 4321        # more than three parts of the server


@pytest.fixture(scope="module")
def served():
    with rdma.server() as s:
        rdma.wait_rails(s)
        yield s


def feed(stream, data, begin, end, step=700001):
    for at in range(begin, end, step):
        stream.part(data[at:min(at + step, end)], 30)


def stored(c, key, size):
    return c.get(key, size, 30) == content(key, 1, size)


def wait_live(c, up, timeout=60):
    rdma.until(lambda: (rdma.metric(c, "memkv_client_rail_sessions") > 0) == up, timeout)


def put_whole(c, key, size):
    with c.put_stream(key, 30) as st:
        feed(st, content(key, 1, size), 0, size)
        st.commit(30)


@pytest.mark.parametrize("transport", ["rdma", "auto"])
def test_round_trips(served, transport):
    with rdma.client(served, transport) as c:
        mkv.LIB.mkv_warm(c.p, 30 * mkv.SEC)
        for n in (0, 1, 70000, 4 * MIB, 4 * MIB + 1, BIG):
            key = b"%s/%d" % (transport.encode(), n)
            put_whole(c, key, n)
            time.sleep(TOLD)
            before = served.metric_sum("memkv_front_work_requests_total")
            assert stored(c, key, n), n
            if n != 0:                  # it came by RDMA
                rdma.until(lambda: served.metric_sum("memkv_front_work_requests_total") > before)
        with c.put_stream(b"given up", 30) as st:
            feed(st, bytes(BIG), 0, BIG)
        assert c.exists(b"given up") == 0


def test_the_loss_of_rdma_costs_it_nothing(served):
    """In the middle of it the rail breaks, it goes on and is committed, and after the return of the rail is got by it."""
    data = content(b"cut", 1, BIG)
    with rdma.client(served, "auto") as c:
        mkv.LIB.mkv_warm(c.p, 30 * mkv.SEC)
        put_whole(c, b"other", 70000)
        with c.put_stream(b"cut", 30) as st:
            feed(st, data, 0, 5 * MIB)
            with Cut():
                assert stored(c, b"other", 70000)
                wait_live(c, False)
                feed(st, data, 5 * MIB, BIG)
                st.commit(30)
                assert stored(c, b"cut", BIG)
        wait_live(c, True)
        assert stored(c, b"cut", BIG)


@pytest.mark.parametrize("what", ["nic0", "nic1"])
def test_a_link_goes_down_in_the_middle(served, what):
    """TCP is cut off with it: the put ends well or, with its connection, CLOSED or late; then nothing of it is seen."""
    key = b"link/" + what.encode()
    data = content(key, 1, BIG)
    with rdma.client(served, "auto") as c:
        mkv.LIB.mkv_warm(c.p, 30 * mkv.SEC)
        with c.put_stream(key, 30) as st:
            feed(st, data, 0, 5 * MIB)
            with rdma.LinkDown(what):
                time.sleep(1.5)
            try:
                feed(st, data, 5 * MIB, BIG)
                st.commit(30)
                there = True
            except mkv.Miss as e:
                assert e.status in (mkv.CLOSED, mkv.TIMEOUT, mkv.UNREACHABLE), e
                there = False
        print(what, "committed" if there else "lost")
        rdma.until(lambda: c.exists(b"nothing") == 0, 60)
        assert stored(c, key, BIG) if there else c.exists(key) == 0
        wait_live(c, True)
        put_whole(c, key, BIG)
        assert stored(c, key, BIG)


def refusal(c, key):
    with pytest.raises(mkv.Miss) as e:
        put_whole(c, key, BIG)
    return e.value.status


def test_transport_rdma_says_so(served):
    """While no rail works none begins; one that has begun goes on."""
    data = content(b"loud", 1, BIG)
    with rdma.client(served, "rdma") as c:
        put_whole(c, b"other", 70000)
        with c.put_stream(b"loud", 30) as st:
            feed(st, data, 0, 5 * MIB)
            with Cut():
                with pytest.raises(mkv.Miss):
                    c.get(b"other", 70000, 30)
                wait_live(c, False)
                assert refusal(c, b"not begun") == mkv.UNREACHABLE
                feed(st, data, 5 * MIB, BIG)
                st.commit(30)
        wait_live(c, True)
        assert stored(c, b"loud", BIG)
        assert c.exists(b"not begun") == 0
        put_whole(c, b"not begun", BIG)
    with rdma.server(sets=["rdma.devices=[]"]) as s, rdma.client(s, "rdma") as c:
        assert refusal(c, b"no rails") == mkv.UNSUPPORTED
