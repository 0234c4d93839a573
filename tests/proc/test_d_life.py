"""
d: drives come, go, fail and come back under a verified load. Clients see misses and waits, never an old value and never an error without a reason.
"""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

import mkv
from harness import MEMKVCTL, MIB, Load, Server, content, unmount

OFFLINE, EVICTED = 6, 2


def drive(s, *words, ok=True, timeout=40):
    out = subprocess.run([MEMKVCTL, "--control", s.control, "drive", *words, "--json"], capture_output=True, text=True, timeout=timeout)
    answer = json.loads(out.stdout) if out.stdout else {"error": out.stderr}
    assert (out.returncode == 0) == ok, f"drive {words}: {answer}\n{s.log_tail()}"
    return answer


def states(s):
    return {r["id"]: r["state"] for r in drive(s, "list")["rows"]}


def wait_states(s, want, timeout=20):
    """want: {id: state}; and fronts go by it."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        a = drive(s, "list")
        have = {r["id"]: r["state"] for r in a["rows"]}
        if a["served"] and all(have.get(i) == w for i, w in want.items()):
            return have
        time.sleep(0.05)
    raise AssertionError(f"wanted {want}, have {have}\n{s.log_tail(80)}")


def ctl(s, *words):
    out = subprocess.run([MEMKVCTL, "--control", s.control, *words], capture_output=True, text=True, timeout=40)
    assert out.returncode == 0, out.stderr + s.log_tail()


def pid_of(s, i):
    return s.status_rows()[f"drive:{i}"]["pid"]


class LifeLoad(Load):
    """As Load, but what a drive took with it may be missing: then the version is forgotten. It may never be an older one."""

    def one_get(self, c, k):
        lost = len(self.lost)
        super().one_get(c, k)
        if len(self.lost) > lost and self.lost[-1][2] in (OFFLINE, EVICTED, 1, 9):
            self.lost.pop()
            self.gone = getattr(self, "gone", 0) + 1


class Life:
    def __init__(self, s, threads=3, **kw):
        self.s, self.loads = s, [LifeLoad(s.addr, f"w{i}", keys=40, size=64 * 1024, **kw) for i in range(threads)]
        for ld in self.loads:
            ld.start()

    def go_on(self, seconds=0.6):
        """Everyone gets something done, some of it after now."""
        t = time.monotonic()
        while time.monotonic() < t + 30 and not all(ld.last_ok > t + seconds for ld in self.loads):
            time.sleep(0.02)
        assert all(ld.last_ok > t for ld in self.loads), f"no service\n{self.s.log_tail(80)}"

    def end(self):
        for ld in self.loads:
            ld.finish()
        for ld in self.loads:
            assert not ld.broken, ld.broken
            assert not ld.wrong, f"old or wrong bytes: {ld.wrong[:3]}\n{self.s.log_tail(80)}"
            assert not ld.lost, f"{ld.lost[:3]}\n{self.s.log_tail(80)}"
            assert ld.late == 0
            assert ld.puts > 0
        print("statuses", [ld.statuses for ld in self.loads], "gone", [getattr(ld, "gone", 0) for ld in self.loads])


@pytest.fixture
def five(server_factory):
    return server_factory(drives=5, drive_bytes="128MiB", sets=["server.crash_limit=1000", "server.backoff_max=200ms"])


def fill(s, n, size=64 * 1024, version=1, prefix="k"):
    with mkv.Client(s.addr) as c:
        for i in range(n):
            k = f"{prefix}{i}".encode()
            c.put(k, content(k, version, size), 20.0)


def read_all(s, n, size=64 * 1024, versions=(1,), prefix="k"):
    """How many are there; whatever is there is one of these versions."""
    hits, reasons = 0, {}
    with mkv.Client(s.addr) as c:
        for i in range(n):
            k = f"{prefix}{i}".encode()
            try:
                got = c.get(k, size, 20.0)
                assert any(got == content(k, v, size) for v in versions), f"{k}: an old value came up"
                hits += 1
            except mkv.Miss as e:
                assert e.status == mkv.MISS, (k, e.status)
                reasons[e.reason] = reasons.get(e.reason, 0) + 1
    return hits, reasons


def test_list_and_locate(five):
    rows = drive(five, "list")["rows"]
    assert [r["state"] for r in rows] == ["online"] * 5
    homes = set()
    for i in range(64):
        homes.add(drive(five, "locate", f"k{i}")["home"])
    assert len(homes) > 1
    assert "no drive is called" in drive(five, "drain", "9", ok=False)["error"]
    assert "in service" in drive(five, "remove", "0", ok=False)["error"]
    u = rows[3]["uuid"]
    for name in (u, "-".join((u[:8], u[8:12], u[12:16], u[16:20], u[20:]))):        # as `memkv drive info` writes it
        assert "in service" in drive(five, "remove", name, ok=False)["error"]
    for name in (u[:31], u + "0", "-"):
        assert "no drive is called" in drive(five, "remove", name, ok=False)["error"]


def test_stop_and_start_brings_back_what_was_not_written(five):
    """Away in order, the others keep the log: what was not written meanwhile is there again, what was written or deleted is not old."""
    fill(five, 200)
    ctl(five, "stop", "drive:1")
    wait_states(five, {1: "absent"})
    hits, reasons = read_all(five, 200)
    assert 0 < hits < 200 and set(reasons) == {OFFLINE}
    fill(five, 60, version=2)
    with mkv.Client(five.addr) as c:
        for i in range(60, 80):
            c.delete_batch([f"k{i}".encode()], 20.0)
    ctl(five, "start", "drive:1")
    wait_states(five, {1: "online"})
    assert read_all(five, 60, versions=(2,))[0] == 60
    with mkv.Client(five.addr) as c:
        for i in range(60, 80):
            with pytest.raises(mkv.Miss):
                c.get(f"k{i}".encode(), 65536, 20.0)
    hits, _ = read_all(five, 200, versions=(1, 2))
    assert hits == 180, "what was not touched while the drive was away is still there"


def test_a_lost_log_empties_the_drive_that_comes_back(five):
    fill(five, 200)
    ctl(five, "stop", "drive:1")
    wait_states(five, {1: "absent"})
    fill(five, 60, version=2)
    for i in (0, 2, 3, 4):
        os.kill(pid_of(five, i), signal.SIGKILL)
    time.sleep(0.5)
    wait_states(five, {0: "online", 2: "online", 3: "online", 4: "online"})
    ctl(five, "start", "drive:1")
    wait_states(five, {1: "online"})
    assert read_all(five, 60, versions=(2,))[0] == 60
    assert read_all(five, 200, versions=(1, 2))[0] < 200


@pytest.mark.parametrize("drives", [1, 3])
def test_all_are_stopped_and_started(server_factory, drives):
    """Nobody is in service who could say what was written meanwhile, and nothing was."""
    s = server_factory(drives=drives, drive_bytes="128MiB")
    fill(s, 60)
    for i in range(2):
        ctl(s, "stop")
        assert set(states(s).values()) <= {"absent", "failed"}
        ctl(s, "start")
        wait_states(s, {d: "online" for d in range(drives)})
        hits, _ = read_all(s, 60, versions=(1, 2))
        assert hits == 60 or drives > 1, "the only drive keeps what it had"
        fill(s, 60, version=2)
        assert read_all(s, 60, versions=(2,))[0] == 60


def test_away_over_a_restart_of_the_server(five):
    fill(five, 200)
    ctl(five, "stop", "drive:1")
    wait_states(five, {1: "absent"})
    fill(five, 60, version=2)
    five.pin_ports()
    five.stop()
    five.start()
    wait_states(five, {i: "online" for i in range(5)})
    assert read_all(five, 60, versions=(2,))[0] == 60
    hits, _ = read_all(five, 200, versions=(1, 2))
    assert 60 < hits < 200


@pytest.mark.over_rdma_full
def test_drives_come_and_go_under_load(five):
    life = Life(five)
    life.go_on()
    drive(five, "add", os.path.join(five.data, "new.dat"), "--size", "128MiB")
    wait_states(five, {5: "online"})
    life.go_on()
    drive(five, "drain", "0")
    wait_states(five, {0: "draining"})
    life.go_on()
    drive(five, "drain", "drive:0", "--now")
    wait_states(five, {0: "removed"})
    life.go_on()
    drive(five, "replace", "1", os.path.join(five.data, "newer.dat"), "--size", "128MiB")
    wait_states(five, {6: "online", 1: "draining"})
    life.go_on()
    os.kill(pid_of(five, 2), signal.SIGKILL)
    life.go_on()
    ctl(five, "stop", "drive:3")
    wait_states(five, {3: "absent"})
    life.go_on()
    ctl(five, "start", "drive:3")
    wait_states(five, {2: "online", 3: "online"})
    life.go_on()
    drive(five, "remove", "4", "--now")
    wait_states(five, {4: "removed"})
    life.go_on()
    life.end()


def test_locate_names_the_drive_that_has_the_key(five):
    """Without it just these keys are gone."""
    fill(five, 60)
    homes = {i: drive(five, "locate", f"k{i}")["home"] for i in range(60)}
    away = homes[0]
    ctl(five, "stop", f"drive:{away}")
    wait_states(five, {away: "absent"})
    with mkv.Client(five.addr) as c:
        for i in range(60):
            try:
                c.get(f"k{i}".encode(), 65536, 20.0)
                assert homes[i] != away
            except mkv.Miss as e:
                assert homes[i] == away and e.reason == OFFLINE
    a = drive(five, "locate", "k0")
    assert a["home"] != away and a["former"] == away


def test_replaced_under_load_to_its_end(server_factory):
    """The old drive empties and goes by itself, the new one has its share, nobody hears anything but misses for what went with it."""
    s = server_factory(drives=3, drive_bytes="128MiB", sets=["drive.drain_time=3s"])
    old, new = os.path.join(s.data, "drive1.dat"), os.path.join(s.data, "new.dat")
    life = Life(s)
    life.go_on()
    drive(s, "replace", old, new, "--size", "128MiB")
    wait_states(s, {3: "online", 1: "removed"}, timeout=60)
    life.go_on()
    os.unlink(old)                  # it may be pulled
    life.go_on()
    life.end()
    fill(s, 120, version=2)
    assert read_all(s, 120, versions=(2,))[0] == 120
    assert 3 in {drive(s, "locate", f"k{i}")["home"] for i in range(120)} and 1 not in {drive(s, "locate", f"k{i}")["home"] for i in range(120)}
    assert "no drive is called" in drive(s, "replace", "9", new, "--size", "128MiB", ok=False)["error"]
    assert "in the map already" in drive(s, "replace", "0", new, "--size", "128MiB", ok=False)["error"]


def test_a_replacement_that_was_withdrawn_drains_nobody(five):
    new = os.path.join(five.data, "later", "new.dat")
    drive(five, "replace", "0", new, "--size", "128MiB", ok=False)      # there is no such directory
    wait_states(five, {5: "failed"})
    drive(five, "remove", "5")
    os.mkdir(os.path.dirname(new))
    drive(five, "add", new, "--size", "128MiB")
    assert wait_states(five, {5: "online"})[0] == "online"


def test_mistyped_drives_do_not_fill_the_map(five):
    for i in range(5, 64):
        drive(five, "add", os.path.join(five.data, "none", str(i)), "--size", "64MiB", ok=False)
    new = os.path.join(five.data, "new.dat")
    assert "64 drives already" in drive(five, "add", new, "--size", "64MiB", ok=False)["error"]
    drive(five, "remove", "40")
    drive(five, "add", new, "--size", "64MiB")
    wait_states(five, {40: "online"})
    fill(five, 60)
    assert read_all(five, 60)[0] == 60
    assert five.stop() == 0
    five.start()                    # some of the failed ones fail again when all others have come: nothing waits for them
    wait_states(five, {40: "online"})
    assert read_all(five, 60)[0] == 60


def test_a_removed_drive_is_brought_back_empty(five):
    """Its own number, nothing of what it had: also what nobody wrote since."""
    fill(five, 200)
    drive(five, "remove", "4", "--now")
    wait_states(five, {4: "removed"})
    hits, reasons = read_all(five, 200)
    assert 0 < hits < 200 and set(reasons) <= {OFFLINE, 1}, reasons
    fill(five, 60, version=2)
    drive(five, "add", os.path.join(five.data, "drive4.dat"))      # the file says how large it is
    assert set(wait_states(five, {4: "online"})) == {0, 1, 2, 3, 4}
    refused = drive(five, "add", os.path.join(five.data, "nowhere.dat"), ok=False)
    assert "--size" in refused["error"], refused
    assert read_all(five, 60, versions=(2,))[0] == 60
    assert read_all(five, 200, versions=(1, 2))[0] <= hits + 60
    with mkv.Client(five.addr) as c:
        gone = [i for i in range(60, 200) if not c.exists_batch([f"k{i}".encode()], 20.0)[0][0]]
    assert len(gone) >= 200 - hits - 60, "what it had is not there again"


def test_a_removed_drive_is_in_no_sum_and_no_alert(server_factory):
    s = server_factory(drives=3, drive_bytes="128MiB")
    fill(s, 60)
    before = json.loads(s.http("/v1/status"))["storage"]
    drive(s, "drain", "1", "--now")
    wait_states(s, {1: "removed"})
    text, status = s.http("/v1/metrics"), json.loads(s.http("/v1/status"))
    assert 'memkv_process_up{process="drive:2"} 1' in text and 'memkv_process_up{process="drive:1"}' not in text
    assert 'memkv_drive_objects{process="drive:1"}' not in text and 'memkv_drive_puts_total{process="drive:1"}' in text
    assert "drive:1" not in {p["name"] for p in status["processes"]}
    assert [d["state"] for d in status["storage"]["devices"]] == ["online", "removed", "online"]
    for what in ("raw_bytes_total", "usable_bytes_total"):
        assert status["storage"][what] == before[what] * 2 // 3
    assert f"\nmemkv_storage_usable_bytes {status['storage']['usable_bytes_total']}\n" in text
    assert status["status"] == "healthy"


def test_added_drive_is_there_after_a_restart(five):
    drive(five, "add", os.path.join(five.data, "new.dat"), "--size", "128MiB")
    wait_states(five, {5: "online"})
    drive(five, "drain", "2", "--now")
    wait_states(five, {2: "removed"})
    fill(five, 100)
    five.pin_ports()
    five.stop()
    five.start()
    assert states(five) == {0: "online", 1: "online", 2: "removed", 3: "online", 4: "online", 5: "online"}
    assert read_all(five, 100)[0] == 100


def test_keys_are_found_where_they_were_before(server_factory):
    s = server_factory(drives=2, drive_bytes="128MiB")
    fill(s, 120)
    drive(s, "add", os.path.join(s.data, "new.dat"), "--size", "128MiB")
    wait_states(s, {2: "online"})
    moved = [i for i in range(120) if "former" in drive(s, "locate", f"k{i}")]
    assert moved, "nothing moved"
    assert read_all(s, 120)[0] == 120
    with mkv.Client(s.addr) as c:
        assert sum(c.exists_batch([f"k{i}".encode() for i in range(120)], 20.0)[0]) == 120
        assert c.match([f"k{i}".encode() for i in range(120)], 20.0) == 120
    fill(s, 120, version=2)
    assert read_all(s, 120, versions=(2,))[0] == 120


def test_drained_drive_empties_and_goes(server_factory):
    s = server_factory(drives=3, drive_bytes="128MiB", sets=["drive.drain_time=2s"])
    fill(s, 150)
    drive(s, "drain", "1")
    hits, _ = read_all(s, 150)
    assert hits > 100
    wait_states(s, {1: "removed"}, timeout=30)
    assert read_all(s, 150)[0] < 150
    fill(s, 150, version=3)
    assert read_all(s, 150, versions=(3,))[0] == 150


@pytest.mark.over_rdma_full
def test_stopped_process_is_replaced(five):
    life = Life(five)
    life.go_on()
    ctl(five, "reload")
    os.kill(pid_of(five, 1), signal.SIGSTOP)        # server.ping_timeout ends it
    end = time.monotonic() + 40
    while five.metric_sum("memkv_supervisor_child_hangs_total") == 0 and time.monotonic() < end:
        time.sleep(0.2)
    wait_states(five, {1: "online"}, timeout=40)
    life.go_on()
    life.end()


def test_drive_killed_for_good(server_factory):
    """A crash loop ends in FATAL: the others serve on, its keys are misses with the reason, or new."""
    s = server_factory(drives=5, drive_bytes="128MiB", sets=["server.crash_limit=3", "server.served_ok=1h", "server.backoff_max=100ms"])
    life = Life(s)
    life.go_on()
    fill(s, 100)
    end = time.monotonic() + 30
    while states(s)[2] != "failed" and time.monotonic() < end:
        pid = pid_of(s, 2)
        if pid:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    wait_states(s, {2: "failed", 0: "online", 1: "online", 3: "online", 4: "online"})
    life.go_on()
    hits, reasons = read_all(s, 100)
    assert 0 < hits < 100 and set(reasons) == {OFFLINE}
    assert json.loads(s.http("/v1/health"))["status"] == "degraded"
    ctl(s, "start", "drive:2")
    wait_states(s, {2: "online"})
    assert read_all(s, 100)[0] == 100
    life.go_on()
    life.end()


class Frozen:
    """A filesystem of its own, whose writes can be made to hang."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="memkv-frozen-")
        self.mnt = os.path.join(self.dir, "mnt")
        self.mounted = self.frozen = False
        image = os.path.join(self.dir, "image")
        os.mkdir(self.mnt)
        with open(image, "wb") as f:
            f.truncate(300 * MIB)
        if subprocess.run(["mkfs.ext4", "-q", image], capture_output=True).returncode == 0:
            self.mounted = subprocess.run(["mount", "-o", "loop", image, self.mnt], capture_output=True).returncode == 0
        os.chmod(self.mnt, 0o755) if self.mounted else None

    def freeze(self, on):
        subprocess.run(["fsfreeze", "-f" if on else "-u", self.mnt], check=True)
        self.frozen = on

    def close(self):
        if self.frozen:
            self.freeze(False)
        if self.mounted:
            unmount(self.mnt)
        shutil.rmtree(self.dir, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("fsfreeze"), reason="needs root and fsfreeze")
@pytest.mark.parametrize("io", ["uring", "threads"])
def test_hung_drive_is_isolated_and_comes_back(server_factory, io):
    """Writes of one drive hang in the kernel, and its process with them: the rest serves; when they end, it comes back with what is still good."""
    fz, s = Frozen(), None
    try:
        if not fz.mounted:
            pytest.skip("no filesystem can be mounted here")
        s = server_factory(drives=4, drive_bytes="128MiB", sets=["drive.io_timeout=1s", f"storage.io={io}", "drive.drain_timeout=2s"])
        drive(s, "add", os.path.join(fz.mnt, "hangs.dat"), "--size", "128MiB")
        wait_states(s, {4: "online"})
        fill(s, 200)
        life = Life(s)
        life.go_on()
        fz.freeze(True)
        wait_states(s, {4: "failed"}, timeout=20)
        life.go_on(1.0)
        hits, reasons = read_all(s, 200)
        assert 0 < hits < 200 and set(reasons) == {OFFLINE}
        fill(s, 50, version=2)
        fz.freeze(False)
        wait_states(s, {4: "online"}, timeout=40)
        assert read_all(s, 50, versions=(2,))[0] == 50
        assert read_all(s, 200, versions=(1, 2))[0] == 200
        life.go_on()
        life.end()
        s.stop()
    finally:
        if fz.frozen:
            fz.freeze(False)
        if s is not None:
            s.kill()                # who has a file open there keeps the mount
        fz.close()
