"""One VCH for all clients; what they run on is `make test-clients`' to fetch (tools/clients.sh)."""

from tests.system.conftest import (
    back_end,
    docker,
    host,
    logs_on_failure,
    pytest_runtest_makereport,
    registry,
    vch,
)

__all__ = ["back_end", "docker", "host", "logs_on_failure", "pytest_runtest_makereport", "registry", "vch"]
