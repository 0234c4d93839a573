#!/usr/bin/env python3
"""Count test results, whoever ran them: prints "PASSED FAILED SKIPPED" and, after that, one line per failure.

    tally.py trs DIR            automake's *.trs in DIR; a cmocka program counts by its single tests
    tally.py junit FILE         JUnit XML, as pytest writes it

A runner that died is a failure: a program without its summary, a file that is missing or cut.
"""
import glob
import os
import re
import sys
import xml.etree.ElementTree as ET

CMOCKA_END = re.compile(rb"^\[==========\] .*?(\d+) test\(s\) run\.", re.M)
CMOCKA_COUNT = re.compile(rb"^\[ *(PASSED|SKIPPED) *\] (?:[^:\n]*: )?(\d+) test\(s\)", re.M)
CMOCKA_FAILED = re.compile(rb"^ *(\d+) FAILED TEST\(S\)", re.M)        # counts failed set-ups too, the list above it does not
CMOCKA_NAME = re.compile(rb"^\[ *(?:FAILED|ERROR) *\] (?!---|.*test\(s\))(.+)$", re.M)


def cmocka(log):
    """[passed, failed, skipped] of all groups in one program's output, or None if it is not a whole cmocka run."""
    ends = CMOCKA_END.findall(log)
    starts = len(re.findall(rb"^\[==========\] .*?Running \d+ test\(s\)", log, re.M))
    if not ends or len(ends) != starts:
        return None
    count = {b"PASSED": 0, b"SKIPPED": 0}
    for what, n in CMOCKA_COUNT.findall(log):
        count[what] += int(n)
    return [count[b"PASSED"], sum(int(n) for n in CMOCKA_FAILED.findall(log)), count[b"SKIPPED"]]


def trs(directory):
    total, failures = [0, 0, 0], []
    for path in sorted(glob.glob(os.path.join(directory, "*.trs"))):
        name = os.path.basename(path)[:-4]
        with open(path, encoding="utf-8") as f:
            found = re.search(r"^:test-result: (\S+)", f.read(), re.M)
        result = found.group(1) if found else "ERROR"
        try:
            with open(path[:-4] + ".log", "rb") as f:
                log = f.read()
        except OSError:
            log = b""
        counted = cmocka(log)
        if result in ("PASS", "XFAIL"):
            one = counted if counted and counted[1] == 0 else [1, 0, 0]
        elif result == "SKIP":
            one = [0, 0, max(1, counted[2] if counted else 1)]
        else:
            one = counted if counted and counted[1] else [0, 1, 0]
            names = {n.decode(errors="replace").strip() for n in CMOCKA_NAME.findall(log)}
            failures.append(name + (": " + ", ".join(sorted(names)) if names else ""))
        total = [a + b for a, b in zip(total, one)]
    return total, failures


def junit(path):
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as e:
        return [0, 1, 0], [f"no result file: {e}"]
    total, failures = [0, 0, 0], []
    for case in root.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            total[1] += 1
            failures.append(f'{case.get("classname")}::{case.get("name")}')
        elif case.find("skipped") is not None:
            total[2] += 1
        else:
            total[0] += 1
    return total, failures


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("trs", "junit"):
        sys.exit(__doc__)
    total, failures = (trs if sys.argv[1] == "trs" else junit)(sys.argv[2])
    print(*total)
    print(*failures, sep="\n", end="\n" if failures else "")


if __name__ == "__main__":
    main()
