"""bench/compare: what it writes for scripts is what it measured. No speed is looked at."""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

import pytest
from harness import MEMKV

BENCH = os.path.join(os.path.dirname(__file__), "..", "..", "bench")
sys.path.insert(0, BENCH)

from beside import Failed, Results  # noqa: E402

TOOLS = {"Redis, unix socket": "redis-server", "fio beside file": "fio"}


def rounds(out, name):
    return out["candidates"][name]["rounds"]


def check_row(out, row):
    a, b = rounds(out, row["candidate"]), rounds(out, row["reference"])
    want = [a[r] / b[r] for r in sorted(a) if r in b]
    assert row["ratios"] == pytest.approx(want)
    assert row["ratio"] == pytest.approx(statistics.median(want))
    if row["must"] is None:
        assert row["verdict"] is None
        return
    good = row["ratio"] <= row["must"] if row["less_is_better"] else row["ratio"] >= row["must"]
    assert (row["verdict"] in ("met", "goal")) == good


def check_candidate(out, name):
    v = {part: out["candidates"][f"{name} {part}"]["median"] for part in ("p50", "p99", "cpu", "client cpu")}
    server = out["candidates"].get(f"{name} server cpu", {"median": 0})["median"]
    assert out["candidates"][name]["median"] > 0
    assert 0 < v["p50"] <= v["p99"]
    assert v["cpu"] == pytest.approx(v["client cpu"] + server)


def test_the_same_host_is_measured_by_every_way(tmp_path):
    report, page = tmp_path / "out.json", tmp_path / "page.md"
    short = tempfile.mkdtemp(prefix="mkv-")             # sockets lie there: their paths have a limit
    page.write_text("before\n<!-- same host: begin -->\nold\n<!-- same host: end -->\nafter\n")
    try:
        done = subprocess.run([sys.executable, os.path.join(BENCH, "compare"), "--memkv", MEMKV, "--quick", "--groups", "local", "--tmp", short,
                               "--json", report, "--update", page], capture_output=True, text=True, timeout=150, check=False)
        assert os.listdir(short) == []
    finally:
        shutil.rmtree(short)
    assert done.returncode == 0, done.stderr
    out = json.loads(report.read_text())
    assert out["failures"] == []
    for op in ("get", "put"):
        for who in ("memkv local", "memkv TCP", "memkv local, CRC off", "files", "memkv file, local", "memkv file, TCP"):
            check_candidate(out, f"local {op} 1 MiB x4 {who}")
        for who, tool in TOOLS.items():
            if shutil.which(tool) is not None:
                check_candidate(out, f"local {op} 1 MiB x4 {who}")
        check_candidate(out, f"local {op} 1 MiB x1 memcpy")
    check_candidate(out, "local put 1 MiB x4 files, fdatasync")
    for who in ("memkv local, in place", "memkv file, local, in place"):
        check_candidate(out, f"local get 1 MiB x4 {who}")
    measured = [row for row in out["rows"] if row["ratio"] is not None]
    assert {row["must"] for row in measured} >= {0.6, 1.0}
    for row in measured:
        check_row(out, row)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    for row in measured:
        assert row["what"] in text
    assert "| GET 1 MiB | 4 | memkv local |" in text


@pytest.mark.skipif(sys.platform != "linux", reason="libmemkv_preload.so is Linux's")
def test_programs_with_files_are_measured_in_every_place(tmp_path):
    report = tmp_path / "out.json"
    short = tempfile.mkdtemp(prefix="mkv-")
    try:
        done = subprocess.run([sys.executable, os.path.join(BENCH, "compare"), "--memkv", MEMKV, "--quick", "--groups", "preload", "--tmp", short,
                               "--json", report], capture_output=True, text=True, timeout=150, check=False)
        assert os.listdir(short) == []
    finally:
        shutil.rmtree(short)
    assert done.returncode == 0, done.stderr
    if "numpy is not here" in done.stderr:
        pytest.skip("no numpy (Debian: python3-numpy)")
    out = json.loads(report.read_text())
    assert out["failures"] == []
    for op in ("get", "put"):
        for where in ("memkv local", "memkv TCP", "disk"):
            name = f"preload {op} 1 MiB {where}"
            assert out["candidates"][name]["median"] > 0 and out["candidates"][name + " p50"]["median"] > 0
    for row in out["rows"]:
        if row["ratio"] is not None:
            check_row(out, row)


def failing():
    raise Failed("on purpose")


def test_a_ratio_is_of_rounds_that_both_have():
    res = Results()
    for rnd, (a, b) in enumerate(((4.0, 2.0), (9.0, 3.0), (5.0, None))):
        res.measure("a", rnd, lambda a=a: a)
        res.measure("b", rnd, failing if b is None else lambda b=b: b)
    res.row("more", "a", "b", "GiB/s", 2.5, 4)
    res.row("less", "b", "a", "s/GiB", 0.4, None, less=True)
    res.row("nobody", "a", "c", "GiB/s", 1, 2)
    out = res.json()
    assert [r["ratio"] for r in out["rows"]] == [2.5, pytest.approx((1 / 2 + 1 / 3) / 2), None]
    assert [r["verdict"] for r in out["rows"]] == ["met", "missed", None]
    assert out["candidates"]["a"] == {"median": 5.0, "least": 4.0, "most": 9.0, "rounds": {"0": 4.0, "1": 9.0, "2": 5.0}}
    assert out["failures"] == ["b: on purpose"]
    assert "| more | 5 GiB/s | 2.5 GiB/s | **2.50** (2.00..3.00) | ≥ 2.5 | ≥ 4 | met |" in res.text()
