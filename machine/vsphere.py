"""``--target vsphere:HOST[:PORT]``: what a VCH there has beside a local one.

This host plays the endpoint VM's part: it runs engine and port layer, and it has the
VCH's datastore mounted (an NFS datastore can be; in the lab it is a directory). The
password is copied into a file of its own, 0600, and read from there: it is in no
argument, no log and no configuration.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from machine.errors import UsageProblem
from vch import VchConfig, Vsphere

__all__ = ["SCHEME", "configure", "forget", "options", "place_files", "problems", "refuse_options"]

SCHEME = "vsphere:"
PORT = 443
_OPTIONS = (
    ("--user", "", "vSphere user that the VCH works as"),
    ("--password-file", "", "file with its password (else VIC_PASSWORD in the environment)"),
    ("--thumbprint", "", "of the server's certificate, SHA-256 or SHA-1"),
    ("--datacenter", "", "data centre, when there are several"),
    ("--compute-resource", "", "resource pool or vApp, by name or path"),
    ("--vm-folder", "", "folder of the container VMs"),
    ("--image-store", "", "datastore with images, container disks and VMs"),
    ("--datastore-mount", "", "directory of this host that is that datastore"),
    ("--bridge-network", "", "port group of all bridge networks"),
    ("--channel-host", "127.0.0.1", "address of this host that the hypervisor hosts can dial"),
)
_ONLY = ("local_ports", "user", "password_file", "thumbprint", "datacenter", "compute_resource", "vm_folder")
_NEEDED = ("user", "image_store", "datastore_mount")


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name, default, text in reversed(_OPTIONS):
        function = click.option(name, default=default, help=f"vsphere: {text}")(function)
    return click.option("--local-ports", is_flag=True, help="lab only: this host's taps are the ports")(
        function
    )


def refuse_options(given: dict[str, Any]) -> None:
    """
    Raises:
        UsageProblem: an option of vSphere was given for another target.
    """
    for name in (*_ONLY, "image_store", "datastore_mount", "bridge_network"):
        if given[name]:
            raise UsageProblem(f"--{name.replace('_', '-')} needs --target vsphere:HOST")


def configure(config: VchConfig, target: str, given: dict[str, Any]) -> VchConfig:
    """
    Raises:
        UsageProblem: something is missing.
    """
    host, _, port = target.removeprefix(SCHEME).strip("/").partition(":")
    if not host or not (port or str(PORT)).isdecimal():
        raise UsageProblem(f"--target {target}: expected vsphere:HOST[:PORT]")
    for name in _NEEDED:
        if not given[name]:
            raise UsageProblem(f"--target {target} needs --{name.replace('_', '-')}")
    mount = Path(given["datastore_mount"]).absolute()
    if not config.root.is_relative_to(mount):
        raise UsageProblem(f"--state-dir must lie on the datastore: below {mount}, not {config.root.parent}")
    return dataclasses.replace(
        config,
        hypervisor="vsphere",
        guest=dataclasses.replace(config.guest, profile="vsphere"),
        vsphere=Vsphere(
            host=host,
            port=int(port or PORT),
            thumbprint=given["thumbprint"].replace(":", "").lower(),
            credentials=_written_credentials(config.run, given),
            key=config.root / "vch.key",
            datastore=given["image_store"],
            mount=mount,
            channel_host=given["channel_host"],
            datacenter=given["datacenter"],
            pool=given["compute_resource"],
            folder=given["vm_folder"],
            bridge=given["bridge_network"],
            local_ports=given["local_ports"],
        ),
    )


def _written_credentials(run: Path, given: dict[str, Any]) -> Path:
    """Not on the datastore, where every host could read them."""
    if given["password_file"]:
        password = Path(given["password_file"]).read_text().rstrip("\n")
    else:
        password = os.environ.get("VIC_PASSWORD", "")
    if not password:
        raise UsageProblem("no password: give --password-file, or VIC_PASSWORD in the environment")
    path = Path("/etc/mooring") / f"{run.parent.name}-{run.name}.credentials"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _write_secret(path, json.dumps({"user": given["user"], "password": password}).encode())
    return path


def _write_secret(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".new-{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.rename(path)


def problems(config: VchConfig) -> list[str]:
    """What vSphere itself has against it."""
    from portlayer.hypervisor.vsphere.validate import validate  # brings 60 MB of types

    return asyncio.run(validate(config))


def forget(config: VchConfig) -> None:
    """Remove the password's copy."""
    assert config.vsphere is not None
    config.vsphere.credentials.unlink(missing_ok=True)


def place_files(config: VchConfig) -> VchConfig:
    """Key and bootstrap.iso where VMs and daemons will find them; the configuration that says so."""
    assert config.vsphere is not None
    assert config.guest.iso is not None
    _write_secret(config.vsphere.key, secrets.token_bytes(32))
    iso = config.root / "bootstrap.iso"
    shutil.copyfile(config.guest.iso, iso)
    return dataclasses.replace(config, guest=dataclasses.replace(config.guest, iso=iso))
