"""a: a server starts, says so, answers, is one per data directory, and leaves nothing behind."""
import os
import shutil
import signal
import subprocess
import time

import pytest

from harness import MEMKV, Server, alive, children_of, cli


def test_ready_line_and_stop(server_factory):
    s = server_factory()
    assert s.addr.startswith("127.0.0.1:") and s.admin.startswith("127.0.0.1:")
    pids = s.all_pids()
    assert len(pids) >= 3, children_of(s.supervisor_pid)
    rows = s.wait_running()
    assert any(n.startswith("drive:") for n in rows) and any(n.startswith("front:tcp:") for n in rows)
    assert s.stop() == 0, s.log_tail()
    assert not any(alive(p) for p in pids)


def test_interrupt_stops_everything(server_factory):
    s = server_factory()
    pids = s.all_pids()
    os.kill(s.supervisor_pid, signal.SIGINT)
    assert s.proc.wait(60) == 0
    assert not any(alive(p) for p in pids)


def test_children_have_only_their_descriptors(server_factory):
    s = server_factory()
    for kind in ("drive", "front"):
        for pid in s.children(kind):
            links = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            files = [t for t in links.values() if t.startswith("/") and not t.startswith(("/memfd:", "/dev/null"))]
            sockets = [t for t in links.values() if t.startswith("socket:")]
            if kind == "front":
                assert not files, links
            else:
                assert all(t.endswith("drive0.dat") for t in files), links
                assert len(sockets) == 1, links     # the control socket alone: a drive opens no socket


def test_children_are_jailed(server_factory):
    s = server_factory()
    for kind in ("drive", "front"):
        for pid in s.children(kind):
            with open(f"/proc/{pid}/status") as f:
                st = dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
            assert st["NoNewPrivs"].strip() == "1"
            assert st["Seccomp"].strip() == "2"
            assert int(st["CapEff"], 16) == 0, st["CapEff"]
            if os.geteuid() == 0:
                assert st["Uid"].split()[1] != "0"


def test_second_instance_is_refused(server_factory):
    s = server_factory()
    other = Server(data=s.data)
    other.log = os.path.join(s.data, "log2.txt")
    rc = other.start(timeout=20, expect_fail=True)
    assert rc not in (0, None)
    assert s.data in other.log_tail()
    assert cli("put", "k", "-", server=s, stdin=b"still here").returncode == 0


def test_health_ready_status_metrics(server_factory):
    import json
    s = server_factory()
    health = json.loads(s.http("/v1/health"))
    assert health["status"] == "healthy" and health["drives_online"] == health["drives_total"] == 1
    assert s.http("/v1/ready").strip() == "ok"
    status = json.loads(s.http("/v1/status"))
    assert status["storage"]["usable_bytes_total"] > 0
    assert cli("put", "k", "-", server=s, stdin=b"x" * 100000).returncode == 0
    assert cli("get", "k", server=s).stdout == b"x" * 100000
    assert s.metric_sum("memkv_write_total") >= 1 and s.metric_sum("memkv_read_total") >= 1


def test_metrics_are_what_prometheus_takes(server_factory):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    s = server_factory()
    assert cli("put", "k", "-", server=s, stdin=b"x" * 100000).returncode == 0
    text = s.http("/v1/metrics")
    out = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert out.returncode == 0, out.stdout + out.stderr


def test_bad_configuration_is_refused_with_words(tmp_path):
    conf = tmp_path / "c.yaml"
    conf.write_text("network:\n  address: 127.0.0.1:0\nstorage:\n  mod: file\n  block_size: 3 MiB\n")
    out = subprocess.run([MEMKV, "start", "--config", str(conf)], capture_output=True, text=True, timeout=20)
    assert out.returncode == 2
    assert f"{conf}:4" in out.stderr and "storage.mode" in out.stderr
    assert f"{conf}:5" in out.stderr and "3 MiB" in out.stderr
    out = subprocess.run([MEMKV, "start", "--set", "network.address=0.0.0.0:0", "--set", f"server.data_dir={tmp_path}"],
                         capture_output=True, text=True, timeout=20)
    assert out.returncode == 2 and "auth_key" in out.stderr and "openssl rand -hex 32" in out.stderr


def test_supervisor_killed_children_end_and_next_one_is_warm(server_factory):
    s = server_factory()
    assert cli("put", "warm", "-", server=s, stdin=b"w" * 300000).returncode == 0
    s.pin_ports()
    kids = [p for p in s.all_pids() if p != s.supervisor_pid]
    os.kill(s.supervisor_pid, signal.SIGKILL)
    s.proc.wait(10)
    s.start()                                   # at once, while the old children may still hold their drive
    assert cli("get", "warm", server=s).stdout == b"w" * 300000
    end = time.monotonic() + 15
    while any(alive(p) for p in kids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(p) for p in kids)
