"""
b: a server's unix socket: who comes by it, what a client does while its front is away, and what is left of it when the server ends.
"""
import os
import re
import signal
import subprocess
import time

import mkv
import pytest
from harness import MEMKV, MIB, Load, Server, cli, content

NAME = "front:local"


def client(s, transport, servers=None):
    return mkv.Client(servers or s.addr, transport=transport)


def put_get(c, key, size=3 * MIB + 5):
    value = content(key, 1, size)
    c.put(key, value, 30.0)
    assert c.get(key, size, 30.0) == value


def counted(s, name, process=NAME):
    return s.metrics().get(f'{name}{{process="{process}"}}', 0)


def until(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def goes_local(c, s):
    """Requests until one of them is counted by the local front."""
    def one():
        before = counted(s, "memkv_front_put_total")
        c.put(b"probe", os.urandom(64), 30.0)
        return counted(s, "memkv_front_put_total") > before
    until(one)


@pytest.mark.parametrize("mode", ["file", "memory"])
def test_every_way(server_factory, mode):
    s = server_factory(mode=mode)
    path = os.path.join(s.data, "memkv.sock")
    assert s.local == path and s.status_rows()[NAME]["state"] == "RUNNING"
    with client(s, "local") as c:
        put_get(c, b"by address")
    assert counted(s, "memkv_front_put_total") == 1 and counted(s, "memkv_front_put_total", "front:tcp:0") == 0
    for transport in ("auto", "local"):
        with client(s, transport, f"local://{path}") as c:
            put_get(c, transport.encode())
    assert counted(s, "memkv_front_put_total", "front:tcp:0") == 0
    with client(s, "tcp") as c:
        assert c.get(b"by address", 4 * MIB, 30.0) == content(b"by address", 1, 3 * MIB + 5)
    with client(s, "auto") as c:
        put_get(c, b"goes over")
        goes_local(c, s)
    assert re.search(rf"event=session_local session=[0-9a-f]+ uid={os.getuid()} client_pid={os.getpid()}", s.log_tail(10000))


def test_command_line(server_factory, tmp_path):
    s = server_factory()
    value = tmp_path / "value"
    value.write_bytes(content(b"k", 1, 100000))
    name = f"local://{s.local}"
    for args in (("put", "k", str(value)), ("exists", "k"), ("stat", "k"), ("info",)):
        r = cli(*args, "--servers", name, "--transport", "auto")
        assert r.returncode == 0, r.stderr
    assert b"local" in r.stdout
    assert cli("get", "k", "--servers", name, "--transport", "local").stdout == value.read_bytes()
    r = cli("put", "k", str(value), "--servers", name, "--transport", "tcp")
    assert r.returncode == 2 and b"host:port" in r.stderr
    r = cli("put", "k", str(value), "--servers", name + ".none", "--transport", "local")
    assert r.returncode == 4, r.stderr


def test_without(server_factory):
    s = server_factory(sets=["local.path=-"])
    assert s.local == "-" and NAME not in s.status_rows()
    with client(s, "auto") as c:
        put_get(c, b"k")
    r = cli("put", "k", "-", server=s, stdin=b"x", timeout=30)
    assert r.returncode == 0
    r = subprocess.run([MEMKV, "exists", "k", "--servers", s.addr, "--transport", "local"], capture_output=True, timeout=30, check=False)
    assert r.returncode == 2 and b"local.path" in r.stderr, r.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_its_front_dies_or_stands_still(server_factory, how):
    """Nothing is lost, nothing is late: requests go by TCP meanwhile, and come back."""
    s = server_factory(sets=["server.ping_timeout=2s", "server.ping_interval=200ms"])

    loads = [Load(s.addr, f"load{i}", options={"transport": "auto"}) for i in range(2)]
    try:
        for x in loads:
            x.start()
        until(lambda: counted(s, "memkv_front_put_total") > 20)
        for _ in range(2):
            pid = s.status_rows()[NAME]["pid"]
            os.kill(pid, how)
            until(lambda pid=pid: s.status_rows()[NAME]["pid"] not in (0, pid) and s.status_rows()[NAME]["state"] == "RUNNING")
            before = counted(s, "memkv_front_put_total")
            until(lambda before=before: counted(s, "memkv_front_put_total") > before + 20)
    finally:
        for x in loads:
            x.stop_flag.set()
        for x in loads:
            x.join(60)
    for x in loads:
        assert not x.broken and not x.wrong and not x.lost and x.late == 0, (x.broken, x.wrong, x.lost, x.late)
        assert x.put_errors == 0 and x.misses == 0, x.statuses


def test_what_is_left_of_it(server_factory):
    s = server_factory()
    path = s.local
    other = Server(sets=[f"local.path={path}"])
    assert other.start(expect_fail=True) == 1
    assert "another server listens there; set local.path" in other.log_tail()
    other.close()
    s.kill()
    assert os.path.exists(path)
    s.start()                                   # what the killed one left is replaced
    with client(s, "local") as c:
        put_get(c, b"again")
    s.stop()
    assert not os.path.exists(path)
