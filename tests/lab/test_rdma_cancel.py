"""
Gets and puts by RDMA that are cancelled, or whose deadline comes, while their bytes are on the way: once the completion is there the memory is the caller's,
and no byte of it changes any more; beside the places that were given none changes at all. Runs in the guest of run-lab --nics 2.
"""
import contextlib
import ctypes as C
import mmap
import random
import time

import pytest

import mkv
import rdma
from harness import MIB, content
from test_rdma_faults import FULL, front_pid, stopped

pytestmark = pytest.mark.skipif(len(rdma.NICS) < 2, reason="run-lab --nics 2")
SIZE = 12 * MIB + 4321
ENDS = (mkv.CANCELLED, mkv.TIMEOUT, SIZE)
LATE = 0.4                          # what is still on its way has come by then


@pytest.fixture(scope="module")
def served():
    with rdma.server() as s:
        rdma.wait_rails(s)
        with rdma.client(s) as c:
            c.put(b"big", content(b"big", 1, SIZE), 60)
        yield s


class Places:
    """Odd pieces of a region, as large as the value together; poison before, between and behind them."""

    def __init__(self, region, seed):
        rnd = random.Random(seed)
        self.region, self.pieces, off, left = region, [], rdma.GUARD, SIZE
        while left > 0:
            n = min(left, rnd.randrange(1, 3 * MIB))
            off += rnd.randrange(rdma.GUARD, 2 * rdma.GUARD)
            self.pieces.append((off, n))
            off, left = off + n, left - n
        assert off + rdma.GUARD < region.size and len(self.pieces) > 3

    def iov(self):
        return [(self.region.base + off, n) for off, n in self.pieces]

    def beside_untouched(self):
        """Every byte between them is poison still."""
        at = 0
        for off, n in self.pieces + [(self.region.size, 0)]:
            if not self.region.is_poison(at, off):
                return False
            at = off + n
        return True

    def take_back(self):
        """How much of the value had come; and the memory serves something else from now on, but what lies beside it."""
        part = reached(*(self.region.view[off:off + n] for off, n in self.pieces))
        for off, n in self.pieces:
            C.memset(self.region.base + off, rdma.POISON, n)
        return part

    def value(self):
        return b"".join(self.region.view[off:off + n].tobytes() for off, n in self.pieces)

    def put(self, data):
        at = 0
        for off, n in self.pieces:
            self.region.view[off:off + n] = data[at:at + n]
            at += n


def reached(*places):
    """How much of them is poison no longer, by a byte of each page: quickly, for nobody may be waited for before they are poisoned again."""
    samples = b"".join(p[::4099].tobytes() for p in places)
    return round(1.0 - samples.count(rdma.POISON) / len(samples), 2)


def usual(c, places, times=4):
    """Seconds that a get takes which nobody disturbs, but for the first, which may bring the rail up."""
    took = []
    for _ in range(times):
        places.region.poison()
        began = time.monotonic()
        number = c.submit(mkv.OP_GET, b"big", places.iov(), 60.0)
        assert c.completion() == (number, SIZE, 0)
        took.append(time.monotonic() - began)
        assert places.value() == content(b"big", 1, SIZE) and places.beside_untouched()
    return min(took[1:], default=None)


def cut(c, places, how, after):
    """One get that ends after so many seconds. (Its result, how much of the value had come.)"""
    places.region.poison()
    number = c.submit(mkv.OP_GET, b"big", places.iov(), after if how == "deadline" else 60.0)
    if how != "deadline":
        time.sleep(after)
        assert c.cancel(number) in (0, mkv.MISS)
    got = c.completion()
    part = places.take_back()
    assert got is not None and got[0] == number and got[1] in ENDS, got
    assert c.cancel(number) == mkv.MISS, "it has completed"
    return got[1], part


def still_poison(region):
    time.sleep(LATE)
    assert region.untouched(0, 0), "bytes came after the completion, or beside the places that were given"


def in_the_middle(ends):
    """How many ended with a part of their value there. One that has its end in hand when it is cancelled says so and has all."""
    print(ends)
    return sum(result != SIZE and 0.01 < part < 0.95 for result, part in ends)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_get_ends_in_the_middle(served, how):
    rnd = random.Random(11)
    with rdma.client(served) as c:
        region = rdma.Region(c, SIZE + 2 * MIB)
        places = Places(region, 1)
        takes, ends = usual(c, places), []
        for _ in range(60 if FULL else 8):
            ends.append(cut(c, places, how, takes * rnd.uniform(0.1, 0.9)))
            still_poison(region)
        print("takes", takes, "fences", rdma.metric(c, "memkv_client_fences_total"))
        assert in_the_middle(ends) >= 2, "so few ended in the middle that it shows nothing"
        usual(c, places, 1)
        region.free()
    rdma.free_again(served)


def test_a_get_is_cancelled_while_the_front_is_stopped(served):
    """Nobody answers the CANCEL. What the front had posted still goes on, so it is this side's fence alone that holds."""
    rnd = random.Random(12)
    with rdma.client(served) as c:
        region = rdma.Region(c, SIZE + 2 * MIB)
        places = Places(region, 2)
        takes, ends = usual(c, places), []
        for _ in range(30 if FULL else 4):
            places.region.poison()
            number = c.submit(mkv.OP_GET, b"big", places.iov(), 60.0)
            time.sleep(takes * rnd.uniform(0.1, 0.6))
            with stopped(front_pid_of(served)):
                began = time.monotonic()
                assert c.cancel(number) in (0, mkv.MISS)
                got = c.completion()
                ends.append((got[1], places.take_back()))
                took = time.monotonic() - began
                assert got[0] == number and got[1] in ENDS and took < 2.0, (got, took)
                still_poison(region)
            still_poison(region)
            usual(c, places, 1)
        fences = rdma.metric(c, "memkv_client_fences_total")
        print("takes", takes, "fences", fences)
        assert in_the_middle(ends) > 0 < fences, "nothing was fenced in the middle: this has shown nothing"
        region.free()
    rdma.free_again(served)


PIDS = {}


def front_pid_of(s):
    """Looked for once: that is a process, and takes longer than the get."""
    if s not in PIDS:
        PIDS[s] = front_pid(s)
    return PIDS[s]


@contextlib.contextmanager
def plain_memory(size):
    with mmap.mmap(-1, size) as m:
        mem = (C.c_uint8 * size).from_buffer(m)
        yield C.addressof(mem), memoryview(mem).cast("B")
        del mem


def test_a_handle_is_closed_in_the_middle(served):
    """Into memory that is no region: nothing reaches it once mkv_client_close() has returned."""
    rnd = random.Random(13)
    with rdma.client(served) as c:
        region = rdma.Region(c, SIZE + 2 * MIB)
        takes = usual(c, Places(region, 3))
        region.free()
    poison, parts = bytes([rdma.POISON]) * (SIZE + 2 * rdma.GUARD), []
    for _ in range(20 if FULL else 5):
        with plain_memory(len(poison)) as (address, view):
            view[:] = poison
            with rdma.client(served) as c:
                assert mkv.LIB.mkv_warm(c.p, 30 * mkv.SEC) == 0
                rdma.until(lambda: rdma.metric(c, "memkv_client_rail_sessions") > 0, 30)
                c.submit(mkv.OP_GET, b"big", [(address + rdma.GUARD, SIZE)], 60.0)
                time.sleep(takes * rnd.uniform(0.1, 0.8))
            parts.append((None, reached(view[rdma.GUARD:-rdma.GUARD])))
            C.memset(address + rdma.GUARD, rdma.POISON, SIZE)
            time.sleep(LATE)
            assert view.tobytes() == poison, "bytes came after the handle was closed, or beside its place"
            view.release()
    assert in_the_middle(parts) > 0, "none was in the middle: this has shown nothing"
    rdma.free_again(served)


def test_a_put_is_cancelled_and_its_memory_used_again(served):
    """What the key has afterwards is the value before or the new one: nothing of what the memory served for since."""
    rnd = random.Random(14)
    with rdma.client(served) as c:
        region = rdma.Region(c, SIZE + 2 * MIB)
        places, have, results = Places(region, 4), {0: None}, []
        usual(c, places)
        places.put(content(b"put", 0, SIZE))
        began = time.monotonic()
        c.submit(mkv.OP_PUT, b"put", places.iov(), 60.0)
        assert c.completion()[1] == 0
        takes = time.monotonic() - began
        for v in range(1, 41 if FULL else 11):
            places.put(content(b"put", v, SIZE))
            number = c.submit(mkv.OP_PUT, b"put", places.iov(), 60.0)
            time.sleep(takes * rnd.uniform(0.05, 0.9))
            c.cancel(number)
            got = c.completion()
            region.poison()
            assert got[0] == number and got[1] in (0, mkv.CANCELLED), got
            results.append(got[1])
            have = {v: None} if got[1] == 0 else {**have, v: None}
            number = c.submit(mkv.OP_GET, b"put", places.iov(), 60.0)
            assert c.completion() == (number, SIZE, 0)
            value = places.value()
            have = {x: None for x in have if value == content(b"put", x, SIZE)}
            assert have, f"version {v}: neither the value before nor the new one"
        print(results)
        assert mkv.CANCELLED in results
        region.free()
    rdma.free_again(served)
