"""
b: programs that know nothing of memkv keep files below a directory, and libmemkv_preload.so keeps them in the store. The oracle is the store itself, asked
by `memkv`, and the disk, on which no file may be.
"""
import json
import os
import random
import re
import shutil
import subprocess
import sys

import pytest

from harness import FULL, MIB, STAGE, content
from preload_shim import LIBRARY, LINUX, Shim, numpy_python, shim  # noqa: F401

HERE = os.path.dirname(os.path.abspath(__file__))
CALLS = os.path.join(STAGE, "..", "tests", "proc", "preload_calls")

pytestmark = LINUX


def test_it_exports_what_its_map_says():
    with open(os.path.join(HERE, "..", "..", "clients", "preload", "preload.map")) as f:
        said = set(re.findall(r"^\t(\w+);", f.read(), re.M))
    out = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, timeout=20, check=True).stdout
    assert {line.split()[2] for line in out.splitlines()} == said and {"open64", "__xstat64", "fclose", "copy_file_range"} <= said


def test_every_family_of_calls(shim):
    plain = shim.top / "plain"
    plain.mkdir()
    subprocess.run([CALLS, str(plain)], check=True, timeout=60, env={k: v for k, v in os.environ.items() if not k.startswith("MEMKV_")})
    shim.run(CALLS, shim.anchor)
    assert {os.path.relpath(os.path.join(at, f), plain) for at, _, files in os.walk(plain) for f in files} == set(shim.keys())
    for key in shim.keys():
        assert shim.stored(key) == (plain / key).read_bytes(), key
    assert shim.counted()["put_errors"] == 0 and shim.counted()["get_errors"] == 0


def test_shell_and_coreutils(shim):
    body = content(b"preload", 1, 3 * MIB + 17)
    (shim.top / "out").write_bytes(body)
    said = shim.sh("""
        cp out anchor/a; cmp out anchor/a; cat anchor/a | cmp - out; cat < anchor/a | cmp - out; cat out > anchor/cat; cmp anchor/cat out
        dd if=anchor/a of=anchor/dd bs=64K conv=fsync status=none; cmp out anchor/dd
        mv anchor/dd anchor/moved; mv anchor/moved back; cmp out back; mv back anchor/moved; cmp anchor/moved out; test ! -e back
        seq 1 100000 > anchor/seq; test $(wc -l < anchor/seq) = 100000; test $(sort -n anchor/seq | tail -n 1) = 100000
        printf 'a\\n' > anchor/app; echo b >> anchor/app; { echo c; /bin/echo d; } >> anchor/app; cat anchor/app
        : > anchor/zero; test -e anchor/zero; test ! -s anchor/zero; test ! -e anchor/none
        mkdir -p anchor/t/u; cp out anchor/t/u/x; tar cf anchor/x.tar -C anchor t; mkdir ex anchor/ex
        tar xf anchor/x.tar -C ex; cmp ex/t/u/x out; tar xf anchor/x.tar -C anchor/ex; cmp anchor/ex/t/u/x out
        cp -a anchor/t anchor/t2; find anchor -type f | sort; rm -r anchor/t anchor/t2; ls anchor; ls -l anchor/zero; rm anchor/zero
    """)
    found = [f"anchor/{n}" for n in ("a", "app", "cat", "ex/t/u/x", "moved", "seq", "t/u/x", "t2/u/x", "x.tar", "zero")]
    assert said.splitlines()[:-1] == ["a", "b", "c", "d", *found, "a", "app", "cat", "ex", "moved", "seq", "x.tar", "zero"], said
    assert shim.keys() == ["a", "app", "cat", "ex/t/u/x", "moved", "seq", "x.tar"]
    for key in ("a", "cat", "moved", "ex/t/u/x"):
        assert shim.stored(key) == body
    assert shim.stored("app") == b"a\nb\nc\nd\n"


def test_the_benchmark_s_way_with_numpy(shim):
    said = json.loads(shim.run(numpy_python(), os.path.join(HERE, "preload_numpy.py"), shim.anchor))
    c = shim.counted()
    # Not one byte more than asked for: the get that is only advised and closed fetches nothing, a close after fsync stores nothing. A large object is one
    # request for its head and one for the rest, which goes to where NumPy wants it.
    counted = {"puts": c["put_count"], "put_bytes": c["put_bytes"], "gets": c["get_count"], "get_bytes": c["get_bytes"]}
    assert said == counted and c["put_errors"] == c["get_errors"] == 0
    body = shim.stored("rank_0/user_0001_req_000004.npy")
    assert body[:6] == b"\x93NUMPY" and len(body) == 128 + 2 * 65536


def test_a_part_is_a_part(shim):
    """A read fetches what it asks for; who reads on gets more at a time; a long one goes to the program's memory and the memfd stays empty."""
    body = content(b"preload", 2, 24 * MIB + 999)
    shim.keep("big", body)
    shim.run(sys.executable, "-c", """
import os
body = open("body", "rb").read()
fd = os.open("anchor/big", os.O_RDONLY)
assert os.fstat(fd).st_size == len(body)
assert os.pread(fd, 100, 9 << 20) == body[9 << 20:(9 << 20) + 100]
assert os.pread(fd, 100, (9 << 20) + 200) == body[(9 << 20) + 200:(9 << 20) + 300]
assert os.pread(fd, 999, len(body) - 99) == body[-99:]
assert os.pread(fd, 1, len(body)) == b""
""")
    c = shim.counted()
    assert (c["get_count"], c["get_bytes"]) == (2, 65536 + len(body) % 65536), c
    shim.stats.unlink()
    shim.run(sys.executable, "-c", """
import os
body = open("body", "rb").read()
fd = os.open("anchor/big", os.O_RDONLY)
got = []
while len(got) < 1 or got[-1]:
    got.append(os.read(fd, 10000))
assert b"".join(got) == body
""")
    c = shim.counted()
    assert c["get_count"] < 12 and c["get_bytes"] == len(body), c
    shim.stats.unlink()
    shim.run(sys.executable, "-c", """
import os
body = open("body", "rb").read()
fd = os.open("anchor/big", os.O_RDONLY)
back = [bytearray(3), bytearray(2 << 20), bytearray(10), bytearray(4 << 20)]
assert os.read(fd, 100) == body[:100] and os.readv(fd, back) == (6 << 20) + 13
assert b"".join(back) == body[100:(6 << 20) + 113] and os.lseek(fd, 0, os.SEEK_CUR) == (6 << 20) + 113
assert os.preadv(fd, back, 17 << 20) == (6 << 20) + 13 and b"".join(back) == body[17 << 20:(23 << 20) + 13]
assert os.pread(fd, 10 << 20, 20 << 20) == body[20 << 20:]
held = os.stat(f"/proc/self/fd/{fd}").st_blocks * 512          # what the kernel says
assert held <= 1 << 20, held
assert os.read(fd, 9) == body[(6 << 20) + 113:(6 << 20) + 122]
""")


def test_more_than_two_gib(server_factory, tmp_path):
    """The kernel moves less than 2 GiB in a call; one fwrite and one fread ask for all of it."""
    if not FULL or os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 12 << 30:
        pytest.skip("only with MEMKV_TEST_FULL=1 and 12 GiB of free memory")
    shim = Shim(server_factory(mode="memory", drive_bytes="3GiB"), tmp_path)
    shim.run(numpy_python(), "-c", """
import os
import numpy as np
a = np.arange(280_000_000, dtype=np.uint64)
with open("anchor/big", "wb") as f:
    np.save(f, a)
    f.flush()
    os.fsync(f.fileno())
assert np.array_equal(np.load("anchor/big"), a)
fd = os.open("anchor/big", os.O_RDONLY)
assert os.pread(fd, 8, 128 + 8 * 279_999_999) == (279_999_999).to_bytes(8, "little")
""")
    c = shim.counted()
    assert c["put_bytes"] == 8 * 280_000_000 + 128 and c["get_bytes"] - c["put_bytes"] <= 65536 and c["put_errors"] == c["get_errors"] == 0


def test_a_reader_never_sees_two_versions(shim):
    """Replaced by another client between two reads: ESTALE, whether the first bytes are still in memory or not; who opens it again has the new one."""
    first, second = (content(b"preload", n, 2 * MIB) for n in (3, 4))
    shim.keep("big", first)
    script = """
import errno, os, subprocess, sys
def fails(what):
    try:
        return what()
    except OSError as e:
        return e.errno
fds = [os.open("anchor/big", os.O_RDONLY) for _ in range(4)]
got = [os.pread(fd, 1000, 0) for fd in fds[:3]]
print("look", flush=True)
sys.stdin.readline()
os.posix_fadvise(fds[0], 0, 0, os.POSIX_FADV_DONTNEED)
assert fails(lambda: os.pread(fds[0], 1000, 0)) == errno.ESTALE
assert fails(lambda: os.pread(fds[1], 1000, 1 << 20)) == errno.ESTALE
assert fails(lambda: os.pread(fds[1], 1 << 20, 1 << 20)) == errno.ESTALE
assert os.pread(fds[1], 1000, 0) == got[1]
assert subprocess.run(["cat"], stdin=fds[2], capture_output=True).returncode == 1
assert os.pread(fds[2], 1000, 0) == got[2]
new = os.read(fds[3], 1000) + os.read(fds[3], 2 << 20)         # nothing of it was read before
assert new == open("body", "rb").read() == open("anchor/big", "rb").read() and new[:1000] != got[0]
"""
    with subprocess.Popen([sys.executable, "-c", script], env=shim.env, cwd=shim.top, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout.readline() == "look\n"
        shim.keep("big", second)
        p.stdin.write("\n")
        p.stdin.flush()
        assert p.wait(60) == 0


def test_who_reads_in_the_same_process_goes_on(shim):
    """Removed, replaced, renamed and written over by the process that reads it: the reader has what he began with, as on a disk."""
    shim.keep("big", content(b"preload", 5, 3 * MIB))
    shim.run(sys.executable, "-c", """
import os, subprocess
body = open("body", "rb").read()
def begun(name):
    fd = os.open(name, os.O_RDONLY)
    assert os.read(fd, 10) == body[:10]
    return fd
def goes_on(fd):
    got = b"".join(iter(lambda: os.read(fd, 1 << 20), b""))
    os.close(fd)
    return got == body[10:]
fd = begun("anchor/big")
assert subprocess.run(["cat"], stdin=fd, capture_output=True).stdout == body[10:]
os.lseek(fd, 10, os.SEEK_SET)
os.rename("anchor/big", "anchor/moved")
assert goes_on(fd)
fd = begun("anchor/moved")
with open("anchor/moved", "wb") as f:
    f.write(body[::-1])
assert goes_on(fd) and open("anchor/moved", "rb").read() == body[::-1]
with open("anchor/moved", "wb") as f:
    f.write(body)
fd = begun("anchor/moved")
with open("anchor/new", "wb") as f:
    f.write(b"new")
os.rename("anchor/new", "anchor/moved")
assert goes_on(fd)
with open("anchor/moved", "wb") as f:
    f.write(body)
fd = begun("anchor/moved")
os.unlink("anchor/moved")
assert goes_on(fd)
""")


def test_a_stream_that_only_reads_stores_nothing(shim):
    """fopen("r+"), fseek and fread, which C programs do to patch a file in place: a put only for who has written."""
    shim.keep("patched", content(b"preload", 6, 100000))
    shim.run(sys.executable, "-c", """
import ctypes
c = ctypes.CDLL(None)
c.fopen.restype = ctypes.c_void_p
got = ctypes.create_string_buffer(4)
for mode in (b"r+", b"r+b", b"rb+"):
    f = ctypes.c_void_p(c.fopen(b"anchor/patched", mode))
    assert c.fread(got, 1, 4, f) == 4 and c.fclose(f) == 0
""")
    assert shim.counted()["put_count"] == 0 and shim.counted()["get_count"] == 3
    shim.run(sys.executable, "-c", """
import ctypes
c = ctypes.CDLL(None)
c.fopen.restype = ctypes.c_void_p
f = ctypes.c_void_p(c.fopen(b"anchor/patched", b"r+"))
assert c.fseek(f, 10, 0) == 0 and c.fwrite(b"abcd", 1, 4, f) == 4 and c.fclose(f) == 0
""")
    assert shim.counted()["put_count"] == 1 and shim.stored("patched")[10:14] == b"abcd"


def test_python_s_own_ways(shim):
    """Temporary files renamed, streams, directories scanned, children that close or inherit."""
    shim.run(sys.executable, "-c", """
import os, shutil, subprocess, sys, tempfile, pathlib
p = pathlib.Path("anchor").resolve()
with tempfile.NamedTemporaryFile(dir=p, delete=False) as f:
    f.write(b"x" * 100000)
os.replace(f.name, p / "final")
assert (p / "final").read_bytes() == b"x" * 100000 and os.path.getsize("anchor/final") == 100000
assert sorted(os.listdir(p)) == ["final"] and [e.is_file() for e in os.scandir(p)] == [True]
(p / "text").write_text("one")
with open(p / "text", "a") as f:
    f.write("two")
    f.flush()
    assert subprocess.run(["/bin/true"]).returncode == 0
assert (p / "text").read_text() == "onetwo"
with open(p / "child", "wb") as f:
    subprocess.run(["/bin/echo", "from a child"], stdout=f, check=True)
assert (p / "child").read_bytes() == b"from a child\\n"
with open(p / "child", "rb") as f:
    assert subprocess.run(["/bin/cat"], stdin=f, capture_output=True, check=True).stdout == b"from a child\\n"
shutil.copytree(p, p / "tree")
shutil.rmtree(p / "tree")
try:
    (p / "none").read_bytes()
    sys.exit(3)
except FileNotFoundError:
    pass
""")
    assert shim.keys() == ["child", "final", "text"]
    assert shim.stored("text") == b"onetwo"


def test_streams_of_cplusplus(shim):
    if not shutil.which("g++"):
        pytest.skip("no g++")
    program = shim.top / "stream"
    subprocess.run(["g++", "-std=c++17", "-O1", "-o", str(program), os.path.join(HERE, "preload_stream.cpp")], check=True, timeout=120)
    shim.run(program, shim.anchor)
    assert shim.keys() == ["00a/1f_g0/z"] and len(shim.stored("00a/1f_g0/z")) == 3000021


def test_random_calls(shim):
    """The same calls on the disk and in the store return the same, call by call."""
    first = int(os.environ.get("MEMKV_SEED", str(random.randrange(1 << 30))))
    for seed in range(first, first + (40 if FULL else 6)):
        said = []
        for top, env in ((shim.top / f"plain{seed}", {"LD_PRELOAD": ""}), (shim.anchor / str(seed), {})):
            said.append(shim.run(sys.executable, os.path.join(HERE, "preload_random.py"), top, seed, 1500, **env).splitlines())
        wrong = [(i, a, b) for i, (a, b) in enumerate(zip(*said)) if a != b]
        assert not wrong and len(said[0]) == len(said[1]) > 500, f"MEMKV_SEED={seed}: call, on the disk, in the store: {wrong[:3]}"


def test_no_space(shim):
    """What does not fit is told by fsync and by close, and nothing of it is there."""
    shim.run(sys.executable, "-c", """
import errno, os
fd = os.open("anchor/big", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.ftruncate(fd, 4 << 30)                # of holes, so it costs no memory
for call in (os.fsync, os.close):
    try:
        call(fd)
        raise SystemExit(call)
    except OSError as e:
        assert e.errno == errno.ENOSPC, e
assert not os.path.exists("anchor/big")
""")
    assert shim.keys() == []


def test_a_child_does_not_commit_what_its_parent_writes(shim):
    """By a stream of C, whose writes come by no function that the library has; the child lives on beside it, and ends first."""
    script = """
import ctypes, os, sys
c = ctypes.CDLL(None)
c.fopen.restype = ctypes.c_void_p
f = ctypes.c_void_p(c.fopen(b"anchor/half", b"w"))
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    os.read(r, 1)
    os._exit(0)
assert c.fputs(b"half", f) >= 0 and c.fflush(f) == 0
os.write(w, b"x")
assert os.waitpid(pid, 0)[1] == 0
print("look", flush=True)
sys.stdin.readline()
assert c.fputs(b" and half", f) >= 0 and c.fclose(f) == 0
print("look", flush=True)
sys.stdin.readline()
"""
    with subprocess.Popen([sys.executable, "-c", script], env=shim.env, cwd=shim.top, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout.readline() == "look\n" and shim.stored("half") is None
        p.stdin.write("\n")
        p.stdin.flush()
        assert p.stdout.readline() == "look\n" and shim.stored("half") == b"half and half"
        p.stdin.write("\n")
        p.stdin.flush()
        assert p.wait(60) == 0


def test_many_threads(shim):
    shim.run(sys.executable, "-c", """
import os, threading
bad = []
def work(n):
    for i in range(30):
        name, body = f"anchor/t{n}-{i % 3}", bytes([n, i]) * (1000 + 7919 * n + i)
        with open(name + ".tmp", "wb") as f:
            f.write(body)
        os.rename(name + ".tmp", name)
        with open(name, "rb") as f:
            if f.read() != body:
                bad.append(name)
ts = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
assert not bad, bad
""")
    assert len(shim.keys()) == 24


def test_descriptors_that_fail_or_are_inherited(shim):
    """A dup2() that fails closes nothing; a name like the kernel's own mark is a name; where the bytes lie is said of bytes that are there."""
    shim.run(sys.executable, "-c", """
import ctypes, errno, os
c = ctypes.CDLL(None, use_errno=True)
fd = os.open("anchor/kept", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.write(fd, b"before")
assert c.dup2(999, fd) == -1 and ctypes.get_errno() == errno.EBADF
os.write(fd, b" and after")
os.close(fd)
fd = os.open("anchor/kept", os.O_RDONLY)
assert os.lseek(fd, 0, os.SEEK_DATA) == 0 and os.read(fd, 99) == b"before and after"
os.close(fd)
assert c.close_range(7, 5, 0) == -1
""")
    shim.sh("echo old > anchor/x; /bin/echo new > 'anchor/x (deleted) y'")
    assert shim.stored("kept") == b"before and after" and shim.stored("x") == b"old\n" and shim.stored("x (deleted) y") == b"new\n"


def test_names_too_long_for_a_file(shim):
    """255 bytes of a name and 512 of a key, as on a disk; by mkstemp() too, and nothing lies on the disk then."""
    shim.run(sys.executable, "-c", """
import ctypes, errno, os
c = ctypes.CDLL(None, use_errno=True)
open("anchor/" + "n" * 255, "w").close()
deep = "anchor/" + "/".join(["d" * 200, "e" * 200])
os.makedirs(deep)
open(deep + "/" + "f" * 110, "w").close()
for name in ("anchor/" + "n" * 256, deep + "/" + "f" * 111):
    try:
        open(name, "w")
        raise SystemExit(name)
    except OSError as e:
        assert e.errno == errno.ENAMETOOLONG, e
assert c.mkstemp((deep + "/" + "f" * 105 + "XXXXXX").encode()) == -1 and ctypes.get_errno() == errno.ENAMETOOLONG
d = os.open("anchor", os.O_RDONLY)
assert os.fstatvfs(d).f_blocks == os.statvfs("anchor").f_blocks
""")
    assert sorted(map(len, shim.keys())) == [255, 512]


def test_threads_on_the_same_name(shim):
    """Two that open it have one file; one shrinks it while another stores it; one makes it anew while another renames it."""
    shim.run(sys.executable, "-c", """
import os, threading, time
def both(*works):
    ts = [threading.Thread(target=w) for w in works]
    [t.start() for t in ts]; [t.join() for t in ts]
at = threading.Barrier(4)
def part(n, name):
    at.wait()
    fd = os.open(name, os.O_WRONLY | os.O_CREAT)
    at.wait()
    os.pwrite(fd, bytes([65 + n]) * 10, 10 * n)
    os.close(fd)
for i in range(30):
    name = f"anchor/part{i}"
    both(*(lambda n=n: part(n, name) for n in range(4)))
    assert open(name, "rb").read() == b"A" * 10 + b"B" * 10 + b"C" * 10 + b"D" * 10, name
won = []
def lock(n, name):
    at.wait()
    try:
        won.append(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        pass
for i in range(10):
    both(*(lambda n=n: lock(n, f"anchor/lock{i}") for n in range(4)))
assert len(won) == 10, won
fd = os.open("anchor/shrinks", os.O_RDWR | os.O_CREAT)
def store():
    for i in range(200):
        os.fsync(fd)
    won.append("stored")
def write():
    while len(won) == 10 and t.is_alive():
        os.pwrite(fd, b"x", 0)
def shrink():
    while len(won) == 10 and t.is_alive():
        os.ftruncate(fd, 4 << 20)
        os.ftruncate(fd, 0)
t = threading.Thread(target=store)
t.start()
both(write, shrink)
t.join()
assert won[10:] == ["stored"]       # and no fsync failed
""")


def test_a_name_made_anew_while_it_is_renamed(shim):
    """What comes under the old name after it was renamed is not removed with it; who had the new name open does not come back to it."""
    shim.run(sys.executable, "-c", """
import os, threading
body = b"first" * (4 << 20)
for i in range(4):
    fd = os.open("anchor/old", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, body)
    replaced = os.open("anchor/new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(replaced, b"replaced")
    t = threading.Thread(target=os.rename, args=("anchor/old", "anchor/new"))
    t.start()
    again = os.open("anchor/old", os.O_WRONLY | os.O_CREAT)     # before the rename: the file that becomes new; after: another
    os.close(replaced)
    t.join()
    os.pwrite(again, b"again", 0)
    os.close(again)
    os.close(fd)
    now = open("anchor/new", "rb").read()
    if os.path.exists("anchor/old"):
        assert open("anchor/old", "rb").read() == b"again" and now == body
    else:
        assert now == b"again" + body[5:], now[:20]
""")


def test_ends_and_children(shim):
    """exit() does not wait for a thread that reads a stream; a child made past libc's fork() is told that it has no files; titles are not taken for names."""
    r, w = os.pipe()
    script = """
import ctypes, os, threading, time
c = ctypes.CDLL(None, use_errno=True)
c.getenv.restype = ctypes.c_void_p
at = c.getenv(b"MEMKV_PRELOAD_STATS")
ctypes.memset(at, ord("t"), len(os.environ["MEMKV_PRELOAD_STATS"]))
fd = os.open("anchor/open", os.O_WRONLY | os.O_CREAT)
os.write(fd, b"by exit")
with open("anchor/read", "wb") as f:
    f.write(b"x" * 1000)
if os.fork() == 0:
    os._exit(0 if open("anchor/read", "rb").read() == b"x" * 1000 else 1)
assert os.wait()[1] == 0
pid = c._Fork()
if pid == 0:
    got = ctypes.create_string_buffer(10)
    fd = c.open(b"anchor/read", os.O_RDONLY)
    if fd >= 0 and (c.read(fd, got, 10) != 10 or got.raw != b"x" * 10):
        c._exit(1)
    fd = c.open(b"anchor/never", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    c._exit(2 if fd >= 0 and c.write(fd, b"x", 1) == 1 and c.close(fd) == 0 else 0)
assert os.waitpid(pid, 0)[1] == 0
threading.Thread(target=c.getchar, daemon=True).start()
time.sleep(0.5)
c.exit(0)
"""
    p = subprocess.run([sys.executable, "-c", script], env=shim.env, cwd=shim.top, stdin=r, capture_output=True, text=True, timeout=30)
    os.close(r)
    os.close(w)
    assert p.returncode == 0, p.stderr
    assert shim.stored("open") == b"by exit" and shim.counted()["put_count"] == 2


def test_a_fork_in_the_midst_of_another_thread_s_look(shim):
    shim.run(sys.executable, "-c", """
import os, signal, threading
open("anchor/a", "w").close()
ended = []
def look():
    while not ended:
        os.access("anchor", os.R_OK)
ts = [threading.Thread(target=look) for n in range(3)]
[t.start() for t in ts]
for i in range(300):
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        os._exit(0 if os.access("anchor", os.R_OK) else 1)
    ended += [i] if os.waitpid(pid, 0)[1] != 0 else []
    if ended:
        break
bad, _ = list(ended), ended.append(0)
[t.join() for t in ts]
assert not bad, bad
""")


def test_fsync_after_a_rename_is_a_put_to_the_drive(shim):
    shim.run(sys.executable, "-c", """
import os
fd = os.open("anchor/a.tmp", os.O_WRONLY | os.O_CREAT)
os.write(fd, b"x")
os.rename("anchor/a.tmp", "anchor/a")
os.fsync(fd)
os.fsync(fd)
os.close(fd)
""")
    assert shim.counted()["put_count"] == 2 and shim.keys() == ["a"]


def test_a_main_thread_that_has_ended(shim):
    shim.run(sys.executable, "-c", """
import ctypes, os, threading, time
def work():
    time.sleep(0.5)
    for name in ("one", "two"):
        with open("anchor/" + name, "wb") as f:
            f.write(b"here")
    os._exit(7)
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
""", expect=7)
    assert shim.stored("two") == b"here"


def test_errors_are_told(shim):
    """A server that is gone: no write is taken for done, no read for nothing, and every call ends at its deadline."""
    (shim.top / "out").write_bytes(b"kept")
    shim.sh("cp out anchor/a")
    shim.server.stop()
    script = """
import errno, os, sys, time
def fails(what):
    since = time.monotonic()
    try:
        what()
    except OSError as e:
        assert time.monotonic() - since < 10
        return e.errno
    return 0
fd = os.open("anchor/b", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.write(fd, b"lost")
assert fails(lambda: os.fsync(fd)) in (errno.EIO, errno.ETIMEDOUT)
assert fails(lambda: os.unlink("anchor/b")) in (errno.EIO, errno.ETIMEDOUT)             # and so it is still to be stored
assert fails(lambda: os.close(fd)) in (errno.EIO, errno.ETIMEDOUT)
assert fails(lambda: open("anchor/a", "rb").read()) in (errno.EIO, errno.ETIMEDOUT)      # not ENOENT: nobody knows
assert fails(lambda: open("anchor/a", "ab").close()) in (errno.EIO, errno.ETIMEDOUT)
assert fails(lambda: os.unlink("anchor/a")) in (errno.EIO, errno.ETIMEDOUT)
assert fails(lambda: os.listdir("anchor")) in (errno.EIO, errno.ETIMEDOUT)
"""
    shim.run(sys.executable, "-c", script, MEMKV_PRELOAD_DEADLINE="2s")
    shim.sh("! cp out anchor/c 2>err; grep -q anchor/c err", MEMKV_PRELOAD_DEADLINE="1s")
    assert shim.counted()["put_errors"] >= 2


def test_a_directory_that_cannot_be_read_again_is_not_empty(shim):
    script = """
import ctypes, errno, sys
c = ctypes.CDLL(None, use_errno=True)
c.opendir.restype = c.readdir.restype = ctypes.c_void_p
open("anchor/a", "w").close()
d = ctypes.c_void_p(c.opendir(b"anchor"))
print("open", flush=True)
sys.stdin.readline()
c.rewinddir(d)
ctypes.set_errno(0)
while c.readdir(d):
    pass
assert ctypes.get_errno() in (errno.EIO, errno.ETIMEDOUT), ctypes.get_errno()
"""
    with subprocess.Popen([sys.executable, "-c", script], env=dict(shim.env, MEMKV_PRELOAD_DEADLINE="2s"), cwd=shim.top, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout.readline() == "open\n"
        shim.server.stop()
        p.stdin.write("\n")
        p.stdin.flush()
        assert p.wait(60) == 0


def test_who_never_comes_near_connects_to_nobody(shim):
    shim.sh("ls / >/dev/null; cat /etc/passwd >/dev/null; cp /etc/passwd elsewhere")
    assert not shim.stats.exists()
    shim.run("cp", "elsewhere", "anchor/x", MEMKV_PRELOAD_PREFIX="")
    assert [os.path.basename(f) for f in shim.disk()] == ["x"] and shim.keys() == []
    os.unlink(shim.anchor / "x")


def test_other_names_of_the_prefix(shim):
    """Two prefixes; one by a symbolic link, paths by `..`, one that leads out again."""
    (shim.top / "link").symlink_to("anchor")
    (shim.top / "beside").mkdir()
    (shim.anchor / "up").symlink_to("../beside")
    prefix = f"{shim.top}/link:{shim.top}/second"
    (shim.top / "second").mkdir()
    shim.sh("echo 1 > link/a; echo 2 > anchor/b; echo 3 > beside/../link/c; echo 4 > second/d; cat anchor/a link/b anchor/../anchor/c > second/all",
            MEMKV_PRELOAD_PREFIX=prefix)
    assert shim.keys() == ["a", "all", "b", "c", "d"] and shim.stored("all") == b"1\n2\n3\n"
    shim.sh("echo out > link/up/real; echo out > anchorage", MEMKV_PRELOAD_PREFIX=prefix)
    assert (shim.top / "beside" / "real").read_text() == "out\n" and (shim.top / "anchorage").exists()
    assert os.listdir(shim.top / "second") == []


def test_no_call_of_a_file_reaches_the_disk(shim):
    if not shutil.which("strace"):
        pytest.skip("no strace (Debian: strace)")
    trace = shim.top / "trace"
    (shim.top / "out").write_bytes(b"q" * 100000)
    script = "cp out anchor/obj-1; cat anchor/obj-1 > anchor/obj-2; mv anchor/obj-2 anchor/obj-3; ls -l anchor > listed; rm anchor/obj-1"
    wrap = ["strace", "-f", "-qq", "-s", "300", "-e", "trace=%file", "-o", str(trace), "-E", f"LD_PRELOAD={LIBRARY}"]
    probe = subprocess.run([*wrap, "/bin/true"], capture_output=True, text=True, timeout=60)
    if probe.returncode != 0:
        pytest.skip("strace may not trace here: " + probe.stderr.strip()[-200:])
    shim.run("bash", "-ec", script, wrap=wrap)
    calls = [line for line in trace.read_text(errors="replace").splitlines() if "/anchor/" in line or '"anchor/' in line or '"obj-' in line]
    # That no directory has the name is all that is asked of the disk; programs' own arguments and readlink of a descriptor are no calls on the file.
    left = [c for c in calls if not re.search(r"\b(execve|readlink|readlinkat)\(|newfstatat\(.*ENOENT|\bstatx?\(.*ENOENT|fstatat64\(.*ENOENT", c)]
    assert left == [] and len(calls) > 3, left
    assert shim.keys() == ["obj-3"] and "obj-3" in (shim.top / "listed").read_text()
