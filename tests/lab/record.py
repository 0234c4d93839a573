"""
A verified load over dm-log-writes, for replay.c: run in the guest of run-lab, with the drive as drive 0 and the log as drive 1.

    record.py DIRECTORY SEED OPERATIONS

Four clients write, overwrite and delete keys of their own; each tells the log of an answer before it asks for the next. In the middle the drive's
process is killed, the server killed and started again, then stopped in order and started again. DIRECTORY gets `ops` and `secret`.
"""
import os
import random
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "proc")]

import lab  # noqa: E402
import mkv  # noqa: E402
from harness import MEMKV, Server, content  # noqa: E402

THREADS, KEYS = 4, 14
SIZES = (700, 4096, 20000, 65536, 130001, 262144, 600000, 1 << 20, 2_500_000)
WEIGHTS = (6, 6, 6, 6, 5, 4, 3, 2, 1)


class Journal:
    """What was answered, in order; a mark in the log behind each answer."""

    def __init__(self, device, limit):
        self.marks, self.lock, self.limit = lab.Marks(device), threading.Lock(), limit
        self.rows = []
        self.failures = []

    def add(self, kind, key, version, size):
        with self.lock:
            self.rows.append(f"{kind} {key} {version} {size}")
            self.marks.mark(f"a{len(self.rows) - 1}")

    def full(self, part=1.0):
        return len(self.rows) >= self.limit * part or bool(self.failures)


class Client(threading.Thread):
    def __init__(self, addr, journal, no, seed):
        super().__init__(daemon=True)
        self.addr, self.journal, self.no, self.rng = addr, journal, no, random.Random(f"{seed}/{no}")
        self.there = set()
        self.version = 0

    def run(self):
        try:
            with mkv.Client(self.addr) as c:
                while not self.journal.full():
                    self.one(c)
        except Exception as e:      # noqa: BLE001 - told by main
            self.journal.failures.append(repr(e))

    def until_answered(self, call):
        """While there is no server a call ends without an answer: it may have been carried out, and is asked for again."""
        end = time.monotonic() + 120
        while True:
            try:
                return call()
            except mkv.Miss:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def delete(self, c, key):
        r = c.delete(key, 60.0)
        if r not in (0, mkv.MISS):
            raise mkv.Miss(r)

    def one(self, c):
        key = f"t{self.no}/{self.rng.randrange(KEYS)}"
        if key in self.there and self.rng.random() < 0.15:
            self.until_answered(lambda: self.delete(c, key.encode()))
            self.there.discard(key)
            self.journal.add("d", key, 0, 0)
            return
        size = self.rng.choices(SIZES, WEIGHTS)[0]
        self.version += 1
        value = content(key.encode(), self.version, size)
        self.until_answered(lambda: c.put(key.encode(), value, 60.0, mkv.OVERWRITE))
        self.there.add(key)
        self.journal.add("p", key, self.version, size)


def disturb(s, journal):
    """At a quarter, a half and three quarters of the operations."""
    lab.wait_for(lambda: journal.full(0.25), 300)
    os.kill(s.children("drive")[0], signal.SIGKILL)
    lab.wait_for(lambda: journal.full(0.5), 300)
    s.kill()
    s.start(timeout=120)
    lab.wait_for(lambda: journal.full(0.75), 300)
    assert s.stop(timeout=150) == 0, s.log_tail()
    s.start(timeout=120)


def main(where, seed, operations):
    device = "recorded"
    n = lab.sectors(lab.DRIVES[0])
    lab.sh("dmsetup", "create", device, "--table", f"0 {n} log-writes {os.path.realpath(lab.DRIVES[0])} {os.path.realpath(lab.DRIVES[1])}")
    config = "/tmp/config.yaml"
    subprocess.run([MEMKV, "setup", "--drives", f"/dev/mapper/{device}", "--shard-size", "1MiB", "--config-out", config], check=True, timeout=60)
    journal = Journal(device, operations)
    journal.marks.mark("ready")
    # An emulated processor and a log of all writes: an orderly end may take more than the usual 15 s.
    s = Server(config=config, sets=["server.crash_limit=1000", "server.backoff_max=200ms", "server.stop_timeout=2m", "storage.journal_size=4MiB"])
    with s.start(timeout=120):
        s.pin_ports()
        clients = [Client(s.addr, journal, i, seed) for i in range(THREADS)]
        for c in clients:
            c.start()
        disturb(s, journal)
        for c in clients:
            c.join(120)
            assert not c.is_alive(), "a client hangs"
        assert not journal.failures, f"{journal.failures}\n{s.log_tail()}"
        with open(os.path.join(s.data, "server.state")) as f:
            secret = [line.split()[1] for line in f if line.startswith("store_secret")][0]
        s.kill()
    lab.wait_for(lambda: lab.sh("dmsetup", "remove", device, check=False).returncode == 0)
    with open(os.path.join(where, "ops"), "w") as f:
        f.write("\n".join(journal.rows) + "\n")
    with open(os.path.join(where, "secret"), "w") as f:
        f.write(secret)
    print(f"recorded {len(journal.rows)} operations")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
