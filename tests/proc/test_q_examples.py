"""The programs in examples/ build with nothing but the installed pkg-config file, and do what they say."""
import os
import shutil
import subprocess

import pytest

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
STAGE = os.environ.get("MEMKV_STAGE", "")


@pytest.mark.skipif(shutil.which("cc") is None or shutil.which("pkg-config") is None, reason="no compiler or pkg-config")
def test_hello(server_factory, tmp_path):
    lib = os.path.join(STAGE, "lib")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "memkv"], env={**os.environ, "PKG_CONFIG_PATH": os.path.join(lib, "pkgconfig")},
                           capture_output=True, text=True, check=True, timeout=20).stdout.split()
    program = tmp_path / "hello"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", os.path.join(TOP, "examples", "hello.c"), *flags, f"-Wl,-rpath,{lib}", "-o", program],
                   check=True, timeout=60)
    server = server_factory()
    r = subprocess.run([program], env={**os.environ, "MEMKV_SERVERS": server.addr}, capture_output=True, text=True, timeout=30, check=False)
    assert r.returncode == 0, r.stderr
    assert "a block of KV cache" in r.stdout and "a miss:" in r.stdout
