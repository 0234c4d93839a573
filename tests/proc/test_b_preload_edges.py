"""
b: where libmemkv_preload.so could give zeros, or bytes of two versions, and say nothing: descriptors that are handed on, bytes that are given up, names that change
under who reads. The oracle is the body that was stored.
"""
import os
import sys

import pytest

from preload_shim import Shim

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD as it is made here is Linux's")


@pytest.fixture
def shim(server_factory, tmp_path):
    s = Shim(server_factory(mode="memory"), tmp_path)
    yield s
    assert s.disk() == []


def test_a_stream_that_appends_begins_at_the_end(shim):
    plain = shim.top / "plain"
    plain.mkdir()
    script = """
import ctypes, os, sys
c = ctypes.CDLL(None)
c.fopen.restype = c.fdopen.restype = ctypes.c_void_p
name = sys.argv[1] + "/x"
with open(name, "wb") as f:
    f.write(b"12345")
def said(f):
    f = ctypes.c_void_p(f)
    print(c.ftell(f), os.lseek(c.fileno(f), 0, os.SEEK_CUR), c.fclose(f))
for mode in (b"a", b"ab", b"a+", b"a+b"):
    said(c.fopen(name.encode(), mode))
    for flags in (os.O_RDWR, os.O_RDWR | os.O_APPEND):
        said(c.fdopen(os.open(name, flags), mode))
"""
    assert shim.run(sys.executable, "-c", script, shim.anchor) == shim.run(sys.executable, "-c", script, plain, LD_PRELOAD="")
