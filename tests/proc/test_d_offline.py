"""d: memkv setup and memkv drive, with the server stopped: what they refuse, what they make, what they find and mend."""
import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import tempfile
import threading

import pytest

import mkv
from harness import MEMKV, MEMKVCTL, MIB, Server, content, unmount

ROOT = os.geteuid() == 0


def memkv(*args, stdin=subprocess.DEVNULL):
    return subprocess.run([MEMKV, *map(str, args)], capture_output=True, text=True, timeout=60, stdin=stdin)


def rows(r):
    return [json.loads(line) for line in r.stdout.splitlines()]


@pytest.fixture
def place():
    d = tempfile.mkdtemp(prefix="memkv-test-")
    yield d
    shutil.rmtree(d)


@pytest.fixture
def loop(place):
    """Loop devices over files of the test: a function that makes one."""
    made = []

    def make(size=128 * MIB, sector=512):
        path = os.path.join(place, f"disk{len(made)}")
        with open(path, "wb") as f:
            f.truncate(size)
        if not ROOT or shutil.which("losetup") is None:
            pytest.skip("loop devices need root and losetup (util-linux)")
        r = subprocess.run(["losetup", "-b", str(sector), "-f", "--show", path], capture_output=True, text=True, timeout=30)
        if r.returncode != 0:
            pytest.skip("no loop devices here: " + r.stderr.strip())
        made.append(r.stdout.strip())
        return made[-1]

    yield make
    for dev in made:
        subprocess.run(["losetup", "-d", dev], timeout=30, check=False)


def started(config, place, **kw):
    s = Server(data=os.path.join(place, "state"), config=config, **kw)
    os.makedirs(s.data, exist_ok=True)
    return s


def test_files_are_set_up_and_the_server_takes_the_configuration(place):
    files = [os.path.join(place, n) for n in ("a.dat", "b with 'quote'.dat")]
    r = memkv("setup", "--drives", ",".join(files), "--file-size", "64MiB")
    assert r.returncode == 0, r.stderr
    for f in files:
        st = os.stat(f)
        assert st.st_size == 64 * MIB and st.st_blocks * 512 >= 64 * MIB, "the whole file is there at once"
    config = os.path.join(place, "config.yaml")
    with open(config, "w") as f:
        f.write(r.stdout)
    with started(config, place) as s:
        with mkv.Client(s.addr) as c:
            c.put(b"k", content(b"k", 1, 9 * MIB), 20)
            assert c.get(b"k", 9 * MIB) == content(b"k", 1, 9 * MIB)
        busy = memkv("drive", "check", files[0])
        assert busy.returncode == 1 and "stop the server" in busy.stderr, busy.stderr
        for command in (["wipe", "--yes"], ["repair"], ["clear-failures"]):
            no = memkv("drive", *command, files[0])
            assert no.returncode == 1 and "stop the server" in no.stderr, (command, no.stderr)
        assert memkv("drive", "info", files[0]).returncode == 0, "it only looks"
        assert rows(memkv("drive", "list", "--json", files[0]))[0]["state"] == "in-use"
        again = memkv("setup", "--drives", ",".join(files), "--file-size", "64MiB", "--idempotent")
        assert again.returncode == 0 and again.stdout == r.stdout, again.stderr
        assert s.stop() == 0
    info = rows(memkv("drive", "info", "--json", *files))
    assert [i["clean"] for i in info] == [True, True] and all(i["server_id"] != "0" * 8 + "-0000-0000-0000-" + "0" * 12 for i in info), info
    assert memkv("drive", "check", "--data", *files).returncode == 0
    alone = [memkv("drive", "repair", f).returncode for f in files]
    assert set(alone) <= {0, 2} and 2 in alone, f"no secret, and the pieces lie where the new uuids put them, maybe all on one: {alone}"
    assert memkv("drive", "repair", "--data-dir", s.data, *files).returncode == 0
    with started(config, place) as s:
        with mkv.Client(s.addr) as c:
            assert c.get(b"k", 9 * MIB) == content(b"k", 1, 9 * MIB), "pieces survive a repair"


def test_a_store_is_kept_or_formatted_as_told(place):
    f = os.path.join(place, "a.dat")
    assert memkv("setup", f, "--file-size", "64MiB").returncode == 0
    uuid = rows(memkv("drive", "info", "--json", f))[0]["uuid"]
    r = memkv("setup", "--drives", f)
    assert r.returncode == 1 and "--idempotent" in r.stderr and "--force" in r.stderr and "nothing was changed" in r.stderr
    r = memkv("setup", "--drives", f, "--idempotent", "--json")
    assert r.returncode == 0 and [(d["uuid"], d["formatted"]) for d in rows(r)[0]["drives"]] == [(uuid, False)]
    assert memkv("setup", "--drives", f, "--idempotent", "--file-size", "96MiB").returncode == 1
    assert memkv("setup", "--drives", f, "--idempotent", "--shard-size", "1MiB").returncode == 1
    r = memkv("setup", "--drives", f, "--force", "--file-size", "96MiB", "--shard-size", "1MiB", "--json")
    d = rows(r)[0]
    assert d["drives"][0]["uuid"] != uuid and d["drives"][0]["bytes"] == 96 * MIB and d["block_size"] == MIB
    assert os.stat(f).st_size == 96 * MIB
    r = memkv("setup", "--drives", f, "--force", "--file-size", "64MiB")
    assert r.returncode == 0 and os.stat(f).st_size == 64 * MIB


def test_no_space_is_said_and_nothing_is_left_behind(place):
    small, big = os.path.join(place, "a.dat"), os.path.join(place, "missing", "b.dat")
    r = memkv("setup", "--drives", f"{small},{big}", "--file-size", "64MiB")
    assert r.returncode == 1 and "cannot be made" in r.stderr and os.listdir(place) == [], r.stderr
    r = memkv("setup", "--drives", small, "--file-size", "15TiB")
    assert r.returncode == 1 and ("filesystem has" in r.stderr or "cannot be reserved" in r.stderr), r.stderr
    assert os.listdir(place) == []


def test_wrong_usage(place):
    f = os.path.join(place, "a.dat")
    assert memkv("setup", "--drives", f, "--shard-size", "3MiB").returncode == 2
    assert memkv("setup", "--drives", f, "--file-size", "1MiB").returncode == 2
    assert memkv("setup", "--drives", f, "--rdma", "no_such_device").returncode == 2
    assert memkv("drive", "mend", f).returncode == 2
    assert memkv("drive", "check").returncode == 2
    assert memkv("drive", "info", f).returncode == 1
    assert memkv("setup", "--drives", f"{f},{f}").returncode == 1
    assert memkv("setup", "--drives", "/dev/no-such-drive").returncode == 1
    assert os.listdir(place) == []
    with open(f, "w") as out:
        out.write("somebody's letter")
    r = memkv("setup", "--drives", f)
    assert r.returncode == 1 and "unknown data" in r.stderr
    assert memkv("drive", "wipe", "--yes", f).returncode == 1
    with open(f) as back:
        assert back.read() == "somebody's letter"


def test_the_configuration_is_not_written_over_a_drive(place):
    f, conf = os.path.join(place, "a.dat"), os.path.join(place, "c.yaml")
    alias = os.path.join(place, ".", "a.dat")
    for drive, out in ((f, f), (conf + ".new", conf), (f, alias)):
        r = memkv("setup", "--drives", drive, "--file-size", "64MiB", "--config-out", out)
        assert r.returncode == 2 and "one of the drives" in r.stderr and os.listdir(place) == [], (drive, out, r.stderr)
    assert memkv("setup", "--drives", f, "--file-size", "64MiB").returncode == 0
    os.link(f, conf + ".new")
    for out in (f, alias, conf):
        r = memkv("setup", "--drives", f, "--idempotent", "--config-out", out)
        assert r.returncode == 2 and "one of the drives" in r.stderr, (out, r.stderr)
        assert memkv("drive", "check", f).returncode == 0


def test_names_that_no_configuration_can_hold(place):
    for name in ("a\nb", "a\tb", "a\x7fb"):
        r = memkv("setup", "--drives", os.path.join(place, name))
        assert r.returncode == 1 and "control character" in r.stderr and os.listdir(place) == [], r.stderr
    r = memkv("setup", "")
    assert r.returncode == 1 and "without a name" in r.stderr, r.stderr
    with open("/dev/full", "w") as full:
        r = subprocess.run([MEMKV, "setup", "-q", "--file-size", "64MiB", "--drives", os.path.join(place, "a.dat")], stdout=full,
                           stderr=subprocess.PIPE, text=True, timeout=60)
    assert r.returncode == 1 and "standard output" in r.stderr, r.stderr


def test_the_registry_of_a_store_that_was_cut_off(place):
    f = os.path.join(place, "a.dat")
    assert memkv("setup", "--drives", f, "--file-size", "64MiB").returncode == 0
    for size in (4096, 64 * 1024, 32 * MIB):
        os.truncate(f, size)
        r = memkv("drive", "clear-failures", f)
        assert r.returncode == 1 and "give it its size back" in r.stderr, (size, r.returncode, r.stderr)


def test_wipe_asks_and_makes_it_empty(place):
    f = os.path.join(place, "a.dat")
    assert memkv("setup", "--drives", f, "--file-size", "64MiB").returncode == 0
    r = memkv("drive", "wipe", f)
    assert r.returncode == 1 and "--yes" in r.stderr
    assert memkv("drive", "check", f).returncode == 0
    assert memkv("drive", "wipe", "--yes", f).returncode == 0
    with open(f, "rb") as back:
        assert back.read() == bytes(64 * MIB)
    st = os.stat(f)
    assert st.st_size == 64 * MIB and st.st_blocks * 512 >= 64 * MIB, "its blocks stay"
    assert rows(memkv("drive", "list", "--json", f))[0]["state"] == "empty"
    assert memkv("setup", "--drives", f).returncode == 0, "and what is called empty is taken"
    assert os.stat(f).st_size == 64 * MIB, "as large as it is"


def test_list_and_setup_agree_on_what_is_empty(place):
    """A file with zeros first and something behind is not empty, however it came to that."""
    letter, sparse, zeros = (os.path.join(place, n) for n in ("letter.dat", "sparse.dat", "zeros.dat"))
    with open(letter, "wb") as f:
        f.truncate(64 * MIB)
        f.seek(40 * MIB)
        f.write(b"somebody's letter")
    with open(sparse, "wb") as f:
        f.truncate(96 * MIB)
    with open(zeros, "wb") as f:
        f.write(bytes(4096))
    r = memkv("drive", "list", letter, sparse, zeros)
    assert "data behind a first MiB of zeros (memkv setup wants --force for it)" in r.stdout, r.stdout
    assert [x["state"] for x in rows(memkv("drive", "list", "--json", letter, sparse, zeros))] == ["foreign", "empty", "empty"]
    r = memkv("setup", "--drives", letter)
    assert r.returncode == 1 and "data behind a first MiB of zeros: --force formats it" in r.stderr, r.stderr
    with open(letter, "rb") as f:
        f.seek(40 * MIB)
        assert f.read(17) == b"somebody's letter"
    r = memkv("setup", "--json", "--drives", f"{sparse}")
    assert r.returncode == 0 and rows(r)[0]["drives"][0]["bytes"] == 96 * MIB, (r.stdout, r.stderr)
    assert memkv("setup", "--drives", zeros, "--file-size", "64MiB").returncode == 0
    assert memkv("setup", "--drives", letter, "--force").returncode == 0 and os.stat(letter).st_size == 64 * MIB


def test_devices_are_set_up_and_foreign_ones_refused(loop, place):
    a, b = loop(), loop()
    subprocess.run(["mkfs.ext4", "-q", "-L", "photos", b], check=True, timeout=30)
    r = memkv("setup", "--drives", f"{a},{b}")
    assert r.returncode == 1 and "ext4" in r.stderr and "photos" in r.stderr and "nothing was changed" in r.stderr
    assert rows(memkv("drive", "list", "--json", a))[0]["state"] == "empty"
    mnt = os.path.join(place, "mnt")
    os.mkdir(mnt)
    if subprocess.run(["mount", b, mnt], timeout=30, check=False).returncode == 0:
        try:
            r = memkv("setup", "--drives", f"{a},{b}", "--force")
            assert r.returncode == 1 and f"mounted at {mnt}" in r.stderr, r.stderr
        finally:
            unmount(mnt)
    r = memkv("setup", "--drives", f"{a},{b}", "--force")
    assert r.returncode == 0 and "mode: direct" in r.stdout, r.stderr
    config = os.path.join(place, "config.yaml")
    with open(config, "w") as f:
        f.write(r.stdout)
    with started(config, place) as s:
        with mkv.Client(s.addr) as c:
            c.put(b"k", content(b"k", 1, 5 * MIB), 20)
            assert c.get(b"k", 5 * MIB) == content(b"k", 1, 5 * MIB)
        assert memkv("drive", "clear-failures", a).returncode == 1
        assert s.stop() == 0
    assert memkv("drive", "check", "--data", a, b).returncode == 0
    f = os.path.join(place, "f.dat")
    assert memkv("setup", "--drives", f"{a},{f}", "--idempotent").returncode == 2, "files and devices do not mix"
    assert not os.path.exists(f)


def test_progress_is_shown_on_a_terminal(place):
    f = [os.path.join(place, n) for n in "ab"]
    ours, theirs = pty.openpty()
    r = subprocess.run([MEMKV, "setup", "--drives", ",".join(f), "--file-size", "64MiB"], stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=60,
                       stdin=subprocess.DEVNULL, check=False)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            said += piece
    except OSError:             # EIO: nobody has the other end any more
        pass
    os.close(ours)
    assert r.returncode == 0 and b"formatting: " in said and b"2 of 2 done, 100 %" in said, said
    assert "formatting" not in r.stdout


@pytest.mark.parametrize("sector, odd", [(512, 0), (512, 512), (512, 3584), (4096, 0)])
def test_sectors_and_sizes(loop, place, sector, odd):
    """Sizes need be no multiple of anything; a device with sectors of 4096 bytes is as good. Set up, served, killed, recovered, checked."""
    dev = loop(64 * MIB + odd, sector)
    r = memkv("setup", "--drives", dev, "--shard-size", "1MiB", "--config-out", os.path.join(place, "config.yaml"))
    assert r.returncode == 0, r.stderr
    with started(os.path.join(place, "config.yaml"), place) as s:
        with mkv.Client(s.addr) as c:
            for i, n in enumerate((1, 4097, 700001, 3 * MIB + 5)):
                c.put(b"k%d" % i, content(b"k%d" % i, 1, n), 20)
        s.kill()
        s.start()
        with mkv.Client(s.addr) as c:
            for i, n in enumerate((1, 4097, 700001, 3 * MIB + 5)):
                assert c.get(b"k%d" % i, n, 20) == content(b"k%d" % i, 1, n)
        assert s.stop() == 0
    r = memkv("drive", "check", "--data", dev)
    assert r.returncode == 0, r.stdout + r.stderr


def test_a_device_that_is_too_small_keeps_what_it_has(loop):
    good, small = loop(), loop(8 * MIB)
    with open(small, "r+b") as f:
        f.write(b"somebody's letter")
    r = memkv("setup", "--drives", f"{good},{small}", "--force")
    assert r.returncode == 1 and "too few" in r.stderr and small in r.stderr and "nothing was changed" in r.stderr, r.stderr
    assert rows(memkv("drive", "list", "--json", good))[0]["state"] == "empty"
    with open(small, "rb") as f:
        assert f.read(17) == b"somebody's letter"
    assert memkv("setup", "--drives", small, "--force", "--shard-size", "256KiB").returncode == 0


def test_a_device_that_changed_its_size_is_refused(loop, place):
    """Say, an image that was copied to a larger drive: nothing is written there."""
    dev = loop(64 * MIB)
    assert memkv("setup", "--drives", dev, "--shard-size", "1MiB", "--config-out", os.path.join(place, "config.yaml")).returncode == 0
    with open(os.path.join(place, "disk0"), "r+b") as f:
        f.truncate(80 * MIB)
    subprocess.run(["losetup", "-c", dev], check=True, timeout=30)
    before = read(dev)
    s = started(os.path.join(place, "config.yaml"), place)
    try:
        assert s.start(expect_fail=True) == 1
        assert f"formatted with {64 * MIB} bytes and has {80 * MIB} now" in s.log_tail(100), s.log_tail(100)
    finally:
        s.close()
    assert memkv("setup", "--drives", dev, "--idempotent").returncode == 1
    assert read(dev) == before


def test_partitions_are_refused(loop):
    dev = loop()
    entry = struct.pack("<BBBBBBBBII", 0, 0, 2, 0, 0x83, 0, 0, 0, 2048, 20000)
    with open(dev, "r+b") as f:
        f.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    r = memkv("setup", "--drives", dev)
    assert r.returncode == 1 and "partition" in r.stderr, r.stderr
    assert memkv("setup", "--drives", dev, "--force").returncode == 0
    assert rows(memkv("drive", "list", "--json", dev))[0]["state"] == "store"


def test_a_full_filesystem_keeps_nothing(loop, place):
    """Two files, room for one: neither is left."""
    dev, mnt = loop(160 * MIB), os.path.join(place, "mnt")
    os.mkdir(mnt)
    subprocess.run(["mkfs.ext4", "-q", dev], check=True, timeout=30)
    if subprocess.run(["mount", dev, mnt], timeout=30, check=False).returncode != 0:
        pytest.skip("mount is not allowed here")
    try:
        before = os.statvfs(mnt).f_bavail
        a, b = os.path.join(mnt, "a.dat"), os.path.join(mnt, "b.dat")
        r = memkv("setup", "--drives", f"{a},{b}", "--file-size", "96MiB")
        assert r.returncode == 1 and "b.dat needs 96.0 MiB" in r.stderr and "left" in r.stderr and r.stdout == "", r.stderr
        assert not os.path.exists(a) and not os.path.exists(b) and os.statvfs(mnt).f_bavail == before
        r = memkv("setup", "--drives", a, "--file-size", "96MiB")
        assert r.returncode == 0 and before - os.statvfs(mnt).f_bavail >= 96 * MIB // os.statvfs(mnt).f_frsize, r.stderr
        r = memkv("setup", "--drives", dev, "--force")
        assert r.returncode == 1 and f"mounted at {mnt}" in r.stderr
    finally:
        unmount(mnt)


def test_a_mounted_partition_protects_its_disk(place, loop):
    dev = loop()
    entry = struct.pack("<BBBBBBBBII", 0, 0, 2, 0, 0x83, 0, 0, 0, 2048, 200000)
    with open(dev, "r+b") as f:
        f.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    part, mnt = dev + "p1", os.path.join(place, "mnt")
    if subprocess.run(["partx", "-a", dev], capture_output=True, timeout=30, check=False).returncode != 0 or not os.path.exists(part):
        pytest.skip("no partitions of loop devices here")
    try:
        r = memkv("setup", "--drives", dev)
        assert r.returncode == 1 and "partition" in r.stderr
        subprocess.run(["mkfs.ext4", "-q", part], check=True, timeout=30)
        os.mkdir(mnt)
        subprocess.run(["mount", part, mnt], check=True, timeout=30)
        try:
            for force in ([], ["--force"]):
                r = memkv("setup", "--drives", dev, *force)
                assert r.returncode == 1 and f"{part} is mounted at {mnt}" in r.stderr, r.stderr
        finally:
            unmount(mnt)
    finally:
        subprocess.run(["partx", "-d", dev], capture_output=True, timeout=30, check=False)


def test_members_of_volumes_and_arrays_are_refused(place):
    """Their marks at their places; the tools need not be there."""
    for name, off, mark, words in (("lvm", 512 + 24, b"LVM2 001", "LVM"), ("md", 4096, b"\xfc\x4e\x2b\xa9", "RAID"),
                                   ("luks", 0, b"LUKS\xba\xbe\0\1", "LUKS"), ("xfs", 0, b"XFSB", "XFS"), ("btrfs", 0x10040, b"_BHRfS_M", "btrfs")):
        f = os.path.join(place, name)
        with open(f, "wb") as out:
            out.truncate(64 * MIB)
            out.seek(off)
            out.write(mark)
        r = memkv("setup", "--drives", f)
        assert r.returncode == 1 and words.lower() in r.stderr.lower(), r.stderr


def test_swap_space_and_volumes_are_refused(loop):
    dev = loop()
    subprocess.run(["mkswap", dev], check=True, timeout=30, capture_output=True)
    r = memkv("setup", "--drives", dev)
    assert r.returncode == 1 and "swap" in r.stderr
    if shutil.which("pvcreate") is None:
        return
    pv = loop()
    if subprocess.run(["pvcreate", "-q", pv], capture_output=True, timeout=60, check=False).returncode == 0:
        r = memkv("setup", "--drives", pv)
        assert r.returncode == 1 and "LVM" in r.stderr


# ---- damage ----

KEYS = {b"offline/%03d" % i: 20000 + i * 3777 for i in range(60)}


def flip(path, off):
    with open(path, "r+b") as f:
        f.seek(off)
        b = f.read(1)
        f.seek(off)
        f.write(bytes([b[0] ^ 0x5a]))


def read(path):
    with open(path, "rb") as f:
        return f.read()


@pytest.fixture
def store(place):
    """A store with KEYS, closed in order: its server (stopped) and its file."""
    f = os.path.join(place, "a.dat")
    assert memkv("setup", "--drives", f, "--file-size", "64MiB", "--config-out", os.path.join(place, "config.yaml")).returncode == 0
    with started(os.path.join(place, "config.yaml"), place) as s:
        with mkv.Client(s.addr) as c:
            for k, n in KEYS.items():
                c.put(k, content(k, 1, n), 20)
        assert s.stop() == 0
        yield s, f


def survey(s):
    """Keys that are missing; wrong bytes fail at once."""
    gone = set()
    with mkv.Client(s.addr) as c:
        for k, n in KEYS.items():
            try:
                assert c.get(k, n, 20) == content(k, 1, n), f"WRONG BYTES for {k}"
            except mkv.Miss:
                gone.add(k)
    return gone


def check(f, *args):
    r = memkv("drive", "check", "--json", f, *args)
    return r.returncode, rows(r)[0]


def test_a_check_changes_nothing_also_after_a_kill(store):
    s, f = store
    s.start()
    with mkv.Client(s.addr) as c:
        for k in KEYS:
            c.put(k, content(k, 1, KEYS[k]), 20)
        c.put(b"last", content(b"last", 1, 70000), 20)
    s.kill()
    before = read(f)
    code, found = check(f, "--data")
    assert code == 0 and found["result"] == "good" and found["objects"] == len(KEYS) + 1, found
    assert read(f) == before
    assert rows(memkv("drive", "info", "--json", f))[0]["clean"] is False
    r = memkv("drive", "repair", f)
    assert r.returncode == 0, r.stderr
    assert rows(memkv("drive", "info", "--json", f))[0]["clean"] is True
    s.start()
    assert survey(s) == set()
    with mkv.Client(s.addr) as c:
        assert c.get(b"last", 70000) == content(b"last", 1, 70000)


def test_a_lock_that_goes_in_a_moment_is_waited_for(store):
    """The kernel drops the lock of a drive process a moment after its end: an operator's next command is not refused for that."""
    s, f = store
    s.start()
    assert s.stop() == 0
    for command in (["clear-failures", f], ["repair", f]):
        with open(f, "rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            timer = threading.Timer(0.4, held.close)
            timer.start()
            r = memkv("drive", *command)
            timer.join()
        assert r.returncode == 0, (command, r.stderr)
    with open(f, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        r = memkv("drive", "clear-failures", f)
        assert r.returncode != 0 and "is in use" in r.stderr, r


def test_wrong_bytes_are_found_recorded_and_dropped(store):
    s, f = store
    key = b"offline/030"
    at = read(f).find(content(key, 1, KEYS[key])[:4096])
    assert at > 0
    flip(f, at + 70001)
    assert check(f)[0] == 0, "records are whole, bytes were not asked for"
    r = memkv("drive", "check", "--data", f)
    assert r.returncode == 6 and key.decode() in r.stdout and str(at + 65536) in r.stdout, r.stdout
    # A reader meets it: the drive writes it down.
    s.start()
    with mkv.Client(s.addr) as c:
        with pytest.raises(mkv.Miss):
            c.get(key, KEYS[key])
    assert s.metric_sum("memkv_drive_failures") == 1
    assert s.status()["drive:0"]["failures"] == 1
    r = subprocess.run([MEMKVCTL, "status", "--control", s.control], capture_output=True, text=True, timeout=30)
    assert r.returncode == 0 and "1 failures recorded" in r.stdout, r.stdout
    assert rows(memkv("drive", "list", "--json", f))[0]["failures"] == 1, "also while the server runs"
    assert s.stop() == 0
    info = rows(memkv("drive", "info", "--json", f))[0]
    assert [(x["what"], x["offset"], x["count"]) for x in info["failures"]] == [("data", at + 65536, 1)], info
    assert "1 failures recorded" in memkv("drive", "list", f).stdout
    assert memkv("drive", "clear-failures", f).returncode == 0
    assert rows(memkv("drive", "info", "--json", f))[0]["failure_events"] == 0
    # Another one is dropped by repair.
    key = b"offline/031"
    flip(f, read(f).find(content(key, 1, KEYS[key])[:4096]) + 5)
    r = memkv("drive", "repair", "--data", "--json", f)
    assert r.returncode == 0 and rows(r)[0]["dropped"] == 1, r.stdout
    assert check(f, "--data")[0] == 0
    s.start()
    assert survey(s) == {b"offline/030", b"offline/031"}


def test_a_damaged_page_costs_its_objects(store):
    s, f = store
    at = read(f).rfind(b"offline/010")
    flip(f, at)
    code, found = check(f)
    assert code == 6 and found["pages_bad"] == 1 and 0 < found["objects_lost"] < len(KEYS), found
    r = memkv("drive", "repair", "--json", f)
    assert r.returncode == 0 and rows(r)[0]["result"] == "repaired" and rows(r)[0]["dropped"] == found["objects_lost"], r.stdout
    assert check(f, "--data")[0] == 0
    s.start()
    gone = survey(s)
    assert len(gone) == found["objects_lost"] and b"offline/010" in gone


def test_a_lock_that_is_on_its_way_out_is_waited_for(store):
    """The kernel takes the ring of an ended process down behind its end, and with it the lock."""
    _, f = store
    for args in (("check", f), ("repair", f), ("wipe", "--yes", f)):
        with open(f, "rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            timer = threading.Timer(0.4, fcntl.flock, (held, fcntl.LOCK_UN))
            timer.start()
            r = memkv("drive", *args)
            timer.join()
        assert r.returncode == 0, (args, r.stderr)


def test_superblocks(store):
    s, f = store
    flip(f, 100)
    code, found = check(f)
    assert code == 6 and found["superblocks_bad"] == 1
    assert memkv("drive", "repair", f).returncode == 0
    assert check(f)[0] == 0
    info = rows(memkv("drive", "info", "--json", f))[0]
    assert info["superblocks_good"] == 2 and [x["what"] for x in info["failures"]] == ["superblock"]
    s.start()
    assert survey(s) == set()
    assert s.stop() == 0
    flip(f, 100)
    flip(f, MIB - 4096 + 100)
    for command in ("check", "repair"):
        r = memkv("drive", command, f)
        assert r.returncode == 6 and "both damaged" in r.stderr, r.stderr
    assert memkv("setup", "--drives", f, "--idempotent").returncode == 1
    assert memkv("setup", "--drives", f, "--force", "--file-size", "64MiB").returncode == 0
