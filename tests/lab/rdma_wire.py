"""
proto/wire.h spoken by hand over queue pairs, for tests that must do what libmemkv never would: control by wireclient.py here, verbs by the program rdma_peer.

    with Peer() as peer:
        s = Session(served, peer); chan = s.attach()
        chan.put(b"key", data); chan.message(); chan.answer()
"""
import mmap
import os
import struct
import subprocess
import tempfile
import time

import rdma
import wireclient
from wireclient import ATTACH, F_PAYLOAD, F_REMOTE, GET, PUT, Hdr, Wire

PEER = os.path.join(os.path.dirname(os.environ.get("MEMKV_STAGE", "")), "tests", "lab", "rdma_peer")
ATTACH_BODY = struct.Struct("<HHIIIIHHQ16sHHI")
assert ATTACH_BODY.size == 56
BUSY, DETACH = 13, 6
# enum ibv_wc_status
SUCCESS, FLUSHED, INVALID_REQUEST, ACCESS, OPERATION, NO_ANSWER, NO_RECEIVE = 0, 5, 9, 10, 11, 12, 13


class Peer:
    """The program: queue pairs by number, and memory (view) of which a part is registered."""

    def __init__(self, nic=None, area=16 << 20):
        fd, self.path = tempfile.mkstemp(dir="/dev/shm")
        os.truncate(fd, area)
        self.map = mmap.mmap(fd, area)
        self.view = memoryview(self.map)
        os.close(fd)
        self.proc = subprocess.Popen([PEER, nic or rdma.NICS[0], self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ends = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.stdin.close()
        try:
            self.proc.wait(20)
        finally:
            self.proc.kill()
            os.unlink(self.path)

    def tell(self, *words):
        self.proc.stdin.write(" ".join(map(str, words)) + "\n")
        self.proc.stdin.flush()

    def hear(self):
        line = self.proc.stdout.readline().split()
        assert line, "rdma_peer ended"
        return line

    def ask(self, *words):
        self.tell(*words)
        line = self.hear()
        assert line[0] == "ok", (words[0], line)
        return line[1:]

    def register(self, off, n):
        self.address, self.rkey = map(int, self.ask("register", off, n))

    def connect(self, end, far, timer=12):
        self.ask("connect", end, far[2], far[3], far[9].hex(), far[4], far[6], far[7], timer)

    def deregister(self):
        self.ask("deregister")


class Session(Wire):
    """The tether: TCP to the rail's front. Its queue pairs are channels 1, 2, ..."""

    def __init__(self, served, peer, rail=1):
        host, port = served.addr.rsplit(":", 1)
        super().__init__(host, int(port), key=bytes.fromhex(rdma.KEY), timeout=60)
        self.peer, self.channel = peer, 0
        self.given_up = 0              # channels that the server has said it gave up
        assert self.hello(rail=rail).status == 0
        assert self.connect() == 0

    def recv(self):
        """The next answer: that a channel is over the server says without being asked."""
        while True:
            h, body, payload = super().recv()
            if h.op != DETACH or h.request_id != 0:
                return h, body, payload
            self.given_up += 1

    def ask_attach(self, end):
        """A queue pair here for the next channel. The front's answer: (its header, its struct mkv_wire_attach)."""
        self.channel += 1
        qpn, psn, gid, mtu, reads_in, reads_out = end
        self.send(ATTACH, ATTACH_BODY.pack(2, self.channel, int(qpn), int(psn), int(mtu), 4096, int(reads_in), int(reads_out), 0, bytes.fromhex(gid), 0, 0, 0))
        h, body, _ = self.recv()
        return h, ATTACH_BODY.unpack(body) if h.status == 0 else None

    def attach(self, receives=16, timer=12, room=0):
        """Connected at both ends, with so many receives here (and room for more); without one the far end tries again by timer, as min_rnr_timer numbers times."""
        end, self.peer.ends = self.peer.ends, self.peer.ends + 1
        numbers = self.peer.ask("open", end, max(receives, room))
        h, far = self.ask_attach(numbers)
        for _ in range(100):            # the one before may be at the NIC still
            if h.status != BUSY:
                break
            time.sleep(0.05)
            self.channel -= 1
            h, far = self.ask_attach(numbers)
        assert h.status == 0, h.status
        self.peer.connect(end, far, timer)
        if receives:
            self.peer.ask("receives", end, receives)
        return Channel(self, end, far)


class Channel:
    """One queue pair: frames of its own numbering and keys."""

    def __init__(self, s, end, far):
        self.s, self.peer, self.end, self.number, self.credits = s, s.peer, end, s.channel, far[11]
        self.c2s, self.s2c = s.keys_of(s.channel)
        self.counter = self.counter_in = 0

    def frame(self, op, body=b"", **kw):
        self.counter += 1
        rid, self.s.next_id = self.s.next_id, self.s.next_id + 1
        fields = dict(op=op, session_id=self.s.session, counter=self.counter, request_id=rid, body_bytes=len(body), channel=self.number)
        fields.update(kw)
        h = Hdr(**fields)
        h.mac = wireclient.mac(self.c2s, h, body)
        return h.pack() + body

    def put_frame(self, key, value, segs, **kw):
        body = Wire.put_body(key, value, flags=wireclient.PUT_NO_CRC | 2) + b"".join(struct.pack("<QII", *s) for s in segs)
        return self.frame(PUT, body, flags=F_PAYLOAD | F_REMOTE, payload_bytes=len(value), **kw)

    def get_frame(self, key, segs, **kw):
        return self.frame(GET, Wire.get_body(key) + b"".join(struct.pack("<QII", *s) for s in segs), flags=F_REMOTE, **kw)

    def post(self, frame):
        self.peer.ask("post", self.end, frame.hex())

    def send(self, frame):
        """Waits for its completion; the status."""
        return int(self.peer.ask("send", self.end, frame.hex())[0])

    def take(self, seconds=10.0):
        """The next message that came: (Hdr, body); None."""
        self.peer.tell("take", self.end, int(seconds * 1000))
        line = self.peer.hear()
        if line[0] != "ok":
            return None
        raw = bytes.fromhex(line[1])
        h, body = Hdr.unpack(raw[:96]), raw[96:]
        self.counter_in += 1
        assert h.counter == self.counter_in and h.channel == self.number and h.mac == wireclient.mac(self.s2c, h, body)
        return h, body

    def remote(self, what, n, address, rkey):
        """READ or WRITE of the far end's memory from our first registered bytes; the status."""
        return int(self.peer.ask(what, self.end, 0, n, address, rkey)[0])

    def close(self):
        self.peer.ask("close", self.end)

    # ---- what a good client does -------------------------------------------------------------------------------------------------

    def seg(self, off, n):
        return (self.peer.address + off, n, self.peer.rkey)

    def put(self, key, value, off=0):
        self.peer.view[off:off + len(value)] = value
        self.post(self.put_frame(key, value, [self.seg(off, len(value))]))
        got = self.take(30)
        return got and got[0].status

    def get(self, key, n, off=0):
        """(status, bytes); None without an answer."""
        self.post(self.get_frame(key, [self.seg(off, n)]))
        got = self.take(30)
        return got and (got[0].status, bytes(self.peer.view[off:off + got[0].payload_bytes]))
