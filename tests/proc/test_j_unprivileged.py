"""j: a server without root. What it cannot have is said once, in the level it deserves and with what mends it."""
import json
import os
import re
import shutil
import subprocess

import pytest

import mkv
from harness import MEMKV, MEMKVCTL, NOBODY, Server, reachable_by_others


@pytest.fixture
def unprivileged():
    if os.geteuid() != 0 or not shutil.which("setpriv") or not shutil.which("prlimit"):
        pytest.skip("needs root, setpriv and prlimit to become somebody else")
    if not reachable_by_others(MEMKV):
        pytest.skip(f"{MEMKV} cannot be reached by another user")
    made = []

    def make(*wrap):
        s = Server(drive_bytes="64MiB", sets=["memory.max_size=16MiB"], wrap=[*wrap, *NOBODY])
        made.append(s)
        os.chown(s.data, 65534, 65534)
        return s.start()

    yield make
    for s in made:
        s.close()


def levels(s, event):
    with open(s.log, errors="replace") as f:
        return re.findall(rf"level=(\w+) event={event} (.*)", f.read())


def test_no_user_to_become_is_no_warning(unprivileged):
    s = unprivileged()
    said = levels(s, "jail") + levels(s, "jail_partial")
    if any("seccomp" in text or "landlock" in text for _, text in said):
        pytest.skip("more than the user is missing here: a sanitizer's build, or an old kernel")
    assert said and all(level == "info" and "missing=user" in text for level, text in said), said
    rows = json.loads(s.http("/v1/status"))["processes"]
    assert rows and all("user" in r["jail_missing"] for r in rows), rows
    told = subprocess.run([MEMKVCTL, "--control", s.control, "status"], capture_output=True, text=True, timeout=30)
    assert told.returncode == 0 and all(", jail lacks user" in line for line in told.stdout.splitlines()), told


def test_locked_memory_too_small_names_the_limit(unprivileged):
    s = unprivileged("prlimit", "--memlock=8388608:8388608")
    said = levels(s, "buffers_unregistered")
    if not said and levels(s, "io_fallback"):
        pytest.skip("no io_uring here: nothing is registered")
    assert len(said) == 1, s.log_tail()
    text = said[0][1]
    assert "limit=8388608" in text and "ulimit -l" in text and "LimitMEMLOCK=" in text, text
    assert int(re.search(r"bytes=(\d+)", text)[1]) >= 16 << 20, text
    with mkv.Client(s.addr) as c:           # slower, nothing else
        c.put(b"k", b"v" * 100000)
        assert c.get(b"k", 100000) == b"v" * 100000
