"""
b: where libmemkv_preload.so could give zeros, or bytes of two versions, and say nothing: descriptors that are handed on, bytes that are given up, names that change
under who reads. The oracle is the body that was stored.
"""
import os
import subprocess
import sys

import pytest

from harness import MIB, content
from preload_shim import Shim

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD as it is made here is Linux's")


@pytest.fixture
def shim(server_factory, tmp_path):
    s = Shim(server_factory(mode="memory"), tmp_path)
    yield s
    assert s.disk() == []


def while_replaced(shim, script, key, body):
    """Runs the script, and replaces the object when it says so by a line; it goes on when it gets one."""
    with subprocess.Popen([sys.executable, "-c", script], env=shim.env, cwd=shim.top, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout.readline() == "look\n"
        shim.keep(key, body)
        p.stdin.write("\n")
        p.stdin.flush()
        assert p.wait(60) == 0


def test_an_object_as_a_child_s_standard_input_is_whole(shim):
    """subprocess makes its children by vfork, and they read by streams of libc."""
    shim.keep("big", content(b"edges", 1, 3 * MIB))
    shim.run(sys.executable, "-c", """
import hashlib, subprocess
body = open("body", "rb").read()
with open("anchor/big", "rb") as f:
    assert subprocess.run(["md5sum"], stdin=f, capture_output=True).stdout.decode()[:32] == hashlib.md5(body).hexdigest()
with open("anchor/big", "rb") as f:
    assert f.raw.read(100) == body[:100]
    assert subprocess.run(["od", "-An", "-v", "-tx1", "-w1"], stdin=f, capture_output=True).stdout.decode().split() == [f"{b:02x}" for b in body[100:]]
""")


def test_a_child_s_standard_input_that_is_gone_is_no_zeros(shim):
    shim.keep("big", content(b"edges", 2, 3 * MIB))
    while_replaced(shim, """
import os, subprocess, sys
fd = os.open("anchor/big", os.O_RDONLY)
os.pread(fd, 1000, 0)
print("look", flush=True)
sys.stdin.readline()
r = subprocess.run(["md5sum"], stdin=fd, capture_output=True)
assert r.returncode != 0 and r.stdout == b"", r
""", "big", content(b"edges", 3, 3 * MIB))


def test_bytes_that_a_stream_of_libc_reads_are_not_given_up(shim):
    shim.keep("big", content(b"edges", 4, 2 * MIB))
    shim.run(sys.executable, "-c", """
import ctypes, os
c = ctypes.CDLL(None)
c.fopen.restype = ctypes.c_void_p
body = open("body", "rb").read()
f = ctypes.c_void_p(c.fopen(b"anchor/big", b"r"))
os.posix_fadvise(c.fileno(f), 0, 0, os.POSIX_FADV_DONTNEED)
got = ctypes.create_string_buffer(len(body))
assert c.fread(got, 1, len(body), f) == len(body) and got.raw == body
""")


def test_bytes_that_another_program_reads_are_not_given_up(shim):
    """Begun by vfork and exec, which nobody tells the parent of."""
    shim.keep("big", content(b"edges", 5, 2 * MIB))
    shim.run(sys.executable, "-c", """
import os, subprocess, sys
body = open("body", "rb").read()
fd = os.open("anchor/big", os.O_RDONLY)
while os.read(fd, 10000):
    pass
child = "import os, sys; print('here', flush=True); sys.stdin.readline(); sys.stdout.buffer.write(os.pread(%d, 4 << 20, 0))" % fd
p = subprocess.Popen([sys.executable, "-c", child], pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert p.stdout.readline() == b"here\\n"
os.fchmod(fd, 0o600)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
assert p.communicate(b"\\n")[0] == body
""")


def test_bytes_of_a_get_that_failed_are_not_handed_on(shim):
    """The parent has a part of the first version, then asks for the rest and is told that it is another: its child gets neither zeros nor both."""
    shim.keep("big", content(b"edges", 6, 2 * MIB))
    while_replaced(shim, """
import errno, os, subprocess, sys
fd = os.open("anchor/big", os.O_RDONLY)
first = os.pread(fd, 1000, 0)
print("look", flush=True)
sys.stdin.readline()
try:
    os.lseek(fd, 0, os.SEEK_DATA)
    raise SystemExit("it did not fail")
except OSError as e:
    assert e.errno == errno.ESTALE, e
child = "import os; got = os.pread(%d, 1000, 0) + os.pread(%d, 1000, 1 << 20)" % (fd, fd)
r = subprocess.run([sys.executable, "-c", child], pass_fds=[fd], capture_output=True, text=True)
assert r.returncode == 1 and "Stale file handle" in r.stderr, r
assert os.pread(fd, 1000, 0) == first
""", "big", content(b"edges", 7, 2 * MIB))


def test_who_has_opened_and_not_read_yet_goes_on(shim):
    """Removed, renamed, replaced and stored anew by the process that has it open; also where the last bytes were read first, as of an archive."""
    shim.keep("big", content(b"edges", 8, 3 * MIB))
    shim.run(sys.executable, "-c", """
import os
body = open("body", "rb").read()
def store(name, what):
    with open(name, "wb") as f:
        f.write(what)
def replace():
    store("anchor/new", body[::-1])
    os.rename("anchor/new", "anchor/a")
for change in (lambda: os.unlink("anchor/a"), lambda: os.rename("anchor/a", "anchor/b"), replace, lambda: store("anchor/a", b"short")):
    for first in (0, 100):
        store("anchor/a", body)
        fd = os.open("anchor/a", os.O_RDONLY)
        assert os.pread(fd, first, len(body) - first) == body[len(body) - first:]
        change()
        assert b"".join(iter(lambda: os.read(fd, 2 << 20), b"")) == body
        os.close(fd)
""")


def test_an_update_begins_with_one_version(shim):
    """Opened for reading and writing while another process replaces it, by one of another size: what was opened is one of them, never an error."""
    shim.run(sys.executable, "-c", """
import subprocess, sys
writer = '''
import os
for i in range(300):
    with open("anchor/x.tmp", "wb") as f:
        f.write(bytes([i % 200]) * (100000 + i % 7))
    os.rename("anchor/x.tmp", "anchor/x")
'''
with open("anchor/x", "wb") as f:
    f.write(b"first")
p = subprocess.Popen([sys.executable, "-c", writer])
while p.poll() is None:
    with open("anchor/x", "r+b") as f:
        got = f.read()
        assert got == b"first" or got == got[:1] * len(got)
assert p.returncode == 0
""")


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


def test_a_program_that_closes_its_output_after_the_client_has_ended(shim):
    """sort -o has its output as a standard number, and a handler of exit() that it registered before there was a client."""
    shim.sh("seq 20000 | sort -R > anchor/x; sort -n -o anchor/x anchor/x", MEMKV_PRELOAD_DEADLINE="5s")
    assert shim.stored("x") == b"".join(b"%d\n" % n for n in range(1, 20001))


def test_a_shell_may_have_any_number(shim):
    """exec N<, on numbers that nobody has given it: they are no descriptors of the client."""
    said = shim.sh("""
        echo in > anchor/x
        for n in 3 4 5 6 7 8 9; do eval "exec $n>log$n"; echo $n > anchor/x$n; eval "echo said >&$n"; done
        exec 5<anchor/x6; read line <&5; echo $line; cat anchor/x9 log*
    """, MEMKV_PRELOAD_DEADLINE="3s")
    assert said == "6\n9\n" + "said\n" * 7
