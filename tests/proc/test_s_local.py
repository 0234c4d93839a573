"""
s: the front for clients on this host, as the supervisor sees it, with children that are fakes.
"""
import os
import re

import pytest
from test_s_supervisor import fakes  # noqa: F401 - a fixture


@pytest.fixture
def local(fakes, tmp_path):         # noqa: F811
    def make(**kw):
        f = fakes(sets=[f"local.path={tmp_path}/l.sock", *kw.pop("sets", [])], **kw)
        f.local = f"{tmp_path}/l.sock"
        return f
    return make


def test_what_it_is_given(local):
    """Its socket and what every front has; TCP fronts are told where it is."""
    f = local(fronts=2, drives=2).start()
    assert set(f.rows()) == {"front:tcp:0", "front:tcp:1", "front:local", "drive:0", "drive:1"}
    assert f.addr["local"] == f.local and os.stat(f.local).st_mode & 0o777 == 0o666
    text = f.text()
    assert len(re.findall(r"proc=front:local .*got=listener", text)) == 1 and not re.search(r"proc=front:local .*got=door", text)
    assert len(re.findall(r"proc=front:local .*got=ring peer=1 ", text)) == 2 and re.search(r"proc=front:local .*got=key id=1 ", text)
    for tcp in ("front:tcp:0", "front:tcp:1"):
        assert re.search(rf"got=configure name={tcp} .*local={f.local}", text)
    f.stop()
    assert not os.path.exists(f.local)


@pytest.mark.parametrize("words,state", [("fail_final", "FATAL"), ("hang_in_start", "STARTING")])
def test_what_happens_to_it_stays_with_it(local, words, state):
    f = local(fronts=1, drives=1, behave={"front:local": words}).start()
    f.wait_state("front:local", state)
    assert f.rows()["front:tcp:0"]["state"] == "RUNNING" and f.http("/v1/ready")[0] == 200


def test_no_room_for_it(fakes):         # noqa: F811
    """Unasked it is left out where staging memory is too little; asked for, the server says so."""
    little = ["memory.max_size=16MiB", "network.shards=2"]
    f = fakes(fronts=2, drives=1, sets=["local.path=", *little]).start()
    assert f.addr["local"] == "-" and "front:local" not in f.rows()
    r = fakes(fronts=2, drives=1, sets=[f"local.path={f.dir}/x", *little]).start(ready=False)
    assert r.proc.wait(20) == 2 and "1 for local.path" in r.text()
