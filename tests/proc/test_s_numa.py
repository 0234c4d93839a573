"""
Processes and memory on the NUMA node of their device. The machine with two nodes is made up: a tree of files in the place of parts of /sys, in a mount
namespace of the server's own. Each node has one processor of this machine.
"""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

import test_s_supervisor
from harness import MEMKVCTL, Server
from test_s_supervisor import Fakes

CPUS = sorted(os.sched_getaffinity(0))
PARTS = {"node": "/sys/devices/system/node", "block": "/sys/dev/block", "class": "/sys/class"}


class Machine:
    """Two nodes; devices are put on them. argv() runs a command where the system is this."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="memkv-numa-")
        for part in PARTS:
            os.mkdir(os.path.join(self.dir, part))
        self.write("node/has_cpu", "0-1")
        for i in range(2):
            self.write(f"node/node{i}/cpulist", str(CPUS[i]))

    def write(self, name, line):
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(line + "\n")

    def device(self, name, node, domain=0):
        self.write(f"devices/pci{domain:04x}:00/{domain:04x}:00:0{node}.0/numa_node", str(node))
        path = os.path.join(self.dir, f"devices/pci{domain:04x}:00/{domain:04x}:00:0{node}.0/{name}")
        os.makedirs(path, exist_ok=True)
        return path

    def disk_of(self, path, node, domain=0):
        """The filesystem of path lies on a disk of that node."""
        dev = os.stat(path).st_dev
        os.symlink(self.device(f"disk{node}", node, domain), os.path.join(self.dir, f"block/{os.major(dev)}:{os.minor(dev)}"))

    def nic(self, name, node, domain=0):
        os.makedirs(os.path.join(self.dir, f"class/infiniband/{name}"))
        os.symlink(self.device(name, node, domain), os.path.join(self.dir, f"class/infiniband/{name}/device"))

    def wrap(self):
        mounts = "; ".join(f"mount --bind {self.dir}/{part} {place}" for part, place in PARTS.items())
        return ["unshare", "--mount", "sh", "-ec", f'{mounts}; exec "$@"', "sh"]


@pytest.fixture
def machine():
    if len(CPUS) < 2:
        pytest.skip("two nodes need two processors")
    m = Machine()
    r = subprocess.run([*m.wrap(), "true"], capture_output=True, text=True, timeout=20, check=False)
    if r.returncode != 0:
        shutil.rmtree(m.dir)
        pytest.skip(f"no mount namespace of our own: {r.stderr.strip()}")
    yield m
    shutil.rmtree(m.dir)


@pytest.fixture
def fakes(machine, monkeypatch):
    """A supervisor with fake children, on the made-up machine."""
    script = os.path.join(machine.dir, "supervisor")
    with open(script, "w") as f:
        f.write("#!/bin/sh\nexec " + " ".join(f"'{w}'" for w in [*machine.wrap(), test_s_supervisor.SUPERVISOR]) + ' "$@"\n')
    os.chmod(script, 0o755)
    monkeypatch.setattr(test_s_supervisor, "SUPERVISOR", script)
    made = []

    def make(**kw):
        made.append(Fakes(**kw))
        return made[-1]

    yield make
    for f in made:
        f.close()


def cpus_of(pid):
    return sorted(os.sched_getaffinity(pid))


def test_each_on_the_node_of_its_device(machine, fakes):
    f = fakes(fronts=2, drives=1, sets=["rdma.devices=[nic0, nic1]"])
    machine.disk_of(f.dir, 1)
    machine.nic("nic0", 0)
    machine.nic("nic1", 1)
    f.start()
    rows = f.rows()
    for name, node in (("drive:0", 1), ("front:rdma:nic0", 0), ("front:rdma:nic1", 1)):
        assert rows[name]["node"] == node and cpus_of(rows[name]["pid"]) == [CPUS[node]], name
        f.wait_log(rf"event=child_start child={name} .* node={node}")
    for name in ("front:tcp:0", "front:tcp:1"):
        assert "node" not in rows[name] and cpus_of(rows[name]["pid"]) == CPUS
    # Whoever is started again is there, too.
    os.kill(rows["drive:0"]["pid"], signal.SIGKILL)
    end = time.monotonic() + 20
    while f.rows()["drive:0"]["pid"] in (0, rows["drive:0"]["pid"]) and time.monotonic() < end:
        time.sleep(0.05)
    assert cpus_of(f.rows()["drive:0"]["pid"]) == [CPUS[1]]
    # And who is far from whom is said.
    assert rows["front:rdma:nic0"]["far"] == "drive:0 (NUMA nodes 0 and 1)" and "far" not in rows["front:rdma:nic1"]
    status = {p["name"]: p for p in json.loads(f.http("/v1/status")[1])["processes"]}
    assert status["front:rdma:nic0"]["far"] == "drive:0 (NUMA nodes 0 and 1)" and status["front:rdma:nic1"]["far"] == ""
    assert status["drive:0"]["node"] == 1 and status["front:tcp:0"]["node"] is None
    assert f.stop() == 0


def test_off_and_one_node(machine, fakes):
    f = fakes(fronts=1, drives=1, sets=["server.numa=off", "rdma.devices=[nic0]"])
    machine.disk_of(f.dir, 1)
    machine.nic("nic0", 1, domain=1)
    f.start()
    rows = f.rows()
    assert all(cpus_of(r["pid"]) == CPUS and "node" not in r for r in rows.values())
    assert rows["front:rdma:nic0"]["far"] == "drive:0 (PCIe domains 0001 and 0000)"
    assert f.stop() == 0
    machine.write("node/has_cpu", "0")
    f.sets.remove("server.numa=off")
    f.start()
    assert all(cpus_of(r["pid"]) == CPUS and "node" not in r for r in f.rows().values())
    assert f.stop() == 0


def policies(pid):
    with open(f"/proc/{pid}/numa_maps") as f:
        return sorted(x.split()[1] for x in f if "memfd:memkv-stage" in x)


@pytest.mark.skipif(not os.path.exists("/proc/self/numa_maps"), reason="this kernel knows no NUMA nodes")
def test_staging_memory_of_a_rail(machine):
    """Its pages come from the node of its device, a TCP front's from anywhere. Node 0 is there on every machine, so here the policy is the system's own."""
    data = tempfile.mkdtemp(prefix="memkv-test-")
    machine.disk_of(data, 1)
    machine.nic("nic0", 0)
    s = Server(sets=["rdma.devices=[nic0]", "network.shards=1", "local.path=-", "memory.max_size=64MiB", "memory.hugepages=off"], drive_bytes="64MiB", wrap=machine.wrap(), data=data)
    try:
        s.start()
        assert policies(s.children("drive")[0]) == ["default", "prefer:0"]
        assert cpus_of(s.children("drive")[0]) == [CPUS[1]]
        out = subprocess.run([MEMKVCTL, "--control", s.control, "status"], capture_output=True, text=True, timeout=20, check=False).stdout
        assert ", node 1" in out and ", far from drive:0 (NUMA nodes 0 and 1)" in out, out
    finally:
        s.close()
        shutil.rmtree(data, ignore_errors=True)
