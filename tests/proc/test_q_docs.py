"""q: what the pages tell somebody to type is there: commands, options, configuration keys, paths of the admin port, metrics, events."""
import os
import re
import subprocess

import pytest

from harness import MEMKV, MEMKVCTL, STAGE

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGES = ["README.md", "SECURITY.md", "docs/benchmarks.md",
         *sorted(os.path.join("docs/operate", n) for n in os.listdir(os.path.join(TOP, "docs/operate")))]
WORD = r"""(?:'[^']*'|"[^"]*"|[^\s'"|&;<>()`#])+"""


def text_of(page):
    with open(os.path.join(TOP, page)) as f:
        return f.read()


def said(*words):
    r = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert r.returncode == 0, (words, r.stderr)
    return r.stdout


def first_words(text):
    return {line.split("\t")[0] for line in text.splitlines()}


def typed(page):
    """(line, words) of everything that begins like a command of ours, in code."""
    for number, line in enumerate(text_of(page).splitlines(), 1):
        pieces = re.findall(r"`([^`]*)`", line) if not line.startswith("    ") else [line]
        for piece in pieces:
            for m in re.finditer(rf"(?:^|[\s(/])(memkv|memkvctl)((?:\s+{WORD})+)", piece):
                yield number, [m[1], *re.findall(WORD, m[2])]


def options_of(program, words, cache={}):
    asked = [program, "help", "--options"]
    if program == MEMKV:
        asked += words[1:2] if words[1] != "bench" else ["bench", *[w for w in words[2:3] if not w.startswith("-")]]
    key = tuple(asked)
    if key not in cache:
        cache[key] = first_words(said(*asked))
    return cache[key]


def test_commands_and_options_are_there():
    known = {MEMKV: first_words(said(MEMKV, "help", "--commands")), MEMKVCTL: first_words(said(MEMKVCTL, "help", "--commands"))}
    wrong, seen = [], 0
    for page in PAGES:
        for number, words in typed(page):
            program = MEMKV if words[0] == "memkv" else MEMKVCTL
            command = re.split(r"[|\\]", words[1])[0]
            if not re.fullmatch(r"[a-z]+", command) or words[2:3] == ["..."] or (words[:2] == ["memkv", "doc"] and page == "README.md"):
                continue                    # no command line; the README says that there is no `memkv doc`
            seen += 1
            if command not in known[program]:
                wrong.append(f"{page}:{number}: {words[0]} has no command {command}")
                continue
            if program == MEMKV and command in ("start", "config"):
                continue                    # options of the server, see below
            given = [w.split("=")[0] for w in words if w.startswith("--") and len(w) > 2]
            wrong += [f"{page}:{number}: {' '.join(words[:3])} has no option {o}" for o in given if o not in options_of(program, [words[0], command, *words[2:]])]
    assert seen > 100 and not wrong, (seen, wrong)


def test_options_of_the_server_are_there():
    help_ = said(MEMKV, "start", "--help") + said(MEMKV, "help", "config")
    wrong = [f"{page}:{number}: {w}" for page in PAGES for number, words in typed(page) if words[1] in ("start", "config")
             for w in words if w.startswith("--") and w.split("=")[0] not in help_]
    assert not wrong, wrong


def test_configuration_keys_are_there():
    keys = set(re.findall(r"^\| `([a-z_.]+)` \|", said(MEMKV, "start", "--show-markdown"), re.M))
    groups = {k.split(".")[0] for k in keys} | {k.rsplit(".", 1)[0] for k in keys}
    wrong = []
    for page in PAGES:
        for number, line in enumerate(text_of(page).splitlines(), 1):
            for word in re.findall(r"`([a-z]+\.[a-z_]+(?:\.[a-z_]+)?)`", line):
                if word.split(".")[0] in groups and word not in keys | groups and not re.search(r"\.(md|c|py|lock|state|sock|service|def|yaml)$", word):
                    wrong.append(f"{page}:{number}: {word}")
    # Findings of memkv doctor are named the same way.
    with open(os.path.join(TOP, "clients/cli/doctor.def")) as f:
        findings = set(re.findall(r'DOCTOR_FINDING\(\w+, "([a-z.-]+)"', f.read()))
    assert keys and not [w for w in wrong if w.split(": ")[1] not in findings], wrong


def test_paths_of_the_admin_port_are_there():
    with open(os.path.join(TOP, "supervisor/admin/routes.c")) as f:
        routes = set(re.findall(r'\{ "(/v1/\w+)", route_', f.read()))
    wrong = [f"{page}: {path}" for page in PAGES for path in re.findall(r":9901(/[\w/]*)", text_of(page)) if path not in routes]
    assert routes and not wrong, wrong


def names_in(path, pattern):
    with open(os.path.join(TOP, path)) as f:
        return set(re.findall(pattern, f.read(), re.M))


def test_metrics_and_events_are_there():
    rows = {re.sub("_milliseconds$", "_seconds", n) for n in names_in("common/tbl/metrics.def", r"^MKV_METRIC\((\w+),")}
    client = names_in("clients/lib/client_metrics.def", r"^CLIENT_(?:COUNTER|GAUGE)\((\w+),") | {"stage_seconds"}
    made = names_in("supervisor/admin/metrics.c", r"\bmemkv_(\w+)") | names_in("clients/lib/metrics.c", r"\bmemkv_(\w+)")
    known = rows | {"client_" + n for n in client} | made
    events = {e.lower() for e in names_in("common/tbl/events.def", r"^MKV_EVENT\((\w+),")} | {"output", "log_dropped"}    # the last two: supervisor/logs.c
    wrong = []
    for page in PAGES:
        text = text_of(page)
        for name in re.findall(r"\bmemkv_((?:front|drive|supervisor|client|storage|process|worker)_[a-z_]+)\b(?!\()", text):
            base = re.sub("_(bucket|sum|count)$", "", name)
            if not any(n == name or n == base or (name.endswith("_") and n.startswith(name)) for n in known):
                wrong.append(f"{page}: memkv_{name}")
        wrong += [f"{page}: event={e}" for e in re.findall(r"event=(\w+)", text) if e not in events]
    assert rows and client and events and not wrong, wrong
