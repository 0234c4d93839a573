"""Blocks over RDMA between two soft-RoCE devices. Runs in the guest of run-lab --nics 2."""
import os
import random

import pytest

import mkv
import rdma
from harness import MIB, Load, content

pytestmark = pytest.mark.skipif(len(rdma.NICS) < 2, reason="run-lab --nics 2")
SIZES = [1, 7, 4095, 4096, 4097, 65535, 65536, 65537, 200000, MIB - 1, MIB, MIB + 1, 3 * MIB + 5]
STRIPED = [4 * MIB + 1, 9 * MIB + 12345]


@pytest.fixture(scope="module", params=["memory", "file"])
def served(request):
    with rdma.server(mode=request.param) as s:
        rdma.wait_rails(s)
        yield s


def test_round_trips_by_a_region(served):
    """Every size, from and to odd addresses; not one byte outside of what was asked for; and it went by RDMA."""
    rnd = random.Random(4)
    with rdma.client(served) as c:
        region = rdma.Region(c, 24 * MIB)
        for n in SIZES + STRIPED:
            key, off = b"r/%d" % n, rdma.GUARD + rnd.randrange(0, 5000)
            data = content(key, 1, n)
            region.view[off:off + n] = data
            rdma.put_from(c, key, region, off, n)
            region.poison()
            off = rdma.GUARD + rnd.randrange(0, 5000)
            assert rdma.get_into(c, key, region, off, n + 100) == n
            assert region.view[off:off + n] == data, n
            assert region.untouched(off, off + n), n
        assert served.metric_sum("memkv_front_work_requests_total") > len(SIZES)
        region.free()


def test_ranges_write_nothing_else(served):
    rnd = random.Random(5)
    with rdma.client(served) as c:
        region = rdma.Region(c, 12 * MIB)
        for n in (100000, 2 * MIB + 77, 9 * MIB + 3):
            key = b"range/%d" % n
            data = bytes(content(key, 1, n))
            c.put(key, data)
            for _ in range(12):
                at, room = rnd.randrange(0, n), rnd.randrange(1, 300000)
                region.poison()
                off = rdma.GUARD + rnd.randrange(0, 5000)
                got = rdma.range_into(c, key, at, region, off, room)
                assert got == min(room, n - at)
                assert region.view[off:off + got] == data[at:at + got]
                assert region.untouched(off, off + got), (n, at, room)
        region.free()


def test_memory_of_no_region(served):
    with rdma.client(served) as c:
        for n in SIZES + STRIPED[:1]:
            key = b"m/%d" % n
            c.put(key, content(key, 1, n))
            assert c.get(key, n) == content(key, 1, n), n
        with pytest.raises(mkv.Miss) as e:
            c.get(b"never", 100)
        assert e.value.status == mkv.MISS and e.value.reason == mkv.REASON_NEVER
        assert c.match([b"m/1", b"m/7", b"never"]) == 2
        assert c.delete(b"m/1") == 0 and c.exists(b"m/1") == 0


def test_rdma_and_tcp_clients_share_a_server(served):
    """What one puts the other gets, at the same time."""
    loads = [Load(served.addr, f"mix{i}", keys=4, size=n) for i, n in enumerate((70000, MIB + 3, 5 * MIB))]
    kinds = ["rdma", "tcp", "rdma"]
    for ld, kind in zip(loads, kinds):
        ld.mkv = Dialer(served, kind)
        ld.start()
    rdma.until(lambda: all(ld.puts > 5 for ld in loads), 120)
    for ld in loads:
        ld.finish()
    with rdma.client(served, "tcp") as tcp, rdma.client(served) as by_rdma:
        for ld in loads:
            for c in (tcp, by_rdma):
                for k in ld.keys:
                    if ld.acked[k]:
                        ld.check(k, c.get(k, ld.size, 20), ld.acked[k], ld.tried[k])
            assert not ld.broken and not ld.wrong and not ld.lost and ld.put_errors == 0, (ld.broken, ld.wrong, ld.lost, ld.statuses)


class Dialer:
    """Stands for the module mkv in a Load: its clients are of one transport."""

    def __init__(self, s, transport, **kw):
        self.s, self.transport, self.kw, self.Miss, self.MISS = s, transport, kw, mkv.Miss, mkv.MISS

    def Client(self, _servers):
        return rdma.client(self.s, self.transport, **self.kw)


def test_rdma_is_loud_where_there_is_none():
    with rdma.server() as s:
        with pytest.raises(RuntimeError) as e:
            rdma.client(s, rdma_devices="nosuch0")
        assert "nosuch0" in str(e.value), e.value
    if os.path.exists("/sys/class/infiniband"):
        with rdma.server(nics=["nosuch1"]) as s:
            row = {n: r for n, r in s.status().items() if n.startswith("front:rdma:")}["front:rdma:nosuch1"]
            assert row["state"] in ("BACKOFF", "STARTING") and "nosuch1" in row["detail"], row
            with rdma.client(s, "tcp") as c:
                c.put(b"k", b"v" * 100)
                assert c.get(b"k", 100) == b"v" * 100
