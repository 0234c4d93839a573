"""
Many sessions over RDMA: 200 queue pairs, and what a server needs of memory for one. Runs in the guest of run-lab --nics 2; session_memory.py measures it with a
thousand (docs/internals/rdma.md has the table).
"""
import json
import os
import threading

import pytest

import rdma
from harness import FULL, content
from rdma_wire import PEER
from session_memory import measure

pytestmark = pytest.mark.skipif(len(rdma.NICS) < 2, reason="run-lab --nics 2")


class Worker(threading.Thread):
    """Its own key, each version put and got."""

    def __init__(self, client, name, rounds, size):
        super().__init__(daemon=True)
        self.c, self.key, self.rounds, self.size = client, name.encode(), rounds, size
        self.done, self.broken = 0, None

    def run(self):
        try:
            for v in range(1, self.rounds + 1):
                data = content(self.key, v, self.size)
                self.c.put(self.key, data, 60)
                assert self.c.get(self.key, self.size, 60) == data
                self.done = v
        except Exception as e:      # noqa: BLE001 - reported by the test
            self.broken = repr(e)


def burst(client, name):
    """A request on every connection of it."""
    workers = [Worker(client, f"{name}/{k}", 2, 40000 + 999 * k) for k in range(16)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(200)
    assert not [w.broken for w in workers if w.broken] and all(w.done == 2 for w in workers), [w.broken for w in workers]


def test_two_hundred_connections():
    """
    13 clients with 16 connections each stay; each in turn has a request on every one of its own (all at once are too many for a wire that is emulated: acknowledgements
    come too late). Then others come, for what the first ones left.
    """
    with rdma.server() as s:
        rdma.wait_rails(s)
        for turn in range(2):
            clients = [rdma.client(s, connections=16) for _ in range(13)]
            n = 13 if turn == 0 or FULL else 3
            for i, c in enumerate(clients[:n]):
                burst(c, f"many/{turn}/{i}")
            rdma.until(lambda: s.metric_sum("memkv_front_channels") >= 16 * n - 8, 30)
            for c in clients:
                c.close()
            rdma.until(lambda: s.metric_sum("memkv_front_channels") == 0, 30)
        assert s.metric_sum("memkv_front_channels_broken_total") == 0, s.log_tail()
        free = lambda: s.metric_sum("memkv_front_stage_free_bytes") == s.metric_sum("memkv_front_stage_bytes")    # noqa: E731
        rdma.until(free, 30)


@pytest.mark.skipif(not os.path.exists(PEER), reason="built without rdma-core (Debian: libibverbs-dev)")
def test_memory_of_a_session():
    """Bounds that only growth of another order passes (docs/internals/rdma.md has what it is)."""
    rows = measure(60, 1)
    print(json.dumps(rows, indent=1))
    for step in ("tether, both ends", "attach"):
        assert rows[step]["user"] < 1 << 20 and rows[step]["kernel"] < 1 << 20, rows
