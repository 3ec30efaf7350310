"""A job that ends its process, or never comes back, is named, and the rest is done."""

from __future__ import annotations

from tests.runtime.check import odd_jobs
from upfrost.check.jobs import MOST_DEATHS, OPENING, Request, Results, run_jobs


def run(which: str, silence: float = 60.0) -> Results:
    return run_jobs(Request(odd_jobs.__name__, which), silence=silence)


def test_errors_are_one_line_and_a_lost_device_is_opened_again() -> None:
    results = run("some")
    assert list(results) == ["first", "wrong", "lost", "second"]
    assert results["wrong"].failure == "ValueError: this is wrong"
    assert results["lost"].failure == "the device was lost"
    first, second = results["first"].facts, results["second"].facts
    assert first is not None
    assert second is not None
    assert first["process"] != second["process"]
    assert results["lost"].about == {"of": "lost"}


def test_a_crash_and_a_hang_cost_one_job_each() -> None:
    # For the imports of a child on a busy machine, too: a hang takes that long.
    results = run("worst", silence=15.0)
    assert results["crash"].failure == "the driver ended the process (SIGILL)"
    assert results["hang"].failure == "it gave no answer for 15 s and was stopped"
    assert results["last"].facts is not None
    assert results["crash"].about == {"of": "crash"}


def test_crashes_come_to_an_end() -> None:
    results = run("crashes")
    assert len(results) == 8
    tried = [each for each in results.values() if "SIGILL" in each.failure]
    assert len(tried) == MOST_DEATHS
    assert results["h"].failure.startswith("not tried")


def test_a_module_that_is_not_there_is_named() -> None:
    (result,) = run("none").values()
    assert run("none").keys() == {OPENING}
    assert result.module == "kp"
    assert "no module named kp" in result.failure
