"""d: bytes of a stopped store are damaged. What comes back afterwards is right or a miss, never wrong, and is counted."""
import os
import random

import pytest

import mkv
from harness import FULL, MIB, content

SEED = int(os.environ.get("MEMKV_SEED", "0")) or random.randrange(1 << 32)
KEYS = {f"d/{i}".encode(): 5000 + i * 37777 for i in range(40)}


def filled(server_factory, **kw):
    s = server_factory(drive_bytes="128MiB", **kw)
    s.pin_ports()
    with mkv.Client(s.addr) as c:
        for k, n in KEYS.items():
            c.put(k, content(k, 1, n), 20)
    assert s.stop() == 0
    return s


def flip(path, off):
    with open(path, "r+b") as f:
        f.seek(off)
        b = f.read(1)
        f.seek(off)
        f.write(bytes([b[0] ^ 0x5a]))


def survey(s):
    """Reads all: {key: reason or None}; wrong bytes fail at once."""
    out = {}
    with mkv.Client(s.addr) as c:
        for k, n in KEYS.items():
            try:
                assert c.get(k, n, 20) == content(k, 1, n), f"WRONG BYTES for {k} (seed {SEED})"
                out[k] = None
            except mkv.Miss as e:
                assert e.status == mkv.MISS, e
                out[k] = e.reason
    return out


@pytest.mark.over_rdma
def test_damaged_data_is_a_counted_miss(server_factory):
    s = filled(server_factory)
    path = os.path.join(s.data, "drive0.dat")
    key = b"d/20"
    with open(path, "rb") as f:
        at = f.read().find(content(key, 1, KEYS[key])[:4096])
    assert at > 0
    flip(path, at + KEYS[key] // 2)
    s.start()
    got = survey(s)
    assert got.pop(key) == mkv.REASON_CORRUPT
    assert not any(got.values()), got
    assert s.metric_sum("memkv_drive_corrupt_total") >= 1
    with mkv.Client(s.addr) as c:               # and the key can be stored again
        c.put(key, content(key, 2, 5000), 20)
        assert c.get(key, 5000) == content(key, 2, 5000)


def test_any_damaged_byte_never_gives_wrong_bytes(server_factory):
    rnd = random.Random(SEED)
    print("seed", SEED)
    s = filled(server_factory)
    path = os.path.join(s.data, "drive0.dat")
    with open(path, "rb") as f:
        whole = f.read()
    used = [i for i in range(0, len(whole), 4096) if whole[i:i + 4096].strip(b"\0")]
    for _ in range(60 if FULL else 8):
        for off in [rnd.choice(used) + rnd.randrange(4096) for _ in range(3)]:
            flip(path, off)
        try:
            s.start()
            for k, reason in survey(s).items():
                assert reason in (None, mkv.REASON_CORRUPT, mkv.REASON_LOST, mkv.REASON_NEVER), (k, reason)
            s.kill()
        except RuntimeError as e:
            assert "superblock" in str(e), e     # both copies hit: refused in words
        with open(path, "r+b") as f:
            f.write(whole)


def test_superblocks(server_factory):
    s = filled(server_factory)
    path = os.path.join(s.data, "drive0.dat")
    flip(path, 100)                              # copy A, at the very beginning
    s.start()
    assert not any(survey(s).values())
    assert s.stop() == 0
    with open(path, "rb") as f:
        whole = f.read(64 * MIB)
    magic = whole[:8]
    copies = [i for i in range(0, len(whole), 4096) if whole[i:i + 8] == magic]
    assert len(copies) == 2, copies
    for at in copies:
        flip(path, at + 100)
    with pytest.raises(RuntimeError) as e:
        s.start(timeout=30)
    assert "superblock" in str(e.value)
    with open(path, "r+b") as f:
        f.write(whole)
    s.start()
    assert not any(survey(s).values())
