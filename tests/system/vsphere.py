"""The lab in the network namespace of the system tests, and what vic-machine must be told of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.process import LabProcess
from tests.system.harness import Host

__all__ = ["lab_in", "vch_options"]

_THUMBPRINT = """
import hashlib, ssl, sys
pem = ssl.get_server_certificate(("127.0.0.1", int(sys.argv[1])))
print(hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest())
"""


@contextmanager
def lab_in(host: Host) -> Iterator[LabProcess]:
    lab = LabProcess(host.directory / "lab", prefix=host.wrap([]))
    try:
        host.state = lab.datastore / "state"
        yield lab
    finally:
        lab.close()


def vch_options(host: Host, lab: LabProcess) -> list[str]:
    password = host.directory / "password"
    password.touch(mode=0o600)
    password.write_text(lab.ready["password"])
    thumbprint = host.run(sys.executable, "-c", _THUMBPRINT, str(lab.port)).stdout.strip()
    return [
        *("--target", f"vsphere:127.0.0.1:{lab.port}"),
        *("--user", lab.ready["user"], "--password-file", str(password)),
        *("--thumbprint", thumbprint),
        *("--compute-resource", "DC0_C0/Resources"),
        *("--image-store", "LocalDS_0", "--datastore-mount", str(lab.datastore)),
        *("--bridge-network", "DC0_DVPG0", "--local-ports"),
    ]
