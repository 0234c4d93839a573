"""
The supervisor alone: its children are fakes (fake_child.c) that do what a file beside them says, so every way for a child to go wrong can be had.
What the fakes were told is read from the supervisor's log.
"""
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import pytest

STAGE = os.environ.get("MEMKV_STAGE", "")
SUPERVISOR = os.environ.get("MEMKV_SUPERVISOR") or os.path.join(STAGE, "libexec", "memkv", "memkv-supervisor")
FAKE = os.environ.get("MEMKV_FAKE_CHILD") or os.path.join(os.path.dirname(STAGE), "tests", "proc", "fake_child")


class Fakes:
    def __init__(self, fronts=1, drives=1, sets=(), behave=None, env=None):
        self.dir = tempfile.mkdtemp(prefix="memkv-fake-")
        self.data = os.path.join(self.dir, "data")
        self.log = os.path.join(self.dir, "log")
        for name in ("memkv-front", "memkv-drive"):
            os.symlink(FAKE, os.path.join(self.dir, name))
        for name, words in (behave or {}).items():
            self.behave(name, words)
        rows = ", ".join(f"{{media: {self.dir}/d{i}, max_size: 64MiB}}" for i in range(drives))
        self.sets = [f"server.data_dir={self.data}", "network.address=127.0.0.1:0", f"network.shards={fronts}", f"storage.drives=[{rows}]",
                     "memory.max_size=64MiB", "local.path=-", "server.backoff_min=20ms", "server.ping_interval=50ms", "server.stop_timeout=3s", *sets]
        self.env = {"PATH": os.environ["PATH"], "MEMKV_LIBEXEC": self.dir, **(env or {})}
        for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS"):
            if k in os.environ:
                self.env[k] = os.environ[k]
        self.proc = None

    def behave(self, name, words):
        program = "memkv-drive" if name.startswith("drive") else "memkv-front"
        with open(os.path.join(self.dir, f"{program}.behave.{name}"), "w") as f:
            f.write(words + "\n")

    def start(self, ready=True, args=()):
        argv = [SUPERVISOR, *args]
        for s in self.sets:
            argv += ["--set", s]
        r, w = os.pipe()
        with open(self.log, "ab") as log:
            self.proc = subprocess.Popen(argv + ["--ready-fd", str(w)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env,
                                         pass_fds=(w,), start_new_session=True)
        os.close(w)
        if ready:
            assert select.select([r], [], [], 20)[0], self.text()
            line = os.read(r, 4096).decode()
            assert line.startswith("ready "), (line, self.text())
            self.addr = dict(re.findall(r"(\w+)=(\S+)", line))
        os.close(r)
        return self

    def text(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def wait_log(self, pattern, count=1, timeout=10):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found = re.findall(pattern, self.text())
            if len(found) >= count:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{pattern} not found {count} times in\n{self.text()}")

    def ask(self, cmd, *names, timeout=40):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(timeout)
            s.connect(os.path.join(self.data, "control.sock"))
            s.sendall(json.dumps({"cmd": cmd, "names": list(names)}).encode() + b"\n")
            got = b""
            while not got.endswith(b"\n"):
                piece = s.recv(65536)
                assert piece, got
                got += piece
            return json.loads(got)

    def rows(self):
        return {r["name"]: r for r in self.ask("status")["rows"]}

    def wait_state(self, name, state, timeout=10, other_than_pid=-1):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            row = self.rows()[name]
            if row["state"] == state and row["pid"] != other_than_pid:
                return row
            time.sleep(0.02)
        raise AssertionError(f"{name} is {row}, not {state}\n{self.text()}")

    def http(self, path, method="GET"):
        try:
            with urllib.request.urlopen(urllib.request.Request(f"http://{self.addr['admin']}{path}", method=method), timeout=10) as r:
                return r.status, r.read().decode(), dict(r.headers)
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode(), dict(e.headers)

    def stop(self, sig=signal.SIGTERM, timeout=20):
        self.proc.send_signal(sig)
        return self.proc.wait(timeout)

    def close(self):
        if self.proc and self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait(20)
        shutil.rmtree(self.dir, ignore_errors=True)


@pytest.fixture
def fakes():
    made = []

    def make(**kw):
        made.append(Fakes(**kw))
        return made[-1]

    yield make
    for f in made:
        f.close()


def test_start_ready_and_orderly_stop(fakes):
    f = fakes(fronts=2, drives=3).start()
    rows = f.rows()
    assert set(rows) == {"front:tcp:0", "front:tcp:1", "drive:0", "drive:1", "drive:2"}
    assert all(r["state"] == "RUNNING" and r["restarts"] == 0 and r["pid"] > 0 for r in rows.values())
    assert f.addr["local"] == "-" and f.addr["control"].endswith("control.sock")
    assert f.stop() == 0
    text = f.text()
    ended = [m for m in re.findall(r"event=child_stopped child=(\S+)", text)]
    assert sorted(ended[:2]) == ["front:tcp:0", "front:tcp:1"] and len(ended) == 5, "fronts end before drives"
    assert not os.path.exists(os.path.join(f.data, "control.sock"))


def test_what_a_child_is_given(fakes):
    f = fakes(drives=2, behave={"drive:0": "say_fds", "front:tcp:0": "say_fds"}, env={"SECRET_OF_THE_SHELL": "x"}).start()
    assert set(f.wait_log(r"fds=(\S+) env=0", 2)) == {"0,1,2,3,"}
    text = f.text()
    # A drive has rings with the front and with the other drive, and both ends hear the same epoch.
    rings = re.findall(r"proc=(\S+) pid=\d+ \S+ \S+ got=ring peer=(\d) index=(\d) epoch=(\d+) fds=2", text)
    have = {(who, ("front:tcp:" if peer == "0" else "drive:") + index): epoch for who, peer, index, epoch in rings}
    assert len(have) == 6
    for (a, b), epoch in have.items():
        assert have[(b, a)] == epoch
    assert re.search(r"proc=front:tcp:0 .*got=key id=1 dev=1 revoked=0", text)
    assert not re.search(r"proc=drive:0 .*got=key", text)
    assert len(set(re.findall(r"got=configure name=\S+ epoch=(\d+)", text))) == 3, "each life has an epoch of its own"


def test_death_of_a_drive(fakes):
    f = fakes(drives=2).start()
    before = f.rows()["drive:0"]["pid"]
    os.kill(before, signal.SIGKILL)
    row = f.wait_state("drive:0", "RUNNING", other_than_pid=before)
    assert row["restarts"] == 1
    assert f.rows()["drive:1"]["restarts"] == 0
    f.wait_log(r"proc=front:tcp:0 .*got=peer_died peer=1 index=0 epoch=\d+ restarting=1")
    f.wait_log(r"proc=drive:1 .*got=peer_died peer=1 index=0 ")
    died = int(re.search(r"proc=front:tcp:0 .*got=peer_died peer=1 index=0 epoch=(\d+)", f.text()).group(1))
    ring = [int(e) for e in re.findall(r"proc=front:tcp:0 .*got=ring peer=1 index=0 epoch=(\d+)", f.text())]
    assert len(ring) == 2 and ring[0] <= died < ring[1]
    drained = [int(e) for e in re.findall(r"proc=front:tcp:0 .*got=peer_drained peer=1 index=0 epoch=(\d+)", f.text())]
    assert drained[-1] == ring[1] - 1 >= died
    assert "ended by signal 9" in f.text()


def test_death_of_a_front(fakes):
    f = fakes(drives=2).start()
    before = f.rows()["front:tcp:0"]["pid"]
    os.kill(before, signal.SIGKILL)
    f.wait_state("front:tcp:0", "RUNNING", other_than_pid=before)
    died = int(f.wait_log(r"proc=drive:1 .*got=peer_died peer=0 index=0 epoch=(\d+)")[0])
    f.wait_log(rf"proc=front:tcp:0 .*got=peer_drained peer=1 index=0 epoch={died}")
    f.wait_log(rf"proc=front:tcp:0 .*got=peer_drained peer=1 index=1 epoch={died}")


def test_a_front_is_not_told_drained_by_a_drive_that_did_not_say_so(fakes):
    f = fakes(drives=2, behave={"drive:1": "no_front_drained"}).start()
    before = f.rows()["front:tcp:0"]["pid"]
    os.kill(before, signal.SIGKILL)
    died = int(f.wait_log(r"proc=drive:1 .*got=peer_died peer=0 index=0 epoch=(\d+)")[0])
    f.wait_log(rf"proc=front:tcp:0 .*got=peer_drained peer=1 index=0 epoch={died}")
    time.sleep(0.5)
    told = re.findall(r"proc=front:tcp:0 .*got=peer_drained peer=1 index=1 epoch=(\d+)", f.text())
    assert all(int(e) < died for e in told)
    # Its own end settles it.
    os.kill(f.rows()["drive:1"]["pid"], signal.SIGKILL)
    end = time.monotonic() + 10
    while not any(int(e) >= died for e in re.findall(r"proc=front:tcp:0 .*got=peer_drained peer=1 index=1 epoch=(\d+)", f.text())):
        assert time.monotonic() < end, f.text()
        time.sleep(0.05)


def test_a_drive_that_gets_no_lock_is_failed_and_comes_back_later(fakes):
    f = fakes(drives=2, sets=["drive.drain_timeout=300ms"]).start()
    f.behave("drive:0", "drain_after=1500")
    os.kill(f.rows()["drive:0"]["pid"], signal.SIGKILL)
    f.wait_log("event=drain_late child=drive:0")
    health = json.loads(f.http("/v1/health")[1])
    assert health["status"] == "degraded" and health["drives_online"] == 1 and health["drives_offline"] == 1
    assert not re.search(r"event=drain_late(.|\n)*got=peer_drained peer=1 index=0", f.text()), "time frees nothing"
    f.wait_state("drive:0", "RUNNING")
    f.wait_log(r"event=drain_late(?:.|\n)*got=peer_drained peer=1 index=0")
    f.wait_log(r"event=drain_late(?:.|\n)*event=pool child=drive:0 state=online(?:.|\n)*event=pool_served version=\d+ online=2")
    assert json.loads(f.http("/v1/health")[1])["status"] == "healthy"
    maps = [int(v) for v in re.findall(r"proc=front:tcp:0 .*got=pool_map version=(\d+)", f.text())]
    assert maps[-1] >= maps[0] + 2, "out of the map and back"


def test_the_limit_for_the_lock_does_not_run_while_nobody_tries(fakes):
    f = fakes(sets=["drive.drain_timeout=300ms", "server.backoff_min=1500ms"]).start()
    os.kill(f.rows()["drive:0"]["pid"], signal.SIGKILL)
    f.wait_state("drive:0", "BACKOFF")
    time.sleep(0.8)
    assert f.rows()["drive:0"]["state"] == "BACKOFF"
    assert "event=drain_late" not in f.text()
    # The next life is slow, and ends before it had the lock: that is no reason, either, while nobody tries.
    f.behave("drive:0", "drain_after=100 die_before_drained")
    f.wait_log(r"event=child_died child=drive:0", 2)
    f.behave("drive:0", "drain_after=100")
    f.wait_state("drive:0", "RUNNING")
    assert "event=drain_late" not in f.text()
    states = re.findall(r"proc=front:tcp:0 .*got=pool_map .*state0=(\d)", f.text())
    assert set(states) <= {"1", "2"} and states[-1] == "1", states       # ONLINE, RESTARTING


def test_crash_loop_ends_in_fatal_and_an_operator_starts_again(fakes):
    f = fakes(drives=2, sets=["server.crash_limit=3"]).start()
    f.behave("drive:1", "die_before_ready")
    os.kill(f.rows()["drive:1"]["pid"], signal.SIGKILL)
    row = f.wait_state("drive:1", "FATAL")
    assert row["detail"] == "exit status 7" and row["pid"] == 0
    assert f.http("/v1/ready")[0] == 200
    f.behave("drive:1", "")
    answer = f.ask("start", "drive:1")
    assert answer["ok"] and answer["rows"][0]["state"] == "RUNNING"


def test_served_long_enough_counts_from_zero(fakes):
    f = fakes(drives=1, sets=["server.crash_limit=2", "server.served_ok=100ms"]).start()
    for _ in range(4):
        pid = f.rows()["drive:0"]["pid"]
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        f.wait_state("drive:0", "RUNNING", other_than_pid=pid)


def test_hung_child_is_killed(fakes):
    f = fakes(sets=["server.ping_timeout=200ms"]).start()
    pid = f.rows()["front:tcp:0"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    f.wait_state("front:tcp:0", "RUNNING", other_than_pid=pid)
    assert re.search(r"event=child_hung child=front:tcp:0", f.text())


def test_a_drive_that_hangs_after_drained_is_killed(fakes):
    f = fakes(sets=["server.ping_timeout=100ms", "server.crash_limit=1000"]).start()
    f.behave("drive:0", "hang_in_start")
    pid = f.rows()["drive:0"]["pid"]
    os.kill(pid, signal.SIGKILL)
    f.wait_log(r"event=drained child=drive:0", 2)
    f.behave("drive:0", "")
    f.wait_log(r"event=child_hung child=drive:0")
    f.wait_state("drive:0", "RUNNING", other_than_pid=pid)


def test_a_drive_that_is_slow_to_get_ready_is_not_taken_for_hung(fakes):
    f = fakes(sets=["server.ping_timeout=200ms"], behave={"drive:0": "ready_after=700"}).start()
    assert f.rows()["drive:0"]["restarts"] == 0 and "event=child_hung" not in f.text()


def test_a_pause_of_the_whole_server_kills_nobody(fakes):
    f = fakes(sets=["server.ping_timeout=200ms"]).start()
    pids = [f.proc.pid] + [r["pid"] for r in f.rows().values()]
    for p in pids:
        os.kill(p, signal.SIGSTOP)
    time.sleep(2.5)
    for p in pids:
        os.kill(p, signal.SIGCONT)
        time.sleep(0.02)
    time.sleep(0.7)
    assert all(r["restarts"] == 0 and r["state"] == "RUNNING" for r in f.rows().values()), f.text()


def test_ipv6(fakes):
    f = fakes(sets=["network.address=[::1]:0"]).start()
    assert f.addr["data"].startswith("[::1]:") and f.addr["admin"].startswith("[::1]:")
    assert f.http("/v1/ready")[0] == 200


@pytest.mark.parametrize("words", ["bad_message", "send_fd"])
def test_protocol_violation_ends_the_child(fakes, words):
    f = fakes(drives=2, sets=["server.crash_limit=2"]).start()
    f.behave("drive:0", words)
    os.kill(f.rows()["drive:0"]["pid"], signal.SIGKILL)
    f.wait_state("drive:0", "FATAL")
    assert re.search(r"event=child_protocol child=drive:0", f.text())


def restarted(f, name, words):
    """Its next life behaves like that."""
    pid = f.rows()[name]["pid"]
    f.behave(name, words)
    os.kill(pid, signal.SIGKILL)
    f.wait_state(name, "RUNNING", other_than_pid=pid)


def local_fakes(fakes, **kw):
    f = fakes(fronts=1, drives=2, **kw)
    f.sets += [f"local.path={f.dir}/l.sock"]
    return f.start()


def test_regions_go_from_the_local_front_to_drives_and_their_answers_back(fakes):
    f = local_fakes(fakes)
    restarted(f, "front:local", "region=3")
    assert len(f.wait_log(r"got=region front=1 epoch=\d+ region=\d bytes=65536 fds=1", 3)) == 3
    assert f.wait_log(r"got=region_done drive=0 epoch=\d+ region=(\d) status=-2", 3) == ["1", "2", "3"]
    restarted(f, "front:local", "region=1 region_plain")     # whole when the front looked, perhaps
    assert f.wait_log(r"got=region_done drive=0 epoch=\d+ region=(\d) status=-1", 1) == ["1"]
    restarted(f, "front:local", "region=1 region_stale")     # that ring is over: no word of it, and nobody's fault
    time.sleep(0.3)
    assert len(f.wait_log(r"got=region front=1", 3)) == 3 and "event=child_protocol" not in f.text()
    pid = f.rows()["drive:0"]["pid"]
    assert len(os.listdir(f"/proc/{pid}/fd")) < 20


def test_a_drive_that_answers_no_region_is_not_asked_without_end(fakes):
    f = local_fakes(fakes, behave={"drive:0": "region_silent"})
    restarted(f, "front:local", "region=100")
    assert len(f.wait_log(r"got=region front=1", 64)) == 64
    assert f.wait_log(r"got=region_done drive=0 epoch=\d+ region=(\d+) status=-14", 36) == [str(i) for i in range(65, 101)]
    assert len(re.findall(r"got=region front=1", f.text())) == 64 and "event=child_protocol" not in f.text()


@pytest.mark.parametrize("name,words", [("front:local", "region=1 region_no_fd"), ("front:local", "region=1 region_nobody"),
                                        ("front:local", "send_fd"), ("front:tcp:0", "region=1"), ("front:tcp:0", "region=1 region_no_fd"),
                                        ("drive:0", "region_unasked"), ("drive:0", "region=1")])
def test_who_misuses_regions_is_ended(fakes, name, words):
    f = local_fakes(fakes, behave={"drive:0": "region_silent"}, sets=["server.crash_limit=2"])
    f.behave(name, words)
    os.kill(f.rows()[name]["pid"], signal.SIGKILL)
    f.wait_state(name, "FATAL")
    assert re.search(rf"event=child_protocol child={name}", f.text())
    assert all(r["state"] == "RUNNING" for n, r in f.rows().items() if n != name), "and nobody else"


def test_a_damaged_ring_ends_the_named_neighbour(fakes):
    f = fakes(drives=2).start()
    f.behave("drive:1", "accuse_stale")         # its ring is another one by now: nobody is to blame
    pid = f.rows()["drive:1"]["pid"]
    os.kill(pid, signal.SIGKILL)
    f.wait_state("drive:1", "RUNNING", other_than_pid=pid)
    assert all(r["restarts"] == (n == "drive:1") for n, r in f.rows().items()), f.text()
    f.behave("drive:1", "accuse_nobody")
    os.kill(f.rows()["drive:1"]["pid"], signal.SIGKILL)
    f.wait_log(r"event=child_protocol child=drive:1 .*no neighbour")
    assert "event=child_ring" not in f.text()


def test_who_accuses_too_often_goes_itself(fakes):
    """Three times its word ends a drive, in this and its next lives; then it is given up, and the drives serve."""
    f = fakes(fronts=2, drives=2, sets=["server.crash_limit=5"]).start()
    f.behave("front:tcp:1", "accuse")
    os.kill(f.rows()["front:tcp:1"]["pid"], signal.SIGKILL)
    f.wait_state("front:tcp:1", "FATAL", timeout=20)
    ended = re.findall(r"event=child_ring child=(\S+) child_pid=\d+ with=(\S+)", f.text())
    assert sum(child.startswith("drive:") for child, _ in ended) == 3, ended
    assert {child for child, _ in ended} <= {"drive:0", "drive:1", "front:tcp:1"}, ended
    rows = [f.wait_state(n, "RUNNING") for n in ("drive:0", "drive:1", "front:tcp:0")]
    assert rows[2]["restarts"] == 0
    assert f'memkv_supervisor_ring_bad_total{{process="supervisor"}} {len(ended)}\n' in f.http("/v1/metrics")[1]


@pytest.mark.parametrize("words,why", [("fail_final", "the fake does not want to"), ("wrong_version", "another version or kind")])
def test_final_failure_at_start(fakes, words, why):
    f = fakes(behave={"drive:0": words}).start(ready=False)
    assert f.proc.wait(20) == 1
    assert why in f.text() and "cannot serve" in f.text()


def test_later_epoch_on_a_medium(fakes):
    f = fakes(behave={"drive:0": "fail_epoch"}).start()
    assert f.rows()["drive:0"]["restarts"] == 1
    assert int(re.findall(r"got=configure name=drive:0 epoch=(\d+)", f.text())[-1]) > 1000
    assert f.stop() == 0
    # Never used twice, also by the next server.
    f.start()
    assert int(re.findall(r"got=configure name=front:tcp:0 epoch=(\d+)", f.text())[-1]) > 1001


def test_epoch_is_not_used_twice_after_a_kill(fakes):
    f = fakes().start()
    f.proc.kill()
    f.proc.wait(10)
    f.start()
    epochs = [int(e) for e in re.findall(r"got=configure name=\S+ epoch=(\d+)", f.text())]
    assert len(epochs) == len(set(epochs)) == 4
    # The second server knows the drive again.
    assert re.findall(r"got=configure name=drive:0 .* uuid=(\d+)", f.text())[-1] == "16"


def test_started_again_while_the_former_front_still_has_the_port(fakes):
    f = fakes(fronts=2, behave={"front:tcp:0": "linger=1500"}).start()
    f.sets += [f"network.address={f.addr['data']}", f"admin.address={f.addr['admin']}"]
    f.wait_log(r"proc=front:tcp:0 .*got=listener")
    killed = time.monotonic()
    f.proc.kill()
    f.proc.wait(10)
    f.start()
    assert time.monotonic() - killed > 1.4, "the port was not held, so this showed nothing"
    # After an orderly end there is nobody to wait for.
    assert f.stop() == 0
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        host, port = f.addr["data"].rsplit(":", 1)
        s.bind((host, int(port)))
        s.listen()
        f.start(ready=False)
        assert f.proc.wait(5) == 1


def test_stop_while_waiting_for_the_port(fakes):
    f = fakes(fronts=2, behave={"front:tcp:0": "linger=5000"}).start()
    f.sets += [f"network.address={f.addr['data']}", f"admin.address={f.addr['admin']}"]
    f.wait_log(r"proc=front:tcp:0 .*got=listener")
    killed = time.monotonic()
    f.proc.kill()
    f.proc.wait(10)
    f.start(ready=False)
    time.sleep(0.7)
    assert f.proc.poll() is None
    assert f.stop(timeout=2) == 0
    # That server has seen nobody to his end: the next one waits as well.
    f.start()
    assert time.monotonic() - killed > 4.9, "the port was not held, so this showed nothing"
    assert f.stop() == 0


def test_children_end_with_the_supervisor(fakes):
    f = fakes().start()
    pids = [r["pid"] for r in f.rows().values()]
    f.proc.kill()
    f.proc.wait(10)
    end = time.monotonic() + 5
    while any(os.path.exists(f"/proc/{p}") for p in pids):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_server_per_data_directory(fakes):
    f = fakes().start()
    r = subprocess.run([SUPERVISOR, "--set", f"server.data_dir={f.data}", "--set", "network.address=127.0.0.1:0"], env=f.env,
                       capture_output=True, text=True, timeout=20)
    assert r.returncode == 1 and f"in use by another server (pid {f.proc.pid})" in r.stderr


@pytest.fixture
def small_disk():
    """A directory with its own little file system, and a function that fills it to the last byte or makes room again."""
    where = tempfile.mkdtemp(prefix="memkv-small-")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", where], capture_output=True).returncode != 0:
        os.rmdir(where)
        pytest.skip("needs the right to mount a small file system")
    filler = os.path.join(where, "filler")

    def full(yes):
        if not yes:
            os.remove(filler)
            return
        with open(filler, "wb", buffering=0) as f:
            with pytest.raises(OSError):
                while True:
                    f.write(bytes(4096))

    yield where, full
    subprocess.run(["umount", "-l", where], check=True)
    os.rmdir(where)


def test_full_disk_holds_starts_and_gives_up_nobody(fakes, small_disk):
    where, full = small_disk
    f = fakes(fronts=4, drives=4, sets=[f"server.data_dir={where}", "server.backoff_max=300ms", "server.crash_window=1s"])
    f.data = where
    f.start()
    full(True)
    # Epochs are reserved in steps: some starts are still paid for. Deaths are far enough apart to count for nobody.
    for _ in range(12):
        for name, row in f.rows().items():
            if row["pid"] > 0:
                os.kill(row["pid"], signal.SIGKILL)
        time.sleep(0.3)
        if "event=state_failed" in f.text():
            break
    held = f.wait_log(r'event=state_failed .*server\.state cannot be written: No space left on device')
    assert len(held) == 1
    time.sleep(3)                               # ten tries of each at least
    rows = f.rows()
    waiting = [r for r in rows.values() if r["state"] == "BACKOFF"]
    assert waiting and not any(r["state"] == "FATAL" for r in rows.values()), rows
    assert all("No space left on device" in r["detail"] and "server.state" in r["detail"] for r in waiting), rows
    assert len(re.findall("event=state_failed", f.text())) == 1, "one disk, one complaint"
    assert f.http("/v1/status")[0] == 200
    assert sorted(os.listdir(where)) == ["control.sock", "filler", "server.lock", "server.state"]
    full(False)
    for name in rows:
        f.wait_state(name, "RUNNING")
    assert "written again" in f.text()
    full(True)
    assert f.stop() == 0                        # also without a last word in the file
    g = f.start(ready=False)
    assert g.proc.wait(20) == 1
    assert f"memkv: {where}/server.state cannot be written: No space left on device" in g.text()
    full(False)
    f.start()
    epochs = [int(e) for e in re.findall(r"event=child_start .*epoch=(\d+)", f.text())]
    assert len(set(epochs)) == len(epochs), "an epoch was used twice"


def test_port_taken(fakes):
    f = fakes().start()
    g = fakes(sets=[f"network.address={f.addr['data']}"]).start(ready=False)
    assert g.proc.wait(20) == 1
    assert "the port is taken" in g.text()


def test_port_of_several_shards_is_not_shared_with_a_second_server(fakes):
    f = fakes(fronts=2).start()
    g = fakes(fronts=2, sets=[f"network.address={f.addr['data']}"]).start(ready=False)
    assert g.proc.wait(20) == 1


def test_stop_is_bounded(fakes):
    f = fakes(behave={"front:tcp:0": "no_stop"}, sets=["server.stop_timeout=500ms"]).start()
    began = time.monotonic()
    assert f.stop() == 1
    assert time.monotonic() - began < 3


def test_second_signal_ends_at_once(fakes):
    f = fakes(behave={"front:tcp:0": "no_stop"}, sets=["server.stop_timeout=60s"]).start()
    f.proc.send_signal(signal.SIGINT)
    f.wait_log("event=stop ")
    began = time.monotonic()
    assert f.stop(signal.SIGINT) == 1
    assert time.monotonic() - began < 3


def test_operator_commands(fakes):
    f = fakes(drives=2).start()
    pid = f.rows()["drive:1"]["pid"]
    a = f.ask("restart", "drive:1")
    assert a["ok"] and a["rows"][0]["state"] == "RUNNING" and a["rows"][0]["pid"] != pid and a["rows"][0]["restarts"] == 0
    a = f.ask("stop", "drive:1")
    assert a["ok"] and a["rows"][0]["state"] == "STOPPED" and a["rows"][0]["pid"] == 0
    assert json.loads(f.http("/v1/health")[1])["status"] == "degraded"
    assert f.ask("start", "drive:1")["rows"][0]["state"] == "RUNNING"
    a = f.ask("tail", "drive:0")
    assert a["rows"][0]["name"] == "drive:0" and any("got=configure" in x for x in a["rows"][0]["lines"])
    assert f.ask("start", "drive:9") == {"ok": False, "error": 'no child is called "drive:9"'}
    assert not f.ask("dance")["ok"]
    assert f.ask("shutdown")["ok"]
    assert f.proc.wait(20) == 0


def memkvctl(f, *words):
    r = subprocess.run([os.path.join(STAGE, "bin", "memkvctl"), "--control", os.path.join(f.data, "control.sock"), *words], capture_output=True,
                       text=True, timeout=60)
    assert r.returncode == 0, (words, r)
    return r.stdout.splitlines()


def test_what_was_stopped_by_name_is_started_by_name(fakes):
    f = fakes(drives=3).start()
    assert memkvctl(f, "stop", "drive:1") == ["drive:1: stopped"]
    assert "by its name" in f.rows()["drive:1"]["detail"]
    pid = f.rows()["drive:0"]["pid"]
    for verb in ("start", "restart"):
        said = memkvctl(f, verb)
        assert said[2] == f"drive:1: left as it is, for it was stopped by its name; memkvctl {verb} drive:1", said
        assert [line for line in said if line.endswith(f": {verb}ed")] == [f"{n}: {verb}ed" for n in ("front:tcp:0", "drive:0", "drive:2")]
        assert f.rows()["drive:1"]["state"] == "STOPPED"
    assert f.rows()["drive:0"]["pid"] != pid, "restart is one"
    memkvctl(f, "stop")                                     # of all: a reason for none of them, and drive:1 keeps its own
    assert {r["state"] for r in f.rows().values()} == {"STOPPED"}
    assert "left as it is" in memkvctl(f, "start")[2]
    assert {n: r["state"] for n, r in f.rows().items()} == {"front:tcp:0": "RUNNING", "drive:0": "RUNNING", "drive:1": "STOPPED", "drive:2": "RUNNING"}
    assert memkvctl(f, "start", "drive:1") == ["drive:1: started"]
    assert "by its name" not in f.rows()["drive:1"]["detail"]
    memkvctl(f, "stop", "drive:2")
    assert memkvctl(f, "start", "all")[3] == "drive:2: started"
    assert {r["state"] for r in f.rows().values()} == {"RUNNING"}
    memkvctl(f, "stop", "drive:2")
    assert memkvctl(f, "restart", "drive:2") == ["drive:2: restarted"]
    memkvctl(f, "stop", "drive:2")
    memkvctl(f, "stop", "all")                              # so drive:0 is not one that was stopped by its name
    assert [line for line in memkvctl(f, "start") if "left" in line] == ["drive:2: left as it is, for it was stopped by its name; memkvctl start drive:2"]
    f.stop()
    f.start()
    assert {r["state"] for r in f.rows().values()} == {"RUNNING"}, "a new server begins anew"


def test_clean_restart_of_a_drive_frees_its_buffers_at_once(fakes):
    f = fakes().start()
    f.ask("stop", "drive:0")
    died = int(f.wait_log(r"proc=front:tcp:0 .*got=peer_died peer=1 index=0 epoch=(\d+) restarting=0")[0])
    f.wait_log(rf"proc=front:tcp:0 .*got=peer_drained peer=1 index=0 epoch={died}")


def test_reload(fakes):
    f = fakes()
    config = os.path.join(f.dir, "c.yaml")
    with open(config, "w") as c:
        c.write("log:\n  level: info\n")
    f.start(args=["--config", config])
    key = "5a" * 32
    with open(config, "w") as c:
        c.write(f"log:\n  level: debug\nmemory:\n  slots: 64\nnetwork:\n  auth_key: {key}\n")
    assert f.ask("reload")["ok"]
    f.wait_log(r"event=config_note key=memory.slots running=1024 configured=64")
    f.wait_log(r"proc=front:tcp:0 .*got=key id=\d+ dev=0 revoked=0")
    f.wait_log(r"proc=front:tcp:0 .*got=key id=1 dev=1 revoked=1")
    with open(config, "w") as c:
        c.write("log:\n  level: loud\n")
    a = f.ask("reload")
    assert not a["ok"] and "loud" in a["error"]
    assert key not in f.text()
    assert f.rows()["front:tcp:0"]["state"] == "RUNNING"


def test_admin_http(fakes):
    f = fakes(drives=2, behave={"drive:0": "say_fds"}).start()
    code, body, headers = f.http("/v1/ready")
    assert (code, body) == (200, "ok\n")
    code, body, headers = f.http("/v1/health")
    assert code == 200 and headers["content-type"] == "application/json"
    assert json.loads(body) == {"status": "healthy", "rdma_active": False, "drives_online": 2, "drives_offline": 0, "drives_total": 2}
    status = json.loads(f.http("/v1/status")[1])
    assert {p["name"] for p in status["processes"]} == {"front:tcp:0", "drive:0", "drive:1"}
    assert status["processes"][0]["jail_missing"] == ["everything"] and len(status["server_id"]) == 32
    assert status["storage"]["raw_bytes_total"] == 2 << 30 and len(status["storage"]["devices"]) == 2
    assert f.http("/v1/nothing")[0] == 404
    code, body, headers = f.http("/v1/health", method="POST")
    assert code == 405 and headers["allow"] == "GET, HEAD"
    code, body, headers = f.http("/v1/status", method="HEAD")
    assert code == 200 and body == "" and int(headers["content-length"]) > 100


def test_metrics_are_good_prometheus_text(fakes):
    f = fakes(drives=2).start()
    body = f.http("/v1/metrics")[1]
    assert 'memkv_process_up{process="drive:1"} 1' in body
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    r = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, text=True, timeout=30)
    assert r.returncode == 0, r.stdout + r.stderr


def test_admin_https(fakes):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    f = fakes()
    cert, key = os.path.join(f.dir, "cert.pem"), os.path.join(f.dir, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True)
    f.sets += [f"network.tls_cert={cert}", f"network.tls_key={key}"]
    f.start()
    with urllib.request.urlopen(f"https://{f.addr['admin']}/v1/ready", context=ssl.create_default_context(cafile=cert), timeout=10) as r:
        assert r.read() == b"ok\n"
    with pytest.raises((OSError, http.client.HTTPException)):
        urllib.request.urlopen(f"http://{f.addr['admin']}/v1/ready", timeout=5)
    r = subprocess.run([os.path.join(STAGE, "bin", "memkv"), "admin", "status", f.addr["admin"]], capture_output=True, text=True, timeout=20)
    assert r.returncode in (1, 4) and "curl https://" in r.stderr, r
    assert f.stop() == 0


def test_admin_port_can_be_off(fakes):
    f = fakes(sets=["admin.enabled=false"]).start()
    assert f.addr["admin"] == "-"
    assert f.stop() == 0


def test_stalled_admin_clients_hurt_nobody(fakes):
    f = fakes().start()
    host, port = f.addr["admin"].rsplit(":", 1)
    idle = [socket.create_connection((host, int(port))) for _ in range(40)]
    for i, s in enumerate(idle):
        s.sendall(b"GET /v1/metrics HTTP/1.1\r\n"[: i % 26])
    assert f.http("/v1/ready")[0] == 200
    for s in idle:
        s.close()
    slow = socket.create_connection((host, int(port)))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.sendall(b"GET /v1/metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert f.http("/v1/metrics")[0] == 200
    assert f.stop() == 0
    slow.close()


def test_log_file_shared_with_standard_output(fakes):
    f = fakes()
    out = os.path.join(f.dir, "both")
    with open(out, "wb") as o:
        argv = [SUPERVISOR] + [x for s in f.sets for x in ("--set", s)]
        f.proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=o, stderr=o, env=f.env)
    f.log = out
    f.wait_log("event=ready ")
    assert f.stop() == 0
    lines = f.text().splitlines()
    assert sum(x.startswith("ready data=") for x in lines) == 1
    assert all(x.startswith(("ready data=", "time=")) for x in lines)


def test_unhealthy_without_any_drive(fakes):
    f = fakes(sets=["server.crash_limit=1"]).start()
    os.kill(f.rows()["drive:0"]["pid"], signal.SIGKILL)
    f.wait_state("drive:0", "FATAL")
    code, body, _ = f.http("/v1/health")
    assert code == 503 and json.loads(body)["status"] == "unhealthy"
    assert f.http("/v1/ready")[0] == 503
    assert f.stop() == 0


def test_memory_mode_gives_arenas(fakes):
    f = fakes(drives=2, sets=["storage.mode=memory", "storage.drives=[{media: a, max_size: 64MiB}, {media: b, max_size: 64MiB}]",
                              "memory.hugepages=off"]).start()
    arena = 6                                   # number of the message in control.proto
    assert len(f.wait_log(rf"proc=drive:0 .*got={arena} fds=2")) == 1
    assert len(f.wait_log(rf"proc=front:tcp:0 .*got={arena} fds=1", count=2)) == 2
    assert f.stop() == 0
    # Nothing of it is left: the next server must not expect the former identity.
    f.start()
    assert re.findall(r"got=configure name=drive:0 .* uuid=(\d+)", f.text())[-1] == "0"


def test_hugepages_required_but_missing(fakes):
    with open("/proc/sys/vm/nr_hugepages") as h:
        if int(h.read()) > 0:
            pytest.skip("huge pages are reserved here")
    f = fakes(sets=["memory.hugepages=require"]).start(ready=False)
    assert f.proc.wait(20) == 2
    assert "memory.hugepages" in f.text()


def test_documentation_has_every_key():
    doc = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "operate", "configuration.md")
    table = subprocess.run([SUPERVISOR, "--show-markdown"], capture_output=True, text=True, check=True, timeout=20).stdout
    with open(doc) as d:
        assert table in d.read(), "docs/operate/configuration.md is older than the table: memkv-supervisor --show-markdown"


def test_json_log(fakes):
    f = fakes(sets=["log.format=json"]).start()
    assert f.stop() == 0
    lines = [json.loads(x) for x in f.text().splitlines() if x.startswith("{")]
    assert any(x["proc"] == "supervisor" and x["event"] == "ready" for x in lines)
    assert any(x["proc"] == "drive:0" and x.get("got") == "configure" for x in lines)


def test_flooding_child_is_cut_down_and_hurts_nobody(fakes):
    f = fakes(behave={"front:tcp:0": "flood"}).start()
    f.wait_log(r"proc=front:tcp:0 .*event=log_dropped lines=\d+", timeout=20)
    assert len(re.findall("flood=", f.text())) < 10000
    assert f.stop() == 0


@pytest.mark.parametrize("name", ["front:tcp:0", "drive:0"])
def test_random_kills(fakes, name):
    f = fakes(fronts=2, drives=2, sets=["server.served_ok=100ms", "server.crash_limit=1000", "server.backoff_max=50ms"]).start()
    for i in range(15):
        row = f.wait_state(name, "RUNNING")
        time.sleep(0.01 * (i % 5))
        os.kill(row["pid"], signal.SIGKILL)
        f.wait_state(name, "RUNNING", other_than_pid=row["pid"])
    assert f.stop() == 0
