"""A pytest plugin for CI: a test that was skipped is a test that did not run, so the run fails and names it.

Loaded with ``-p strict_skips`` (``make test CI=true``). On a user's machine skips stay what they are: a part that
is optional there, such as the public data sets.
"""

from __future__ import annotations

import pytest

_skipped: dict[str, str] = {}


@pytest.hookimpl
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember a skip and its reason; an expected failure is reported as a skip too, and is none."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _skipped[report.nodeid] = str(reason).removeprefix("Skipped: ")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that would have passed."""
    worker = hasattr(session.config, "workerinput")
    if _skipped and not worker and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which."""
    if _skipped:
        terminalreporter.section("skipped, which CI does not allow")
        for node, reason in sorted(_skipped.items()):
            terminalreporter.line(f"{node}: {reason}")
