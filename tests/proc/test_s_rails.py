"""
Fronts of RDMA devices as the supervisor runs them, with fakes (test_s_supervisor.py): one a device, each with its door; none of them ever takes the
server down.
"""
import json
import os
import re
import signal
import subprocess
import time

import pytest

from harness import MEMKVCTL
from test_s_supervisor import Fakes

RAILS = "rdma.devices=[dev0, dev1]"


@pytest.fixture
def rails():
    made = []

    def make(sets=(), **kw):
        made.append(Fakes(sets=[RAILS, *sets], **kw))
        return made[-1]

    yield make
    for f in made:
        f.close()


def doors(f, to, rail):
    """What `to` was told of a rail, in order: (up, descriptors)."""
    return [(int(up), int(fds)) for up, fds in re.findall(rf"proc={to} .*got=door rail={rail} up=(\d) .*fds=(\d)", f.text())]


def wait_doors(f, to, rail, want, timeout=10):
    end = time.monotonic() + timeout
    while doors(f, to, rail) != want and time.monotonic() < end:
        time.sleep(0.02)
    assert doors(f, to, rail) == want, f.text()


def wait_last(f, to, rail, want, timeout=10):
    end = time.monotonic() + timeout
    while doors(f, to, rail)[-1:] != [want] and time.monotonic() < end:
        time.sleep(0.02)
    assert doors(f, to, rail)[-1:] == [want], f.text()


def test_one_front_a_device(rails):
    f = rails(fronts=2, drives=2).start()
    rows = f.rows()
    assert set(rows) == {"front:tcp:0", "front:tcp:1", "front:rdma:dev0", "front:rdma:dev1", "drive:0", "drive:1"}
    assert all(r["state"] == "RUNNING" for r in rows.values())
    for tcp in ("front:tcp:0", "front:tcp:1"):
        for n in (1, 2):
            f.wait_log(rf"proc={tcp} .*got=door rail={n} up=1 device=dev{n - 1} transports=2 mtu=4096 ")
    text = f.text()
    assert not re.search(r"proc=front:rdma:\S+ .*got=listener", text), "it has none"
    for n, dev in ((1, "dev0"), (2, "dev1")):
        assert doors(f, f"front:rdma:{dev}", n) == [(0, 1)], "its own, once"
        assert not doors(f, f"front:rdma:{dev}", 3 - n), "no other's"
        assert len(re.findall(rf"proc=front:rdma:{dev} .*got=ring peer=1 ", text)) == 2, "rings with all drives"
        assert re.search(rf"proc=front:rdma:{dev} .*got=key id=1 ", text)
        for tcp in ("front:tcp:0", "front:tcp:1"):
            told = doors(f, tcp, n)
            assert [fds for _, fds in told].count(1) == 1 and told[-1][0] == 1, told
    epochs = re.findall(r"got=configure name=(\S+) epoch=(\d+)", text)
    assert len({e for _, e in epochs}) == 6
    status = json.loads(f.http("/v1/status")[1])
    assert status["rails"] == [{"rail": n, "device": d, "up": True, "rc": True, "dc": False, "speed_mbit": 100000, "mtu": 4096, "without_dc": "it is a fake?"}
                               for n, d in ((1, "dev0"), (2, "dev1"))]
    assert f.rows()["front:rdma:dev0"]["transports"] == "rc" and f.rows()["front:rdma:dev1"]["without_dc"] == "it is a fake?"
    assert "transports" not in f.rows()["front:tcp:0"]
    said = subprocess.run([MEMKVCTL, "--control", os.path.join(f.data, "control.sock"), "status"], stdout=subprocess.PIPE, text=True, timeout=20).stdout
    assert re.search(r"^front:rdma:dev0 .*, transports rc \(no DC: it is a fake\?\),", said, re.M), said
    assert json.loads(f.http("/v1/health")[1])["rdma_active"] is True
    assert f.stop() == 0


def test_a_rail_that_dies_and_comes_back(rails):
    f = rails(fronts=1, drives=1).start()
    f.wait_log(r"proc=front:tcp:0 .*got=door rail=1 up=1 ")
    before = doors(f, "front:tcp:0", 1)
    pids = {n: r["pid"] for n, r in f.rows().items()}
    os.kill(pids["front:rdma:dev0"], signal.SIGKILL)
    f.wait_state("front:rdma:dev0", "RUNNING", other_than_pid=pids["front:rdma:dev0"])
    wait_doors(f, "front:tcp:0", 1, before + [(0, 0), (0, 1), (1, 0)])
    f.wait_log(r"proc=drive:0 .*got=peer_died peer=0 index=1 ")
    assert {n: r["pid"] for n, r in f.rows().items() if n != "front:rdma:dev0"} == {n: p for n, p in pids.items() if n != "front:rdma:dev0"}


def test_a_front_that_starts_later_gets_the_doors(rails):
    f = rails(fronts=2, drives=1).start()
    pid = f.rows()["front:tcp:1"]["pid"]
    f.wait_log(r"proc=front:tcp:1 .*got=door rail=2 up=1 ")
    os.kill(pid, signal.SIGKILL)
    f.wait_state("front:tcp:1", "RUNNING", other_than_pid=pid)
    for n in (1, 2):
        wait_last(f, "front:tcp:1", n, (1, 1))


def test_a_device_that_is_not_there(rails):
    f = rails(fronts=1, drives=1, behave={"front:rdma:dev1": "absent"}, sets=["server.crash_limit=2", "server.backoff_max=50ms"]).start()
    f.wait_log(r"proc=front:rdma:dev1 .*got=configure ", count=8)            # however often, it is not given up
    row = f.rows()["front:rdma:dev1"]
    assert row["state"] in ("BACKOFF", "STARTING") and row["restarts"] == 0 and "does not want to" in row["detail"], row
    for event in ("child_start", "child_died"):
        assert len(re.findall(rf"event={event} child=front:rdma:dev1 ", f.text())) == 1, "said once"
    metrics = f.http("/v1/metrics")[1]
    assert "memkv_supervisor_rails{process=\"supervisor\"} 2\n" in metrics and "memkv_supervisor_rails_up{process=\"supervisor\"} 1\n" in metrics
    assert "memkv_supervisor_child_deaths_total{process=\"supervisor\"} 0\n" in metrics
    assert json.loads(f.http("/v1/health")[1])["status"] == "degraded"
    assert f.rows()["front:tcp:0"]["state"] == f.rows()["front:rdma:dev0"]["state"] == "RUNNING"
    begin = time.monotonic()
    answer = f.ask("restart", "front:rdma:dev0", "front:rdma:dev1")         # whoever waits for it is told, not kept for half a minute
    assert not answer["ok"] and "does not want to" in answer["error"], answer
    assert time.monotonic() - begin < 20
    f.behave("front:rdma:dev1", "")
    f.wait_state("front:rdma:dev1", "RUNNING")
    f.wait_log(r"proc=front:tcp:0 .*got=door rail=2 up=1 ")
    assert json.loads(f.http("/v1/health")[1])["status"] == "healthy"


@pytest.mark.parametrize("words,state,why", [("fail_final", "FATAL", "does not want to"), ("no_rail", "FATAL", "rail that is none"),
                                             ("other_rail", "FATAL", "rail that is none"), ("die_on_start", "FATAL", "signal")])
def test_a_rail_that_cannot_be_had(rails, words, state, why):
    f = rails(fronts=1, drives=1, behave={"front:rdma:dev0": words}, sets=["server.backoff_max=20ms"]).start()
    row = f.wait_state("front:rdma:dev0", state)
    assert why in row["detail"], row
    assert f.rows()["front:tcp:0"]["state"] == "RUNNING" and f.http("/v1/ready")[0] == 200
    wait_last(f, "front:tcp:0", 1, (0, 0))


def test_a_device_that_hangs_does_not_hold_up_the_start(rails):
    begin = time.monotonic()
    f = rails(fronts=1, drives=1, behave={"front:rdma:dev0": "hang_in_start"}).start()
    assert f.rows()["front:rdma:dev0"]["state"] == "STARTING"
    assert time.monotonic() - begin < 15


def test_a_port_that_goes_down(rails):
    f = rails(fronts=1, drives=1, behave={"front:rdma:dev0": "rail_down"}).start()
    f.wait_log(r"proc=front:tcp:0 .*got=door rail=1 up=0 device=dev0 transports=2 mtu=4096 ")
    row = f.rows()["front:rdma:dev0"]
    assert row["state"] == "RUNNING" and row["detail"] == "the port is down"
    assert f.wait_log(r"event=rail child=front:rdma:dev0 rail=1 up=(\d)", count=2) == ["1", "0"]


def test_a_rail_that_is_stopped(rails):
    """TCP fronts hear of it before its front has ended: who wants it meanwhile is told so at once."""
    f = rails(fronts=1, drives=1, behave={"front:rdma:dev0": "no_stop"}).start()
    f.wait_log(r"proc=front:tcp:0 .*got=door rail=1 up=1 ")
    before = doors(f, "front:tcp:0", 1)
    f.ask("stop", "front:rdma:dev0")            # answers when it has ended: after server.stop_timeout, by SIGKILL
    wait_doors(f, "front:tcp:0", 1, before + [(0, 0), (0, 0)])      # when it was asked to, and when it had ended
    assert f.rows()["front:rdma:dev0"]["state"] == "STOPPED"
    f.ask("start", "front:rdma:dev0")
    f.wait_log(r"proc=front:tcp:0 .*got=door rail=1 up=1 ", count=2)


def test_the_others_go_on_without_a_word_of_a_tcp_front(rails):
    """Nothing serves without a TCP front, however many rails there are."""
    f = rails(fronts=1, drives=1, behave={"front:tcp:0": "fail_final"}).start(ready=False)
    assert f.proc.wait(20) == 1
    assert "cannot serve" in f.text()


def test_a_reload_with_other_devices_needs_a_restart(rails, tmp_path):
    conf = tmp_path / "c.yaml"
    conf.write_text("rdma: {devices: [dev0]}\n")
    f = rails(fronts=1, drives=1)
    f.sets.remove(RAILS)
    f.start(args=("--config", str(conf)))
    assert "front:rdma:dev1" not in f.rows()
    conf.write_text("rdma: {devices: [dev0, dev1]}\n")
    f.ask("reload")
    f.wait_log(r"event=config_note key=rdma.devices running=dev0 configured=dev0,dev1 text=\"taken at the next start\"")
    assert "front:rdma:dev1" not in f.rows()
