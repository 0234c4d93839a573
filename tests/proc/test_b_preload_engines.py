"""
b: how inference engines keep KV caches in files, call by call, below libmemkv_preload.so: LMCache's disk and fs back ends, vLLM's file tier and its example
connector, SGLang's file back end; llm-d's C++ streams are preload_stream.cpp. With the packages that they use where a Python has them.
"""
import subprocess
import sys

from harness import MIB, content
from preload_shim import LINUX, numpy_python, shim  # noqa: F401

PINNED = {"safetensors": "0.5.3", "aiofiles": "24.1.0"}         # of PyPI: pip install NAME==VERSION

pytestmark = LINUX


def python_with(*modules):
    return numpy_python(*modules, why="pip install " + " ".join(f"{m}=={PINNED[m]}" for m in modules))


def test_vllm_s_file_tier_and_lmcache_s_disk(shim):
    """O_DIRECT, with and without O_TRUNC, one write, rename, one readv; looked for by many at once, and deleted if it is short."""
    shim.run(sys.executable, "-c", """
import mmap, os
body = os.urandom(1 << 20)
aligned = mmap.mmap(-1, 1 << 20)
aligned.write(body)
top = "anchor/ab/cd"
os.makedirs(top)
fd = os.open(top + "/vllm.tmp", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_TRUNC | os.O_DIRECT, 0o644)
assert os.write(fd, aligned) == 1 << 20
os.close(fd)
os.rename(top + "/vllm.tmp", top + "/vllm")
fd = os.open(top + "/vllm", os.O_RDONLY | os.O_DIRECT)
back = bytearray(1 << 20)
assert os.readv(fd, [back]) == 1 << 20 and back == body
os.close(fd)
for again in range(2):
    fd = os.open(top + "/lmcache", os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o644)
    assert os.write(fd, aligned) == 1 << 20
    os.close(fd)
with open(top + "/lmcache", "rb", buffering=0) as f:
    back = bytearray(os.fstat(f.fileno()).st_size)
    assert f.readinto(back) == 1 << 20 and back == body
assert sorted(e.name for e in os.scandir(top)) == ["lmcache", "vllm"] and os.path.getsize(top + "/vllm") == 1 << 20
assert [os.access(top + "/" + n, os.F_OK) for n in ("vllm", "none", "lmcache")] == [True, False, True]
with open("anchor/config.json", "w") as f:
    f.write("{}")
assert open("anchor/config.json").read() == "{}"
fd = os.open(top + "/vllm", os.O_RDONLY | os.O_DIRECT)
assert os.readv(fd, [bytearray(2 << 20)]) == 1 << 20            # short
os.close(fd)
os.unlink(top + "/vllm")
assert not os.path.exists(top + "/vllm")
""")
    assert shim.keys() == ["ab/cd/lmcache", "config.json"]


def test_llm_d_s_tail_of_a_file(shim):
    """The calls of a C++ stream that seeks to the end, back to some block, and reads the rest: no byte before it is fetched."""
    body = content(b"preload", 7, 24 * MIB + 5)
    shim.keep("group", body)
    shim.run(sys.executable, "-c", """
import ctypes, os
c = ctypes.CDLL(None)
c.fopen64.restype = ctypes.c_void_p
f = ctypes.c_void_p(c.fopen64(b"anchor/group", b"rb"))
fd = c.fileno(f)
size = os.lseek(fd, 0, os.SEEK_END)
assert os.lseek(fd, size - (3 << 20), os.SEEK_SET) == size - (3 << 20)
assert os.read(fd, 3 << 20) == open("body", "rb").read()[-(3 << 20):] and c.fclose(f) == 0
""")
    assert (shim.counted()["get_count"], shim.counted()["get_bytes"]) == (1, 3 * MIB)


FS_CONNECTOR = """
import asyncio, glob, os, sys
HEAD = 28
async def store(name, head, body):
    async with opened(name + ".tmp", "wb") as f:
        await f.write(head)
        await f.write(body)
    os.replace(name + ".tmp", name)
async def load(name):
    async with opened(name, "rb") as f:
        head = await f.read(HEAD)
        body = bytearray(os.stat(name).st_size - HEAD)
        assert await f.readinto(body) == len(body)
        return head, bytes(body)
async def main():
    names = {f"anchor/fs/{i:02}": (os.urandom(HEAD), os.urandom(100000 * i + i)) for i in range(20)}
    os.makedirs("anchor/fs")
    await asyncio.gather(*(store(n, *v) for n, v in names.items()))
    assert sorted(glob.glob("anchor/fs/*")) == sorted(names) and not os.path.exists("anchor/fs/00.tmp")
    back = await asyncio.gather(*map(load, names))
    assert back == list(names.values())
    os.unlink("anchor/fs/07")
    try:
        await load("anchor/fs/07")
        sys.exit(3)
    except FileNotFoundError:
        pass
asyncio.run(main())
"""

# What aiofiles does: each call of an ordinary file in a thread of a pool.
IN_THREADS = """
import asyncio, contextlib
class Threaded:
    def __init__(self, f):
        self.f = f
    def __getattr__(self, name):
        return lambda *args: asyncio.to_thread(getattr(self.f, name), *args)
@contextlib.asynccontextmanager
async def opened(name, mode):
    f = await asyncio.to_thread(open, name, mode)
    try:
        yield Threaded(f)
    finally:
        await asyncio.to_thread(f.close)
"""


def test_lmcache_s_fs_connector(shim):
    """A temporary file, a head and a body, renamed; twenty at once, from a pool of threads."""
    shim.run(sys.executable, "-c", IN_THREADS + FS_CONNECTOR)
    assert len(shim.keys()) == 19 and shim.counted()["put_errors"] == 0


def test_lmcache_s_fs_connector_with_aiofiles(shim):
    shim.run(python_with("aiofiles"), "-c", "from aiofiles import open as opened\n" + FS_CONNECTOR)
    assert len(shim.keys()) == 19 and shim.counted()["put_errors"] == 0


def test_sglang_s_file_back_end(shim):
    """tofile() to a temporary name, renamed; read unbuffered into an array, listed at the start, all removed in the end."""
    shim.run(numpy_python(), "-c", """
import os
import numpy as np
os.makedirs("anchor/hicache")
pages = {f"anchor/hicache/{n:064x}_rank0.bin": np.random.default_rng(n).integers(0, 255, n, dtype=np.uint8) for n in (1, 4096, 300000, 1 << 20, 5000001)}
for name, page in pages.items():
    page.tofile(name + ".tmp")
    os.rename(name + ".tmp", name)
assert sorted("anchor/hicache/" + n for n in os.listdir("anchor/hicache")) == sorted(pages)
for name, page in pages.items():
    back = np.empty_like(page)
    assert os.path.exists(name) and os.path.getsize(name) == page.nbytes
    with open(name, "rb", buffering=0) as f:
        assert f.readinto(memoryview(back)) == page.nbytes
    assert np.array_equal(back, page) and np.array_equal(np.fromfile(name, dtype=np.uint8), page)
    assert np.array_equal(np.fromfile(name, dtype=np.uint8, count=page.nbytes // 2, offset=page.nbytes // 3), page[page.nbytes // 3:][:page.nbytes // 2])
for e in os.scandir("anchor/hicache"):
    assert e.is_file()
    os.unlink(e.path)
assert os.listdir("anchor/hicache") == []
""")
    assert shim.keys() == []


def test_vllm_s_example_connector_with_safetensors(shim):
    """A directory for each prompt, whose being there is the index, and a file for each layer; read by mmap, whole and one tensor of it."""
    python = python_with("safetensors")
    script = """
import os, sys
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
top = sys.argv[1] + "/6c0ffee5"
layers = {f"{top}/layer{n}.safetensors": np.arange(100000 * n, dtype=np.uint8) for n in (1, 7)}
if len(sys.argv) > 2:
    assert not os.path.exists(top)
    os.makedirs(top)
    for name, a in layers.items():
        save_file({"k": a, "v": a[::-1].copy()}, name)
assert os.path.isdir(top)
for name, a in layers.items():
    t = load_file(name)
    assert (t["k"] == a).all() and (t["v"] == a[::-1]).all()
    with safe_open(name, "np") as f:
        assert (f.get_tensor("v") == a[::-1]).all()
"""
    version = subprocess.run([python, "-c", "import safetensors; print(safetensors.__version__)"], capture_output=True, text=True, timeout=60, check=True).stdout
    if version.strip() == PINNED["safetensors"]:
        shim.run(python, "-c", script, shim.anchor, "save")
    else:
        # Later ones rename without libc: saved beside, and copied.
        subprocess.run([python, "-c", script, str(shim.top / "beside"), "save"], check=True, timeout=60)
        shim.sh("cp -r beside/6c0ffee5 anchor/")
    shim.run(python, "-c", script, shim.anchor)
    assert shim.keys() == ["6c0ffee5/layer1.safetensors", "6c0ffee5/layer7.safetensors"]
