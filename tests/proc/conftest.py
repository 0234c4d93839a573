import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
sys.path.insert(0, os.path.dirname(__file__))

from harness import Server  # noqa: E402


def pytest_configure(config):
    for name, when in (("over_rdma", ", and over the unix socket here"), ("over_rdma_full", " with ./check --full")):
        config.addinivalue_line("markers", f"{name}: in the lab it runs over RDMA as well{when} (tests/lib/transport.py)")


@pytest.fixture
def server_factory():
    """Servers that the test starts; all are ended afterwards, and their data removed."""
    made = []

    def make(**kw):
        s = Server(**kw)
        made.append(s)
        return s.start()

    yield make
    for s in made:
        s.close()
