"""d: a drive is known by its uuid: found at another path it serves on, warm; a copy of it, or a drive of another server, is refused with names."""
import os
import shutil
import signal
import subprocess
import time

import pytest

import mkv
from harness import MEMKVCTL, MIB, Server, content
from test_d_life import ctl, drive, fill, read_all, states, wait_states
from test_d_offline import memkv

N = 120
WIDE = 8                # values in pieces: no drive of three is home of none of them


def files(s, *names):
    return [os.path.join(s.data, n) for n in names]


def use(s, *media):
    """These files, 64 MiB each, from the next start on."""
    s.sets = [x for x in s.sets if not x.startswith("storage.drives=")]
    s.sets.append("storage.drives=[" + ", ".join(f"{{media: {m}, max_size: 64MiB}}" for m in media) + "]")


@pytest.fixture
def three():
    """A server of three files a, b, c with N keys, stopped."""
    s = Server()
    use(s, *files(s, "a", "b", "c"))
    s.start()
    fill(s, N)
    with mkv.Client(s.addr) as c:
        c.put(b"striped", content(b"striped", 1, 13 * MIB), 20)
    assert s.stop() == 0
    yield s
    s.close()


def all_there(s):
    assert read_all(s, N)[0] == N, s.log_tail(60)
    with mkv.Client(s.addr) as c:
        assert c.get(b"striped", 13 * MIB, 20) == content(b"striped", 1, 13 * MIB)


def media(s):
    return {r["id"]: os.path.basename(r["media"]) for r in drive(s, "list")["rows"]}


def test_paths_that_changed_places(three):
    """As block devices do after a restart of the host: each row finds its own drive, two exchanged or three in a circle."""
    s = three
    a, b, c = files(s, "a", "b", "c")
    os.rename(a, a + "x")
    os.rename(b, a)
    os.rename(a + "x", b)
    s.start()
    assert media(s) == {0: "b", 1: "a", 2: "c"} and set(states(s).values()) == {"online"}
    all_there(s)
    assert s.stop() == 0
    os.rename(a, a + "x")
    os.rename(c, a)
    os.rename(b, c)
    os.rename(a + "x", b)
    s.start()
    assert set(states(s).values()) == {"online"}
    all_there(s)
    assert s.stop() == 0
    s.start()
    all_there(s)


def test_a_path_that_is_new(three):
    """The configuration names the new place and not the former one."""
    s = three
    a, b, c, elsewhere = files(s, "a", "b", "c", "elsewhere")
    os.rename(b, elsewhere)
    use(s, a, elsewhere, c)
    s.start()
    assert media(s)[1] == "elsewhere" and [states(s)[i] for i in range(3)] == ["online"] * 3
    all_there(s)
    assert s.stop() == 0
    s.start()
    assert media(s)[1] == "elsewhere"
    all_there(s)


def test_the_only_drive_moves(server_factory):
    s = server_factory(drives=1, drive_bytes="64MiB")
    fill(s, 20)
    assert s.stop() == 0
    was, now = files(s, "drive0.dat", "now")
    os.rename(was, now)
    use(s, now)
    s.start()
    assert read_all(s, 20)[0] == 20


def test_plugged_in_again_elsewhere(three):
    """While the server runs: stopped, moved, added at its new place. It is the drive it was, with what was not written meanwhile."""
    s = three
    b, new = files(s, "b", "new")
    s.start()
    ctl(s, "stop", "drive:1")
    wait_states(s, {1: "absent"})
    fill(s, 40, version=2)
    os.rename(b, new)
    r = subprocess.run([MEMKVCTL, "--control", s.control, "drive", "add", new, "--size", "64MiB"], capture_output=True, text=True, timeout=40, check=False)
    assert r.returncode == 1 and f"{new} is drive:1, which goes on there" in r.stdout + r.stderr, r
    wait_states(s, {1: "online"})
    assert media(s)[1] == "new"
    assert read_all(s, 40, versions=(2,))[0] == 40
    assert read_all(s, N, versions=(1, 2))[0] == N, "what was not written meanwhile is there"
    s.pin_ports()
    assert s.stop() == 0
    use(s, *files(s, "a", "new", "c"))
    s.start()
    assert media(s)[1] == "new" and read_all(s, N, versions=(1, 2))[0] == N


def wait_pid(s, i, was):
    end = time.monotonic() + 20
    while time.monotonic() < end and s.status_rows()[f"drive:{i}"]["pid"] in (was, 0):
        time.sleep(0.02)


def look_again(s):
    """A drive without data comes and goes: the others look at all pieces that they have, and ask about those of other homes."""
    drive(s, "add", os.path.join(s.data, "guest"), "--size", "64MiB")
    guest = [i for i, m in media(s).items() if m == "guest"][0]
    wait_states(s, {guest: "online"})
    drive(s, "remove", str(guest), "--now")
    wait_states(s, {guest: "removed"})
    time.sleep(2)           # they begin a second after they hear it


def test_a_removed_drive_comes_back_elsewhere(three):
    """
    Under its own number, empty. What is put on it then does not go: not when those who freed what it had look at their pieces again, and not when others hear again
    that it was removed once.
    """
    s = three
    b, new = files(s, "b", "new")
    s.start()
    drive(s, "remove", "1", "--now")
    wait_states(s, {1: "removed"})
    fill(s, 60, version=2)
    os.rename(b, new)
    subprocess.run([MEMKVCTL, "--control", s.control, "drive", "add", new, "--size", "64MiB"], capture_output=True, timeout=40, check=False)
    wait_states(s, {1: "online"})
    assert media(s)[1] == "new" and len([1 for r in states(s).values() if r == "online"]) == 3
    assert read_all(s, 60, versions=(2,))[0] == 60
    read_all(s, N, versions=(1, 2))
    fill(s, N, version=3)
    with mkv.Client(s.addr) as c:
        for i in range(WIDE):
            c.put(b"wide%d" % i, content(b"wide%d" % i, 1, 9 * MIB), 20)
    look_again(s)
    for i in (0, 2):
        pid = s.status_rows()[f"drive:{i}"]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_pid(s, i, pid)
        wait_states(s, {0: "online", 1: "online", 2: "online"})
    assert read_all(s, N, versions=(3,))[0] == N
    with mkv.Client(s.addr) as c:
        for i in range(WIDE):
            assert c.get(b"wide%d" % i, 9 * MIB, 20) == content(b"wide%d" % i, 1, 9 * MIB)


def test_a_copy_is_refused_with_both_names(three):
    """At the next start, while it runs, and where both were there from the first start on. The drive itself serves, its copy is not written."""
    s = three
    a, b, c, copy = files(s, "a", "b", "c", "copy")
    shutil.copyfile(b, copy)
    with open(copy, "rb") as f:
        before = f.read()
    use(s, copy, a, b, c)
    s.start()
    row = [r for r in s.status_rows().values() if r["name"] == "drive:3"][0]
    assert row["state"] == "FATAL" and copy in row["detail"] and "drive:1 at " + b in row["detail"], row
    all_there(s)
    assert s.stop() == 0
    use(s, a, b, c)
    s.start()
    other = copy + "2"
    shutil.copyfile(copy, other)
    said = drive(s, "add", other, "--size", "64MiB", ok=False)
    assert any("drive:1 at " + b in r.get("detail", "") for r in said["rows"]), said
    all_there(s)
    with open(copy, "rb") as f:
        assert f.read() == before


def test_two_copies_from_the_first_start_on():
    s = Server()
    try:
        x, y = files(s, "x", "y")
        assert memkv("setup", "--drives", x, "--file-size", "64MiB").returncode == 0
        shutil.copyfile(x, y)
        use(s, x, y)
        s.start()
        end = time.monotonic() + 20
        while time.monotonic() < end and sorted(r["state"] for n, r in s.status_rows().items() if n.startswith("drive")) != ["FATAL", "RUNNING"]:
            time.sleep(0.05)
        rows = {n: r for n, r in s.status_rows().items() if n.startswith("drive")}
        fatal = [r for r in rows.values() if r["state"] == "FATAL"]
        assert len(fatal) == 1 and x in fatal[0]["detail"] and y in fatal[0]["detail"], rows
        fill(s, 20)
        assert read_all(s, 20)[0] == 20
    finally:
        s.close()


def test_a_drive_of_another_server_is_refused(three, server_factory):
    s = three
    with server_factory(drives=1, drive_bytes="64MiB") as other:
        fill(other, 20)
        assert other.stop() == 0
        theirs = files(other, "drive0.dat")[0]
        with open(theirs, "rb") as f:
            before = f.read()
        s.start()
        said = drive(s, "add", theirs, "--size", "64MiB", ok=False)
        assert any("belongs to another server" in r.get("detail", "") and theirs in r["detail"] for r in said["rows"]), said
        all_there(s)
        with open(theirs, "rb") as f:
            assert f.read() == before
