"""The group `preload`: programs with files on libmemkv_preload.so, beside the same programs on files in memory and on the disk.

The load is NumPy's (numpy_files.py), and the KV-cache benchmark of MLPerf Storage where MEMKV_KVCACHE_BENCH names its folder. Every round runs
each place once, so with and without the library alternate. What goes through the library is held against what it counted itself: a program may
hide an error, and is fast then.
"""
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

from beside import GIB, MIB, Failed, Memkv, human, say, started, warm_up

HERE = os.path.dirname(os.path.realpath(__file__))
GROUP = "preload "              # before all names of the group
CAPACITY = 2 * GIB
HEADER = 128                    # of NumPy's, of each file
OPS = ("get", "put")


class Place(NamedTuple):
    name: str
    path: str
    env: dict                   # with the library; empty: without
    to_disk: bool = False


def python_with(*modules):
    for python in (sys.executable, "python3", "/usr/bin/python3"):
        if shutil.which(python) and subprocess.run([python, "-c", "import " + ", ".join(modules)], capture_output=True, check=False).returncode == 0:
            return python
    return None


def directory(stack, where):
    path = tempfile.mkdtemp(prefix="memkv-compare-", dir=where)
    stack.callback(shutil.rmtree, path, ignore_errors=True)
    return path


def forget(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def places(args, stack, server, library):
    out = []
    if server is not None:
        for name, servers, transport in (("memkv local", server.local, "local"), ("memkv TCP", server.address, "tcp")):
            anchor = directory(stack, args.tmp)
            out.append(Place(name, anchor, {"LD_PRELOAD": library, "MEMKV_PRELOAD_PREFIX": anchor, "MEMKV_PRELOAD_STATS": anchor + ".stats",
                                            "MEMKV_SERVERS": servers, "MEMKV_TRANSPORT": transport}))
            stack.callback(forget, anchor + ".stats")
    if os.path.isdir(args.tmpfs):
        out.append(Place("tmpfs", directory(stack, args.tmpfs), {}))
    out.append(Place("disk", directory(stack, args.tmp), {}, to_disk=True))
    return out


def run(args, place, command):
    """What the program printed last, or None. The next one does not pay for this one's pages."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MEMKV_")}
    out = subprocess.run(command, env=clean | place.env, capture_output=True, text=True, timeout=10 * args.limit, check=False)
    if out.returncode != 0:
        raise Failed(f"{' '.join(command)} in {place.name}: status {out.returncode}: {out.stderr[-400:]}")
    if place.to_disk:
        os.sync()
    return out.stdout.splitlines()[-1] if out.stdout else None


def counted(place):
    """What the library says of the program that has ended: its operations, each with count, bytes and errors."""
    stats = place.env["MEMKV_PRELOAD_STATS"]
    with open(stats, encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    os.unlink(stats)
    return {op: {k: sum(r[op][k] for r in rows) for k in ("count", "bytes", "errors")} for op in OPS}


def check(place, put_bytes, get_bytes):
    if not place.env:
        return
    c = counted(place)
    if c["put"]["errors"] + c["get"]["errors"] != 0 or c["put"]["bytes"] != put_bytes or c["get"]["bytes"] != get_bytes:
        raise Failed(f"{place.name}: the library counted {c}, the program {put_bytes} and {get_bytes} bytes")


def numpy_once(args, res, rnd, python, place, size):
    count = 2 if args.quick else max(4, 256 * MIB // size)

    def once():
        out = json.loads(run(args, place, [python, os.path.join(HERE, "numpy_files.py"), place.path, str(size), str(count)]))
        check(place, count * (size + HEADER), 2 * count * (size + HEADER))
        for op in OPS:
            res.note(f"{GROUP}{op} {human(size)} {place.name} p50", rnd, out[op]["p50_ms"])
        res.note(f"{GROUP}put {human(size)} {place.name}", rnd, out["put"]["gib_per_s"])
        return out["get"]["gib_per_s"]
    res.measure(f"{GROUP}get {human(size)} {place.name}", rnd, once)


def kvcache_once(args, res, rnd, python, place, folder):
    out = place.path + ".json"
    command = [python, os.path.join(folder, "kv-cache.py"), "--config", os.path.join(folder, "config.yaml"), "--model", "tiny-1b", "--num-users", "4",
               "--duration", str(round(args.kvcache_seconds)), "--gpu-mem-gb", "0", "--cpu-mem-gb", "0", "--max-concurrent-allocs", "4", "--generation-mode", "none",
               "--storage-capacity-gb", "1", "--seed", "42", "--cache-dir", place.path, "--output", out]

    def once():
        run(args, place, command)
        with open(out, encoding="utf-8") as f:
            said = json.load(f)
        os.unlink(out)
        cache = said["summary"]["cache_stats"]
        if min(said["prefill_latencies"] + said["decode_latencies"]) <= 0:
            raise Failed(f"{place.name}: operations of no time, which are failures that it hides")
        check(place, cache["total_write_bytes"] + HEADER * cache["write_iops"], cache["total_read_bytes"] + HEADER * cache["read_iops"])
        for op in ("read", "write"):
            res.note(f"{GROUP}KV-cache {op} {place.name} p50", rnd, cache[f"storage_{op}_device_p50_ms"])
        return cache["tier_storage_read_bandwidth_gbps"]
    res.measure(f"{GROUP}KV-cache read {place.name}", rnd, once)


def rows(res, sizes, folder):
    for who in ("memkv local", "memkv TCP"):
        for ref in ("tmpfs", "disk"):
            for size in sizes:
                for op in OPS:
                    name = f"{GROUP}{op} {human(size)}"
                    res.row(f"NumPy {op} of {human(size)}, {who.replace('memkv ', '')}, against files on {ref}", f"{name} {who}", f"{name} {ref}", "GiB/s", None, None)
            if folder:
                name = f"{GROUP}KV-cache read"
                res.row(f"MLPerf KV-cache benchmark, reads, {who.replace('memkv ', '')}, against files on {ref}", f"{name} {who}", f"{name} {ref}", "GiB/s", None, None)


def table(res, sizes, folder):
    """Latencies, which have no ratio of their own above."""
    what = [(f"{op} {human(size)}", f"{op} of {human(size)}") for size in sizes for op in OPS]
    what += [(f"KV-cache {op}", f"KV-cache benchmark, {op} (device)") for op in ("read", "write")] if folder else []
    out = ["| median latency, ms | memkv local | memkv TCP | tmpfs | disk |", "|---|---|---|---|---|"]
    for name, said in what:
        names = [f"{GROUP}{name} {who} p50" for who in ("memkv local", "memkv TCP", "tmpfs", "disk")]
        out.append(f"| {said} | " + " | ".join("-" if res.median(n) is None else f"{res.median(n):.3g} ({res.spread(n)})" for n in names) + " |")
    return "\n".join(out)


def group_preload(args, res):
    library = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(args.memkv))), "lib", "libmemkv_preload.so")
    folder = "" if args.quick else os.environ.get("MEMKV_KVCACHE_BENCH", "")
    python = python_with("numpy", "yaml") if folder else python_with("numpy")
    if not os.path.exists(library) or python is None:
        say(f"{library if python else 'numpy' + (' and yaml' if folder else '')} is not here: the rows of the group preload stay empty")
        return
    with contextlib.ExitStack() as stack:
        server = started(res, "memkv", lambda: Memkv(args, "memory", 256 * MIB if args.quick else CAPACITY))
        if server is not None:
            stack.callback(server.stop)
        if server is not None and not args.quick:
            res.measure(f"{GROUP}memkv warm-up", 0, lambda: warm_up(args, server, 4 * MIB, 16, CAPACITY))
        where = places(args, stack, server, library)
        for rnd in range(args.rounds):
            say(f"preload: round {rnd + 1} of {args.rounds}")
            for place in where:
                for size in args.file_sizes:
                    numpy_once(args, res, rnd, python, place, size)
                if folder and not place.path.startswith("/dev/"):       # which the benchmark refuses
                    kvcache_once(args, res, rnd, python, place, folder)
    rows(res, args.file_sizes, folder)
    res.tables.append(("Programs with files: median of the medians of the rounds, and their least and most", table(res, args.file_sizes, folder), GROUP))
