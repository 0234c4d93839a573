"""d: a drive whose medium gives back wrong bytes: never wrong bytes for a client, and a drive that does it in many places is taken out, with its reason."""
import json
import os
import subprocess
import time

import pytest

import mkv
import wireclient as wc
from harness import MEMKV, MEMKVCTL, MIB, content
from test_d_damage import flip
from test_d_life import ctl, drive, wait_states

SIZE = 64 * 1024


def three(server_factory, *sets):
    return server_factory(drives=3, drive_bytes="128MiB", sets=["storage.scrub.rate=0", "storage.block_size=1MiB", *sets])


def places(path, wanted):
    """{key: offset in the file} of those whose first bytes lie there. wanted: {first 64 bytes: key}"""
    out = {}
    with open(path, "rb") as f:
        whole = f.read()
    for at in range(0, len(whole), 4096):
        key = wanted.get(whole[at:at + 64])
        if key is not None:
            out[key] = at
    return out


def media(s, i):
    return os.path.join(s.data, f"drive{i}.dat")


def fill(s, n):
    keys = [f"k{i}".encode() for i in range(n)]
    with mkv.Client(s.addr) as c:
        for k in keys:
            c.put(k, content(k, 1, SIZE), 20)
    return keys


def read(c, k, n=SIZE, versions=(1,)):
    """None: right; or why it was missed."""
    try:
        got = c.get(k, n, 20)
    except mkv.Miss as e:
        assert e.status == mkv.MISS, (k, e)
        return e.reason
    assert any(got == content(k, v, n) for v in versions), f"WRONG BYTES for {k}"
    return None


def failures(path):
    """What the drive's registry has, but for I/O that was slow: the machine may be."""
    r = subprocess.run([MEMKV, "drive", "info", "--json", path], capture_output=True, text=True, timeout=60, check=True)
    return [x for x in json.loads(r.stdout)["failures"] if x["what"] != "slow"]


@pytest.mark.over_rdma_full
def test_wrong_bytes_in_many_places_isolate_the_drive(server_factory):
    s = three(server_factory, "server.crash_limit=1000")
    keys = fill(s, 240)
    wanted = {content(k, 1, SIZE)[:64]: k for k in keys}
    where = [places(media(s, i), wanted) for i in range(3)]
    assert sum(map(len, where)) == len(keys) and min(map(len, where)) > 40, [len(w) for w in where]
    # Some places are a counted miss each, and no more.
    few, many = list(where[2])[:6], list(where[1])[:40]
    for k in few:
        flip(media(s, 2), where[2][k] + 40000)
    with mkv.Client(s.addr) as c:
        for _ in range(8):
            assert {read(c, k) for k in few} == {mkv.REASON_CORRUPT}
    assert s.metric_sum("memkv_drive_bad_places_total") == len(few)
    time.sleep(1.5)                               # longer than a drive looks at its counters
    wait_states(s, {0: "online", 1: "online", 2: "online"})
    # Many of them: no drive to rely on.
    for k in many:
        flip(media(s, 1), where[1][k] + 12345)
    with mkv.Client(s.addr) as c:
        reasons = {read(c, k) for k in many}
        assert mkv.REASON_CORRUPT in reasons and None not in reasons, reasons
        wait_states(s, {0: "online", 1: "failed", 2: "online"})
        # Its reason, and what to do, are said.
        said = subprocess.run([MEMKVCTL, "--control", s.control, "status"], capture_output=True, text=True, timeout=40).stdout
        row = next(line for line in said.splitlines() if "drive:1" in line)
        assert "places in a minute (drive.error_limit)" in row and "memkvctl drive replace drive:1" in row, said
        assert "drive.error_limit" in drive(s, "list")["rows"][1]["detail"]
        # The others serve, and puts go on, also of the keys that were there.
        for i in (0, 2):
            assert all(read(c, k) is None for k in where[i] if k not in few)
        for k in keys:
            c.put(k, content(k, 2, SIZE), 20)
        assert all(read(c, k, versions=(2,)) is None for k in keys)
        # Asked to, it serves again; nothing old comes up.
        ctl(s, "start", "drive:1")
        wait_states(s, {1: "online"})
        assert all(read(c, k, versions=(2,)) is None for k in keys)
    assert s.stop() == 0
    have = [failures(media(s, i)) for i in range(3)]
    assert {x["what"] for x in have[1]} == {"data"} and len(have[1]) >= 16, have[1]
    assert [len(have[i]) for i in (0, 2)] == [0, len(few)]
    assert all(x["offset"] in {where[1][k] for k in many} for x in have[1])


@pytest.mark.over_rdma
def test_a_damaged_piece_is_a_miss_of_the_whole_value(server_factory):
    s = three(server_factory)
    used = s.metric_sum("memkv_drive_used_bytes")
    key, n = b"large", 6 * MIB
    with mkv.Client(s.addr) as c:
        c.put(key, content(key, 1, n), 20)
        # Chunks are alike but for their number: the ninth lies in one piece and nowhere else.
        mark = content(key, 1, n)[37 * 65536:][:64]
        at = [(i, a) for i in range(3) for a in places(media(s, i), {mark: key}).values()]
        assert len(at) == 1, at
        flip(media(s, at[0][0]), at[0][1] + 3)
        assert read(c, key, n) == mkv.REASON_CORRUPT
        assert read(c, key, n) in (mkv.REASON_CORRUPT, mkv.REASON_LOST)
        end = time.monotonic() + 30
        # One unit stays in quarantine until the next start: that of the piece.
        while s.metric_sum("memkv_drive_used_bytes") > used + MIB or s.metric_sum("memkv_drive_values_lost_total") < 1:
            assert time.monotonic() < end, f"the other pieces are not freed\n{s.log_tail()}"
            time.sleep(0.1)
        assert read(c, key, n) == mkv.REASON_CORRUPT
        assert s.metric_sum("memkv_drive_corrupt_total") == 1
        assert s.metric_sum("memkv_drive_reports_total") >= 1
        c.put(key, content(key, 2, n), 20)
        assert read(c, key, n, versions=(2,)) is None


def test_reports_without_end(server_factory):
    """Of good values: no drive is blamed, nobody is kept from reading, and it is counted."""
    s = three(server_factory)
    keys = fill(s, 20)
    w = wc.Wire("127.0.0.1", s.port).handshake()
    with mkv.Client(s.addr) as c:
        asked = 0
        for k in keys * 10:
            w.send(wc.REPORT, w.get_body(k, 0, 0))
            asked += 1
            if asked % 50 == 0:
                assert all(read(c, x) is None for x in keys)
        statuses = [w.recv()[0].status for _ in range(asked)]
    assert set(statuses) <= {0, -mkv.BUSY}, set(statuses)
    assert s.metric_sum("memkv_drive_reports_total") == statuses.count(0) > 0
    assert s.metric_sum("memkv_drive_bad_places_total") == 0
    w.close()


