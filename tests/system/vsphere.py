"""The lab in the network namespace of the system tests, and what vic-machine must be told of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.process import LabProcess
from tests.system.harness import ROOT, Host

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
        host.run(sys.executable, "-m", "tests.system.vsphere", json.dumps(lab.ready), cwd=ROOT)
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


def open_firewalls(ready: dict[str, str]) -> None:
    """What an administrator does: let the hosts dial our serial ports."""
    from pyVim.connect import SmartConnect
    from pyVmomi import vim

    host, _, port = ready["url"].partition("//")[2].partition(":")
    instance = SmartConnect(
        host=host, port=int(port), user=ready["user"], pwd=ready["password"], disableSslCertValidation=True
    )
    content = instance.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True)
    for each in view.view:
        each.configManager.firewallSystem.EnableRuleset("remoteSerialPort")
    content.sessionManager.Logout()


if __name__ == "__main__":
    open_firewalls(json.loads(sys.argv[1]))
