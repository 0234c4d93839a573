"""
Real processes on loopback. A Server is `memkv start` with a data directory of its own; everything it started is ended by pid.

Content is a function of (key, version), so any byte that a get returns can be checked without keeping it.
"""
import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from datetime import datetime

import transport

STAGE = os.environ.get("MEMKV_STAGE", "")
MEMKV = os.path.join(STAGE, "bin", "memkv")
MEMKVCTL = os.path.join(STAGE, "bin", "memkvctl")
FULL = os.environ.get("MEMKV_TEST_FULL") == "1"
MIB = 1 << 20
START_LIMIT = 180 if os.environ.get("LAB") == "1" else 60     # a processor of the lab is emulated


def content(key, version, size):
    """Bytes that only this key and version have; every 32-byte line differs by its place in the 64 KiB chunk."""
    seed = hashlib.sha256(key + version.to_bytes(8, "little")).digest()
    block = b"".join(hashlib.sha256(seed + i.to_bytes(4, "little")).digest() for i in range(64))
    n = size // len(block) + 1
    body = bytearray(block * n)[:size]
    for off in range(0, size, 65536):       # no two chunks alike
        mark = (off // 65536).to_bytes(8, "little")
        body[off:off + 8] = mark[:max(0, min(8, size - off))]
    return bytes(body)


def children_of(pid):
    out = {}
    for d in os.listdir("/proc"):
        if not d.isdigit():
            continue
        try:
            with open(f"/proc/{d}/stat") as f:
                rest = f.read().rsplit(")", 1)[1].split()
            if int(rest[1]) == pid and rest[0] != "Z":
                with open(f"/proc/{d}/cmdline") as f:
                    out[int(d)] = f.read().replace("\0", " ")
        except OSError:
            continue
    return out


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]      # before a command: as somebody else


def reachable_by_others(path):
    """Whether another user gets there: the tree may lie in a home directory."""
    path = os.path.realpath(path)
    while path != "/":
        if not os.stat(path).st_mode & 0o001:
            return False
        path = os.path.dirname(path)
    return True


def unmount(place):
    """Unmounts it. An ended process may hold its files a moment longer than waitpid says: the kernel gives an io_uring's files back from a thread of its own."""
    for _ in range(300):
        r = subprocess.run(["umount", place], capture_output=True, text=True, timeout=30, check=False)
        if r.returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"{place} stays mounted: {r.stderr}")


@contextlib.contextmanager
def mounted(device):
    """A directory: the root of an ext4 that is made anew on that device."""
    place = tempfile.mkdtemp(prefix="memkv-test-")
    for argv in (["mkfs.ext4", "-q", "-F", "-m", "0", device], ["mount", device, place]):
        subprocess.run(argv, capture_output=True, timeout=60, check=True)
    try:
        yield place
    finally:
        unmount(place)
        os.rmdir(place)


class Server:
    def __init__(self, sets=(), data=None, mode="file", drives=1, drive_bytes="1GiB", wrap=(), env=None, config=None):
        self.own_dir = data is None
        self.data = data or tempfile.mkdtemp(prefix="memkv-test-")
        self.mode, self.wrap = mode, list(wrap)
        self.sets = [f"server.data_dir={self.data}", "network.address=127.0.0.1:0"]
        if config is None:
            self.sets.append(f"storage.mode={mode}")
            rows = []
            for i in range(drives):
                media = f"arena{i}" if mode == "memory" else os.path.join(self.data, f"drive{i}.dat")
                rows.append(f"{{media: {media}, max_size: {drive_bytes}}}")
            self.sets.append("storage.drives=[" + ", ".join(rows) + "]")
        self.sets += list(sets)
        self.config, self.env = config, env or {}
        self.proc = None
        self.log = os.path.join(self.data, "log.txt")

    def start(self, timeout=START_LIMIT, expect_fail=False):
        r, w = os.pipe()
        args = self.wrap + [MEMKV, "start", "--ready-fd", str(w)]
        if self.config:
            args += ["--config", self.config]
        for s in transport.server_sets(self.sets):
            args += ["--set", s]
        env = {k: v for k, v in os.environ.items() if not k.startswith("MEMKV_") or k == "MEMKV_STAGE"}
        env.update(self.env)
        with open(self.log, "ab") as log:
            self.proc = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(w,), env=env,
                                         start_new_session=True)
        os.close(w)
        line = self._ready_line(r, timeout)
        os.close(r)
        if line is None:
            rc = self.exit_status(5 if expect_fail else 0.5)
            if expect_fail and rc is not None:
                return rc
            self.kill()
            raise RuntimeError(f"server did not get ready (exit {rc}):\n{self.log_tail()}")
        m = dict(re.findall(r"(\w+)=(\S+)", line))
        assert line.startswith("ready "), line
        self.addr, self.admin, self.control, self.local = m["data"], m["admin"], m["control"], m["local"]
        self.port = int(self.addr.rsplit(":", 1)[1])
        end = time.monotonic() + timeout
        while transport.OVER_RDMA and not transport.rails_are_up(self.status_rows()):
            assert time.monotonic() < end, self.log_tail()
            time.sleep(0.1)
        return self

    def exit_status(self, timeout):
        try:
            return self.proc.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def _ready_line(self, fd, timeout):
        got, end = b"", time.monotonic() + timeout
        while b"\n" not in got:
            left = end - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], min(left, 0.2))[0]:
                if left <= 0 or (self.proc.poll() is not None and not select.select([fd], [], [], 0)[0]):
                    return None
                continue
            piece = os.read(fd, 4096)
            if not piece:
                return None
            got += piece
        return got.decode().strip()

    def pin_ports(self):
        """After the first start: the same ports again, so that clients find the server when it is restarted."""
        self.sets = [s for s in self.sets if not s.startswith(("network.address=", "admin.address="))]
        self.sets += [f"network.address={self.addr}", f"admin.address={self.admin}"]

    @property
    def supervisor_pid(self):
        """`memkv start` execs the supervisor, so it is the process that we started (or its child under a wrapper)."""
        pid = self.proc.pid
        while self.wrap:
            kids = children_of(pid)
            if not kids or any("memkv-drive" in c or "memkv-front" in c for c in kids.values()):
                break
            pid = next(iter(kids))
        return pid

    def children(self, kind):
        """Pids of `drive` or `front`."""
        return [p for p, cmd in children_of(self.supervisor_pid).items() if f"memkv-{kind}" in cmd.split(" ")[0]]

    def all_pids(self):
        return [self.supervisor_pid] + list(children_of(self.supervisor_pid))

    def status(self):
        out = subprocess.run([MEMKVCTL, "--control", self.control, "status", "--json"], capture_output=True, text=True, timeout=20)
        assert out.returncode == 0, out.stderr
        return {r["name"]: r for r in json.loads(out.stdout)["rows"]}

    def status_rows(self):
        """As status(), whatever the children's states are."""
        out = subprocess.run([MEMKVCTL, "--control", self.control, "status", "--json"], capture_output=True, text=True, timeout=20)
        return {r["name"]: r for r in json.loads(out.stdout)["rows"]}

    def wait_running(self, timeout=30):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                rows = self.status()
                if rows and all(r["state"] == "RUNNING" for r in rows.values()):
                    return rows
            except (AssertionError, subprocess.TimeoutExpired, json.JSONDecodeError):
                pass
            time.sleep(0.05)
        raise AssertionError(f"not all RUNNING: {self.status()}\n{self.log_tail()}")

    def http(self, path, timeout=10):
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=timeout) as r:
            return r.read().decode()

    def metrics(self):
        out = {}
        for line in self.http("/v1/metrics").splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                out[name] = float(value)
        return out

    def metric_sum(self, name, **labels):
        total = 0.0
        for k, v in self.metrics().items():
            if k.split("{")[0] == name and all(f'{a}="{b}"' in k for a, b in labels.items()):
                total += v
        return total

    def stop(self, timeout=60):
        if self.proc and self.proc.poll() is None:
            os.kill(self.supervisor_pid, signal.SIGTERM)
            try:
                self.proc.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"server did not stop:\n{self.log_tail()}")
        return self.proc.returncode if self.proc else None

    def kill(self):
        if not self.proc:
            return
        pids = self.all_pids() if self.proc.poll() is None else []
        for p in pids:
            try:
                os.kill(p, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            self.proc.wait(20)
        except subprocess.TimeoutExpired:
            self.proc.kill()
        end = time.monotonic() + 20
        while any(alive(p) for p in pids) and time.monotonic() < end:
            time.sleep(0.02)

    def events(self, *names):
        """(seconds since 1970, event, process it is about) of the log's lines, in order."""
        out = []
        with open(self.log, errors="replace") as f:
            for line in f:
                m = re.match(r"time=(\S+)Z proc=supervisor .*?event=(\S+) child=(\S+)", line)
                if m and m[2] in names:
                    out.append((datetime.fromisoformat(m[1] + "+00:00").timestamp(), m[2], m[3]))
        return out

    def log_tail(self, lines=40):
        try:
            with open(self.log, errors="replace") as f:
                return "".join(f.readlines()[-lines:])
        except OSError:
            return "(no log)"

    def close(self):
        try:
            if self.proc and self.proc.poll() is None:
                self.kill()
        finally:
            if self.own_dir:
                shutil.rmtree(self.data, ignore_errors=True)

    def __enter__(self):
        return self.start() if self.proc is None else self

    def __exit__(self, *_):
        self.close()


def cli(*args, server=None, stdin=None, timeout=120):
    argv = [MEMKV, *args]
    if server is not None:
        argv += ["--servers", server.addr]
    env = {k: v for k, v in os.environ.items() if not k.startswith("MEMKV_") or k == "MEMKV_STAGE"} | transport.environment()
    return subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout, env=env)


class Load(threading.Thread):
    """
    Verified load: one thread, its own keys. Each put has a version; a put that was acknowledged raises `acked`. A get must return a version between the
    last acknowledged one and the last one tried; a miss of an acknowledged key is counted as lost unless the caller says that it may be.
    """

    def __init__(self, servers, name, keys=8, size=256 * 1024, deadline=10.0, flags=0, pause=0.0, options=None):
        super().__init__(daemon=True)
        import mkv
        self.mkv, self.servers, self.size, self.deadline, self.flags, self.pause = mkv, servers, size, deadline, flags, pause
        self.options = options or {}            # of its handle
        self.keys = [f"{name}/{i}".encode() for i in range(keys)]
        self.acked = {k: 0 for k in self.keys}
        self.tried = {k: 0 for k in self.keys}
        self.stop_flag = threading.Event()
        self.puts = self.gets = self.put_errors = self.misses = self.late = 0
        self.wrong, self.lost, self.broken = [], [], []
        self.statuses = {}                      # (put or get, status, reason): how often
        self.last_ok = time.monotonic()
        self.acks = []                          # when a put was acknowledged or a get answered, seconds since 1970 as in the log

    def run(self):
        try:
            with self.mkv.Client(self.servers, **self.options) as c:
                self.client = c
                i = 0
                while not self.stop_flag.is_set():
                    k = self.keys[i % len(self.keys)]
                    self.one_put(c, k)
                    self.one_get(c, self.keys[(i * 7 + 3) % len(self.keys)])
                    i += 1
                    if self.pause:
                        time.sleep(self.pause)
        except Exception as e:      # noqa: BLE001 - reported by the test
            self.broken.append(repr(e))

    def timed(self, fn):
        t = time.monotonic()
        try:
            return fn()
        finally:
            if time.monotonic() - t > self.deadline + 1.0:      # a hang, not a measure of speed
                self.late += 1

    def note(self, op, e):
        what = (op, e.status, e.reason)
        self.statuses[what] = self.statuses.get(what, 0) + 1

    def one_put(self, c, k):
        v = self.tried[k] = self.tried[k] + 1
        try:
            self.timed(lambda: c.put(k, content(k, v, self.size), self.deadline, self.flags))
            self.acked[k] = v
            self.acks.append(time.time())
            self.puts += 1
            self.last_ok = time.monotonic()
        except self.mkv.Miss as e:
            self.put_errors += 1
            self.note("put", e)

    def one_get(self, c, k):
        low, high = self.acked[k], self.tried[k]
        if high == 0:
            return
        try:
            got = self.timed(lambda: c.get(k, self.size, self.deadline))
            self.gets += 1
            self.acks.append(time.time())
            self.check(k, got, low, high)
        except self.mkv.Miss as e:
            self.note("get", e)
            if e.status == self.mkv.MISS and e.reason not in (7, 9) and low > 0:
                self.lost.append((k, low, e.reason))
            else:
                self.misses += 1

    def check(self, k, got, low, high):
        for v in range(high, max(low, 1) - 1, -1):
            if got == content(k, v, self.size):
                return
        self.wrong.append((k, low, high, len(got)))

    def verify_all(self, servers, deadline=20.0):
        """After the storm: every acknowledged version, or a later one that was tried, is there."""
        with self.mkv.Client(servers) as c:
            for k in self.keys:
                if self.acked[k]:
                    self.one_get_final(c, k, deadline)

    def one_get_final(self, c, k, deadline):
        try:
            self.check(k, c.get(k, self.size, deadline), self.acked[k], self.tried[k])
        except self.mkv.Miss as e:
            self.lost.append((k, self.acked[k], e.status, e.reason))

    def finish(self):
        self.stop_flag.set()
        self.join(self.deadline * 3 + 10)
        assert not self.is_alive(), "a load thread hangs in a call"
