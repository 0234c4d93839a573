"""memkv doctor on soft-RoCE devices and NVMe drives: what it derives from sysfs is what verbs say, and what is broken here is named."""
import json
import os
import re
import shutil
import subprocess

import pytest

import lab
from harness import MEMKV

NICS = os.environ.get("LAB_NICS", "").split()
pytestmark = pytest.mark.skipif(not NICS, reason="a guest without RDMA devices: run-lab --nics 2")


def run(*cmd):
    return lab.sh(*cmd).stdout


def doctor(*args, **env):
    """Findings by id; with -v what is fine by check."""
    r = subprocess.run([MEMKV, "doctor", "--json", "-v", *args], env={**os.environ, **env}, capture_output=True, text=True, timeout=120)
    rows = [json.loads(line) for line in r.stdout.splitlines()]
    assert r.returncode == (1 if rows[-1]["fail"] else 0) and not r.stderr, r
    return {x.get("id", x["check"]): x for x in rows[:-1]}


@pytest.fixture
def netdev():
    """The interface of the first device, put back as it was."""
    name = run("cat", f"/sys/class/infiniband/{NICS[0]}/parent").strip()
    mtu = run("cat", f"/sys/class/net/{name}/mtu").strip()
    yield name
    run("ip", "link", "set", name, "up", "mtu", mtu)
    run("ip", "address", "replace", os.environ["LAB_ADDRESSES"].split()[0] + "/24", "dev", name)


def test_good_devices_are_fine():
    found = doctor(MEMKV_RDMA_DEVICES=",".join(NICS))
    assert not [i for i in found if i.split(".")[0] in ("rdma", "gid", "mtu", "qos") and "." in i], found
    assert os.environ["LAB_ADDRESSES"].split()[-1] in found["gid"]["saw"], found["gid"]


@pytest.mark.skipif(shutil.which("ibv_devinfo") is None, reason="no ibv_devinfo (Debian: ibverbs-utils)")
def test_the_active_mtu_is_that_of_verbs(netdev):
    for mtu in (1103, 1104, 1500, 2127, 2128, 4175, 4176, 9000):
        run("ip", "link", "set", netdev, "mtu", str(mtu))
        active = re.search(r"active_mtu:\s+(\d+)", run("ibv_devinfo", "-d", NICS[0])).group(1)
        found = doctor("--client", MEMKV_RDMA_DEVICES=NICS[0])
        said = found.get("mtu.small", found.get("mtu"))["saw"]
        assert f"{active} bytes active" in said or f"active MTU is {active} of 4096" in said, (mtu, active, said)


def test_a_port_that_is_down(netdev):
    run("ip", "link", "set", netdev, "down")
    found = doctor("--client", MEMKV_RDMA_DEVICES=NICS[0])
    assert found["rdma.port"]["level"] == "fail" and f"ip link set {netdev} up" in found["rdma.port"]["mend"]
    assert doctor("--client")["rdma.port"]["level"] == "warn"
    run("sh", "-c", found["rdma.port"]["mend"].split(";")[0])
    lab.wait_for(lambda: "rdma.port" not in doctor("--client", MEMKV_RDMA_DEVICES=NICS[0]))


def test_an_address_that_is_gone(netdev):
    run("ip", "address", "flush", "dev", netdev, "scope", "global")
    lab.wait_for(lambda: "gid.link-local" in doctor("--client", MEMKV_RDMA_DEVICES=NICS[0]))
    assert doctor("--client", MEMKV_RDMA_DEVICES=NICS[0])["gid.link-local"]["mend"] == f"ip address add ADDRESS/24 dev {netdev}"


def test_a_device_that_is_not_there():
    found = doctor("--client", MEMKV_RDMA_DEVICES=f"{NICS[0]},rxe77")
    assert "rxe77" in found["rdma.missing"]["saw"]


def test_what_a_front_would_refuse(netdev, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(f"rdma: {{devices: [{NICS[0]}], gid_index: 200, mtu: 4096}}\n")
    run("ip", "link", "set", netdev, "mtu", "1500")
    found = doctor("--server", "--config", str(config))
    assert "rdma.mtu is 4096 and the port's active MTU is 1024" in found["mtu.above"]["saw"]
    assert "the table has 1024 entries, and this one is empty" in found["gid.index"]["saw"]
