"""Completion for bash, against the installed programs: what a tab offers."""
import os
import shutil
import subprocess

import pytest

STAGE = os.environ.get("MEMKV_STAGE", "")
SCRIPT = os.path.join(os.path.dirname(__file__), "..", "..", "contrib", "completion", "memkv.bash")

# Given to bash: the words of a command line; the last one is being typed. Prints what is offered.
COMPLETE = '''
. "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
"_$1"
printf '%s\\n' "${COMPREPLY[@]}"
'''


@pytest.mark.parametrize("words,wanted,unwanted", [
    (["memkv", ""], {"start", "put", "get", "help"}, set()),
    (["memkv", "ge"], {"get"}, {"put"}),
    (["memkv", "get", "--r"], {"--range"}, {"--ttl"}),
    (["memkv", "get", "--transport", ""], {"auto", "tcp"}, set()),
    (["memkv", "help", ""], {"put", "errors"}, set()),
    (["memkv", "help", "er"], {"errors"}, {"put"}),
    (["memkv", "help", "put", ""], set(), {"put"}),
    (["memkv", "bench", ""], {"fill", "replay"}, set()),
    (["memkv", "bench", "replay", "--tr"], {"--trace", "--transport"}, {"--size"}),
    (["memkvctl", "s"], {"status", "stop", "shutdown"}, {"reload"}),
    (["memkvctl", "status", "--c"], {"--control"}, set()),
])
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash(words, wanted, unwanted):
    env = {**os.environ, "PATH": os.path.join(STAGE, "bin") + ":" + os.environ["PATH"]}
    r = subprocess.run(["bash", "-c", COMPLETE, "bash", SCRIPT, *words], env=env, capture_output=True, text=True, timeout=30, check=True)
    offered = set(r.stdout.split())
    assert wanted <= offered and not unwanted & offered, (words, offered, r.stderr)
