"""b: commands of memkv that need a server: touch, admin status, and what get says of a place where it may not write."""
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

from harness import MEMKV, MEMKVCTL, MIB, Server, cli, content


@pytest.fixture(scope="module")
def server():
    with Server(mode="memory", drive_bytes="64MiB", sets=["memory.max_size=16MiB"]) as s:
        yield s


def test_touch(server):
    assert cli("put", "t/1", "-", server=server, stdin=b"x").returncode == 0
    assert cli("put", "t/2", "-", "--ttl", "1h", server=server, stdin=b"x").returncode == 0
    r = cli("touch", "t/1", "t/2", server=server)
    assert (r.returncode, r.stdout) == (0, b"t/1\ttouched\nt/2\ttouched\n"), r
    before = json.loads(cli("stat", "t/2", "--json", server=server).stdout)["expires_ms"]
    assert cli("touch", "t/2", "--ttl", "5h", server=server).returncode == 0
    after = json.loads(cli("stat", "t/2", "--json", server=server).stdout)["expires_ms"]
    assert 3.9 * 3600e3 < after - before < 4.1 * 3600e3, (before, after)
    r = cli("touch", "t/1", "t/none", "--json", server=server)
    rows = [json.loads(line) for line in r.stdout.splitlines()]
    assert r.returncode == 3 and [x["touched"] for x in rows] == [True, False] and rows[1]["reason"], r
    assert cli("touch", "t/1", "--servers", "127.0.0.1:1", "--deadline", "1s").returncode == 4
    assert server.metric_sum("memkv_drive_touches_total") >= 4


def test_get_names_the_file_that_was_asked_for(server, tmp_path):
    assert cli("put", "g", "-", server=server, stdin=b"x").returncode == 0
    target = str(tmp_path / "no" / "such" / "file")
    r = cli("get", "g", "-o", target, server=server)
    assert r.returncode == 1 and target.encode() in r.stderr and b".part" not in r.stderr, r.stderr


def test_get_writes_to_what_is_no_file(server, tmp_path):
    """-o /dev/null must not put a file in the place of the device."""
    assert cli("put", "g", "-", server=server, stdin=b"for a pipe").returncode == 0
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert cli("get", "g", "-o", str(pipe), server=server).returncode == 0
    reader.join(10)
    assert got == [b"for a pipe"] and stat.S_ISFIFO(os.stat(pipe).st_mode)
    assert os.listdir(tmp_path) == ["pipe"]
    assert cli("get", "g", "-o", str(tmp_path), server=server).returncode == 1


def test_failures_are_objects_with_json(server, tmp_path):
    for args, status in ((["get", "k", "--config", str(tmp_path / "none.yaml")], 2), (["get", "k", "--deadline", "61m"], 2),
                         (["put", "k", b"/no/such/\xff"], 1), (["put", b"\xff", "/no/such"], 1)):
        r = cli(*args, "--json", server=server)
        assert r.returncode == status and json.loads(r.stdout)["status"] not in ("", "OK"), (args, r)


def test_admin_status(server):
    r = cli("admin", "status", server.admin)
    text = r.stdout.decode()
    assert r.returncode == 0, r
    assert server.admin in text and "healthy" in text and "drive:0" in text and "front:tcp:0" in text and "memory mode" in text, text
    r = cli("admin", "status", server.admin, server.admin, "--json")
    rows = [json.loads(line) for line in r.stdout.splitlines()]
    assert r.returncode == 0 and len(rows) == 2
    body = json.loads(server.http("/v1/status"))
    assert set(rows[0]) == set(body) and rows[0]["server_id"] == body["server_id"]


def test_admin_status_of_a_data_port_is_the_port_behind(server):
    host, port = server.admin.rsplit(":", 1)
    r = cli("admin", "status", "--servers", f"one={host}:{int(port) - 1}")
    assert r.returncode == 0 and server.admin.encode() in r.stdout, r
    r = cli("admin", "status", "--servers", f"one={host}:{int(port) - 1}, {host}:{int(port) - 1},")
    assert r.returncode == 0 and r.stdout.count(server.admin.encode()) == 2, r
    for bad in ("nonsense", "host:", "host:0", "host:99999", ":1", "h:1x"):
        assert cli("admin", "status", bad).returncode == 2, bad
    assert cli("admin", "statsu").returncode == 2


def answers(*pieces, pause=0.0):
    """A port that says this to whoever comes, once, whatever he asks."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        with listener, listener.accept()[0] as s:
            s.settimeout(10)
            s.recv(4096)
            for p in pieces:
                try:
                    s.sendall(p)
                except OSError:
                    return
                time.sleep(pause)

    threading.Thread(target=run, daemon=True).start()
    return "127.0.0.1:%d" % listener.getsockname()[1]


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize("pieces,status,words", [
    ([b"\x15\x03\x03\x00\x02\x02\x16"], 1, b"HTTPS"),
    ([b""], 1, b"no HTTP"),
    ([b"HTTP/1.1 404 Not Found\r\n\r\nno"], 1, b"/v1/status"),
    ([HEAD + b"nonsense"], 1, b"no JSON"),
    ([HEAD + b"[]"], 1, b"no JSON"),
    ([HEAD, b'{"status": "unhealthy", "processes": [1, null, {"name": 5}], "storage": [', b"]}"], 1, b""),
    ([HEAD + b'{"status": "healthy", "uptime_s": -5}'], 0, b""),
    ([HEAD + b"x" * (17 << 20)], 1, b"too long"),
], ids=["tls", "nothing", "404", "text", "list", "odd types", "little", "too long"])
def test_admin_status_of_something_else(pieces, status, words):
    r = cli("admin", "status", answers(*pieces), "--deadline", "20s")
    assert r.returncode == status and words in r.stderr, r


def test_admin_status_waits_no_longer_than_its_deadline():
    begin = time.monotonic()
    r = cli("admin", "status", answers(HEAD, *[b" "] * 100, pause=0.1), "--deadline", "500ms", "--json")
    assert r.returncode == 4 and time.monotonic() - begin < 5, r
    assert json.loads(r.stdout)["status"] == "unreachable"
    r = cli("admin", "status", "127.0.0.1:1")
    assert r.returncode == 4 and b"nothing listens" in r.stderr, r


def closing(redirections, *words, server=None):
    """The command with descriptors closed or sent elsewhere, as a shell does it."""
    args = [MEMKV, *words] + (["--servers", server.addr] if server else [])
    return subprocess.run(["bash", "-c", f'exec "$@" {redirections}', "-", *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)


def test_closed_descriptors_are_not_mistaken_for_others(server):
    """Else the first socket that is opened is the standard input or output."""
    assert cli("put", "c", "-", server=server, stdin=b"x" * 5000).returncode == 0
    for redirections, words in (("<&-", ["put", "c", "-"]), (">&-", ["get", "c"]), ("<&- >&-", ["stat", "c"])):
        r = closing(redirections, *words, server=server)
        assert r.returncode == 1 and b"Bad file descriptor" in r.stderr, (redirections, words, r)
    assert closing("<&- >&- 2>&-", "touch", "c", server=server).returncode == 1
    assert cli("get", "c", server=server).stdout == b"x" * 5000


def test_a_server_without_standard_descriptors(tmp_path):
    args = [MEMKV, "start", "--set", f"server.data_dir={tmp_path}", "--set", "network.address=127.0.0.1:0", "--set", "admin.enabled=false",
            "--set", f"storage.drives=[{{media: {tmp_path}/store, max_size: 64MiB}}]"]
    r, w = os.pipe()
    p = subprocess.Popen(["bash", "-c", f'exec "$@" --ready-fd {w} <&- >&- 2>&-', "-", *args], pass_fds=(w,))
    os.close(w)
    try:
        with os.fdopen(r) as ready:
            line = ready.readline()
        assert line.startswith("ready "), line
        addr = line.split("data=")[1].split()[0]
        assert cli("put", "k", "-", "--servers", addr, stdin=b"v").returncode == 0
        assert cli("get", "k", "--servers", addr).stdout == b"v"
        p.terminate()
        assert p.wait(30) == 0
        assert b"event=" not in (tmp_path / "store").read_bytes()
    finally:
        if p.poll() is None:
            p.kill()
            p.wait()


def start_refused(tmp_path, *words, **how):
    """memkv start that must end by itself; what it says. Where it does not refuse, a limit on its address space keeps the machine whole."""
    args = [MEMKV, "start", "--set", f"server.data_dir={tmp_path}/data", "--set", "network.address=127.0.0.1:0", "--set", "admin.enabled=false", *words]
    r = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)), **how)
    assert r.returncode == 2, r
    assert not os.path.exists(tmp_path / "data"), "something was touched"
    return r.stderr.decode()


@pytest.mark.skipif(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") > 3 << 40, reason="this machine could give it")
def test_more_memory_than_there_is(tmp_path):
    text = start_refused(tmp_path, "--set", "memory.max_size=4TiB")
    assert "the server would take 4.0 TiB" in text and "memory.max_size" in text and "this machine has" in text and "max_size: " in text, text
    text = start_refused(tmp_path, "--set", "storage.mode=memory", "--set", "storage.drives=[{media: a, max_size: 2TiB}, {media: b, max_size: 2TiB}]")
    assert "storage.drives" in text and "4.5 TiB of arenas and their metadata" in text, text
    assert "storage.page_cache" in start_refused(tmp_path, "--set", "storage.page_cache=1TiB", "--set",
                                                 "storage.drives=[" + ", ".join("{media: /nowhere/%d, max_size: 64MiB}" % i for i in range(4)) + "]")


def test_a_drive_that_memory_has_no_room_for(server):
    ctl = [MEMKVCTL, "--control", server.control]
    for size, words in (("4PiB", b"arenas and their metadata"), ("31MiB", b"32.0 MiB at least"), ("1", b"at least")):
        r = subprocess.run([*ctl, "drive", "add", "more", "--size", size], capture_output=True, timeout=60, check=False)
        assert r.returncode == 1 and words in r.stderr, r


def test_a_ready_descriptor_that_is_not_there(tmp_path):
    text = start_refused(tmp_path, "--ready-fd", "77")
    assert "--ready-fd 77" in text and "not open" in text, text
    r, w = os.pipe()
    assert "for writing" in start_refused(tmp_path, "--ready-fd", str(r), pass_fds=(r,))
    os.close(r)
    os.close(w)


def test_memkvctl_failures_are_objects_with_json(server, tmp_path):
    mute = socket.socket(socket.AF_UNIX)
    mute.bind(str(tmp_path / "mute"))
    mute.listen(1)
    for words, status, name in ((["status", "--control", str(tmp_path / "none")], 4, "UNREACHABLE"), (["status"], 4, "UNREACHABLE"),
                                (["statsu"], 2, "INVAL"), ([], 2, "INVAL"), (["--nonsense"], 2, "INVAL"), (["shutdown", "drive:0"], 2, "INVAL"),
                                (["tail", b"\xff", "--control", server.control], 2, "INVAL"),
                                (["status", "--control", str(tmp_path / "mute"), "--deadline", "1s"], 4, "TIMEOUT")):
        r = subprocess.run([MEMKVCTL, *words, "--json"], capture_output=True, timeout=60, check=False, env={"PATH": "/", "HOME": str(tmp_path)})
        row = json.loads(r.stdout)
        assert r.returncode == status and row["ok"] is False and row["status"] == name and row["error"] and r.stderr, (words, r)
    r = subprocess.run([MEMKVCTL, "stop", "drive:9", "--json", "--control", server.control], capture_output=True, timeout=60, check=False)
    assert r.returncode == 1 and json.loads(r.stdout)["error"], r
    mute.close()


def test_a_transport_that_is_not_here(server):
    if os.path.isdir("/sys/class/infiniband") and os.listdir("/sys/class/infiniband"):
        pytest.skip("this host has an RDMA device")
    r = cli("get", "k", "--transport", "rdma", "--json", server=server)
    assert r.returncode == 2 and json.loads(r.stdout)["status"] == "UNSUPPORTED" and b'transport "rdma"' in r.stderr, r


def test_a_rail_is_explained_where_it_is_printed():
    r = cli("help", "info")
    assert r.returncode == 0 and b"rail N is the N-th of its rdma.devices" in r.stdout, r.stdout


def test_metrics_of_many_commands_in_one_environment(server):
    """MEMKV_PROMETHEUS_BIND is one address for all of them: who comes second goes on without."""
    taken = socket.create_server(("127.0.0.1", 0))
    env = {**os.environ, "MEMKV_PROMETHEUS_BIND": "127.0.0.1:%d" % taken.getsockname()[1]}
    for words, stdin, out in ((["put", "m", "-"], b"v", b""), (["get", "m"], b"", b"v")):
        r = subprocess.run([MEMKV, *words, "--servers", server.addr], input=stdin, capture_output=True, timeout=60, check=False, env=env)
        assert (r.returncode, r.stdout) == (0, out) and r.stderr.count(b"prometheus_bind: cannot listen on") == 1, r
    taken.close()
    for bad in ("here", "127.0.0.1", "nohost.invalid:9", "127.0.0.1:99999"):
        r = subprocess.run([MEMKV, "get", "m", "--servers", server.addr], capture_output=True, timeout=60, check=False,
                           env={**env, "MEMKV_PROMETHEUS_BIND": bad})
        assert r.returncode == 2 and b"prometheus_bind" in r.stderr, (bad, r)


def kill_the_drive(s):
    pid = s.status()["drive:0"]["pid"]
    os.kill(pid, signal.SIGKILL)
    return pid


def wait_for_the_next(s, pid):
    end = time.monotonic() + 30
    while s.wait_running()["drive:0"]["pid"] == pid:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_long_put_outlives_its_drive(tmp_path):
    """A file is read again; a pipe cannot be, and the message says that instead of a deadline that was not over."""
    value = content(b"long", 1, 96 * MIB)
    (tmp_path / "file").write_bytes(value)
    with Server(drive_bytes="1GiB", sets=["memory.max_size=64MiB", "server.crash_limit=1000"]) as s:
        for i in range(3):
            before = s.metric_sum("memkv_drive_write_bytes_total")
            p = subprocess.Popen([MEMKV, "put", "long", str(tmp_path / "file"), "--overwrite", "--deadline", "30s", "--servers", s.addr],
                                 stderr=subprocess.PIPE)
            while p.poll() is None and s.metric_sum("memkv_drive_write_bytes_total") < before + (8 + 8 * i) * MIB:
                pass
            pid = kill_the_drive(s)
            said = p.communicate(timeout=120)[1]
            assert p.returncode == 0, (i, said)
            wait_for_the_next(s, pid)
            r = cli("get", "long", server=s)
            assert r.returncode == 0 and r.stdout == value
        p = subprocess.Popen([MEMKV, "put", "pipe", "-", "--deadline", "30s", "--servers", s.addr], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdin.write(value[:24 * MIB])
        wait_for_the_next(s, kill_the_drive(s))
        said = p.communicate(value[24 * MIB:], timeout=120)[1]
        assert p.returncode == 4 and b"cannot be read again" in said and b"it had" not in said, said
        assert cli("exists", "pipe", server=s).returncode == 3


def test_an_answer_that_does_not_get_out_is_said(server):
    assert cli("put", "f", "-", server=server, stdin=b"x").returncode == 0
    for words, s in ((["stat", "f"], server), (["list"], server), (["exists", "f", "--json"], server), (["config", "--show-defaults"], None)):
        r = closing(">/dev/full", *words, server=s)
        assert r.returncode == 1 and b"standard output: No space left" in r.stderr, (words, r)


def test_a_reader_that_leaves_ends_a_command_without_a_word(server):
    """As in `memkv list | head`: nobody wants to read of a broken pipe. More than a buffer of stdio, and less."""
    assert cli("put", "left", "-", server=server, stdin=content(b"left", 0, 9 * MIB)).returncode == 0
    ctl = [MEMKVCTL, "--control", server.control]
    for words in ([MEMKV, "config", "--show-defaults"], [MEMKV, "config", "--check"], [MEMKV, "config", "--check", "--json"], [MEMKV, "help", "errors"],
                  [MEMKV, "version"], [MEMKV, "list"], [MEMKV, "stat", "left", "--json"], [MEMKV, "get", "left"], [MEMKV, "get", "left", "--range", "0:1"],
                  [MEMKV, "start", "--help"], [MEMKV, "drive", "list"], [*ctl, "status"], [*ctl, "status", "--json"], [MEMKVCTL, "help"]):
        r, w = os.pipe()
        os.close(r)
        out = subprocess.run(words, stdout=w, stderr=subprocess.PIPE, timeout=60, check=False, env={**os.environ, "MEMKV_SERVERS": server.addr})
        os.close(w)
        assert (out.returncode, out.stderr) == (1, b""), (words, out)
    with open("/dev/full", "wb") as full:
        for words in ([MEMKV, "config", "--check"], [MEMKV, "config", "--check", "--json"], [MEMKV, "drive", "list"], [*ctl, "status"], [MEMKVCTL, "help"]):
            out = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
            assert out.returncode == 1 and b"standard output: No space left" in out.stderr, (words, out)


@pytest.mark.parametrize("words,status", [
    (["frob"], 2), (["get", "k", "--frob"], 2), (["get", "k", "--deadline", "0"], 2), (["get", "k", "--range"], 2), (["bench"], 2),
    (["bench", "get", "--frob"], 2), (["bench", "get", "--ops", "0"], 2), (["bench", "get", "--servers", "127.0.0.1:1"], 4),
    (["bench", "put", "--driver", "files", "--servers", "/no/such/place"], 1), (["exists", "0", "--hex"], 2)])
def test_wrong_usage_is_an_object_with_json(words, status):
    r = cli(*words, "--json")
    rows = [json.loads(line) for line in r.stdout.splitlines()]
    assert r.returncode == status and len(rows) == 1 and rows[0]["status"] != "OK" and rows[0]["error"], r
    assert r.stderr and (words[0] != "exists" or b"even number" in r.stderr), r


def test_no_server_is_named_where_none_was_given():
    env = {**os.environ, "MEMKV_SERVERS": ""}
    env.pop("MEMKV_CONFIG", None)
    r = subprocess.run([MEMKV, "get", "k", "--servers", "", "--deadline", "5s"], env=env, capture_output=True, timeout=60, check=False)
    assert r.returncode in (0, 3) or b"no server at 127.0.0.1:9900" in r.stderr, r      # who knows what runs there
