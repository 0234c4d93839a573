"""A directory whose files are objects of one server, for the tests of libmemkv_preload.so."""
import json
import os
import shutil
import subprocess
import sys

import pytest

from harness import MEMKV, STAGE

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD as it is made here is Linux's")
LIBRARY = os.path.join(STAGE, "lib", "libmemkv_preload.so")


class Shim:
    """A directory whose files are objects of one server."""

    def __init__(self, server, top):
        self.server, self.top = server, top
        self.anchor = top / "anchor"
        self.anchor.mkdir()
        self.stats = top / "stats"
        self.client = dict(os.environ, MEMKV_SERVERS=server.addr)
        self.env = dict(self.client, LD_PRELOAD=LIBRARY, MEMKV_PRELOAD_PREFIX=str(self.anchor), MEMKV_PRELOAD_STATS=str(self.stats))

    def run(self, *args, expect=0, wrap=(), **env):
        """The wrapper itself runs without the library."""
        command = [str(a) for a in args]
        full = dict(self.env, **env)
        if wrap:
            del full["LD_PRELOAD"]
            command = [*wrap, *command]
        r = subprocess.run(command, env=full, cwd=self.top, capture_output=True, text=True, timeout=120)
        assert r.returncode == expect, (command, r.returncode, r.stdout[-2000:], r.stderr[-2000:])
        return r.stdout

    def sh(self, script, **env):
        return self.run("bash", "-ec", script, **env)

    def stored(self, key):
        """What the store has, asked without the library; None: nothing."""
        r = subprocess.run([MEMKV, "get", key, "-o", "-"], env=self.client, capture_output=True, timeout=60)
        return r.stdout if r.returncode == 0 else None

    def keep(self, key, body):
        """Into the store without the library; "body" is what it is."""
        (self.top / "body").write_bytes(body)
        subprocess.run([MEMKV, "put", "--overwrite", key, str(self.top / "body")], env=self.client, capture_output=True, timeout=60, check=True)

    def keys(self):
        out = subprocess.run([MEMKV, "list", "--json"], env=self.client, capture_output=True, text=True, timeout=60, check=True).stdout
        return sorted(json.loads(line)["key"] for line in out.splitlines())

    def disk(self):
        """Everything below the anchor that is no directory."""
        return [os.path.join(at, f) for at, _, files in os.walk(self.anchor) for f in files]

    def counted(self):
        total = {}
        for line in self.stats.read_text().splitlines():
            for op, row in json.loads(line).items():
                if op != "pid":
                    for k, v in row.items():
                        total[f"{op}_{k}"] = total.get(f"{op}_{k}", 0) + v
        return total


@pytest.fixture
def shim(server_factory, tmp_path):
    s = Shim(server_factory(mode="memory"), tmp_path)
    yield s
    assert s.disk() == []


def numpy_python(*others, why="Debian: python3-numpy"):
    """A Python that has numpy and these modules too."""
    for python in (sys.executable, "python3", "/usr/bin/python3"):
        if shutil.which(python) and subprocess.run([python, "-c", "import " + ", ".join(("numpy", *others))], capture_output=True, timeout=60).returncode == 0:
            return python
    pytest.skip("no Python has " + " and ".join(("numpy", *others)) + f" ({why})")
