"""Blocks over RDMA whose messages go by datagrams or by TCP (rdma_control). Runs in the guest of run-lab --nics 2."""
import random

import pytest

import lab
import mkv
import rdma
from harness import MIB, content

pytestmark = pytest.mark.skipif(len(rdma.NICS) < 2, reason="run-lab --nics 2")
SIZES = [1, 4097, 65537, 200000, MIB + 1]
STRIPED = 9 * MIB + 12345


@pytest.fixture(scope="module")
def served():
    with rdma.server(mode="memory") as s:
        rdma.wait_rails(s)
        yield s


class Loss:
    """Of twenty datagrams one is lost; they go between two addresses of this host, RoCE's packets do not."""

    def __enter__(self):
        lab.sh("tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "prio")
        lab.sh("tc", "qdisc", "add", "dev", "lo", "parent", "1:3", "handle", "30:", "netem", "loss", "5%")
        lab.sh("tc", "filter", "add", "dev", "lo", "parent", "1:", "protocol", "ip", "u32", "match", "ip", "protocol", "17", "0xff", "flowid", "1:3")
        return self

    def __exit__(self, *_):
        lab.sh("tc", "qdisc", "del", "dev", "lo", "root")


def blocks(served, c, rounds, sizes):
    """Round trips by a region, at odd addresses, with poison around."""
    rnd = random.Random(4)
    region = rdma.Region(c, 24 * MIB)
    for i in range(rounds):
        n = sizes[i % len(sizes)]
        key, off = b"c/%d" % (i % 7), rdma.GUARD + rnd.randrange(0, 5000)
        data = content(key, i, n)
        region.view[off:off + n] = data
        rdma.put_from(c, key, region, off, n)
        region.poison()
        off = rdma.GUARD + rnd.randrange(0, 5000)
        assert rdma.get_into(c, key, region, off, n + 100) == n
        assert region.view[off:off + n] == data, n
        assert region.untouched(off, off + n), n
    with pytest.raises(mkv.Miss) as e:
        c.get(b"never", 100)
    assert e.value.status == mkv.MISS and e.value.reason == mkv.REASON_NEVER
    region.free()


def counts(c):
    names = ("datagrams_sent", "datagrams_received", "datagrams_repeated", "control_fallovers", "fences", "protocol_errors", "rdma_failures")
    return {n: rdma.metric(c, f"memkv_client_{n}_total") for n in names}


def test_by_datagrams(served):
    before = served.metric_sum("memkv_front_datagrams_received_total")
    with rdma.client(served, rdma_control="udp") as c:
        blocks(served, c, 40, SIZES)
        n = counts(c)
        assert n["datagrams_received"] >= 60 and n["fences"] == n["protocol_errors"] == n["rdma_failures"] == 0, n
    assert served.metric_sum("memkv_front_datagrams_received_total") - before >= 60
    for why in ("malformed", "unknown", "foreign", "forged", "replayed"):
        assert served.metric_sum(f"memkv_front_datagrams_{why}_total") == 0, why


def test_parts_and_long_lists_of_pieces_go_by_the_tether(served):
    """Several parts, and more segments than a datagram of this path has room for."""
    with rdma.client(served, rdma_control="udp") as c:
        blocks(served, c, 2, [STRIPED])
        assert counts(c)["control_fallovers"] >= 2, counts(c)


def test_by_datagrams_of_which_some_are_lost(served):
    again = served.metric_sum("memkv_front_datagrams_repeated_total")
    with rdma.client(served, rdma_control="udp") as c, Loss():
        blocks(served, c, 150, SIZES[:4])
        n = counts(c)
        assert n["datagrams_repeated"] > 0 and n["fences"] == n["protocol_errors"] == n["rdma_failures"] == 0, n
    assert served.metric_sum("memkv_front_datagrams_repeated_total") > again


def test_by_tcp(served):
    before = served.metric_sum("memkv_front_datagrams_received_total")
    with rdma.client(served, rdma_control="tcp") as c:
        blocks(served, c, 40, SIZES + [STRIPED])
        n = counts(c)
        assert n["datagrams_sent"] == n["fences"] == n["protocol_errors"] == n["rdma_failures"] == 0, n
    assert served.metric_sum("memkv_front_datagrams_received_total") == before


def test_its_port_goes_down_and_up(served):
    """The rail breaks and comes back; no call is late, no byte wrong."""
    for control in ("udp", "tcp"):
        with rdma.client(served, "auto", rdma_control=control) as c:
            c.put(b"k", content(b"k", 1, 70000))
            rdma.link("port0", "down")
            for _ in range(10):
                assert c.get(b"k", 70000, 20) == content(b"k", 1, 70000)
            attached = rdma.metric(c, "memkv_client_rdma_attached_total")       # before it is back: the next try may be at once
            rdma.link("port0", "up")
            rdma.until(lambda: rdma.metric(c, "memkv_client_rdma_attached_total") > attached, 60)
            assert c.get(b"k", 70000, 20) == content(b"k", 1, 70000)
