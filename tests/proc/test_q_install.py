"""
What an installed tree has besides programs: manual pages under every name that people type, a unit that the service manager takes. And what configure says
to who cannot install yet.
"""
import os
import re
import shutil
import subprocess

import pytest

STAGE = os.environ.get("MEMKV_STAGE", "")
TOP = os.path.join(os.path.dirname(__file__), "..", "..")
MAN = os.path.join(STAGE, "share", "man")


def target(page):
    """The page that this one stands for; itself if it has a text of its own."""
    with open(page) as f:
        first = f.readline()
    return os.path.join(MAN, first.split()[1]) if first.startswith(".so ") else page


def test_a_manual_page_for_every_command():
    out = subprocess.run([os.path.join(STAGE, "bin", "memkv"), "help", "--commands"], capture_output=True, text=True, timeout=20, check=True).stdout
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert "put" in names
    for name in names:
        with open(target(os.path.join(MAN, "man1", f"memkv-{name}.1"))) as f:
            text = f.read()
        assert f".It Cm {name}" in text or f".Dt MEMKV-{name.upper()} 1" in text, name


def test_a_manual_page_for_every_function():
    with open(os.path.join(STAGE, "include", "memkv", "memkv.h")) as f:
        names = set(re.findall(r"\b(mkv_[a-z_]+)\(", re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)))
    pages = {p[:-2] for p in os.listdir(os.path.join(MAN, "man3"))}
    assert "mkv_touch" in names & pages
    missing = {n for n in names - pages if not re.search(r"strerror|status_name|miss_text|miss_label|version|_fn$", n)}
    assert not missing, missing
    for p in pages:
        with open(target(os.path.join(MAN, "man3", f"{p}.3"))) as f:
            assert f".Nm {p}" in f.read(), p


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze (Debian, Fedora: systemd)")
    with open(os.path.join(TOP, "contrib", "systemd", "memkv.service")) as f:
        text = f.read()
    # It looks at the program, and the tree is not installed in /usr.
    unit = tmp_path / "memkv.service"
    unit.write_text(text.replace("/usr/bin/memkv", os.path.join(STAGE, "bin", "memkv")))
    r = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)], capture_output=True, text=True, timeout=60)
    assert r.returncode == 0 and "memkv.service" not in r.stderr, r.stderr
    broken = tmp_path / "broken.service"
    broken.write_text(unit.read_text().replace("WatchdogSec=30s", "WatchdogSecs=30s"))
    r = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(broken)], capture_output=True, text=True, timeout=60)
    if "WatchdogSecs" not in r.stderr:
        pytest.skip("this systemd-analyze finds nothing, so its word is worth nothing: " + r.stderr)


def needed(path):
    out = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, timeout=20, check=True).stdout
    return set(re.findall(r"\(NEEDED\).*\[(.+?)\]", out))


def test_only_the_module_needs_rdma_core():
    module = os.path.join(STAGE, "lib", "libmemkv-rdma.so.0")
    if not os.path.exists(module):
        with open(os.path.join(STAGE, "..", "config.h")) as f:
            assert "#define HAVE_RDMA 1" not in f.read()
        pytest.skip("built without rdma-core (Debian: libibverbs-dev)")
    assert "libibverbs.so.1" in needed(module)
    out = subprocess.run(["nm", "-D", "--defined-only", module], capture_output=True, text=True, timeout=20, check=True).stdout
    assert [line.split()[2] for line in out.splitlines()] == ["mkv_verbs_module"], out
    others = 0
    for at, _, names in os.walk(STAGE):
        for name in names:
            path = os.path.join(at, name)
            with open(path, "rb") as f:
                is_elf = f.read(4) == b"\x7fELF"
            if is_elf and not name.startswith("libmemkv-rdma."):
                others += 1
                assert not [n for n in needed(path) if re.match(r"lib(ibverbs|mlx5|rdmacm)", n)], path
    assert others >= 5


def test_configure_names_all_that_is_missing_at_once(tmp_path):
    configure = os.path.join(TOP, "configure")
    if not os.path.exists(configure):
        pytest.skip("no configure here: autoreconf -fi")
    with open(configure + ".ac") as f:
        rows = re.findall(r"MKV_REQUIRE(_PROGRAM)?\(\[\w+\], \[(.+?)\], \[(.+?)\], \[(.+?)\]\)", f.read())
    assert ("", "libisal", "libisal-dev", "isa-l-devel") in rows and len(rows) >= 14, rows
    (tmp_path / "none").mkdir()
    env = dict(os.environ, PKG_CONFIG_LIBDIR=str(tmp_path / "none"), PKG_CONFIG_PATH="", ac_cv_path_PROTOC_C="")
    out = subprocess.run([os.path.abspath(configure), "-q"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert out.returncode != 0
    said = [re.split(r"  +", line.strip()) for line in out.stderr.splitlines()]
    for program, what, debian, fedora in rows:
        assert [what + (" (program)" if program else ""), debian, fedora] in said, (what, out.stderr)
    for system, at in (("Debian, Ubuntu:", 2), ("Fedora, RHEL:", 3)):
        install = next(line[1].split() for line in said if line[0] == system)
        assert sorted(install[2:]) == sorted({r[at] for r in rows}), install
    assert out.stderr.count("configure: error:") == 1
