"""d: what nobody reads is read by the drive itself: damage is found, counted and noted, and everything else is served."""
import json
import os
import subprocess
import time

import pytest

import mkv
from harness import MEMKV, MEMKVCTL, MIB, content
from test_d_damage import flip

KEYS = {f"scrub/{i}".encode(): 5000 + i * 17777 for i in range(60)}


def store(server_factory, *sets):
    s = server_factory(drive_bytes="128MiB", sets=sets)
    with mkv.Client(s.addr) as c:
        for k, n in KEYS.items():
            c.put(k, content(k, 1, n), 20)
    return s


def wait_for(s, name, least, seconds=60):
    end = time.monotonic() + seconds
    while s.metric_sum(name) < least:
        assert time.monotonic() < end, f"{name} is {s.metric_sum(name)}, not {least}:\n{s.log_tail()}"
        time.sleep(0.1)


def test_damage_is_found_without_a_reader(server_factory):
    s = store(server_factory, "storage.scrub.rate=64MiB", "storage.scrub.interval=1s")
    path = os.path.join(s.data, "drive0.dat")
    key = b"scrub/41"
    with open(path, "rb") as f:
        at = f.read().find(content(key, 1, KEYS[key])[:4096])
    assert at > 0
    flip(path, at + 70001)
    wait_for(s, "memkv_drive_scrub_bad_total", 1)
    assert s.metric_sum("memkv_drive_corrupt_total") == 1
    assert s.metric_sum("memkv_drive_writer_crc_total") == 0
    assert s.metric_sum("memkv_drive_failures") == 1
    with mkv.Client(s.addr) as c:
        for k, n in KEYS.items():
            if k != key:
                assert c.get(k, n, 20) == content(k, 1, n)
        with pytest.raises(mkv.Miss) as e:
            c.get(key, KEYS[key])
        assert e.value.reason == mkv.REASON_CORRUPT
    # Whole passes, and nothing more in them.
    done = s.metric_sum("memkv_drive_scrub_pass")
    wait_for(s, "memkv_drive_scrub_pass", done + 2)
    assert abs(s.metric_sum("memkv_drive_scrub_pass_end_seconds") - time.time()) < 60
    assert s.metric_sum("memkv_drive_scrub_bad_total") == 1
    scrub = s.status()["drive:0"]["scrub"]
    assert scrub["pass"] >= done + 2 and scrub["bad"] == 1 and scrub["last_end_s"] > 0, scrub
    r = subprocess.run([MEMKVCTL, "status", "--control", s.control], capture_output=True, text=True, timeout=30, check=True)
    assert "of pass" in r.stdout, r.stdout
    assert s.stop() == 0
    r = subprocess.run([MEMKV, "drive", "info", "--json", path], capture_output=True, text=True, timeout=60, check=True)
    info = json.loads(r.stdout)
    assert [(x["what"], x["offset"], x["count"]) for x in info["failures"]] == [("data", at + 65536, 1)], info


def test_the_rate_holds(server_factory):
    rate = 2 * MIB
    s = store(server_factory, f"storage.scrub.rate={rate}", "storage.scrub.interval=1s")
    wait_for(s, "memkv_drive_scrub_bytes_total", 1)
    begin = time.monotonic()
    first = s.metric_sum("memkv_drive_scrub_bytes_total")
    wait_for(s, "memkv_drive_scrub_bytes_total", first + 2 * MIB)
    read = s.metric_sum("memkv_drive_scrub_bytes_total") - first
    assert read <= rate * (time.monotonic() - begin) + MIB, (read, time.monotonic() - begin)
