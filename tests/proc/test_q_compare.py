"""bench/compare: what it writes for scripts is what it measured. No speed is looked at."""
import os
import sys

import pytest

BENCH = os.path.join(os.path.dirname(__file__), "..", "..", "bench")
sys.path.insert(0, BENCH)

from beside import Failed, Results  # noqa: E402


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
