"""
common/rdma over the real verbs, between the two soft-RoCE devices of a guest that run-lab starts with --nics 2. The program rdma_probe plays both ends.
"""
import os
import subprocess

import pytest

NICS = os.environ.get("LAB_NICS", "").split()
BUILD = os.path.dirname(os.environ.get("MEMKV_STAGE", ""))
PROBE = os.path.join(BUILD, "tests", "lab", "rdma_probe")


@pytest.mark.skipif(not os.path.exists(PROBE), reason="built without rdma-core (Debian: libibverbs-dev)")
@pytest.mark.parametrize("what", ["bytes", "batches", "keys", "rnr", "fence", "killed", "cycles", "lookup", "port"])
def test_probe(what):
    assert len(NICS) == 2, "run-lab --nics 2"
    r = subprocess.run([PROBE, *NICS, what], capture_output=True, text=True, timeout=300)
    print(r.stdout + r.stderr)
    assert r.returncode == 0 and r.stdout.endswith("all right\n"), r.stdout + r.stderr
