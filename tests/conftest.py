"""Property tests give the same answer every time: a run is judged by the code, not by luck or load.

To explore: ``pytest --hypothesis-profile=explore``.

``--evidence FILE`` notes in FILE which test has shown which endpoint and option of the API
(:mod:`tests.definition.evidence`): ``make evidence``. Only tests that passed count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.definition.evidence import COLLECTED, Evidence

settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None)
settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--hypervisor",
        default="qemu-fast,qemu-vsphere",
        help="back ends, by comma: qemu-fast, qemu-vsphere, vsphere (in the lab); tests/system: vsphere or not",
    )
    parser.addoption("--evidence", metavar="FILE", help="note which test has shown what of the API")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--evidence"):
        config.pluginmanager.register(_Recorder(config), "api-evidence")


class _Recorder:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._all = Evidence()
        self._passed: set[str] = set()
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = report.nodeid.partition("[")[0]
        if report.failed:
            self._failed.add(test)
        elif report.when == "call" and report.passed:
            self._passed.add(test)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._all.merge(getattr(node, "workeroutput", {}).get("evidence", {}), self._good())

    def pytest_sessionfinish(self) -> None:
        worker = getattr(self._config, "workeroutput", None)
        if worker is not None:
            worker["evidence"] = COLLECTED.as_json()
            return
        self._all.merge(COLLECTED.as_json(), self._good())
        self._all.write(Path(self._config.getoption("--evidence")))

    def _good(self) -> set[str]:
        return self._passed - self._failed
