"""libmemkv for the process tests, by ctypes. The library releases the interpreter lock while it waits, so threads work."""
import ctypes as C
import os

import transport

STAGE = os.environ.get("MEMKV_STAGE")

SEC = 1_000_000


class ClientOpts(C.Structure):
    _fields_ = [("size", C.c_size_t), ("config_file", C.c_char_p), ("servers", C.c_char_p), ("namespace_", C.c_char_p),
                ("transport", C.c_char_p), ("auth_key", C.c_char_p), ("rdma_devices", C.c_char_p), ("prometheus_bind", C.c_char_p),
                ("io_threads", C.c_uint), ("connections", C.c_uint), ("inflight_max", C.c_uint), ("no_verify", C.c_int),
                ("connect_timeout_us", C.c_uint64), ("rdma_on_demand", C.c_int), ("rdma_control", C.c_char_p), ("rdma_tether", C.c_char_p)]


class PutOpts(C.Structure):
    _fields_ = [("size", C.c_size_t), ("flags", C.c_uint), ("ttl_ms", C.c_uint64), ("parent", C.c_void_p), ("parent_bytes", C.c_size_t),
                ("namespace_", C.c_char_p)]


class Object(C.Structure):
    _fields_ = [("size", C.c_size_t), ("value_bytes", C.c_uint64), ("put_wall_ms", C.c_uint64), ("expires_wall_ms", C.c_uint64),
                ("flags", C.c_uint), ("reason", C.c_uint), ("same", C.c_int), ("server", C.c_int)]


class Key(C.Structure):
    _fields_ = [("data", C.c_char_p), ("bytes", C.c_size_t)]


class ServerInfo(C.Structure):
    _fields_ = [("size", C.c_size_t), ("name", C.c_char * 256), ("status", C.c_int), ("server_id", C.c_uint8 * 16),
                ("total_bytes", C.c_uint64), ("used_bytes", C.c_uint64), ("objects", C.c_uint64), ("uptime_ms", C.c_uint64),
                ("drives_total", C.c_uint), ("drives_online", C.c_uint), ("version", C.c_char * 32), ("transport", C.c_char * 8)]


class Iovec(C.Structure):
    _fields_ = [("base", C.c_void_p), ("len", C.c_size_t)]


class Request(C.Structure):
    _fields_ = [("size", C.c_size_t), ("op", C.c_int), ("keys", C.POINTER(Key)), ("n_keys", C.c_uint), ("iov", C.POINTER(Iovec)), ("n_iov", C.c_uint),
                ("off", C.c_uint64), ("len", C.c_uint64), ("deadline_us", C.c_uint64), ("flags", C.c_uint), ("lease_ms", C.c_uint), ("ttl_ms", C.c_uint64),
                ("namespace_", C.c_char_p), ("parent", C.c_void_p), ("parent_bytes", C.c_size_t), ("present", C.c_void_p), ("reasons", C.c_void_p),
                ("user", C.c_void_p)]


class Completion(C.Structure):
    _fields_ = [("size", C.c_size_t), ("id", C.c_uint64), ("user", C.c_void_p), ("result", C.c_int64), ("object", Object)]


LIST_FN = C.CFUNCTYPE(C.c_int, C.c_void_p, C.c_void_p)
OP_PUT, OP_GET = 1, 2
SIZE_ANY = (1 << 64) - 1
POISON = 0xA5

IF_ABSENT, OVERWRITE, PIN, ACCEPTED, COMMIT = 1, 2, 4, 8, 16
(OK, INVAL, NOMEM, IO, AGAIN, PEER, TIMEOUT, UNREACHABLE, MISS, EXISTS, TOOBIG, CORRUPT, NOSPACE, BUSY, RETRY, AUTH, DENIED, PROTO, VERSION,
 UNSUPPORTED, CLOSED, CANCELLED, FORKED) = [-i for i in range(23)]
REASON_CORRUPT, REASON_LOST, REASON_NEVER, REASON_WRITER_CRC = 5, 10, 1, 11


def _load():
    lib = C.CDLL(os.path.join(STAGE, "lib", "libmemkv.so"))
    p, z, u64 = C.c_void_p, C.c_size_t, C.c_uint64
    lib.mkv_strerror.restype = C.c_char_p
    lib.mkv_client_open.argtypes = [C.POINTER(p), C.POINTER(ClientOpts), C.c_char_p, z]
    lib.mkv_client_close.argtypes = [p]
    lib.mkv_warm.argtypes = [p, u64]
    lib.mkv_put.argtypes = [p, C.c_char_p, z, C.c_char_p, z, C.POINTER(PutOpts), u64, C.POINTER(Object)]
    lib.mkv_get.argtypes = [p, C.c_char_p, z, p, z, u64, C.POINTER(Object)]
    lib.mkv_get.restype = C.c_int64
    lib.mkv_get_range.argtypes = [p, C.c_char_p, z, u64, p, z, u64, C.POINTER(Object)]
    lib.mkv_get_range.restype = C.c_int64
    for name in ("mkv_exists", "mkv_delete"):
        getattr(lib, name).argtypes = [p, C.c_char_p, z, u64]
    lib.mkv_stat.argtypes = [p, C.c_char_p, z, u64, C.POINTER(Object)]
    lib.mkv_match.argtypes = [p, C.POINTER(Key), C.c_uint, C.c_uint, C.c_uint, u64, C.POINTER(C.c_uint)]
    lib.mkv_exists_batch.argtypes = [p, C.POINTER(Key), C.c_uint, C.c_uint, u64, p, p]
    lib.mkv_delete_batch.argtypes = [p, C.POINTER(Key), C.c_uint, u64, p, p]
    lib.mkv_put_begin.argtypes = [p, C.c_char_p, z, C.POINTER(PutOpts), u64, C.POINTER(p)]
    lib.mkv_put_part.argtypes = [p, C.c_char_p, z, u64]
    lib.mkv_put_commit.argtypes = [p, u64, C.POINTER(Object)]
    lib.mkv_put_abort.argtypes = [p]
    lib.mkv_put_abort.restype = None
    lib.mkv_server_of.argtypes = [p, C.c_char_p, z]
    lib.mkv_server_info.argtypes = [p, C.c_uint, u64, C.POINTER(ServerInfo)]
    lib.mkv_submit.argtypes = [p, C.POINTER(Request), C.POINTER(u64)]
    lib.mkv_cancel.argtypes = [p, u64]
    lib.mkv_wait.argtypes = [p, u64]
    lib.mkv_drain.argtypes = [p, C.POINTER(Completion), C.c_uint]
    lib.mkv_region_alloc.argtypes = [p, z, C.POINTER(p)]
    lib.mkv_region_base.argtypes = [p, C.POINTER(z)]
    lib.mkv_region_base.restype = p
    lib.mkv_region_free.argtypes = [p]
    lib.mkv_client_metrics.argtypes = [p, C.c_char_p, z]
    lib.mkv_client_metrics.restype = z
    return lib


LIB = _load() if STAGE else None


class Miss(Exception):
    def __init__(self, status, reason=0):
        super().__init__(f"{LIB.mkv_strerror(status).decode()} (status {status}, reason {reason})")
        self.status, self.reason = status, reason


class Client:
    """One handle. Every call takes a deadline in seconds and raises Miss for anything but success."""

    def __init__(self, servers, **opts):
        o = ClientOpts(size=C.sizeof(ClientOpts), servers=servers.encode())
        for k, v in (transport.client_options() | opts).items():
            if not hasattr(o, k):       # ctypes would keep it, and nobody would see it
                raise TypeError(f"mkv_client_opts has no {k}")
            setattr(o, k, v.encode() if isinstance(v, str) else v)
        self.p = C.c_void_p()
        why = C.create_string_buffer(512)
        r = LIB.mkv_client_open(C.byref(self.p), C.byref(o), why, len(why))
        if r != 0:
            raise RuntimeError(f"mkv_client_open: {r} {why.value.decode()}")

    def close(self):
        p, self.p = self.p, C.c_void_p()
        LIB.mkv_client_close(p)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def put(self, key, value, deadline=10.0, flags=0, ttl_ms=0, n=None):
        """n: of a value that is a pointer."""
        o = PutOpts(size=C.sizeof(PutOpts), flags=flags, ttl_ms=ttl_ms)
        obj = Object(size=C.sizeof(Object))
        r = LIB.mkv_put(self.p, key, len(key), value, len(value) if n is None else n, C.byref(o), int(deadline * SEC), C.byref(obj))
        if r != 0:
            raise Miss(r, obj.reason)
        return obj

    def put_at(self, key, address, n, deadline=10.0, flags=0):
        return self.put(key, C.cast(address, C.c_char_p), deadline, flags, n=n)

    def get_at(self, key, address, room, deadline=10.0, off=None):
        """The value, or what it has from off on, goes to that address: how much."""
        obj = Object(size=C.sizeof(Object))
        if off is None:
            n = LIB.mkv_get(self.p, key, len(key), address, room, int(deadline * SEC), C.byref(obj))
        else:
            n = LIB.mkv_get_range(self.p, key, len(key), off, address, room, int(deadline * SEC), C.byref(obj))
        if n < 0:
            raise Miss(n, obj.reason)
        return n

    def submit(self, op, key, places, deadline=10.0, flags=0):
        """Hands over a get or put of (address, bytes) places. Its id."""
        r = Request(size=C.sizeof(Request), op=op, keys=self._keys([key]), n_keys=1, iov=(Iovec * len(places))(*places), n_iov=len(places), len=SIZE_ANY,
                    deadline_us=int(deadline * SEC), flags=flags)
        number = C.c_uint64()
        said = LIB.mkv_submit(self.p, C.byref(r), C.byref(number))
        if said != 0:
            raise Miss(said)
        return number.value

    def cancel(self, number):
        return LIB.mkv_cancel(self.p, number)

    def completion(self, timeout=60.0):
        """The next one: (id, result, reason). None: it did not come."""
        out = Completion(size=C.sizeof(Completion))
        LIB.mkv_wait(self.p, int(timeout * SEC))
        return (out.id, out.result, out.object.reason) if LIB.mkv_drain(self.p, C.byref(out), 1) == 1 else None

    def put_stream(self, key, deadline=10.0, flags=0):
        return Stream(self, key, deadline, flags)

    def get(self, key, room, deadline=10.0):
        buf = C.create_string_buffer(room) if room else C.create_string_buffer(1)
        obj = Object(size=C.sizeof(Object))
        n = LIB.mkv_get(self.p, key, len(key), buf, room, int(deadline * SEC), C.byref(obj))
        if n < 0:
            raise Miss(n, obj.reason)
        return memoryview(buf).cast("B")[:n]

    def get_range(self, key, off, length, deadline=10.0):
        buf = C.create_string_buffer(length + 1)
        obj = Object(size=C.sizeof(Object))
        n = LIB.mkv_get_range(self.p, key, len(key), off, buf, length, int(deadline * SEC), C.byref(obj))
        if n < 0:
            raise Miss(n, obj.reason)
        return memoryview(buf).cast("B")[:n]

    def exists(self, key, deadline=10.0):
        return LIB.mkv_exists(self.p, key, len(key), int(deadline * SEC))

    def delete(self, key, deadline=10.0):
        return LIB.mkv_delete(self.p, key, len(key), int(deadline * SEC))

    def stat(self, key, deadline=10.0):
        obj = Object(size=C.sizeof(Object))
        r = LIB.mkv_stat(self.p, key, len(key), int(deadline * SEC), C.byref(obj))
        if r != 0:
            raise Miss(r, obj.reason)
        return obj

    @staticmethod
    def _keys(keys):
        a = (Key * len(keys))()
        for i, k in enumerate(keys):
            a[i].data, a[i].bytes = k, len(k)
        return a

    def match(self, keys, deadline=10.0):
        reason = C.c_uint(0)
        return LIB.mkv_match(self.p, self._keys(keys), len(keys), 0, 0, int(deadline * SEC), C.byref(reason))

    def exists_batch(self, keys, deadline=10.0):
        there = (C.c_uint8 * len(keys))()
        why = (C.c_uint8 * len(keys))()
        r = LIB.mkv_exists_batch(self.p, self._keys(keys), len(keys), 0, int(deadline * SEC), there, why)
        if r < 0:
            raise Miss(r)
        return list(there), list(why)

    def delete_batch(self, keys, deadline=10.0):
        gone = (C.c_uint8 * len(keys))()
        r = LIB.mkv_delete_batch(self.p, self._keys(keys), len(keys), int(deadline * SEC), gone, None)
        if r < 0:
            raise Miss(r)
        return list(gone)

    def metric(self, name):
        """Of the handle's own counters: what those of this name come to."""
        n = LIB.mkv_client_metrics(self.p, None, 0)
        text = C.create_string_buffer(n + 4096)
        LIB.mkv_client_metrics(self.p, text, len(text))
        rows = (line.rsplit(" ", 1) for line in text.value.decode().splitlines() if line and line[0] != "#")
        return sum(float(v) for k, v in rows if k.split("{")[0] == name)

    def server_of(self, key):
        return LIB.mkv_server_of(self.p, key, len(key))

    def info(self, server=0, deadline=10.0):
        out = ServerInfo(size=C.sizeof(ServerInfo))
        r = LIB.mkv_server_info(self.p, server, int(deadline * SEC), C.byref(out))
        if r != 0:
            raise Miss(r)
        return out


class Region:
    """A registered region with poison in it."""

    def __init__(self, c, size):
        self.p = C.c_void_p()
        r = LIB.mkv_region_alloc(c.p, size, C.byref(self.p))
        assert r == 0, r
        self.base = LIB.mkv_region_base(self.p, None)
        self.mem = (C.c_uint8 * size).from_address(self.base)
        self.view = memoryview(self.mem).cast("B")
        self.size = size
        self.poison()

    def poison(self):
        C.memset(self.base, POISON, self.size)

    def untouched(self, begin, end):
        """Whether every byte outside of [begin, end) is poison still."""
        return self.is_poison(0, begin) and self.is_poison(end, self.size)

    def is_poison(self, begin, end):
        return self.view[begin:end].tobytes().count(POISON) == end - begin

    def free(self):
        self.view.release()
        r = LIB.mkv_region_free(self.p)
        assert r == 0, r


class Stream:
    """A put in parts. commit() ends it, and so does leaving the `with` without one."""

    def __init__(self, client, key, deadline, flags):
        o = PutOpts(size=C.sizeof(PutOpts), flags=flags)
        self.p = C.c_void_p()
        self.said(LIB.mkv_put_begin(client.p, key, len(key), C.byref(o), int(deadline * SEC), C.byref(self.p)))

    @staticmethod
    def said(r, reason=0):
        if r != 0:
            raise Miss(r, reason)

    def part(self, data, deadline=10.0):
        self.said(LIB.mkv_put_part(self.p, data, len(data), int(deadline * SEC)))

    def commit(self, deadline=10.0):
        p, self.p = self.p, C.c_void_p()
        obj = Object(size=C.sizeof(Object))
        self.said(LIB.mkv_put_commit(p, int(deadline * SEC), C.byref(obj)), obj.reason)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        p, self.p = self.p, C.c_void_p()
        LIB.mkv_put_abort(p)
