"""
Clients over RDMA that are wrong or mean, one after the other, while good ones go on without an error: what the front says of each, that it gives away nothing, and
that the wrong one's own session can go on. Runs in the guest of run-lab --nics 2.
"""
import json
import os
import random
import re
import subprocess
import time

import pytest

import mkv
import rdma
from harness import MIB, content
from rdma_wire import ACCESS, INVALID_REQUEST, NO_ANSWER, OPERATION, PEER, SUCCESS, Peer, Session
from test_rdma_faults import FULL, all_good, front_pid, moves_on, storm
from wireclient import EXISTS, PING, PROTO, Wire

pytestmark = pytest.mark.skipif(len(rdma.NICS) < 2 or not os.path.exists(PEER), reason="run-lab --nics 2, and a build with rdma-core")
# The front ends the queue pair when it hears of what came, and a soft device may not have sent its refusal by then: NO_ANSWER.
REFUSED = (INVALID_REQUEST, ACCESS, OPERATION, NO_ANSWER)
HALF = 8 * MIB          # of the peer's memory: registered; the rest is not
NO_LEAVE = "does not let us at that memory"


@pytest.fixture(scope="module")
def served():
    with rdma.server() as s:
        rdma.wait_rails(s)
        yield s


@pytest.fixture(scope="module")
def good(served):
    """Of two loads by RDMA, from the first test to the last."""
    loads = storm(served, "rdma", sizes=(70000, MIB))
    for ld in loads:
        ld.pause = 0.1          # the processors are the others', too
    yield loads
    moves_on(loads)
    all_good(served, loads)
    assert served.status()["front:rdma:" + rdma.NICS[1]]["restarts"] == 0, served.log_tail()


@pytest.fixture
def peer(good):
    with Peer() as p:
        p.register(0, HALF)
        yield p
    moves_on(good, 1)


class Named:
    """Within: one channel breaks at the front, for a reason with one of these words; and the metric, if one is named, counts one."""

    def __init__(self, s, *words, metric=None, wait=20):
        self.s, self.words, self.metric, self.wait, self.why = s, words, metric, wait, None

    def state(self):
        broken = self.s.metric_sum("memkv_front_channels_broken_total")
        return broken, self.metric and self.s.metric_sum(self.metric)

    def __enter__(self):
        self.before, self.at = self.state(), os.path.getsize(self.s.log)
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            rdma.until(self.told, self.wait)

    def told(self):
        with open(self.s.log, errors="replace") as f:
            f.seek(self.at)
            why = re.findall(r"event=channel_broken .*?why=(.*)", f.read())
        broken, counted = self.state()
        assert len(why) <= 1 and broken <= self.before[0] + 1, why
        if not why or broken == self.before[0]:
            return False
        assert any(w in why[0] for w in self.words), why
        self.why = why[0]
        return self.metric is None or counted == self.before[1] + 1


def goes_on(s):
    """The session, by its tether and by a new channel."""
    assert s.ping()
    chan = s.attach()
    data = content(b"goes on", s.channel, 100000)
    assert chan.put(b"goes on", data) == 0 and chan.get(b"goes on", 200000, MIB) == (0, data)
    return chan


def bad_segments(p):
    return {"wrong key": [(p.address, MIB, p.rkey ^ 0x5a00)], "no key": [(p.address, MIB, 0)], "before": [(p.address - 4096, MIB, p.rkey)],
            "over the end": [(p.address + HALF - MIB // 2, MIB, p.rkey)], "behind": [(p.address + HALF, MIB, p.rkey)],
            "second of two": [(p.address, MIB - 4096, p.rkey), (p.address + HALF, 4096, p.rkey)]}


@pytest.mark.parametrize("what", ["wrong key", "no key", "before", "over the end", "behind", "second of two"])
def test_memory_that_is_not_given(served, peer, what):
    data = content(b"given", 1, MIB)
    s = Session(served, peer)
    chan = goes_on(s)
    assert chan.put(b"given", data) == 0
    segs = bad_segments(peer)[what]
    with Named(served, NO_LEAVE):
        chan.post(chan.put_frame(b"not given", data, segs))
    chan = goes_on(s)
    peer.view[:] = bytes([rdma.POISON]) * len(peer.view)
    with Named(served, NO_LEAVE):
        chan.post(chan.get_frame(b"given", segs))
    end = MIB - 4096 if what == "second of two" else 0
    assert bytes(peer.view[end:]).count(rdma.POISON) == len(peer.view) - end
    goes_on(s)
    with rdma.client(served) as c:
        assert c.exists(b"not given") == 0
    s.close()


def test_memory_is_withdrawn_in_the_middle(served, peer):
    """Nothing lands after the call that withdrew it, nothing of a half-read put is stored."""
    rnd, cut = random.Random(3), {"put": 0, "get": 0}
    s = Session(served, peer)
    n = min(s.part_bytes, 4 * MIB)
    data = content(b"withdrawn", 1, n)
    chan = s.attach()
    assert chan.put(b"withdrawn", data) == 0
    for i in range(40):
        op = "put" if cut["put"] <= cut["get"] else "get"
        peer.view[:n] = data if op == "put" else bytes([rdma.POISON]) * n
        broken = served.metric_sum("memkv_front_channels_broken_total")
        key = b"half %d" % i
        chan.post(chan.put_frame(key, data, [chan.seg(0, n)]) if op == "put" else chan.get_frame(b"withdrawn", [chan.seg(0, n)]))
        time.sleep(rnd.uniform(0, 0.1))
        peer.deregister()
        left = bytes(peer.view[:n])
        came = chan.take(1.0)
        peer.register(0, HALF)
        time.sleep(0.2)
        assert peer.view[:n] == left, "bytes landed in memory that had been withdrawn"
        if came is not None:
            assert came[0].status == 0 and (op == "put" or left == data)
            continue
        cut[op] += 1
        rdma.until(lambda: served.metric_sum("memkv_front_channels_broken_total") == broken + 1, 10)
        assert NO_LEAVE in served.log_tail(3)
        with rdma.client(served) as c:
            assert op == "get" or c.exists(key) == 0
        chan = s.attach()
        if min(cut.values()) == 2:
            break
    assert min(cut.values()) == 2, "never in the middle: this test has shown nothing"
    s.close()


def refused_sends():
    """Of the front's device: how often it heard that no receive is posted, and how many queue pairs it ended for that."""
    return [rdma.hw_counter(rdma.NICS[1], name) for name in ("rcvd_rnr_err", "retry_rnr_exceeded_err")]


def ask_without_receives(served, peer):
    """1: the device ended the queue pair, as it has to. 0: it left off trying (docs/internals/rdma.md, "Left off"), and the front ended it."""
    s = Session(served, peer)
    chan = s.attach(receives=0)
    data = content(b"no receives", 1, 100000)
    peer.view[:len(data)] = data
    (heard, ended), began = refused_sends(), time.monotonic()
    with Named(served, "posts no receives", "network.stall_timeout", wait=150) as told:
        for _ in range(chan.credits):
            chan.post(chan.put_frame(b"no receives", data, [chan.seg(0, len(data))]))
    took = time.monotonic() - began
    heard, ended = [after - before for after, before in zip(refused_sends(), (heard, ended))]
    if ended:
        assert "posts no receives" in told.why and took < 10, (told.why, took)
    else:
        assert "network.stall_timeout" in told.why and 0 < heard < 7, (told.why, took, heard)
    goes_on(s)
    s.close()
    return ended


def test_no_receives(served, peer):
    """Asked much, took no answer: its queue pair ends soon, nobody else waits for it."""
    assert any(ask_without_receives(served, peer) for _ in range(4)), "never by the device's word: this test has shown nothing"


def keys_of_the_front(served):
    """What no client can know: the keys of all memory that the front has registered, as the kernel tells root."""
    out = subprocess.run(["rdma", "resource", "show", "mr", "dev", rdma.NICS[1], "-j", "-dd"], capture_output=True, text=True, timeout=30, check=True).stdout
    return [int(m["lkey"], 16) if isinstance(m["lkey"], str) else m["lkey"] for m in json.loads(out) if m.get("pid") == front_pid(served)]


def shared_maps(pid):
    """(begin, bytes) of what the front shares with others: staging, arenas, receives."""
    out = []
    with open(f"/proc/{pid}/maps") as f:
        for line in f:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw-s", line)
            if m:
                out.append((int(m[1], 16), int(m[2], 16) - int(m[1], 16)))
    return sorted(out, key=lambda x: -x[1])


def memory_at(pid, at, n):
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as f:
        f.seek(at)
        return f.read(n)


def test_the_servers_memory_cannot_be_reached(served, peer):
    """Even by who knows addresses and keys of it. The bytes of the last page of each map are looked at: the loads do not get so far."""
    pid, keys = front_pid(served), keys_of_the_front(served)
    assert len(keys) >= 3, keys
    tried = 0
    s = Session(served, peer)
    for at, size in shared_maps(pid)[:None if FULL else 2]:
        at += size - 4096
        before = memory_at(pid, at, 4096)
        for key in keys[:None if FULL else 3] + [0]:
            for what in ("write", "read"):
                chan = s.attach()
                peer.view[:4096] = bytes([rdma.POISON]) * 4096
                with Named(served, "the device ended it"):
                    status = chan.remote(what, 4096, at, key)
                assert status in REFUSED, (what, status)
                assert bytes(peer.view[:4096]).count(rdma.POISON) == 4096
                chan.close()
                tried += 1
        assert memory_at(pid, at, 4096) == before
    goes_on(s)
    s.close()
    print(f"{tried} READs and WRITEs of the front's memory refused")


def test_a_message_longer_than_the_receive(served, peer):
    s = Session(served, peer)
    chan = s.attach()
    # Told by the receive, and by the device's event, whichever the front hears first; mlx5 would say so in other words.
    with Named(served, "did not fit", "the device ended it"):
        assert chan.send(bytes(8192)) in REFUSED
    goes_on(s)
    s.close()


def test_frames_that_are_not_in_order(served, peer):
    """Sent twice, one left out, those of another channel, changed on the way: each costs the channel, and none is carried out."""
    auth = "memkv_front_auth_failures_total"
    s = Session(served, peer)
    chan = goes_on(s)
    frame = chan.frame(PING)
    assert chan.send(frame) == SUCCESS and chan.take()[0].status == 0
    old = frame
    with Named(served, "AUTH", metric=auth):
        chan.post(frame)
    chan = goes_on(s)
    with Named(served, "AUTH", metric=auth):
        chan.counter += 1
        chan.post(chan.frame(PING))
    chan = goes_on(s)
    with Named(served, "AUTH", metric=auth):
        chan.post(old)
    chan = s.attach()
    data = content(b"changed", 1, 4096)
    frame = bytearray(chan.put_frame(b"changed", data, [chan.seg(0, len(data))]))
    frame[-16] ^= 8             # in the address of its segment
    with Named(served, "AUTH", metric=auth):
        chan.post(bytes(frame))
    goes_on(s)
    with rdma.client(served) as c:
        assert c.exists(b"changed") == 0
    s.close()


def test_messages_that_are_none(served, peer):
    bad = "memkv_front_bad_frames_total"
    rnd = random.Random(11)
    s = Session(served, peer)
    for n in (1, 95, 96, 4096):
        chan = s.attach()
        with Named(served, "PROTO", metric=bad):
            chan.post(rnd.randbytes(n))
    chan = s.attach()
    with Named(served, "PROTO", metric=bad):
        chan.post(chan.frame(EXISTS, Wire.keys_body([b"k"])))           # lists go by the tether
    chan = s.attach()
    for segs in ([(peer.address, 0, peer.rkey)], [(2**64 - 8, 4096, peer.rkey)], [chan.seg(0, 4095)], []):
        chan.post(chan.put_frame(b"k", bytes(4096), segs))
        assert chan.take()[0].status == PROTO, segs
    goes_on(s)
    s.close()


def test_a_slow_reader(served, good, peer):
    """Asks for much and takes an answer a second: all of them come, in order, and are right; nobody else waits for it."""
    s = Session(served, peer)
    chan = s.attach(receives=1, timer=31, room=8)           # 0.5 s a try: the longest that there is
    data = content(b"slow", 1, 500000)
    assert chan.put(b"slow", data) == 0
    n = min(chan.credits, 8)
    for i in range(n):
        chan.post(chan.get_frame(b"slow", [chan.seg(i * 600000, len(data))]))
    for i in range(n):
        moves_on(good, 1, 20)
        time.sleep(0.5)
        peer.ask("receives", chan.end, 1)
        got = chan.take(10)
        assert got is not None and got[0].status == 0, (i, got)
        assert peer.view[i * 600000:i * 600000 + len(data)] == data
    s.close()
