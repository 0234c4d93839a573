"""Completion for bash and zsh, against the installed programs: what a tab offers."""
import os
import shutil
import subprocess

import pytest

STAGE = os.environ.get("MEMKV_STAGE", "")
CONTRIB = os.path.join(os.path.dirname(__file__), "..", "..", "contrib", "completion")
SCRIPT = os.path.join(CONTRIB, "memkv.bash")
ENV = {**os.environ, "PATH": os.path.join(STAGE, "bin") + ":" + os.environ["PATH"]}

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
    (["memkv", "drive", ""], {"list", "check", "wipe"}, {"--data"}),
    (["memkv", "drive", "ch"], {"check"}, {"list"}),
    (["memkv", "drive", "check", "--d"], {"--data"}, {"--drives"}),
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
    r = subprocess.run(["bash", "-c", COMPLETE, "bash", SCRIPT, *words], env=ENV, capture_output=True, text=True, timeout=30, check=True)
    offered = set(r.stdout.split())
    assert wanted <= offered and not unwanted & offered, (words, offered, r.stderr)


# The function runs as zsh's completion would run it; what it hands to the completion system is printed instead. PREFIX is what is being typed.
ZSH = '''
_describe() { print -l -- "${(@P)2}" }
_files() { print -- "<files>" }
compadd() { print -l -- "$@" }
script=$1
shift
words=("$@") CURRENT=$# PREFIX=${@[-1]} service=$1
. "$script"
'''


@pytest.mark.parametrize("words,wanted,unwanted", [
    (["memkv", ""], {"start", "put", "touch", "admin", "help"}, set()),
    (["memkv", "get", "--r"], {"--range", "--output"}, {"--ttl"}),
    (["memkv", "put", "key", ""], {"<files>"}, {"--ttl"}),
    (["memkv", "drive", ""], {"list", "repair"}, {"<files>"}),
    (["memkv", "drive", "check", ""], {"<files>"}, {"repair"}),
    (["memkv", "help", ""], {"put", "bench"}, {"--json"}),
    (["memkv", "bench", ""], {"fill", "replay"}, {"--size"}),
    (["memkv", "bench", "replay", "--tr"], {"--trace"}, {"--size"}),
    (["memkvctl", "s"], {"status", "stop", "shutdown"}, {"put"}),
    (["memkvctl", "status", "--c"], {"--control", "--json"}, {"--servers"}),
    (["memkvctl", "stop", ""], {"all"}, {"--control"}),
], ids=lambda v: " ".join(v) if isinstance(v, list) else "")
@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh (Debian, Fedora: zsh)")
def test_zsh(words, wanted, unwanted):
    r = subprocess.run(["zsh", "-f", "-c", ZSH, "zsh", os.path.join(CONTRIB, "_memkv"), *words], env=ENV, capture_output=True, text=True,
                       timeout=30, check=True)
    offered = {line.split(":")[0] for line in r.stdout.splitlines()}
    assert wanted <= offered and not unwanted & offered, (words, offered, r.stderr)
    assert not r.stderr, r.stderr
