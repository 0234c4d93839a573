"""p: what nobody should send. Each wrong frame has a typed answer or a closed connection, is counted, and disturbs nobody else."""
import random
import socket
import threading
import time

import pytest

import mkv
import wireclient as wc
from harness import FULL, MIB, cli, content
from wireclient import Closed, Wire

FRAMES = 10000 if FULL else 1500


def counter(s, name):
    return sum(v for k, v in s.metrics().items() if k.split("{")[0] == f"memkv_front_{name}")


def refused(s):
    return sum(counter(s, n) for n in ("bad_frames_total", "auth_failures_total", "timeouts_total"))


def wait_counted(s, at_least, timeout=5):
    end = time.monotonic() + timeout
    while refused(s) < at_least and time.monotonic() < end:
        time.sleep(0.05)
    return refused(s)


@pytest.fixture
def server(server_factory):
    return server_factory(drive_bytes="256MiB", sets=["network.handshake_timeout=1s"])


def wire(s, **kw):
    return Wire("127.0.0.1", s.port, **kw)


def assert_closed(w):
    with pytest.raises(Closed):
        while True:
            w.recv()
    w.close()


def test_speaks_the_format(server):
    w = wire(server).handshake()
    value = content(b"k", 1, 70000)
    assert w.put(b"k", value) == 0
    h, body, payload = w.get(b"k")
    assert (h.status, payload) == (0, value)
    assert w.get(b"k", off=65530, length=20)[2] == value[65530:65550]
    assert w.get(b"nothing")[0].status == wc.MISS
    bad = bytearray(w.put_body(b"k", value))
    w.send(wc.PUT, bytes(bad), value[:-1] + b"?")
    assert w.recv()[0].status == wc.CORRUPT
    assert w.ping()
    w.close()


def test_handshake_is_refused(server):
    before = refused(server)
    w = wire(server, key=bytes(range(32)))
    assert w.hello().status == 0
    assert w.connect() == wc.AUTH
    assert_closed(w)
    w = wire(server)
    assert w.hello(versions=(9, 9)).status == wc.VERSION
    assert_closed(w)
    w = wire(server)
    assert w.hello().status == 0
    w.c2s = bytes(32)
    assert w.connect() == wc.AUTH
    assert_closed(w)
    w = wire(server)
    w.send_raw(b"GET / HTTP/1.1\r\n" + b"X" * 200)
    assert_closed(w)
    assert wait_counted(server, before + 3) >= before + 3


def test_replay_gap_reflection(server):
    before = refused(server)
    w = wire(server).handshake()
    ping = w.frame(wc.PING)
    w.send_raw(ping)
    w.recv()
    w.send_raw(ping)
    assert_closed(w)
    w = wire(server).handshake()
    w.counter += 1
    w.send(wc.PING)
    assert_closed(w)
    a, b = wire(server).handshake(), wire(server).handshake()
    b.send_raw(a.frame(wc.PING))
    assert_closed(b)
    a.close()
    w = wire(server).handshake()
    w.send(wc.PING)
    h, _, _ = w.recv()
    w.send_raw(h.pack())
    assert_closed(w)
    assert wait_counted(server, before + 4) >= before + 4


def test_slow_clients_are_dropped(server):
    before = refused(server)
    quiet = wire(server)
    half = wire(server)
    half.send_raw(b"MKV\1\1")
    stall = wire(server).handshake()
    body = stall.put_body(b"stall", bytes(100000), flags=wc.PUT_NO_CRC)
    stall.send_raw(stall.frame(wc.PUT, body, bytes(100000), deadline_us=500_000)[:-50000])
    begin = time.monotonic()
    for w in (stall, quiet, half):
        assert_closed(w)
    assert time.monotonic() - begin < 4
    assert wait_counted(server, before + 2) >= before + 2
    free, all_ = counter(server, "stage_free_bytes"), counter(server, "stage_bytes")
    end = time.monotonic() + 3
    while free != all_ and time.monotonic() < end:
        time.sleep(0.1)
        free = counter(server, "stage_free_bytes")
    assert free == all_


def test_full_server_says_so(server_factory):
    """One client too many is told why, at once and by every command, and is served when there is room again."""
    s = server_factory(drive_bytes="256MiB", sets=["network.max_connections=1", "network.shards=1"])
    only = wire(s).handshake()
    begin = time.monotonic()
    for args in (["put", "k", "-"], ["get", "k"], ["exists", "k"]):
        out = cli(*args, server=s, stdin=b"v")
        assert out.returncode != 0
        assert b"network.max_connections" in out.stderr, out.stderr
    assert time.monotonic() - begin < 8
    only.close()
    end = time.monotonic() + 10
    while cli("put", "k", "-", server=s, stdin=b"v").returncode != 0:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_value_larger_than_the_store(server_factory, tmp_path):
    """It is refused at once, not at its deadline, and what it had taken is given back."""
    s = server_factory(drive_bytes="256MiB")
    huge = tmp_path / "huge"
    with open(huge, "wb") as f:
        f.truncate(1 << 30)
    begin = time.monotonic()
    out = cli("put", "huge", str(huge), "--deadline", "60s", server=s)
    assert out.returncode != 0
    assert b"space" in out.stderr, out.stderr
    assert time.monotonic() - begin < 20
    assert cli("put", "small", "-", server=s, stdin=b"v" * 9000000).returncode == 0


def mutant(w, rnd):
    """A good frame with something changed, signed again or not."""
    key = rnd.choice([b"a", b"mutant", bytes(512)])
    op, body, payload = rnd.choice([
        (wc.PUT, w.put_body(key, b"x" * 500), b"x" * 500), (wc.GET, w.get_body(key, rnd.randrange(9), rnd.randrange(999)), b""),
        (wc.STAT, w.get_body(key, 0, 0), b""), (wc.EXISTS, w.keys_body([key] * rnd.randrange(9)), b""),
        (wc.DELETE, w.keys_body([b"mutant"]), b""), (wc.MATCH, w.keys_body([key]), b""), (wc.PING, b"", b""), (wc.INFO, b"", b""),
        (wc.CANCEL, bytes(16), b""), (wc.LIST, bytes(16), b""), (wc.REPORT, w.get_body(key, 0, 0), b"")])
    f = bytearray(w.frame(op, body, payload, deadline_us=300_000))
    how = rnd.randrange(6)
    if how == 0:                                    # any byte, not signed again
        f[rnd.randrange(96 + len(body))] ^= 1 << rnd.randrange(8)
    elif how == 1:                                  # truncated
        return bytes(f[:rnd.randrange(len(f))]), True
    elif how == 2:                                  # too large
        h = wc.Hdr.unpack(bytes(f[:96]))
        h.body_bytes = rnd.choice([65544, 1 << 31, 0xfffffff8])
        f[:96] = w.sign(h, body).pack()
    elif how == 3:                                  # any op, any flags
        h = wc.Hdr.unpack(bytes(f[:96]))
        h.op, h.flags = rnd.randrange(256), rnd.randrange(1 << 16)
        f[:96] = w.sign(h, body).pack()
    else:                                           # signed nonsense
        b = bytearray(body)
        for _ in range(rnd.randrange(1, 4)):
            if b:
                b[rnd.randrange(len(b))] = rnd.randrange(256)
        h = wc.Hdr.unpack(bytes(f[:96]))
        f = bytearray(w.sign(h, bytes(b)).pack() + b + payload)
    return bytes(f), False


def test_wrong_frames(server):
    rnd = random.Random(20240607)
    before, fronts = refused(server), server.children("front")
    stop, wrong, closed, answers = threading.Event(), [], 0, 0

    def good():
        n = 0
        with mkv.Client(server.addr) as c:
            while not stop.is_set():
                k = b"good/%d" % (n % 20)
                try:
                    c.put(k, content(k, n, 20000), 10)
                    if c.get(k, 20000, 10) != content(k, n, 20000):
                        wrong.append(k)
                except mkv.Miss as e:
                    wrong.append(e)
                n += 1

    t = threading.Thread(target=good)
    t.start()
    w = None
    for _ in range(FRAMES):
        if w is None:
            w = wire(server, timeout=3).handshake()
        frame, cut = mutant(w, rnd)
        try:
            w.send_raw(frame)
            if cut:
                w.close()
                w = None
                continue
            w.send(wc.PING)
            while True:
                h, _, _ = w.recv()
                if h.op == wc.PING:
                    break
                answers += 1
        except Closed:
            closed += 1
            w.close()
            w = None
        except socket.timeout:
            pytest.fail("neither an answer nor an end")
    stop.set()
    t.join()
    assert not wrong
    assert server.children("front") == fronts
    assert answers > FRAMES // 20 and closed > FRAMES // 20
    assert wait_counted(server, before + closed) >= before + closed


def memory_of(pids):
    """Bytes of these processes; what they share is counted once."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:")) * 1024
    return total


def test_memory_is_bounded_whatever_clients_do(server_factory):
    """
    Bodies that stop half-way, answers that nobody reads, connections that say nothing: what is asked for is ten times what the server may take. Staging
    memory (memory.max_size) is taken at start; beyond it a connection costs its receive buffer, 72 KiB.
    """
    stage = 32 * MIB
    s = server_factory(drive_bytes="256MiB", sets=[f"memory.max_size={stage}", "network.shards=1", "local.path=-", "network.handshake_timeout=1m"])
    pids = s.all_pids()
    try:
        memory_of(pids)
    except PermissionError:
        pytest.skip("no permission to read smaps_rollup of the children: root needed")
    value = bytes(MIB)
    first = wire(s).handshake()
    assert first.put(b"v", value, flags=wc.PUT_NO_CRC) == 0
    before, most, all_ = memory_of(pids), 0, [first]
    try:
        for i in range(100):
            stalls, deaf, mute = wire(s).handshake(), wire(s).handshake(), wire(s)
            all_ += [stalls, deaf, mute]
            stalls.sock.settimeout(0.02)
            body = stalls.put_body(b"stall/%d" % i, value, flags=wc.PUT_NO_CRC)
            try:
                stalls.send_raw(stalls.frame(wc.PUT, body, value, deadline_us=60_000_000)[:-1000])
            except TimeoutError:                    # the server does not read what it has no room for
                pass
            for _ in range(8):
                deaf.send(wc.GET, deaf.get_body(b"v"), deadline_us=60_000_000)
            mute.send_raw(b"MKV\1")
            if i % 10 == 9:
                most = max(most, memory_of(pids))
        end = time.monotonic() + 2
        while time.monotonic() < end:
            most = max(most, memory_of(pids))
            time.sleep(0.1)
        print(f"memory: {before / MIB:.1f} MiB before, {most / MIB:.1f} at most; staging memory free: {counter(s, 'stage_free_bytes') / MIB:.1f} MiB")
        assert most - before < len(all_) * 72 * 1024 + 16 * MIB, (before, most)
        assert counter(s, "stage_free_bytes") < stage / 2, "the clients did not even take what there is"
    finally:
        for w in all_:
            w.close()
    assert s.all_pids() == pids
    assert cli("get", "v", "--deadline", "30s", server=s).stdout == value
