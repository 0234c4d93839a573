import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
sys.path.insert(0, os.path.dirname(__file__))

from harness import Server  # noqa: E402


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
