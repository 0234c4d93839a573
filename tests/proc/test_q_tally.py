"""scripts/tally.py: what ./check counts. A runner that died must never look like success."""
import os
import subprocess
import sys

TALLY = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "tally.py")

CMOCKA = """[==========] Running 3 test(s).
[ RUN      ] one
[       OK ] one
[==========] 3 test(s) run.
[  PASSED  ] 2 test(s).
[  {0}  ] 1 test(s), listed below:
[  {0}  ] two

 1 {0} TEST(S)
"""


def tally(kind, path):
    out = subprocess.run([sys.executable, TALLY, kind, str(path)], capture_output=True, text=True, check=True, timeout=20).stdout
    lines = out.splitlines()
    return [int(n) for n in lines[0].split()], lines[1:]


def program(tmp_path, name, result, log):
    (tmp_path / f"{name}.trs").write_text(f":test-result: {result}\n:copy-in-global-log: no\n" if result else "")
    (tmp_path / f"{name}.log").write_text(log)


def test_single_tests_are_counted(tmp_path):
    program(tmp_path, "a_test", "PASS", CMOCKA.format("SKIPPED"))
    program(tmp_path, "b_test", "FAIL", CMOCKA.format("FAILED"))
    program(tmp_path, "c.sh", "PASS", "any words\n")
    program(tmp_path, "d.sh", "SKIP", "skipped: no program\n")
    counts, failures = tally("trs", tmp_path)
    assert counts == [5, 1, 2]
    assert failures == ["b_test: two"]


def test_a_program_that_died_is_a_failure(tmp_path):
    program(tmp_path, "cut_test", "FAIL", CMOCKA.format("SKIPPED").split("[==========] 3")[0])
    program(tmp_path, "after_test", "FAIL", CMOCKA.format("SKIPPED"))       # all good, then a sanitizer's exit status
    program(tmp_path, "empty_test", "", "")
    counts, failures = tally("trs", tmp_path)
    assert counts[1] == 3 and counts[0] == 0
    assert sorted(failures) == ["after_test", "cut_test", "empty_test"]


def test_junit(tmp_path):
    good = tmp_path / "good.xml"
    good.write_text('<testsuites><testsuite><testcase classname="m" name="a"/><testcase classname="m" name="b"><failure/></testcase>'
                    '<testcase classname="m" name="c"><skipped/></testcase><testcase classname="m" name="d"><error/></testcase>'
                    '</testsuite></testsuites>')
    assert tally("junit", good) == ([1, 2, 1], ["m::b", "m::d"])
    cut = tmp_path / "cut.xml"
    cut.write_text(good.read_text()[:60])
    assert tally("junit", cut)[0] == [0, 1, 0]
    assert tally("junit", tmp_path / "none.xml")[0] == [0, 1, 0]
