"""./quickstart: it works from any directory and twice, and leaves neither processes nor data behind, not even when it is interrupted."""
import glob
import os
import signal
import subprocess
import time

import pytest

from harness import NOBODY, reachable_by_others

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
STAGE = os.environ.get("MEMKV_STAGE", "")

pytestmark = pytest.mark.skipif(STAGE != os.path.join(TOP, "build", "stage"), reason="quickstart builds and uses build/stage")


def staged_processes():
    """pids of everything that runs out of the staged tree"""
    found = set()
    for exe in glob.glob("/proc/[0-9]*/exe"):
        try:
            if os.readlink(exe).startswith(STAGE + "/"):
                found.add(int(exe.split("/")[2]))
        except OSError:
            continue
    return found


def leftovers():
    return glob.glob(os.path.join(TOP, "build", "quickstart.??????"))


def gone(before):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if not staged_processes() - before:
            return True
        time.sleep(0.1)
    return False


def test_replays_and_leaves_nothing(tmp_path):
    before = staged_processes()
    for _ in range(2):
        r = subprocess.run([os.path.join(TOP, "quickstart"), "--limit", "20"], cwd=tmp_path, capture_output=True, text=True,
                           timeout=280, check=False)
        assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-3000:]
        assert "/v1/metrics" in r.stdout and "/v1/health" in r.stdout
        assert gone(before)
        assert leftovers() == []


def test_interrupted_leaves_nothing(tmp_path):
    before = staged_processes()
    p = subprocess.Popen([os.path.join(TOP, "quickstart")], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         start_new_session=True)
    try:
        for line in p.stdout:
            if "serving on" in line:
                break
        else:
            pytest.fail("never served")
        time.sleep(0.5)
        os.killpg(p.pid, signal.SIGINT)         # as a terminal does
        p.communicate(timeout=60)
        assert p.returncode == 130
        assert gone(before)
        assert leftovers() == []
    finally:
        if p.poll() is None:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()


def test_wrong_usage_changes_nothing():
    r = subprocess.run([os.path.join(TOP, "quickstart"), "--nonsense"], capture_output=True, text=True, timeout=20, check=False)
    assert r.returncode == 2 and "usage" in r.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave files of root behind")
def test_server_log_of_another_user(tmp_path):
    """After a run with sudo the log is root's, in a directory that is not."""
    if not reachable_by_others(TOP):
        pytest.skip(f"{TOP} cannot be reached by another user")
    logs = tmp_path / "build"
    logs.mkdir()
    log = logs / "server.log"
    log.write_text("old\n")
    log.chmod(0o600)
    os.chown(logs, 65534, 65534)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent != parent.parent and str(parent) != "/tmp" and parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    script = f"""
        set -euo pipefail
        . "{TOP}/scripts/common.sh"
        mkv_server_start "{log}" --set server.data_dir="{logs}/data" --set network.address=127.0.0.1:0 --set storage.mode=memory
        mkv_server_stop
    """
    r = subprocess.run([*NOBODY, "bash", "-c", script], capture_output=True, text=True,
                       timeout=60, check=False, env={"PATH": os.environ["PATH"], "HOME": str(logs)})
    assert r.returncode == 0, r.stderr
    assert "event=ready" in log.read_text()
