"""What the groups of `compare` share: the servers, one measurement, what was measured and its tables.

All processes are started here, on ports and sockets of their own, and ended here, each by its id.
"""
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def say(text):
    print(f"[{time.monotonic() - START:6.1f}s] {text}", file=sys.stderr, flush=True)


START = time.monotonic()


class Failed(Exception):
    """A measurement that did not work: the run goes on, the exit status tells."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, proc, limit=10):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if proc.poll() is not None:
            raise Failed(f"{proc.args[0]} ended with {proc.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise Failed(f"{proc.args[0]} does not listen")


class Server:
    """A process of ours, ended by its id and nothing else."""

    def __init__(self, args, **kw):
        self.log = tempfile.TemporaryFile()
        self.proc = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, **kw)
        self.pid = self.proc.pid

    def stop(self):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(20)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
        self.log.close()

    def words(self):
        self.log.seek(0)
        return self.log.read()[-2000:].decode(errors="replace")


def loop_device(path, capacity):
    """A block device of a file of ours, for direct mode; past the page cache where the kernel lets it."""
    with open(path, "wb") as f:
        os.posix_fallocate(f.fileno(), 0, capacity)
    for more in (["--direct-io=on"], []):
        out = subprocess.run(["losetup", "--find", "--show", *more, path], capture_output=True, check=False)
        if out.returncode == 0:
            return out.stdout.decode().strip()
    raise Failed(f"no loop device (root only): {out.stderr.decode(errors='replace').strip()}")


def loop_device_end(device):
    subprocess.run(["losetup", "--detach", device], check=False)


class Memkv(Server):
    name = "memkv"

    def __init__(self, args, mode, capacity, **sets):
        """sets: configuration, section__key=value."""
        self.dir = tempfile.mkdtemp(prefix="memkv-compare-", dir=args.tmp)
        self.loop = None
        media = "arena0" if mode == "memory" else os.path.join(self.dir, "drive0.dat")
        try:
            if mode == "direct":
                media = self.loop = loop_device(media, capacity)
        except Failed:
            shutil.rmtree(self.dir, ignore_errors=True)
            raise
        r, w = os.pipe()
        cmd = [args.memkv, "start", "--ready-fd", str(w), "--set", f"server.data_dir={self.dir}/data",
               "--set", "network.address=127.0.0.1:0", "--set", "admin.address=127.0.0.1:0",
               "--set", f"storage.mode={mode}", "--set", f"storage.drives=[{{media: {media}, max_size: {capacity}}}]"]
        for key, value in sets.items():
            cmd += ["--set", f"{key.replace('__', '.')}={value}"]
        super().__init__(cmd, pass_fds=[w])
        os.close(w)
        with os.fdopen(r) as ready:
            line = ready.readline()
        words = dict(x.split("=", 1) for x in line.split()[1:])
        if "data" not in words:
            text = self.words()
            self.stop()
            raise Failed(f"memkv does not start: {text}")
        self.address, self.admin, self.local = words["data"], words.get("admin"), "local://" + words.get("local", "-")

    def metrics(self):
        import urllib.request
        with urllib.request.urlopen(f"http://{self.admin}/v1/metrics", timeout=5) as f:
            text = f.read().decode()
        out = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                key, value = line.rsplit(" ", 1)
                name = key.split("{")[0]
                out[name] = out.get(name, 0.0) + float(value)
        return out

    def flushes_and_puts(self):
        m = self.metrics()
        try:
            return m["memkv_drive_flushes_total"], m["memkv_drive_puts_total"]
        except KeyError as e:
            raise Failed("the server's metrics do not count flushes and puts") from e

    def stop(self):
        super().stop()
        if self.loop is not None:
            loop_device_end(self.loop)
            self.loop = None
        shutil.rmtree(self.dir, ignore_errors=True)


class Redis(Server):
    name = "redis"

    def __init__(self, args, _capacity):
        port = free_port()
        self.dir = tempfile.mkdtemp(prefix="memkv-compare-", dir=args.tmp)
        path = os.path.join(self.dir, "redis.sock")
        self.address, self.unix = f"127.0.0.1:{port}", "unix://" + path
        super().__init__([args.tools["redis-server"], "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", path, "--save", "",
                          "--appendonly", "no", "--dir", self.dir])
        wait_port(port, self.proc)

    def stop(self):
        super().stop()
        shutil.rmtree(self.dir, ignore_errors=True)


class Memcached(Server):
    name = "memcached"

    def __init__(self, args, capacity):
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        super().__init__([args.tools["memcached"], "-l", "127.0.0.1", "-p", str(port), "-m", str(2 * capacity // MIB + 64),
                          "-I", "128m", "-t", "4", *user])
        wait_port(port, self.proc)


class Iperf(Server):
    name = "iperf3"

    def __init__(self, args):
        self.port = free_port()
        self.tool = args.tools["iperf3"]
        super().__init__([self.tool, "-s", "-p", str(self.port), "-B", "127.0.0.1"])
        time.sleep(0.3)

    def run(self, seconds, connections):
        out = subprocess.run([self.tool, "-c", "127.0.0.1", "-p", str(self.port), "-t", str(max(1, round(seconds))), "-l", "1M",
                              "-P", str(connections), "-J"], capture_output=True, timeout=seconds + 30, check=False)
        if out.returncode != 0:
            raise Failed(f"iperf3: {out.stdout[-300:]!r}")
        return json.loads(out.stdout)["end"]["sum_received"]["bits_per_second"] / 8 / GIB


def bench(args, server, op, **options):
    """One run of `memkv bench`; its JSON object. A wrong byte, an error, or gets of what was filled and is gone, make it a failure."""
    driver = options.pop("driver", server.name if server else "files")
    env = {**os.environ, **options.pop("env", {})}
    options.setdefault("servers", server.address if server else None)
    cmd = [args.memkv, "bench", op, "--driver", driver, "--json", "--quiet"]
    if server is not None:
        cmd += ["--server-pid", str(server.pid)]
    if driver == "memkv":
        options.setdefault("transport", "tcp")
    for key, value in options.items():
        if value is True:
            cmd.append("--" + key.replace("_", "-"))
        elif value is not None and value is not False:
            cmd += ["--" + key.replace("_", "-"), str(value)]
    out = subprocess.run(cmd, capture_output=True, timeout=args.limit, check=False, env=env)
    if out.returncode != 0:
        raise Failed(f"{' '.join(cmd)}: status {out.returncode}: {out.stderr[-400:].decode(errors='replace')}"
                     f"{out.stdout[-400:].decode(errors='replace')}")
    j = json.loads(out.stdout.splitlines()[-1])
    if op == "get" and sum(j["misses"].values()) > j["hits"] // 100:
        raise Failed(f"{' '.join(cmd)}: {j['misses']} of {j['ops']} gets missed what was filled")
    if driver == "memkv" and j["transport"] not in ("", options["transport"]):
        raise Failed(f"{' '.join(cmd)}: went over {j['transport']}")
    return j


def cpu_per_gib(j, who="server"):
    if j["cpu_s"][who] is None or j["bytes"] == 0:
        return None
    return j["cpu_s"][who] / (j["bytes"] / GIB)


class Results:
    """What each candidate measured, by round, and the rows that compare two of them."""

    def __init__(self):
        self.value = {}
        self.rows = []
        self.failures = []
        self.tables = []                # of a group's own: title, Markdown, the prefix of the names that it shows

    def note(self, name, rnd, value):
        if value is not None:
            self.value.setdefault(name, {})[rnd] = value

    def measure(self, name, rnd, fn):
        try:
            v = fn()
        except (Failed, subprocess.SubprocessError, OSError, ValueError, KeyError, ArithmeticError) as e:
            self.failures.append(f"{name}: {e}")
            say(f"FAILED {name}: {e}")
            return
        self.note(name, rnd, v)

    def ratios(self, a, b):
        va, vb = self.value.get(a, {}), self.value.get(b, {})
        return [va[r] / vb[r] for r in sorted(va) if r in vb and vb[r] > 0]

    def best(self, name, names):
        """A candidate made of the best of several, by the medians: the same one in every round."""
        have = [n for n in names if self.value.get(n)]
        if have:
            best = max(have, key=lambda n: statistics.median(self.value[n].values()))
            self.value[name] = dict(self.value[best])

    def row(self, what, a, b, unit, must, goal, less=False):
        self.rows.append((what, a, b, unit, must, goal, less))

    def median(self, name):
        v = self.value.get(name)
        return statistics.median(v.values()) if v else None

    def spread(self, name):
        v = self.value.get(name)
        return f"{min(v.values()):.3g}..{max(v.values()):.3g}" if v else "-"

    def verdict(self, ratio, must, goal, less):
        if must is None:
            return ""
        if goal is not None and (ratio <= goal if less else ratio >= goal):
            return "goal"
        return "met" if (ratio <= must if less else ratio >= must) else "**missed**"

    def table(self):
        out = ["| what | memkv | reference | ratio (spread) | must | goal | |", "|---|---|---|---|---|---|---|"]
        for what, a, b, unit, must, goal, less in self.rows:
            ratios = self.ratios(a, b)
            if not ratios:
                out.append(f"| {what} | not measured | | | {must or ''} | {goal or ''} | |")
                continue
            sign = "≤ " if less else "≥ "
            m = statistics.median(ratios)
            out.append(f"| {what} | {self.median(a):.3g} {unit} | {self.median(b):.3g} {unit} | **{m:.2f}** ({min(ratios):.2f}..{max(ratios):.2f}) "
                       f"| {sign + str(must) if must else ''} | {sign + str(goal) if goal else ''} | {self.verdict(m, must, goal, less)} |")
        return "\n".join(out)

    def raw(self):
        shown = ("one", *(prefix for _, _, prefix in self.tables))
        names = [n for n in sorted(self.value) if not n.startswith(shown)]
        out = [f"| {name} | {self.median(name):.4g} | {self.spread(name)} | {len(self.value[name])} |" for name in names]
        head = "Medians (GiB/s; keys/s for exists and match; cpu: s/GiB)\n\n| candidate | median | smallest..largest | rounds |\n|---|---|---|---|\n"
        return head + "\n".join(out) if out else ""

    def text(self):
        """All of it as Markdown."""
        return "\n\n".join(x for x in [self.table(), *(f"{title}\n\n{table}" for title, table, _ in self.tables), self.raw()] if x)

    def json(self):
        """All of it, for scripts: what each candidate measured in each round, and the rows that compare two of them."""
        rows = []
        for what, a, b, unit, must, goal, less in self.rows:
            ratios = self.ratios(a, b)
            m = statistics.median(ratios) if ratios else None
            rows.append({"what": what, "candidate": a, "reference": b, "unit": unit, "ratios": ratios, "ratio": m, "must": must, "goal": goal,
                         "less_is_better": less, "verdict": None if m is None or must is None else self.verdict(m, must, goal, less).strip("*")})
        values = {name: {"median": self.median(name), "least": min(v.values()), "most": max(v.values()), "rounds": {str(r): v[r] for r in sorted(v)}}
                  for name, v in self.value.items() if name != "one"}
        return {"rows": rows, "candidates": values, "failures": self.failures}


def human(n):
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if n >= size and n % size == 0:
            return f"{n // size} {unit}"
    return str(n)


def started(res, what, fn):
    """A server, or None and a remembered failure."""
    try:
        return fn()
    except (Failed, OSError) as e:
        res.failures.append(f"{what}: {e}")
        say(f"FAILED {what}: {e}")
        return None


def throughput(res, name, rnd, args, server, op, **options):
    def once():
        j = bench(args, server, op, duration=args.seconds, **options)
        res.note(name + " cpu", rnd, cpu_per_gib(j))
        return j["gib_per_s"]
    res.measure(name, rnd, once)


def warm_up(args, server, size, keys, capacity):
    """Every page of a server is touched before the clock starts: else the first to use its memory pays for the kernel's zeroes."""
    seed = 1 if server.name == "redis" else 3           # caches evict, Redis would grow
    j = bench(args, server, "put", size=size, keys=keys, concurrency=4, ops=2 * capacity // size, seed=seed)
    if server.name == "memkv":                          # room for what is measured, so that nothing of it is evicted
        at = ["--servers", server.address]
        names = subprocess.run([args.memkv, "list", f"bench:{seed}:", *at], capture_output=True, timeout=args.limit, check=True).stdout.split()[::3]
        for i in range(0, len(names), 256):
            subprocess.run([args.memkv, "delete", *at, *names[i:i + 256]], stdout=subprocess.DEVNULL, timeout=args.limit, check=True)
    bench(args, server, "fill", size=size, keys=keys, concurrency=4)
    return j["gib_per_s"]


def fio(args, rw, path, block, **more):
    """What fio says of its reads (rw randread) or writes, with io_uring and O_DIRECT; `more` are options of fio's."""
    job = [args.tools["fio"], "--name=ref", f"--filename={path}", f"--rw={rw}", f"--bs={block}", "--ioengine=io_uring", "--direct=1",
           "--time_based", f"--runtime={max(1, round(args.seconds))}", "--output-format=json", "--group_reporting"]
    job += [f"--{key}={value}" for key, value in more.items()]
    out = subprocess.run(job, capture_output=True, timeout=args.limit, check=False)
    if out.returncode != 0:
        raise Failed(f"fio: {out.stderr[-300:]!r}")
    text = out.stdout.decode()
    j = json.loads(text[text.index("{"):])["jobs"][0]
    return j | j["read" if rw == "randread" else "write"]
