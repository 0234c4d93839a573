"""The group `local`: a client on the server's own host.

Three ways to keep values are measured by one load: memkv in memory, by its unix socket and by TCP over loopback, beside Redis by its unix
socket and plain files; memkv in a file; memkv on a block device. The last two stand beside fio with io_uring and O_DIRECT. The bound of the
first is memcpy, one thread, over as many values.

What writes to the disk comes last in a round, and is written out before the next one begins: nobody pays for another's pages.
"""
import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
from typing import NamedTuple

from beside import (GIB, KIB, MIB, Failed, Memkv, Redis, bench, cpu_per_gib, fio, human, loop_device, loop_device_end, say, started, warm_up)

GROUP = "local "                # before all names of the group
OPS = ("get", "put")
PARTS = ("p50", "p99", "cpu", "client cpu", "server cpu")


class Candidate(NamedTuple):
    name: str
    server: object              # None: there is none
    options: dict               # of `memkv bench`
    ops: tuple = OPS
    to_disk: bool = False
    least_depth: int = 1


def name_of(op, size, depth, who):
    return f"{GROUP}{op} {human(size)} x{depth} {who}"


def note_parts(res, name, rnd, p50, p99, client, server):
    for part, value in zip(PARTS, (p50, p99, client + (server or 0), client, server), strict=True):
        res.note(f"{name} {part}", rnd, value)


def sample(res, rnd, args, c, op, size, depth, **more):
    """One measurement of one candidate, and what belongs to it."""
    name = name_of(op, size, depth, c.name)

    def once():
        j = bench(args, c.server, op, size=size, concurrency=depth, duration=args.seconds, **c.options, **more)
        latency = j["latency_us"]
        note_parts(res, name, rnd, latency["p50"], latency["p99"], cpu_per_gib(j, "client") or 0, cpu_per_gib(j))
        return j["gib_per_s"]
    res.measure(name, rnd, once)


def checked_too(res, args, c, what, size, keys):
    """Every byte is read back: as it is (get), or while it is written over (mixed)."""
    name = f"{GROUP}{c.name} {human(size)} verified {what}"
    res.measure(name, 0, lambda: bench(args, c.server, what, verify=True, ops=2 * keys, size=size, keys=keys, concurrency=4, **c.options)["gib_per_s"])


def filled_and_checked(res, args, c, what, size, keys):
    res.measure(f"{GROUP}{c.name} {human(size)} fill", 0, lambda: bench(args, c.server, "fill", size=size, keys=keys, concurrency=4, **c.options)["gib_per_s"])
    checked_too(res, args, c, what, size, keys)


# ---- in memory ----

def directory(stack, where):
    path = tempfile.mkdtemp(prefix="memkv-compare-", dir=where)
    stack.callback(shutil.rmtree, path, ignore_errors=True)
    return path


def memory_servers(args, res, stack, capacity):
    makers = [("memkv", lambda: Memkv(args, "memory", capacity))]
    if args.tools.get("redis-server"):
        makers.append(("redis", lambda: Redis(args, capacity)))
    servers = {what: started(res, what, make) for what, make in makers}
    for server in filter(None, servers.values()):
        stack.callback(server.stop)
    return servers


def tmpfs_of(args, bytes_wanted):
    """A directory in memory with room for that, or None."""
    with contextlib.suppress(OSError):
        if os.access(args.tmpfs, os.W_OK) and shutil.disk_usage(args.tmpfs).free > 2 * bytes_wanted:
            return args.tmpfs
    return None


def memory_candidates(args, stack, servers, span):
    out = []
    memkv, redis = servers.get("memkv"), servers.get("redis")
    if memkv is not None:
        local = dict(servers=memkv.local, transport="local")
        out += [Candidate("memkv local", memkv, local), Candidate("memkv TCP", memkv, {}),
                Candidate("memkv local, in place", memkv, dict(env={"MEMKV_LOCAL_GET": "in_place"}, **local), ops=("get",), least_depth=2),
                Candidate("memkv local, CRC off", memkv, dict(no_crc=True, **local), least_depth=2)]
    if redis is not None:
        out.append(Candidate("Redis, unix socket", redis, dict(servers=redis.unix)))
    if tmpfs_of(args, span) is not None:
        out.append(Candidate("files in tmpfs", None, dict(servers=directory(stack, args.tmpfs))))
    disk = dict(servers=directory(stack, args.tmp))
    out += [Candidate("files", None, disk, to_disk=True),
            Candidate("files, fdatasync", None, dict(files_sync=True, **disk), ops=("put",), to_disk=True)]
    return out


def memory_round(res, rnd, args, candidates, size, keys):
    memcpy = Candidate("memcpy", None, dict(driver="memcpy"))
    for op in OPS:
        sample(res, rnd, args, memcpy, op, size, 1, keys=keys)
    order = candidates if rnd % 2 == 0 else candidates[::-1]
    for depth in args.depths:
        for to_disk in (False, True):
            for op in OPS:
                for c in order:
                    if op in c.ops and depth >= c.least_depth and (c.to_disk and op == "put") == to_disk:
                        sample(res, rnd, args, c, op, size, depth, keys=keys, connections=1)
        os.sync()


def memory_size(args, res, size):
    keys = max(args.keys, args.span // size)
    span = keys * size
    with contextlib.ExitStack() as stack:
        servers = memory_servers(args, res, stack, max(span * 3 // 2, 256 * MIB))
        candidates = memory_candidates(args, stack, servers, span)
        checked = [c for c in candidates if c.ops == OPS and not c.options.get("no_crc")]
        for c in checked:
            say(f"same host, {human(size)}: fill and verify {c.name}")
            filled_and_checked(res, args, c, "get", size, keys)
        for c in candidates:
            if c.ops == ("get",):
                checked_too(res, args, c, "get", size, keys)
        for server in filter(None, servers.values()) if not args.quick else ():
            res.measure(f"{GROUP}{server.name} {human(size)} warm-up", 0, lambda server=server: warm_up(args, server, size, keys, span * 3 // 2))
        for rnd in range(args.rounds):
            say(f"same host, {human(size)}: round {rnd + 1} of {args.rounds}")
            memory_round(res, rnd, args, candidates, size, keys)
        for c in checked:
            filled_and_checked(res, args, c, "mixed", size, keys)
    memory_rows(res, args, size)


def memory_rows(res, args, size):
    for op in OPS:
        for depth in args.depths:
            local = name_of(op, size, depth, "memkv local")
            what = f"{op.upper()} {human(size)}, {depth} in flight, local"
            tcp, many = name_of(op, size, depth, "memkv TCP"), depth > 1        # the budget is for more than one in flight
            res.row(f"{what}, against memcpy", local, name_of(op, size, 1, "memcpy"), "GiB/s", 0.6 if many else None, 0.8 if many else None)
            if many:
                res.row(f"{what}, CRC off, the same", f"{local}, CRC off", name_of(op, size, 1, "memcpy"), "GiB/s", None, None)
            if many and op == "get":
                res.row(f"{what}, in place, against memcpy", f"{local}, in place", name_of(op, size, 1, "memcpy"), "GiB/s", 0.6, 0.8)
                res.row(f"CPU of client and server: {what}, in place, against memkv by TCP", f"{local}, in place cpu", tcp + " cpu", "s/GiB", 0.6, None, less=True)
            res.row(f"{what}, against memkv by TCP", local, tcp, "GiB/s", 1.0 if many else None, None)
            res.row(f"CPU of client and server: {what}, against memkv by TCP", local + " cpu", tcp + " cpu", "s/GiB", 0.6 if many else None, None, less=True)
            res.row(f"{what}, against Redis by its unix socket", local, name_of(op, size, depth, "Redis, unix socket"), "GiB/s", None, None)


# ---- in a file, and on a block device ----

def written(path, span):
    """Every block is there: what was never written is read as zeroes, without the medium."""
    block = os.urandom(MIB)
    with open(path, "r+b" if os.path.exists(path) else "wb") as f:
        for _ in range(span // MIB):
            f.write(block)
        f.flush()
        os.fsync(f.fileno())


def huge_bytes(which):
    """Memory in huge pages: "Total" or "Free"."""
    with open("/proc/meminfo", encoding="utf-8") as f:
        have = {x.split(":")[0]: int(x.split()[1]) for x in f}
    return have.get(f"HugePages_{which}", 0) * have.get("Hugepagesize", 0) * KIB


def fio_memory(wanted):
    """Huge pages where enough are free, as a client's regions have them."""
    return "mmaphuge" if huge_bytes("Free") >= wanted else "malloc"


class Media:
    """A server in this mode, something of the same kind for fio, and beside a device Redis, for its CPU."""

    def __init__(self, args, res, stack, mode, size, depth):
        self.args, self.res, self.mode, self.size, self.depth = args, res, mode, size, depth
        self.keys = max(16, args.media_span // size)
        self.capacity = max(2 * self.keys * size, 256 * MIB)
        self.trusting = self.redis = None
        self.server = started(res, f"memkv {mode}", lambda: Memkv(args, mode, self.capacity))
        if self.server is None:
            return
        stack.callback(self.server.stop)
        if mode == "direct":
            self.trusting = started(res, "memkv direct, verify_put off", lambda: Memkv(args, mode, self.capacity, integrity__verify_put="off"))
        if self.trusting is not None:
            stack.callback(self.trusting.stop)
        self.fio_path = os.path.join(directory(stack, args.tmp), "fio.dat")
        if mode == "direct" and args.tools.get("fio"):
            self.fio_path = loop_device(self.fio_path, self.keys * size)
            stack.callback(loop_device_end, self.fio_path)
        written(self.fio_path, self.keys * size)
        wanted = mode == "direct" and args.tools.get("redis-server")
        self.redis = started(res, "redis", lambda: Redis(args, self.capacity)) if wanted else None
        if self.redis is not None:
            stack.callback(self.redis.stop)

    def candidates(self):
        durable = dict(durability="commit")
        local = dict(transport="local", **durable)
        out = [Candidate(f"memkv {self.mode}, local", self.server, dict(servers=self.server.local, **local), to_disk=True),
               Candidate(f"memkv {self.mode}, TCP", self.server, durable, to_disk=True),
               Candidate(f"memkv {self.mode}, local, in place", self.server, dict(env={"MEMKV_LOCAL_GET": "in_place"}, servers=self.server.local, **local), ops=("get",))]
        if self.trusting is not None:
            out.append(Candidate("memkv direct, local, verify_put off", self.trusting, dict(servers=self.trusting.local, **local), ops=("put",), to_disk=True))
        if self.redis is not None:
            out.append(Candidate("Redis beside direct", self.redis, dict(servers=self.redis.unix)))
        return out

    def name(self, op, who):
        return name_of(op, self.size, self.depth, who)

    def put_local(self, rnd, c):
        """A put through the unix socket, with its flushes counted: fio is given as many."""
        f0, p0 = c.server.flushes_and_puts()
        sample(self.res, rnd, self.args, c, "put", self.size, self.depth, keys=self.keys, connections=1)
        f1, p1 = c.server.flushes_and_puts()
        self.res.note(f"{self.name('put', c.name)} flushes", rnd, (f1 - f0) / (p1 - p0) if p1 > p0 else None)

    def fio(self, rnd, op):
        rw, more = ("randread", {}) if op == "get" else ("randwrite", {"fdatasync": self.writes_a_flush(rnd)})
        name = self.name(op, f"fio beside {self.mode}")

        def once():
            j = fio(self.args, rw, self.fio_path, self.size, iodepth=self.depth, size=self.keys * self.size, registerfiles=1,
                    fixedbufs=int(os.geteuid() == 0), mem=fio_memory(self.depth * self.size), **more)
            tile = j["clat_ns"]["percentile"]
            cpu = (j["usr_cpu"] + j["sys_cpu"]) / 100 * j["job_runtime"] / 1e3 / (j["io_bytes"] / GIB)
            note_parts(self.res, name, rnd, tile["50.000000"] / 1e3, tile["99.000000"] / 1e3, cpu, None)
            return j["bw_bytes"] / GIB
        self.res.measure(name, rnd, once)

    def writes_a_flush(self, rnd):
        flushes = self.res.value.get(f"{self.name('put', f'memkv {self.mode}, local')} flushes", {}).get(rnd)
        return max(1, round(1 / flushes)) if flushes else self.depth

    def round(self, rnd):
        order = self.candidates()[::1 if rnd % 2 == 0 else -1]
        for op in OPS:
            for c in order:
                if op not in c.ops:
                    continue
                if op == "put" and c.options.get("transport") == "local":
                    self.put_local(rnd, c)
                else:
                    sample(self.res, rnd, self.args, c, op, self.size, self.depth, keys=self.keys, connections=1)
            if self.args.tools.get("fio"):
                self.fio(rnd, op)
        os.sync()

    def run(self):
        local = self.candidates()[0]
        for c in self.candidates():
            (checked_too if c.ops == ("get",) else filled_and_checked)(self.res, self.args, c, "get", self.size, self.keys)
        for server, name in ((self.server, local.name), (self.trusting, f"{local.name}, verify_put off")):
            if server is not None and not self.args.quick:
                self.res.measure(f"{GROUP}{name} warm-up", 0, lambda server=server: warm_up(self.args, server, self.size, self.keys, self.capacity))
        for rnd in range(self.args.rounds):
            say(f"same host, {self.mode} mode: round {rnd + 1} of {self.args.rounds}")
            self.round(rnd)
        filled_and_checked(self.res, self.args, local, "mixed", self.size, self.keys)

    def rows(self):
        for op in OPS:
            what = f"{op.upper()} {human(self.size)}, {self.mode} mode, {self.depth} in flight, local{', durable' if op == 'put' else ''}"
            self.rows_of(op, what, f"memkv {self.mode}, local")
            if op == "get":
                self.rows_of(op, f"{what}, in place", f"memkv {self.mode}, local, in place")
            elif self.trusting is not None:
                self.rows_of(op, f"{what}, verify_put off", "memkv direct, local, verify_put off")

    def rows_of(self, op, what, who):
        bounds = {"get": (0.9, 0.97), "put": (0.85, 0.95)} if self.mode == "direct" else {}
        local, tcp = self.name(op, who), self.name(op, f"memkv {self.mode}, TCP")
        same = ", as many writes a flush" if op == "put" else ""
        self.res.row(f"{what}, against fio{same}", local, self.name(op, f"fio beside {self.mode}"), "GiB/s", *bounds.get(op, (None, None)))
        self.res.row(f"{what}, against memkv by TCP", local, tcp, "GiB/s", None, None)
        self.res.row(f"CPU of client and server: {what}, against memkv by TCP", local + " cpu", tcp + " cpu", "s/GiB", None, None, less=True)
        if self.mode == "direct":
            self.res.row(f"CPU of the server: {what}, against Redis by its unix socket", local + " server cpu",
                         self.name(op, "Redis beside direct") + " server cpu", "s/GiB", 0.2, None, less=True)


def media(args, res, mode, size, depth):
    if mode == "direct" and (os.geteuid() != 0 or shutil.which("losetup") is None):
        say("same host, direct mode: needs root and losetup, its rows stay empty")
        return
    with contextlib.ExitStack() as stack:
        try:
            m = Media(args, res, stack, mode, size, depth)
            if m.server is not None:
                m.run()
                m.rows()
        except (Failed, OSError, subprocess.SubprocessError) as e:
            res.failures.append(f"same host, {mode} mode: {e}")


# ---- the table ----

def number(v):
    return f"{v:.0f}" if v >= 1000 else f"{v:.3g}"


def cell(res, name):
    v = res.value.get(name)
    if not v:
        return "-"
    return f"{number(statistics.median(v.values()))} ({number(min(v.values()))}..{number(max(v.values()))})"


def table(res, wanted):
    """One row for each candidate that was measured, in the order of measuring: the dictionary's."""
    out = ["| | in flight | what | GiB/s | p50 µs | p99 µs | CPU s/GiB: client and server | server alone |", "|---|---|---|---|---|---|---|---|"]
    for size, op, depth in wanted:
        head = name_of(op, size, depth, "")
        for name in [n for n in res.value if n.startswith(head) and f"{n} p50" in res.value]:
            out.append(f"| {op.upper()} {human(size)} | {depth} | {name[len(head):]} | {cell(res, name)} | {cell(res, name + ' p50')} "
                       f"| {cell(res, name + ' p99')} | {cell(res, name + ' cpu')} | {cell(res, name + ' server cpu')} |")
    return "\n".join(out)


def conditions(args):
    def kind(path):
        out = subprocess.run(["df", "--output=fstype", path], capture_output=True, check=False)
        return (out.stdout.decode().split() or ["nothing"])[-1]
    return (f"- files on {kind(args.tmp)} and on {kind(args.tmpfs)}; {human(huge_bytes('Total'))} reserved as huge pages, which fio takes where they suffice; "
            f"at least {human(args.span)} of values in memory, {human(args.media_span)} in a file and on a device")


def group_local(args, res):
    big = 4 * MIB if 4 * MIB in args.sizes else args.sizes[-1]
    for size in args.sizes:
        memory_size(args, res, size)
    for mode in ("file", "direct"):
        media(args, res, mode, big, max(args.depths))
    wanted = [(size, op, depth) for size in sorted({*args.sizes, big}) for op in OPS for depth in sorted({1, *args.depths})]
    res.tables.append(("Each candidate: medians, smallest..largest", table(res, wanted), GROUP))
