"""b: memkv doctor on the machine that the tests run on. What it finds here is not known; how it says it is."""
import json
import os
import shutil
import socket
import stat
import subprocess

import pytest

from harness import MEMKV, NOBODY, Server, reachable_by_others

LEVELS = ["ok", "info", "warn", "fail"]


def doctor(*args, wrap=(), **env):
    keep = {k: v for k, v in os.environ.items() if not k.startswith("MEMKV_") or k == "MEMKV_LIBEXEC"}
    return subprocess.run([*wrap, MEMKV, "doctor", *args], env={**keep, **env}, capture_output=True, text=True, timeout=60)


def rows(r):
    """What was found, and the counts of the last line, which must fit each other and the exit status."""
    objects = [json.loads(line) for line in r.stdout.splitlines()]
    found, counts = objects[:-1], objects[-1]
    for level in LEVELS[1:]:
        assert sum(x["level"] == level for x in found) == counts[level], (level, r)
    assert r.returncode == (1 if counts["fail"] else 0) and not r.stderr, r
    assert all(x["saw"] and x["why"] and x["mend"] for x in found if x["level"] != "ok"), found
    return found, counts


def ids(found):
    return {x.get("id") for x in found}


def write(path, text):
    path.write_text(text)
    return str(path)


def test_it_runs_here():
    found, counts = rows(doctor("--json", "-v"))
    assert counts["ok"] == sum(x["level"] == "ok" for x in found) > 3
    assert {"config", "kernel", "memory", "drives", "rdma"} <= {x["check"] for x in found}
    quiet, _ = rows(doctor("--json"))
    assert quiet == [x for x in found if x["level"] != "ok"]
    text = doctor("-v")
    same = [x for x in found if x["check"] != "memory"]             # what is free changes between two runs
    assert text.stdout.splitlines()[-1].endswith("wrong") and all(x["saw"].splitlines()[0] in text.stdout for x in same)


def test_each_side_alone():
    server, _ = rows(doctor("--json", "-v", "--server"))
    client, _ = rows(doctor("--json", "-v", "--client"))
    assert "config" in {x["check"] for x in server} and "gpu" not in {x["check"] for x in server}
    assert not {"config", "ports", "drives", "memory"} & {x["check"] for x in client} and "gpu" in {x["check"] for x in client}


@pytest.mark.parametrize("args", [["word"], ["--no-such-option"]])
def test_wrong_usage(args):
    assert doctor(*args).returncode == 2


def test_a_wrong_configuration(tmp_path):
    path = write(tmp_path / "bad.yaml", "network:\n  adress: 127.0.0.1:9900\n")
    r = doctor("--json", "--server", "--config", path)
    found, _ = rows(r)
    bad = next(x for x in found if x.get("id") == "config.invalid")
    assert r.returncode == 1 and f"{path}:2" in bad["saw"] and f"memkv config --check --config {path}" in bad["mend"]
    found, _ = rows(doctor("--json", "--server", "--config", str(tmp_path / "none.yaml")))
    assert "No such file" in next(x for x in found if x.get("id") == "config.invalid")["saw"]
    found, _ = rows(doctor("--json", "--server", MEMKV_STORAGE_MODEE="file"))
    assert next(x for x in found if x.get("id") == "config.stray")["mend"] == "unset MEMKV_STORAGE_MODEE"


def test_a_wrong_configuration_of_a_client(tmp_path):
    path = write(tmp_path / "client.yaml", "servers: 127.0.0.1:9900\nconections: 3\n")
    r = doctor("--json", "--client", "--config", path)
    found, _ = rows(r)
    assert r.returncode == 1 and f"{path}:2" in next(x for x in found if x.get("id") == "client.refused")["saw"]
    found, _ = rows(doctor("--json", "--client", MEMKV_CONFIG=path))
    assert "client.refused" in ids(found)
    found, _ = rows(doctor("--json", "--client", MEMKV_TRANSPORT="pigeon"))
    assert "pigeon" in next(x for x in found if x.get("id") == "client.refused")["saw"]
    path = write(tmp_path / "good.yaml", "servers: 127.0.0.1:9900\n")
    assert "client.refused" not in ids(rows(doctor("--json", "--client", "--config", path))[0])


def test_a_key_that_is_missing_and_drives_that_are_not_there(tmp_path):
    path = write(tmp_path / "c.yaml", "network: {address: 192.0.2.1:9900}\nrdma: {devices: [mlx5_77]}\n"
                 "storage: {mode: direct, drives: [{media: /dev/no-such-drive}]}\n")
    found, _ = rows(doctor("--json", "--config", path))
    assert {"config.invalid", "auth.no-key", "ports.no-address", "drives.missing", "rdma.missing"} <= ids(found), found


def test_what_a_configuration_needs(tmp_path):
    found, _ = rows(doctor("--json", "--server", MEMKV_MEMORY_MAX_SIZE="4TiB", MEMKV_MEMORY_HUGEPAGES="off"))
    assert "memory.short" in ids(found) or "memory.cgroup" in ids(found), found


def test_a_port_that_somebody_has():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        found, _ = rows(doctor("--json", "--server", MEMKV_NETWORK_ADDRESS=f"127.0.0.1:{port}", MEMKV_ADMIN_ENABLED="false"))
    taken = next(x for x in found if x.get("id") == "ports.taken")
    with open("/proc/self/comm") as f:
        assert f.read().strip() in taken["saw"], taken
    assert f":{port}" in taken["mend"]


def test_a_server_that_runs_is_no_fault():
    with Server(mode="memory", drive_bytes="64MiB", sets=["memory.max_size=16MiB"]) as s:
        found, _ = rows(doctor("--json", "--server", MEMKV_NETWORK_ADDRESS=s.addr))
    assert "ports.memkv" in ids(found) and "ports.taken" not in ids(found), found


def test_without_root(tmp_path):
    if os.geteuid() != 0 or not shutil.which("setpriv") or not reachable_by_others(MEMKV):
        pytest.skip("needs root and setpriv to become somebody else, who must reach the programs")
    found, counts = rows(doctor("--json", "-v", wrap=NOBODY, HOME="/nonexistent"))
    assert counts["ok"] > 3 and "config.unchecked" not in ids(found), found
    path = tmp_path / "secret.yaml"
    path.write_text("network: {address: 127.0.0.1:9900}\n")
    path.chmod(0o600)
    for d in [tmp_path, *tmp_path.parents]:
        if str(d) != "/" and d.owner() == "root" and not d.stat().st_mode & stat.S_IXOTH:
            d.chmod(0o755)
    found, _ = rows(doctor("--json", "--config", str(path), wrap=NOBODY, HOME="/nonexistent"))
    said = next(x for x in found if x.get("id") == "config.unreadable")
    assert str(path) in said["saw"] and said["mend"] == f"sudo memkv doctor --config {path}"


def test_the_checker_answers_programs(tmp_path):
    path = write(tmp_path / "c.yaml", "network: {address: 127.0.0.1:9900, auth_key: '" + "a1" * 32 + "'}\nrdma: {mtu: 2048}\n")
    r = subprocess.run([MEMKV, "config", "--check", "--json", "--config", path], capture_output=True, text=True, timeout=60)
    j = json.loads(r.stdout)
    assert r.returncode == 0 and j["status"] == "good" and j["file"] == path and j["errors"] == []
    assert j["keys"]["rdma.mtu"] == "2048" and j["keys"]["storage.mode"] == "file"
    assert j["auth_key"] is True and "a1a1" not in r.stdout and j["staging_bytes"] >= 256 << 20
    r = subprocess.run([MEMKV, "config", "--check", "--json", "--set", "storage.mode=tape"], capture_output=True, text=True, timeout=60)
    j = json.loads(r.stdout)
    assert r.returncode == 2 and j["status"] == "bad" and "tape" in j["errors"][0]
    assert subprocess.run([MEMKV, "config", "--show-defaults", "--json"], capture_output=True, timeout=60).returncode == 2


def test_a_check_names_keys_without_effect():
    r = subprocess.run([MEMKV, "config", "--check", "--set", "rdma.num_worker_threads=4"], capture_output=True, text=True, timeout=60)
    assert r.returncode == 0 and "configuration is good" in r.stdout
    assert "rdma.num_worker_threads: No effect" in r.stderr
