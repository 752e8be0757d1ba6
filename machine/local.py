"""Local VCHs: made, started, stopped and removed on this host (``--target qemu:``).

Create is all or nothing: the configuration file is the durable point and is
written when everything else is in place; a create that is killed before leaves
a directory without it, which the next create of that name reports and delete removes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import http.client
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import service
from machine.certificates import generate_certificates
from machine.errors import MachineError, NoSuchVch, ValidationFailed, VchBusy, VchExists
from machine.places import Places
from machine.supervisor import is_running
from machine.validate import validate
from vch import TlsMode, VchConfig

__all__ = [
    "client_environment",
    "create",
    "delete",
    "delete_leftover",
    "docker_get",
    "find",
    "is_leftover",
    "start",
    "stop",
]

READY_SECONDS = 120.0  # recovery of many VMs under emulation takes its time
PURGE_SECONDS = 300.0


def create(config: VchConfig, places: Places, *, names: list[str], organization: str) -> None:
    """Make ``config`` a running VCH.

    Raises:
        VchExists: the name is taken; nothing changed.
        ValidationFailed: the problems, all of them; nothing changed.
        MachineError: the host refused something (a full disk, say); nothing is left.
    """
    if places.exists(config.name):
        raise VchExists(config.name)
    problems = validate(config, places.all())
    if problems:
        raise ValidationFailed(problems)
    _ensure_accounts(config)
    try:
        config.paths.guest.mkdir(mode=0o711, parents=True)
    except FileExistsError:  # somebody else is just creating it
        raise VchExists(config.name) from None
    try:
        config = _furnish(config, names=names, organization=organization)
        config.save(places.config_file(config.name))
    except BaseException as error:
        shutil.rmtree(config.root, ignore_errors=True)
        if isinstance(error, OSError):
            raise MachineError(f"cannot create {config.name}: {error}") from error
        raise
    start(config, places)


def _furnish(config: VchConfig, *, names: list[str], organization: str) -> VchConfig:
    """Everything a VCH needs on disk before its configuration; the configuration to save."""
    paths = config.paths
    for directory in (paths.vms, paths.containers, paths.layers, paths.volumes, paths.networks, paths.kv):
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    paths.log.mkdir(exist_ok=True)
    config.root.chmod(0o711)
    for store in config.volume_stores.values():
        store.mkdir(mode=0o711, parents=True, exist_ok=True)
    if config.tls.mode is not TlsMode.NONE and config.tls.cert == paths.tls / "server-cert.pem":
        generate_certificates(paths.tls, names=names, organization=organization)
    if config.tls.port:
        lines = "".join(f"export {key}={value}\n" for key, value in client_environment(config).items())
        (config.root / f"{config.name}.env").write_text(lines)
    return _with_own_guest(config)


def start(config: VchConfig, places: Places) -> None:
    """Start the daemons and wait until the Docker API answers; no error when they run already.

    Raises:
        MachineError: they did not come up; the message ends with their own words.
    """
    config.run.mkdir(mode=0o711, parents=True, exist_ok=True)
    if not is_running(config):
        with (config.paths.log / "supervisor.log").open("ab") as log:
            subprocess.Popen(  # outlives us
                [
                    sys.executable,
                    "-m",
                    "machine.supervisor",
                    "--config",
                    str(places.config_file(config.name)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
                start_new_session=True,
            )
    deadline = time.monotonic() + READY_SECONDS
    while docker_get(config, "/_ping") is None:
        if time.monotonic() > deadline:
            raise MachineError(
                f"VCH {config.name!r} does not answer after {READY_SECONDS:.0f} s.\n{_last_words(config)}"
            )
        time.sleep(0.05)


def stop(config: VchConfig) -> None:
    """Stop the daemons; container VMs keep running."""
    process = is_running(config)
    if not process:
        return
    descriptor = os.pidfd_open(process)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        _wait_for_exit(descriptor, 60.0, f"the supervisor of {config.name!r} (process {process})")
    finally:
        os.close(descriptor)


def delete(config: VchConfig, places: Places, *, force: bool, keep_volumes: bool) -> None:
    """Remove a VCH with all its containers, images, networks and (unless kept) volumes.

    Killed half-way, a second delete finishes: the configuration file goes last.

    Raises:
        VchBusy: containers are running and ``force`` is not given; nothing changed.
    """
    start(config, places)
    running = [item["Names"][0] for item in docker_get(config, "/containers/json") or []]
    if running and not force:
        names = ", ".join(name.lstrip("/") for name in running)
        raise VchBusy(f"containers are running in {config.name!r}: {names}; stop them or use --force")
    stop(config)
    purge = subprocess.run(
        [*_module("portlayer"), "--config", str(places.config_file(config.name)), "--purge"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        capture_output=True,
        text=True,
        timeout=PURGE_SECONDS,
        check=False,
    )
    if purge.returncode != 0:
        raise MachineError(f"the port layer could not remove everything:\n{purge.stderr[-3000:]}")
    service.remove(config.name)
    shutil.rmtree(config.run, ignore_errors=True)
    if not keep_volumes:
        for store in config.volume_stores.values():
            shutil.rmtree(store, ignore_errors=True)
    for entry in config.root.iterdir():
        if entry.name == "vch.json" or (keep_volumes and entry == config.paths.volumes):
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    places.config_file(config.name).unlink()
    for directory in (config.root, places.state, places.run):  # the latter two with the last VCH
        with contextlib.suppress(OSError):
            directory.rmdir()


def client_environment(config: VchConfig) -> dict[str, str]:
    """What a docker client needs in its environment to reach this VCH."""
    if not config.tls.port:
        return {"DOCKER_HOST": f"unix://{config.paths.docker_socket}"}
    environment = {"DOCKER_HOST": f"tcp://{config.tls.host}:{config.tls.port}"}
    if config.tls.mode is not TlsMode.NONE:
        environment["DOCKER_TLS_VERIFY"] = "1"
        environment["DOCKER_CERT_PATH"] = str(config.paths.tls)
    return environment


def docker_get(config: VchConfig, path: str) -> Any:
    """GET from the VCH's Docker API: decoded JSON, text, or None when nobody answers."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    with contextlib.closing(connection):
        try:
            connection.sock.connect(str(config.paths.docker_socket))
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return None
    if response.status != http.client.OK:
        return None
    if response.headers.get_content_type() == "application/json":
        return json.loads(body)
    return body.decode()


def find(places: Places, name: str) -> VchConfig:
    """
    Raises:
        NoSuchVch: naming the leftovers when a create was cut short.
    """
    try:
        return places.load(name)
    except NoSuchVch:
        if is_leftover(places, name):
            raise MachineError(
                f"{places.root(name)} is left over from a create that did not finish;"
                f" `vic-machine delete {name}` removes it"
            ) from None
        raise


def is_leftover(places: Places, name: str) -> bool:
    """Whether a create of ``name`` was killed before there was a VCH. Nothing of it runs then."""
    return places.root(name).exists() and not places.exists(name)


def delete_leftover(places: Places, name: str) -> None:
    shutil.rmtree(places.root(name))


def _with_own_guest(config: VchConfig) -> VchConfig:
    """Copy the guest into the VCH: another build changes no VCH, and QEMU's user can always reach it."""
    copies: dict[str, Any] = {}
    for kind in ("kernel", "initrd", "iso"):
        source: Path | None = getattr(config.guest, kind)
        if source is not None and source.exists():  # only profile vsphere needs the ISO
            copies[kind] = config.paths.guest / source.name
            shutil.copyfile(source, copies[kind])
            copies[kind].chmod(0o644)
    return dataclasses.replace(config, guest=dataclasses.replace(config.guest, **copies))


def _ensure_accounts(config: VchConfig) -> None:
    try:
        pwd.getpwnam(config.qemu_user)
    except KeyError:
        _run(
            [
                *("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent"),
                *("--shell", "/usr/sbin/nologin", config.qemu_user),
            ]
        )
    try:
        grp.getgrnam(config.docker_group)
    except KeyError:
        _run(["groupadd", "--system", config.docker_group])


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise MachineError(f"{' '.join(command)} failed: {result.stderr.strip()}")


def _wait_for_exit(descriptor: int, seconds: float, who: str) -> None:
    if not select.select([descriptor], [], [], seconds)[0]:
        raise MachineError(f"{who} did not end within {seconds:.0f} s")


def _last_words(config: VchConfig) -> str:
    words = []
    for name in ("supervisor", "portlayer", "engine"):
        path = config.paths.log / f"{name}.log"
        if path.exists():
            words.append(f"--- {path}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:]))
    return "\n".join(words)
