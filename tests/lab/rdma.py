"""
Servers and clients over soft-RoCE, for tests in the guest of run-lab --nics 2: the client's side is rxe0 at the first address, the server's rxe1 at the second,
and what goes between them crosses the segment. What a call may write to is a place in a region, with GUARD bytes of poison at least on both sides.
"""
import ctypes as C
import os
import re
import subprocess
import tempfile
import time

import lab
import mkv
from harness import Server
from mkv import POISON, Region  # noqa: F401
from transport import ADDRESSES, KEY, NICS

GUARD = 4096


def server(sets=(), mode="memory", drives=2, nics=None, drive_bytes="192MiB", **kw):
    """Not started. Its rails are rxe1 (or nics)."""
    more = [f"rdma.devices=[{', '.join(nics or NICS[1:2])}]", f"network.auth_key={KEY}", "memory.max_size=192MiB", "network.shards=1"]
    s = Server(sets=more + list(sets), mode=mode, drives=drives, drive_bytes=drive_bytes, **kw)
    s.sets = [x for x in s.sets if not x.startswith("network.address=")] + [f"network.address={ADDRESSES[1]}:0"]
    return s


def client(s, transport="rdma", **kw):
    kw.setdefault("rdma_devices", NICS[0])
    return mkv.Client(s.addr, transport=transport, auth_key=KEY, **kw)


def metric(c, name, **labels):
    """Sum of a client's samples of that name whose labels are these."""
    n = mkv.LIB.mkv_client_metrics(c.p, None, 0)
    buf = C.create_string_buffer(n + 4096)
    mkv.LIB.mkv_client_metrics(c.p, buf, len(buf))
    total = 0.0
    for line in buf.value.decode().splitlines():
        m = re.match(rf"{name}(?:{{(.*)}})? (\S+)$", line)
        if m and all(f'{k}="{v}"' in (m[1] or "") for k, v in labels.items()):
            total += float(m[2])
    return total


def put_from(c, key, region, off, n, deadline=20.0, flags=0):
    c.put_at(key, region.base + off, n, deadline, flags)


def get_into(c, key, region, off, room, deadline=20.0):
    return c.get_at(key, region.base + off, room, deadline)


def range_into(c, key, at, region, off, room, deadline=20.0):
    obj = mkv.Object(size=C.sizeof(mkv.Object))
    n = mkv.LIB.mkv_get_range(c.p, key, len(key), at, region.base + off, room, int(deadline * mkv.SEC), C.byref(obj))
    if n < 0:
        raise mkv.Miss(n, obj.reason)
    return n


def link(what, state):
    lab.sh("ip", "link", "set", what, state)


class DeviceDeleted:
    """`rdma link delete`, which returns when nobody has the device open any more; the same device again at the end."""

    def __init__(self, device):
        self.device = device

    def __enter__(self):
        shown = subprocess.run(["rdma", "link", "show", f"{self.device}/1"], capture_output=True, text=True, timeout=30, check=True).stdout
        self.netdev = shown.split("netdev ")[1].split()[0]
        subprocess.run(["rdma", "link", "delete", self.device], timeout=60, check=True)
        return self

    def __exit__(self, *_):
        subprocess.run(["rdma", "link", "add", self.device, "type", "rxe", "netdev", self.netdev], timeout=60, check=True)


class LinkDown:
    """Of a NIC (nic1) or of the port at its far end (port1). Taking it down takes routes with it."""

    def __init__(self, what):
        self.what = what

    def __enter__(self):
        link(self.what, "down")

    def __exit__(self, *_):
        link(self.what, "up")
        n = int(self.what[-1])
        for route in (["10.77.0.0/24", "dev", f"nic{n}", "src", ADDRESSES[n]], ["local", ADDRESSES[n], "dev", f"nic{n}"]):
            lab.sh("ip", "route", "replace", *route, "table", 1000 + n)


def scratch():
    return tempfile.mkdtemp(prefix="memkv-lab-", dir="/tmp")


def run(*args, env=None, timeout=120):
    e = dict(os.environ, MEMKV_AUTH_KEY=KEY, MEMKV_RDMA_DEVICES=NICS[0])
    e.update(env or {})
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=timeout, env=e, stdin=subprocess.DEVNULL)


def wait_rails(s, n=1, timeout=120):
    """Until so many rails of it serve. Each look is a process, which would take the emulated processors from those that are to come up."""
    def up():
        rows = [r for name, r in s.status().items() if name.startswith("front:rdma:")]
        return len([r for r in rows if r["state"] == "RUNNING"]) >= n
    until(up, timeout, 0.5)


def hw_counter(nic, name):
    with open(f"/sys/class/infiniband/{nic}/ports/1/hw_counters/{name}") as f:
        return int(f.read())


def until(what, timeout=30, pause=0.1):
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(pause)


def free_again(s):
    """
    A front tells its counts twice a second, so those of the last request come later than its answer: one told between the last WRITE of a get and the end of its reply has all
    buffers free and a request still at work.
    """
    value = lambda what: s.metric_sum(f"memkv_front_{what}")    # noqa: E731
    until(lambda: value("stage_free_bytes") == value("stage_bytes") and value("in_flight") == value("parked") == 0, 30)
