import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "proc")]

import lab  # noqa: E402
from harness import Server  # noqa: E402

if os.environ.get("LAB") != "1":
    pytest.exit("these tests destroy what is on the drives: run-lab has drives for that", returncode=2)

# For a guest with RDMA devices (run-lab --nics 2); `./check lab` has one for these alone.
collect_ignore_glob = [] if os.environ.get("LAB_NICS") else ["test_doctor.py", "test_r*.py", "test_steady*.py"]


def pytest_configure(config):
    for name, when in (("over_rdma", ""), ("over_rdma_full", " with ./check --full")):
        config.addinivalue_line("markers", f"{name}: in the lab it runs over RDMA as well{when} (tests/lib/transport.py)")


@pytest.fixture
def blank_drives():
    for i in range(len(lab.DRIVES)):
        lab.blank(i)
    return lab.DRIVES


@pytest.fixture
def servers():
    """Servers with a configuration that `memkv setup` printed; all are ended afterwards."""
    made = []

    def make(config, sets=()):
        s = Server(config=config, sets=sets)
        made.append(s)
        return s.start(timeout=120)

    yield make
    for s in made:
        s.close()


@pytest.fixture
def mapped():
    made = []

    def make(i):
        made.append(lab.Mapped(f"lab{i}", i))
        return made[-1]

    yield make
    for m in made:
        m.close()
