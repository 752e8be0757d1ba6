"""One VCH for all clients; what they run on is `make test-clients`' to fetch (tools/clients.sh)."""

from tests.system.conftest import docker, host, logs_on_failure, pytest_runtest_makereport, registry, vch

__all__ = ["docker", "host", "logs_on_failure", "pytest_runtest_makereport", "registry", "vch"]
