"""
d: free space is discarded, on a device for real: the file behind a loop device loses the blocks. Files keep theirs, unless punch was chosen.
"""
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import pytest

import mkv
from harness import MIB, Server, content
from test_d_life import Frozen

VALUE = MIB
KEPT, GONE = 8, 40


def key(kind, i):
    return f"{kind}-{i}".encode()


def blocks(path):
    return os.stat(path).st_blocks * 512


def wait_for(what, timeout=60):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def place():
    d = tempfile.mkdtemp(prefix="memkv-test-", dir=os.environ.get("TMPDIR"))
    yield d
    shutil.rmtree(d)


@pytest.fixture
def device(place):
    """A loop device over a file whose filesystem has holes, and that file."""
    img = os.path.join(place, "disk")
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        pytest.skip("loop devices need root and losetup (util-linux)")
    with open(img, "wb") as f:
        f.truncate(256 * MIB)
    r = subprocess.run(["losetup", "-f", "--show", img], capture_output=True, text=True, timeout=30)
    if r.returncode != 0:
        pytest.skip("no loop devices here: " + r.stderr.strip())
    dev = r.stdout.strip()
    try:
        with open(f"/sys/block/{os.path.basename(dev)}/queue/discard_max_bytes") as f:
            if int(f.read()) == 0:
                pytest.skip("this filesystem has no holes: the loop device cannot discard")
        yield dev, img
    finally:
        subprocess.run(["losetup", "-d", dev], timeout=30, check=False)


def kinds():
    """One that stays, five that go, and so on: neighbours become one range."""
    for i in range(KEPT + GONE):
        yield ("kept" if i % ((KEPT + GONE) // KEPT) == 0 else "gone"), i


def fill(s):
    with mkv.Client(s.addr) as c:
        for kind, i in kinds():
            c.put(key(kind, i), content(key(kind, i), 1, VALUE), 60)


def empty(s):
    with mkv.Client(s.addr) as c:
        for kind, i in kinds():
            if kind == "gone":
                assert c.delete(key(kind, i), 20) == 0


def check(s):
    with mkv.Client(s.addr) as c:
        for kind, i in kinds():
            if kind == "kept":
                assert c.get(key(kind, i), VALUE, 60) == content(key(kind, i), 1, VALUE), i
            else:
                assert c.exists(key(kind, i)) == 0


def trim(s, what):
    return s.metric_sum(f"memkv_drive_trim_{what}")


def settled(s):
    """All free space has been gone through since the start."""
    return wait_for(lambda: trim(s, "unknown_extents") == trim(s, "waiting_extents") == trim(s, "in_flight_bytes") == 0)


def gives_back(s, path):
    """What is deleted leaves the file, and nothing else of it does."""
    assert settled(s), s.log_tail()
    fill(s)
    full, calls = blocks(path), trim(s, "ranges_out_total")
    assert full >= (KEPT + GONE) * VALUE
    empty(s)
    assert wait_for(lambda: blocks(path) <= full - GONE * VALUE), f"{full} -> {blocks(path)}\n{s.log_tail()}"
    assert wait_for(lambda: trim(s, "waiting_extents") == 0)
    assert trim(s, "ranges_in_total") >= GONE
    assert 0 < trim(s, "ranges_out_total") - calls < GONE
    assert trim(s, "bytes_total") >= GONE * VALUE
    assert trim(s, "errors_total") == 0
    check(s)


def test_a_device_gets_free_space_back(device):
    dev, img = device
    s = Server(mode="direct", drives=0, sets=[f"storage.drives=[{{media: {dev}}}]"])
    s.sets.remove("storage.drives=[]")
    with s:
        gives_back(s, img)
        # Neither an end by force nor an orderly one gives away what belongs to somebody.
        s.pin_ports()
        s.kill()
        s.start()
        assert settled(s), s.log_tail()
        check(s)
        assert s.stop() == 0
        s.start()
        check(s)


def test_a_file_keeps_its_blocks(server_factory):
    s = server_factory(drives=1, drive_bytes="128MiB")
    path = os.path.join(s.data, "drive0.dat")
    assert blocks(path) >= 128 * MIB
    fill(s)
    empty(s)
    time.sleep(7)
    assert blocks(path) >= 128 * MIB
    assert trim(s, "ranges_out_total") == trim(s, "ranges_in_total") == 0
    check(s)


def test_punch_gives_up_the_reservation_and_says_so(place):
    probe = os.path.join(place, "probe")
    with open(probe, "wb") as f:
        f.write(b"x" * MIB)
        f.flush()
        if subprocess.run(["fallocate", "-p", "-o", "0", "-l", str(MIB), probe], capture_output=True, timeout=30).returncode != 0:
            pytest.skip("this filesystem has no holes")
    with Server(drives=1, drive_bytes="128MiB", sets=["storage.trim=punch"]) as s:
        path = os.path.join(s.data, "drive0.dat")
        gives_back(s, path)
        assert os.stat(path).st_size == 128 * MIB
        assert blocks(path) < 64 * MIB
        assert "event=drive_trim_punch" in s.log_tail(1000)
        assert "storage.trim: punch" in s.status_rows()["drive:0"]["detail"]


def task_states(pid):
    """Of the threads of a process: letters of the kernel, none when it is gone."""
    states = ""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat") as f:
                states += f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        pass
    return states


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("fsfreeze"), reason="needs root and fsfreeze")
def test_drained_waits_for_a_discard_under_way():
    """
    A drive is killed while the kernel is at a discard of its, and the server with it. The call holds the dead process, and so the lock of the medium: the
    next worker says DRAINED when it is over, not before. (The discard is a hole in a file of a filesystem that is frozen; nothing else is under way there.)
    """
    fz, s, starts = Frozen(), None, None
    try:
        if not fz.mounted:
            pytest.skip("no filesystem can be mounted here")
        path = os.path.join(fz.mnt, "drive.dat")
        s = Server(drives=0, sets=[f"storage.drives=[{{media: {path}, max_size: 128MiB}}]", "storage.trim=punch", "storage.scrub.rate=0",
                                   "drive.io_timeout=10m", "drive.drain_timeout=2m"])
        s.sets.remove("storage.drives=[]")
        s.start()
        s.pin_ports()
        assert settled(s), s.log_tail()
        fill(s)
        with mkv.Client(s.addr) as c:
            assert c.delete(key("gone", 1), 20) == 0
        time.sleep(1)                                   # what goes with the delete is written
        fz.freeze(True)
        old = s.children("drive")[0]
        assert wait_for(lambda: "D" in task_states(old) and trim(s, "in_flight_bytes") > 0, 60), s.log_tail()
        killed = time.time()
        os.kill(old, signal.SIGKILL)
        os.kill(s.supervisor_pid, signal.SIGKILL)
        s.proc.wait(20)
        starts = threading.Thread(target=s.start, kwargs={"timeout": 120})
        starts.start()
        assert wait_for(lambda: any(t >= killed and proc.startswith("drive:") for t, _, proc in s.events("child_start")), 60)
        time.sleep(3)
        assert "D" in task_states(old)
        assert not [t for t, _, _ in s.events("drained") if t >= killed], s.log_tail()
        thawed = time.time()
        fz.freeze(False)
        starts.join(150)
        drained = [t for t, _, _ in s.events("drained") if t >= killed]
        assert len(drained) == 1 and drained[0] >= thawed - 0.1, s.log_tail()       # the log has milliseconds
        assert task_states(old).strip("Z") == ""
        with mkv.Client(s.addr) as c:
            for kind, i in kinds():
                if i != 1:
                    assert c.get(key(kind, i), VALUE, 60) == content(key(kind, i), 1, VALUE), i
        assert s.stop() == 0
    finally:
        if fz.frozen:
            fz.freeze(False)
        if starts is not None:
            starts.join(150)
        if s is not None:
            s.kill()                # who has a file open there keeps the mount
        fz.close()
