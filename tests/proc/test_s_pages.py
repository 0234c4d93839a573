"""
In which pages shared memory lies: huge ones where the system has set some aside, refused in words where they are required and missing. Tests that set pages
aside need root, take at most 128 MiB, and put the system's numbers back.
"""
import contextlib
import json
import os
import re
import signal
import subprocess
import time

import pytest

import mkv
from harness import FULL, MEMKV, MEMKVCTL, MIB, Server, content

KINDS = {2 * MIB: "/sys/kernel/mm/hugepages/hugepages-2048kB", 1 << 30: "/sys/kernel/mm/hugepages/hugepages-1048576kB"}
SMALL = ["local.path=-", "memory.max_size=32MiB", "memory.slots=64", "network.shards=1", "storage.block_size=1MiB"]
STAGE_PAGES = 17                # what SMALL takes of 2 MiB
TRIES = 5                       # another server on this machine may take the pages first


def number(path):
    with open(path) as f:
        return int(f.read())


def persistent(size):
    return number(KINDS[size] + "/nr_hugepages") - number(KINDS[size] + "/surplus_hugepages")


def free_pages(size):
    return number(KINDS[size] + "/free_hugepages") - number(KINDS[size] + "/resv_hugepages")


@contextlib.contextmanager
def set_aside(count, size=2 * MIB):
    """So many free pages of that size, or a skip."""
    path = KINDS[size] + "/nr_hugepages"
    if os.geteuid() != 0:
        pytest.skip("setting huge pages aside needs root")
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no huge pages of {size >> 20} MiB")
    before = persistent(size)
    try:
        with open(path, "w") as f:
            f.write(str(before + max(0, count - free_pages(size))))
        if free_pages(size) < count:
            pytest.skip(f"this system gives no {count} huge pages of {size >> 20} MiB")
        yield
    except OSError as e:
        pytest.skip(f"huge pages: {e}")
    finally:
        # What a server that just ended held comes back a moment after it: such pages count as surplus until then.
        for _ in range(300):
            with open(path, "w") as f:
                f.write(str(before))
            if number(path) == before:
                break
            time.sleep(0.1)
        assert persistent(size) == before


def page_sizes(pid, name):
    """Sizes of the pages of all mappings of that name in a process, in bytes."""
    sizes, ours = set(), False
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                ours = f"memfd:{name} " in line + " "
            elif ours and line.startswith("KernelPageSize:"):
                sizes.add(int(line.split()[1]) << 10)
    return sizes


def refused(*sets, data):
    argv = [MEMKV, "start", "--set", f"server.data_dir={data}", "--set", "network.address=127.0.0.1:0"]
    for s in [*SMALL, *sets]:
        argv += ["--set", s]
    r = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert r.returncode == 2, r.stderr
    return r.stderr


def patient(make):
    """A server that needs the pages that were set aside; others may have them for a moment."""
    for i in range(TRIES):
        s = make()
        try:
            return s.start()
        except RuntimeError as e:
            s.close()
            if i == TRIES - 1 or "huge pages" not in str(e):
                raise
            time.sleep(1)
    return None


def serves(s, n=8):
    with mkv.Client(s.addr) as c:
        for i in range(n):
            c.put(b"k%d" % i, content(b"k", i, MIB + 4096 * i))
        for i in range(n):
            assert c.get(b"k%d" % i, 2 * MIB) == content(b"k", i, MIB + 4096 * i)


def log_of(s):
    with open(s.log, errors="replace") as f:
        return f.read()


def memory_of(s):
    return json.loads(s.http("/v1/status"))["memory"]


@pytest.mark.skipif(not os.path.exists(KINDS[2 * MIB]), reason="this kernel has no huge pages of 2 MiB")
def test_required_and_missing(tmp_path):
    """Both numbers and the line that mends it; nothing was touched. Do what the line says, and it starts."""
    data = tmp_path / "data"
    if free_pages(2 * MIB) >= STAGE_PAGES:
        pytest.skip("there are huge pages here")
    text = refused("memory.hugepages=require", data=data)
    m = re.search(r"of 2 MiB (\d+) needed and (\d+) free; set them aside with\n    sysctl vm\.nr_hugepages=(\d+)\n", text)
    assert m, text
    assert 'key "memory.hugepages": is require' in text
    assert int(m[1]) == STAGE_PAGES and int(m[2]) < STAGE_PAGES
    assert not data.exists()
    one = refused("memory.hugepages=require", "memory.hugepage_size=1GiB", data=data)
    assert re.search(r"of 1 GiB 1 needed and 0 free; set them aside with\n    echo \d+ >/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages\n", one), one
    assert "hugepagesz=1G hugepages=" in one and not data.exists()
    with set_aside(0):
        subprocess.run(["sysctl", "-qw", f"vm.nr_hugepages={m[3]}"], check=True, timeout=30)
        with patient(lambda: Server(sets=[*SMALL, "memory.hugepages=require"], drive_bytes="64MiB")) as s:
            serves(s)


def test_required_and_there():
    with set_aside(24), patient(lambda: Server(sets=[*SMALL, "memory.hugepages=require"], drive_bytes="64MiB")) as s:
        serves(s)
        for kind in ("front", "drive"):
            assert page_sizes(s.children(kind)[0], "memkv-stage") == {2 * MIB}
        assert memory_of(s)["staging_pages"] == "pages of 2 MiB" and memory_of(s)["huge_pages"]
        assert memory_of(s)["huge_bytes"] == s.metric_sum("memkv_supervisor_huge_bytes") == STAGE_PAGES * 2 * MIB
        assert s.status()["front:tcp:0"]["pages"] == "pages of 2 MiB"
        text = subprocess.run([MEMKVCTL, "--control", s.control, "status"], capture_output=True, text=True, timeout=20, check=True).stdout
        assert "memory in pages of 2 MiB" in text
        assert re.search(rf'event=pages what=staging bytes={STAGE_PAGES * 2 * MIB} pages="pages of 2 MiB" text=""', log_of(s))
        # The segment outlives its processes.
        for kind in ("front", "drive"):
            os.kill(s.children(kind)[0], signal.SIGKILL)
        time.sleep(0.2)
        s.wait_running()
        serves(s)
        assert page_sizes(s.children("front")[0], "memkv-stage") == {2 * MIB}
        # The check speaks of what is left: the pages that this server has are not free.
        out = subprocess.run([MEMKV, "config", "--check", "--set", "memory.max_size=64MiB"], capture_output=True, text=True, timeout=20, check=True).stdout
        assert re.search(r"of staging in small pages.*; of huge pages of 2 MiB \d+ needed and \d+ free; set them aside with", out), out


def test_arenas_and_one_more():
    """Memory mode: arenas too, for drives and fronts, also of a drive that is added; one that finds none left is refused and the server serves on."""
    with set_aside(62), patient(lambda: Server(sets=[*SMALL, "memory.hugepages=require"], mode="memory", drive_bytes="33MiB")) as s:
        serves(s)
        for kind in ("front", "drive"):
            assert page_sizes(s.children(kind)[0], "memkv-arena") == {2 * MIB}
        assert memory_of(s)["arena_pages"] == "pages of 2 MiB"
        subprocess.run([MEMKVCTL, "--control", s.control, "drive", "add", "b", "--size", "40MiB"], capture_output=True, timeout=60, check=True)
        s.wait_running()
        assert page_sizes(s.children("front")[0], "memkv-arena") == {2 * MIB}
        out = subprocess.run([MEMKVCTL, "--control", s.control, "drive", "add", "c", "--size", "64MiB"], capture_output=True, text=True, timeout=30, check=False)
        assert out.returncode == 1 and "of 2 MiB 32 needed and " in out.stderr, out.stderr
        serves(s)


def test_auto_takes_what_is_there():
    """Too few pages are none; enough are taken; none at all harm nobody."""
    if free_pages(2 * MIB) >= STAGE_PAGES:
        pytest.skip("there are huge pages here")
    with Server(sets=SMALL, drive_bytes="64MiB") as s:
        serves(s)
        assert page_sizes(s.children("front")[0], "memkv-stage") == {4096}
        assert memory_of(s)["staging_pages"].startswith("small pages") and not memory_of(s)["huge_pages"]
        assert re.search(rf'event=pages what=staging .*pages="small pages.*text="of 2 MiB {STAGE_PAGES} needed and \d+ free; .*sysctl vm\.nr_hugepages=\d+"', log_of(s))
    with set_aside(STAGE_PAGES - 2), Server(sets=SMALL, drive_bytes="64MiB") as s:
        serves(s)
        assert page_sizes(s.children("front")[0], "memkv-stage") == {4096}
    with set_aside(24), Server(sets=SMALL, drive_bytes="64MiB") as s:
        serves(s)
        if page_sizes(s.children("front")[0], "memkv-stage") != {2 * MIB}:
            assert free_pages(2 * MIB) < STAGE_PAGES        # another server was faster
    with set_aside(24), Server(sets=[*SMALL, "memory.hugepages=off"], drive_bytes="64MiB") as s:
        assert page_sizes(s.children("front")[0], "memkv-stage") == {4096}
        assert memory_of(s)["staging_pages"] == "small pages"


@contextlib.contextmanager
def limited(pages):
    """A cgroup that may have so many pages of 2 MiB."""
    with open("/proc/mounts") as f:
        root = next((x.split()[1] for x in f if x.split()[2] == "cgroup2"), None)
    if root is None or os.geteuid() != 0:
        pytest.skip("a cgroup with a limit needs root and cgroup2")
    with open(root + "/cgroup.controllers") as f:
        if "hugetlb" not in f.read().split():
            pytest.skip("cgroup2 has no hugetlb controller here")
    with open(root + "/cgroup.subtree_control") as f:
        had = "hugetlb" in f.read().split()
    group = f"{root}/memkv-test-{os.getpid()}"
    try:
        if not had:
            with open(root + "/cgroup.subtree_control", "w") as f:
                f.write("+hugetlb")
        os.mkdir(group)
        with open(group + "/hugetlb.2MB.max", "w") as f:
            f.write(str(pages * 2 * MIB))
        yield ["sh", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh"]
    except OSError as e:
        pytest.skip(f"no cgroup of our own: {e}")
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                os.rmdir(group)
                break
            time.sleep(0.1)
        if not had:
            with contextlib.suppress(OSError), open(root + "/cgroup.subtree_control", "w") as f:
                f.write("-hugetlb")


def test_withheld_by_the_cgroup(tmp_path):
    """Pages that are promised and then withheld end a process with a signal when it touches them: so they are touched before anybody lives on them."""
    with set_aside(24), limited(STAGE_PAGES - 4) as wrap:
        argv = [*wrap, MEMKV, "start", "--set", f"server.data_dir={tmp_path}", "--set", "network.address=127.0.0.1:0", "--set", "memory.hugepages=require"]
        for s in SMALL:
            argv += ["--set", s]
        r = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert r.returncode == 1 and "promised the pages and withheld them: a limit of the cgroup (hugetlb.*.max)" in r.stderr, r.stderr
        with Server(sets=SMALL, drive_bytes="64MiB", wrap=wrap) as s:
            serves(s)
            assert memory_of(s)["staging_pages"].startswith("small pages")


@pytest.mark.skipif(not FULL, reason="takes a page of 1 GiB: ./check --full")
def test_pages_of_a_gibibyte():
    with set_aside(1, 1 << 30):
        with patient(lambda: Server(sets=[*SMALL, "memory.hugepages=require", "memory.hugepage_size=1GiB"], drive_bytes="64MiB")) as s:
            serves(s)
            for kind in ("front", "drive"):
                assert page_sizes(s.children(kind)[0], "memkv-stage") == {1 << 30}
            assert memory_of(s)["staging_pages"] == "pages of 1 GiB" and memory_of(s)["huge_bytes"] == 1 << 30
            os.kill(s.children("front")[0], signal.SIGKILL)
            time.sleep(0.2)
            s.wait_running()
            serves(s)
        # An arena of exactly that is what auto takes it for.
        with patient(lambda: Server(sets=SMALL, mode="memory", drive_bytes="1GiB")) as s:
            serves(s)
            assert memory_of(s)["arena_pages"] == "pages of 1 GiB"
            assert page_sizes(s.children("front")[0], "memkv-arena") == {1 << 30}
