"""The tests' own way to wait for a child process."""

import sys

import pytest

from tests.children import Child


def python(code, tmp_path):
    return Child([sys.executable, "-u", "-c", code], tmp_path / "printed")


def test_what_a_child_prints_is_waited_for(tmp_path):
    child = python("import time; print('ready'); time.sleep(600)", tmp_path)
    child.wait_until(lambda: "ready" in child.printed(), 60)
    child.kill()
    assert child.wait() == -9


def test_a_child_that_ends_early_fails_the_test_with_its_output(tmp_path):
    child = python("import sys; sys.exit('error: no such release')", tmp_path)
    with pytest.raises(pytest.fail.Exception, match="exit code 1(.|\n)*error: no such release"):
        child.wait_until(lambda: "ready" in child.printed(), 60)


def test_a_child_that_never_does_it_is_killed_at_the_deadline(tmp_path):
    child = python("import time; print('busy'); time.sleep(600)", tmp_path)
    child.wait_until(lambda: "busy" in child.printed(), 60)
    with pytest.raises(pytest.fail.Exception, match="after 0.1 s(.|\n)*busy"):
        child.wait_until(lambda: "ready" in child.printed(), 0.1)
    assert child.returncode == -9


def test_done_in_its_last_moment_is_done(tmp_path):
    child = python("print('ready')", tmp_path)
    child.wait()
    child.wait_until(lambda: "ready" in child.printed(), 0)
