"""
proto/wire.h spoken by hand, for tests that must send what libmemkv never would. One connection, one thread, blocking with a timeout.

    w = Wire("127.0.0.1", port)          # dev key; or key=bytes.fromhex(...)
    w.handshake()
    w.put(b"key", b"value"); hdr, body, payload = w.get(b"key")
"""
import functools
import hashlib
import hmac
import os
import socket
import struct

HELLO, CONNECT, PING, CANCEL, ATTACH, REGION = 1, 2, 3, 4, 5, 7
PUT, GET, EXISTS, DELETE, STAT, TOUCH, MATCH, LIST, INFO, REPORT = range(16, 26)
F_REPLY, F_MORE, F_LONG_BODY, F_PAYLOAD, F_RESEND, F_ABORT, F_REMOTE = 1, 2, 4, 8, 16, 32, 64
PUT_NO_CRC = 64
SIZE_UNKNOWN = (1 << 64) - 1
AUTH, PROTO, MISS, CORRUPT, TIMEOUT, CANCELLED, VERSION = 15, 17, 8, 11, 6, 21, 18
KEY_ID_DEV = 1
HDR = struct.Struct("<4sBBHQQQIIQIHHIHH32s")
assert HDR.size == 96


class Closed(Exception):
    """The server closed the connection."""


def hkdf(ikm, salt, info, n):
    prk = hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()
    out, t = b"", b""
    while len(out) < n:
        t = hmac.new(prk, t + info + bytes([len(out) // 32 + 1]), hashlib.sha256).digest()
        out += t
    return out[:n]


def dev_key():
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        try:
            with open(path) as f:
                text = f.read().strip()
        except OSError:
            continue
        digits = text.replace("-", "")
        if len(digits) >= 32:
            return hkdf(digits.encode(), b"", b"memkv1 dev key", 32)
    raise RuntimeError("no id of this host")


def key_id(key):
    n = int.from_bytes(hashlib.sha256(b"memkv key id" + key).digest()[:4], "little")
    return n if n > KEY_ID_DEV else n + KEY_ID_DEV + 1


_table = []
for _i in range(256):
    _c = _i
    for _ in range(8):
        _c = _c >> 1 ^ (0x82f63b78 if _c & 1 else 0)
    _table.append(_c)


def crc32c(data, crc=0):
    crc ^= 0xffffffff
    for b in data:
        crc = crc >> 8 ^ _table[(crc ^ b) & 255]
    return crc ^ 0xffffffff


@functools.lru_cache(16)
def chunk_crcs(value):
    return b"".join(struct.pack("<I", crc32c(value[i:i + 65536])) for i in range(0, len(value), 65536))


def pad8(b):
    return b + bytes(-len(b) % 8)


class Hdr:
    names = ("magic", "version", "op", "flags", "session_id", "counter", "request_id", "body_bytes", "deadline_us", "payload_bytes",
             "key_id", "status", "reason", "ack_below", "credits", "channel", "mac")

    def __init__(self, **kw):
        self.__dict__.update(magic=b"MKV\1", version=1, op=0, flags=0, session_id=0, counter=0, request_id=1, body_bytes=0,
                             deadline_us=5_000_000, payload_bytes=0, key_id=0, status=0, reason=0, ack_below=0, credits=0, channel=0,
                             mac=bytes(32))
        self.__dict__.update(kw)

    def pack(self):
        return HDR.pack(*(getattr(self, n) for n in self.names))

    @classmethod
    def unpack(cls, raw):
        return cls(**dict(zip(cls.names, HDR.unpack(raw))))


def mac(key, h, body):
    return hmac.new(key, h.pack()[:64] + body, hashlib.sha256).digest()


class Wire:
    def __init__(self, host, port=None, key=None, timeout=10):
        """By TCP, or (no port) by the unix socket at this path."""
        if port is None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(timeout)
            self.sock.connect(host)
        else:
            self.sock = socket.create_connection((host, port), timeout)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.cred = key if key is not None else dev_key()
        self.key_id = key_id(key) if key is not None else KEY_ID_DEV
        self.session = self.counter = self.counter_in = 0
        self.next_id = 1
        self.c2s = self.s2c = None

    def close(self):
        self.sock.close()

    # ---- bytes -----------------------------------------------------------------------------------------------------------------

    def send_raw(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as e:
            raise Closed() from e

    def recv_exact(self, n):
        out = bytearray()
        while len(out) < n:
            try:
                piece = self.sock.recv(n - len(out))
            except (ConnectionResetError, BrokenPipeError) as e:
                raise Closed() from e
            if not piece:
                raise Closed()
            out += piece
        return bytes(out)

    # ---- frames ----------------------------------------------------------------------------------------------------------------

    def sign(self, h, body):
        h.mac = mac(self.c2s, h, body)
        return h

    def frame(self, op, body=b"", payload=b"", flags=0, rid=None, **kw):
        """A good frame as bytes; its counter is used up. kw replaces fields of the header before it is signed."""
        if rid is None:
            rid = self.next_id
            self.next_id += 1
        self.counter += 1
        fields = dict(op=op, flags=flags | (F_PAYLOAD if payload else 0), session_id=self.session, counter=self.counter, request_id=rid,
                      body_bytes=len(body), payload_bytes=len(payload))
        fields.update(kw)
        h = Hdr(**fields)
        if self.c2s:
            self.sign(h, body)
        return h.pack() + body + payload

    def send(self, op, body=b"", payload=b"", flags=0, rid=None, **kw):
        rid = rid if rid is not None else self.next_id
        self.next_id = max(self.next_id, rid + 1)
        self.send_raw(self.frame(op, body, payload, flags, rid, **kw))
        return rid

    def recv(self):
        """The next frame: (Hdr, body, payload). Its MAC and counter are checked."""
        h = Hdr.unpack(self.recv_exact(96))
        body = self.recv_exact(h.body_bytes)
        payload = self.recv_exact(h.payload_bytes) if not h.flags & F_REMOTE else b""
        if self.s2c and h.session_id:
            assert hmac.compare_digest(mac(self.s2c, h, body), h.mac), "the server's MAC is wrong"
            self.counter_in += 1
            assert h.counter == self.counter_in
        return h, body, payload

    # ---- handshake -------------------------------------------------------------------------------------------------------------

    def hello(self, rail=0, versions=(1, 1)):
        nonce = os.urandom(32)
        body = struct.pack("<HHHHII16s32s", versions[0], versions[1], rail, 0, 1, 0, os.urandom(16), nonce)
        sent = Hdr(op=HELLO, body_bytes=len(body)).pack() + body
        self.send_raw(sent)
        h, reply, _ = self.recv()
        if h.status:
            return h
        self.front_id, self.epoch, self.map_version, self.part_bytes = struct.unpack_from("<IIQI", reply, 8)
        self.server_id, nonce_s = reply[40:56], reply[56:88]
        self.rails = [reply[88 + i * 80:168 + i * 80] for i in range(int.from_bytes(reply[2:4], "little"))]
        transcript = hashlib.sha256(sent + h.pack() + reply).digest()
        front = hkdf(self.cred, b"", b"memkv1 front" + struct.pack("<I", self.front_id), 32)
        self.keys_of = lambda channel: [hkdf(front, nonce + nonce_s, b"memkv1" + struct.pack("<BHI", d, channel, self.front_id) + transcript, 32)
                                        for d in (1, 2)]
        self.c2s, self._s2c = self.keys_of(0)
        return h

    def connect(self):
        """Returns the status: 0, or why the server refused."""
        self.counter = 0
        self.send(CONNECT, bytes(16), key_id=self.key_id)
        self.s2c = self._s2c
        h, body, _ = self.recv()
        if h.status == 0:
            self.session = struct.unpack_from("<Q", body)[0]
        return h.status

    def handshake(self):
        assert self.hello().status == 0
        assert self.connect() == 0
        return self

    # ---- bodies ----------------------------------------------------------------------------------------------------------------

    @staticmethod
    def put_body(key, value, off=0, total=None, flags=0, ns=b"", put_id=7):
        crcs = b"" if flags & PUT_NO_CRC else chunk_crcs(bytes(value))
        total = off + len(value) if total is None else total
        head = struct.pack("<QQQQIIHHHH", total, off, put_id, 0, flags, len(crcs) // 4, len(ns), len(key), 0, 0)
        return pad8(pad8(head + ns + key) + crcs)

    @staticmethod
    def get_body(key, off=0, length=SIZE_UNKNOWN, ns=b"", flags=0):
        return pad8(struct.pack("<QQIHH", off, length, flags, len(ns), len(key)) + ns + key)

    @staticmethod
    def keys_body(keys, ns=b""):
        return pad8(struct.pack("<IIQIHH", len(keys), 0, 0, 0, len(ns), 0) + ns + b"".join(struct.pack("<H", len(k)) + k for k in keys))

    # ---- regions ---------------------------------------------------------------------------------------------------------------

    def region(self, number, fd, size, stable=False):
        """Pass a memfd. Returns the status. stable: drives may read into it."""
        frame = self.frame(REGION, struct.pack("<IIQ", number, 2 if stable else 0, size))
        assert socket.send_fds(self.sock, [frame], [fd]) == len(frame)
        return self.recv()[0].status

    def drop_region(self, number):
        self.send(REGION, struct.pack("<IIQ", number, 1, 0))
        return self.recv()[0].status

    def send_put_from(self, key, value, number, off, **kw):
        """A put of one frame whose bytes, value, lie at off of a region."""
        body = self.put_body(key, value, **kw) + struct.pack("<QII", off, len(value), number)
        return self.send(PUT, body, flags=F_REMOTE | F_PAYLOAD, payload_bytes=len(value))

    def put_from(self, *args, **kw):
        self.send_put_from(*args, **kw)
        return self.recv()[0].status

    def get_into(self, key, number, off, room, **kw):
        """Returns (status, bytes): they are in the region."""
        self.send(GET, self.get_body(key, **kw) + struct.pack("<QII", off, room, number), flags=F_REMOTE)
        got = 0
        while True:
            h, _, _ = self.recv()
            got += h.payload_bytes
            if h.status or not h.flags & F_MORE:
                return h.status, got

    # ---- whole operations ------------------------------------------------------------------------------------------------------

    def put(self, key, value, **kw):
        self.send(PUT, self.put_body(key, value, **kw), value)
        return self.recv()[0].status

    def get(self, key, **kw):
        self.send(GET, self.get_body(key, **kw))
        return self.recv()

    def ping(self):
        rid = self.send(PING)
        h, _, _ = self.recv()
        return h.status == 0 and h.request_id == rid
