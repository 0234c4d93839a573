"""
d: namespaces are listed and purged while the server works: what is purged never comes back, nothing else goes, and its space is there again.
"""
import json
import os
import signal
import subprocess
import time

import pytest

import mkv
from harness import MEMKVCTL, Load, content

DELETED = 4
SIZE = 64 * 1024


def ctl(s, *words, ok=True, stdin=subprocess.DEVNULL):
    out = subprocess.run([MEMKVCTL, "--control", s.control, *words], capture_output=True, text=True, timeout=60, stdin=stdin)
    assert (out.returncode == 0) == ok, f"{words}: {out.stdout} {out.stderr}\n{s.log_tail()}"
    return out


def spaces(s):
    """{namespace: (objects, bytes)}"""
    a = json.loads(ctl(s, "namespace", "list", "--json").stdout)
    return {r["namespace"]: (r["objects"], r["bytes"]) for r in a["rows"]}


def purge(s, name, ok=True):
    return json.loads(ctl(s, "namespace", "purge", *([name] if name else ["--default"]), "--yes", "--json", ok=ok).stdout)


def fill(s, ns, n, size=SIZE, first=0):
    with mkv.Client(s.addr, namespace_=ns) as c:
        for i in range(first, first + n):
            k = f"{i}".encode()
            c.put(k, content(k + ns.encode(), 1, size), 20.0)


def there(s, ns, n, size=SIZE, first=0, why=None):
    """How many are there, each of them right; why: the reason of each miss."""
    hits = 0
    with mkv.Client(s.addr, namespace_=ns) as c:
        for i in range(first, first + n):
            k = f"{i}".encode()
            try:
                assert c.get(k, size, 20.0) == content(k + ns.encode(), 1, size), (ns, k)
                hits += 1
            except mkv.Miss as e:
                assert e.status == mkv.MISS and why in (None, e.reason), (ns, k, e.status, e.reason)
    return hits


def wait_for(what, why, timeout=20):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if what():
            return
        time.sleep(0.05)
    raise AssertionError(why)


def kill_drives(s, only=None):
    rows = s.status_rows()
    for name, r in rows.items():
        if name.startswith("drive:") and only in (None, name) and r["pid"] > 0:
            os.kill(r["pid"], signal.SIGKILL)


@pytest.fixture
def three(server_factory):
    return server_factory(drives=3, drive_bytes="128MiB", sets=["server.crash_limit=1000", "server.backoff_max=200ms", "storage.block_size=1MiB"])


def test_list_and_purge(three):
    """Also values in pieces, whose space is given back on every drive."""
    used = three.metric_sum("memkv_drive_used_bytes")
    fill(three, "team", 30)
    fill(three, "big", 4, size=5 << 20)
    fill(three, "", 10)
    have = spaces(three)
    assert {n: o for n, (o, _) in have.items()} == {"team": 30, "big": 4, "": 10}
    assert have["team"][1] == 30 * SIZE and have["big"][1] >= 4 * (5 << 20)
    assert "(default)" in ctl(three, "namespace", "list").stdout
    assert purge(three, "big")["objects"] == 4
    assert purge(three, "team")["objects"] == 30
    assert there(three, "big", 4, size=5 << 20, why=DELETED) == 0 and there(three, "team", 30, why=DELETED) == 0
    assert there(three, "", 10) == 10
    wait_for(lambda: three.metric_sum("memkv_drive_used_bytes") <= used + 10 * SIZE + (1 << 20), "the space does not come back")
    assert purge(three, "team")["objects"] == 0, "again: nothing to do, and no complaint"
    assert purge(three, "")["objects"] == 10
    assert spaces(three) == {} and there(three, "", 10) == 0


def test_asks_first(three):
    fill(three, "team", 3)
    out = ctl(three, "namespace", "purge", "team", ok=False)
    assert "--yes" in out.stderr
    assert "one NAME" in ctl(three, "namespace", "purge", "--yes", ok=False).stderr
    assert "one NAME" in ctl(three, "namespace", "purge", "team", "--default", "--yes", ok=False).stderr
    assert "63 bytes" in ctl(three, "namespace", "purge", "x" * 64, "--yes", ok=False).stderr
    assert there(three, "team", 3) == 3


def test_names_that_are_no_text(three):
    """Names are bytes: what a client can put under can be listed and purged, and nothing beside it goes."""
    odd, control = b"te\xffam", b"a\x1b[2Jb"
    fill(three, "team", 3)
    for ns in (odd, control):
        with mkv.Client(three.addr, namespace_=ns) as c:
            c.put(b"k", b"v" * 5000, 20.0)
    rows = {r["hex"]: r for r in json.loads(ctl(three, "namespace", "list", "--json").stdout)["rows"]}
    assert [rows[ns.hex()]["text"] for ns in (odd, control, b"team")] == [False, False, True], rows
    shown = ctl(three, "namespace", "list").stdout
    assert f"--hex {odd.hex()} " in shown and f"--hex {control.hex()} " in shown and "\x1b" not in shown, shown
    for bad in ("", "7", "7g", "00" * 64):
        assert not json.loads(ctl(three, "namespace", "purge", "--hex", bad, "--yes", "--json", ok=False).stdout or '{"ok": false}')["ok"]
    for ns in (odd, control):
        a = json.loads(ctl(three, "namespace", "purge", "--hex", ns.hex().upper(), "--yes", "--json").stdout)
        assert a["ok"] and a["hex"] == ns.hex() and a["objects"] == 1, a
        with mkv.Client(three.addr, namespace_=ns) as c, pytest.raises(mkv.Miss) as e:
            c.get(b"k", 5000)
        assert e.value.reason == DELETED
    assert there(three, "team", 3) == 3
    assert purge(three, "team")["hex"] == b"team".hex()


def test_dead_right_after_the_answer(three):
    fill(three, "team", 60)
    fill(three, "other", 60)
    for again in range(3):
        assert purge(three, "team")["ok"]
        kill_drives(three)
        three.wait_running()
        assert there(three, "team", 60) == 0
        assert there(three, "other", 60) == 60
        fill(three, "team", 60)
        assert there(three, "team", 60) == 60


def test_under_load(three):
    """Another namespace is verified all the time; the purged one is filled again and again, and drives die meanwhile."""
    load = Load(three.addr, "w", keys=30, size=SIZE)
    load.start()
    for i in range(6):
        fill(three, "team", 40)
        if i % 2:
            kill_drives(three, f"drive:{i // 2}")
        a = purge(three, "team")
        assert a["ok"] and there(three, "team", 40) == 0
    load.finish()
    assert not load.broken and not load.wrong and load.puts > 0, (load.broken, load.wrong)
    assert not load.lost, load.lost[:3]
    load.verify_all(three.addr)
    assert not load.wrong and not load.lost


def test_a_drive_that_was_away(three):
    """It begins empty: it knows nothing of the purge."""
    fill(three, "team", 90)
    fill(three, "other", 30)
    ctl(three, "stop", "drive:1")
    wait_for(lambda: there(three, "other", 30) < 30, "drive:1 is still in the map")
    a = purge(three, "team")
    assert [r["purge"] for r in a["rows"]] == ["purged", "away", "purged"]
    ctl(three, "start", "drive:1")
    three.wait_running()
    wait_for(lambda: json.loads(ctl(three, "drive", "list", "--json").stdout)["rows"][1]["state"] == "online", "drive:1 does not come back")
    assert there(three, "team", 90) == 0
    assert "team" not in spaces(three)
