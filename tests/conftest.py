"""Property tests give the same answer every time: a run is judged by the code, not by luck or load.

To explore: ``pytest --hypothesis-profile=explore``.
"""

import pytest
from hypothesis import HealthCheck, settings

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
