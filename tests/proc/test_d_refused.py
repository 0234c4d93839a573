"""d: a drive that never was of use. The others serve; where there is none, the start fails for the one reason there is."""
import fcntl
import os
import re
import subprocess

import pytest

import mkv
from harness import MIB, Server, content, unmount
from test_d_offline import loop, place      # noqa: F401 - fixtures


def server_with(*names):
    """Not started. A medium called foreign is somebody else's file: no store, and longer than ours may be."""
    s = Server()
    s.sets.append("storage.drives=[" + ", ".join(f"{{media: {s.data}/{n}, max_size: 64MiB}}" for n in names) + "]")
    with open(os.path.join(s.data, "foreign"), "wb") as f:
        f.write(os.urandom(1 << 20))
        f.truncate(100 << 20)
    return s


def test_one_refused_drive_leaves_the_others_serving():
    with server_with("foreign", "good") as s:
        rows = s.status()
        assert rows["drive:0"]["state"] == "FATAL" and rows["drive:1"]["state"] == "RUNNING", rows
        with mkv.Client(s.addr) as c:
            for i in range(20):
                key = b"d/%d" % i
                c.put(key, content(key, 1, 10000), 10)
                assert c.get(key, 10000) == content(key, 1, 10000)
        assert s.status()["front:tcp:0"]["restarts"] == 0, s.log_tail()


def test_a_start_that_fails_names_one_failure():
    s = server_with("foreign")
    try:
        assert s.start(expect_fail=True) == 1
        text = s.log_tail(200)
        failed = [line for line in text.splitlines() if re.search(r" proc=(drive|front)\S* .*event=worker_failed", line)]
        assert len(failed) == 1 and "proc=drive:0" in failed[0], text
        assert "cannot serve: " in text and "is not a store" in text, text
    finally:
        s.close()


def test_a_drive_that_somebody_else_has_is_told_of_at_once():
    """Long before drive.drain_timeout is over and the drive is FAILED; and it comes back by itself."""
    s = server_with("held", "good")
    s.sets.append("drive.drain_timeout=4s")
    try:
        with open(os.path.join(s.data, "held"), "wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            s.start()
            text = s.log_tail(500)
            assert len(re.findall(r"level=warn event=drive_locked child=drive:0 .*another server", text)) == 1, text
            assert text.index("event=drive_locked") < text.index("event=drain_late"), text
            row = s.status()["drive:0"]
            assert row["state"] == "STARTING" and "waits for the lock" in row["detail"], row
        assert "waits for" not in s.wait_running()["drive:0"]["detail"]
        assert s.log_tail(500).count("event=drive_locked") == 1
    finally:
        s.close()


def test_a_file_has_its_size_from_the_first_second_or_is_refused(loop, place):
    """A server that makes its file itself: all of it is there when it serves. Where it does not fit, the start says so and takes no space."""
    dev, mnt = loop(160 * MIB), os.path.join(place, "mnt")
    os.mkdir(mnt)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", dev], check=True, timeout=30)
    if subprocess.run(["mount", dev, mnt], timeout=30, check=False).returncode != 0:
        pytest.skip("mount is not allowed here")
    os.chmod(mnt, 0o755)
    s = Server()
    try:
        before = os.statvfs(mnt).f_bavail
        f = os.path.join(mnt, "a.dat")
        s.sets.append(f"storage.drives=[{{media: {f}, max_size: 256MiB}}]")
        assert s.start(expect_fail=True) == 1
        text = s.log_tail(100)
        assert re.search(rf"{f} needs {256 * MIB} bytes and its filesystem has \d+ left: lower max_size, or choose another place", text), text
        assert os.statvfs(mnt).f_bavail >= before - 64, "what was begun is given back"
        s.sets[-1] = f"storage.drives=[{{media: {f}, max_size: 96MiB}}]"
        s.start()
        st = os.stat(f)
        assert st.st_size == 96 * MIB and st.st_blocks * 512 >= 96 * MIB
        assert s.stop() == 0
    finally:
        s.close()
        unmount(mnt)
