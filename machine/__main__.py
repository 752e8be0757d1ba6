"""vic-machine: creates virtual container hosts and looks after them.

Exit codes: 0 done · 1 failed · 2 wrong command line · 3 no such VCH ·
4 VCH exists · 5 validation found problems · 6 containers are running.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import click

from machine import local
from machine import service as boot
from machine.diagnostics import write_bundle
from machine.errors import MachineError, UsageProblem
from machine.places import Places
from machine.supervisor import is_running
from machine.validate import free_bridge_range, free_port
from vch import Defaults, Guest, Registry, Tls, TlsMode, VchConfig, VchConfigError

Command = Callable[..., Any]
FIRST_TLS_PORT, FIRST_PLAIN_PORT = 2376, 2375


def common(function: Command) -> Command:
    """The options every command has."""
    for option in (
        click.option("--target", default="qemu:", show_default=True, help="qemu: is this host"),
        click.option("--state-dir", type=click.Path(path_type=Path), default=Path("/var/lib/mooring")),
        click.option("--run-dir", type=click.Path(path_type=Path), default=Path("/run/mooring")),
        click.option("--json", "as_json", is_flag=True, help="machine-readable output"),
    ):
        function = option(function)
    return function


@click.group(help=__doc__)
def cli() -> None: ...


@cli.command(help="Create a VCH and start it.")
@common
@click.option("--name", required=True)
@click.option(
    "--guest",
    type=click.Path(path_type=Path),
    required=True,
    help="directory with kernel, initrd, bootstrap.iso",
)
@click.option("--profile", type=click.Choice(["fast", "vsphere"]), default="fast", help="virtual hardware")
@click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True)
@click.option("--bridge-network-range", default="", help="subnets of bridge networks; default: a free /16")
@click.option("--bridge-network-width", type=int, default=24, show_default=True)
@click.option("--dns-server", multiple=True, help="upstream DNS server; default: the host's")
@click.option(
    "--share-path", multiple=True, help="PATH that clients may mount into containers (docker run -v)"
)
@click.option("--host-access", is_flag=True, help="containers may use the host's services (host-gateway)")
@click.option("--volume-store", multiple=True, help="PATH:LABEL; label `default` serves anonymous volumes")
@click.option("--memory", type=int, default=0, help="limit in MiB over all running container VMs")
@click.option("--cpu", type=int, default=0, help="limit of virtual CPUs over all running container VMs")
@click.option("--containers", type=int, default=0, help="limit on the number of containers")
@click.option("--container-memory", type=int, default=1024, show_default=True, help="MiB, unless docker says")
@click.option("--container-cpus", type=int, default=1, show_default=True)
@click.option("--tcp-host", default="127.0.0.1", show_default=True)
@click.option("--tcp-port", default="auto", help="port of the TCP listener, auto, or none")
@click.option("--no-tls", is_flag=True, help="plain text and no client check on TCP: anybody is root")
@click.option("--no-tlsverify", is_flag=True, help="encrypt, but let every client in")
@click.option("--tls-cname", multiple=True, help="name or address in the server certificate")
@click.option("--tls-ca", type=click.Path(path_type=Path, exists=True))
@click.option("--tls-server-cert", type=click.Path(path_type=Path, exists=True))
@click.option("--tls-server-key", type=click.Path(path_type=Path, exists=True))
@click.option("--organization", default="Mooring", show_default=True)
@click.option("--insecure-registry", multiple=True, help="HOST:PORT or CIDR reached without TLS")
@click.option("--registry-mirror", multiple=True, help="URL asked first for short image names")
@click.option("--whitelist-registry", multiple=True, help="only these registries may be pulled from")
@click.option("--docker-group", default="docker", show_default=True, help="may use the unix socket")
def create(target: str, state_dir: Path, run_dir: Path, as_json: bool, name: str, **options: Any) -> None:
    places = _places(target, state_dir, run_dir)
    config = _config(places, name, options)
    names = [*options["tls_cname"], config.tls.host, "localhost"]
    if config.tls.port and config.tls.mode is TlsMode.NONE:
        _shout(f"tcp://{config.tls.host}:{config.tls.port} has no TLS: whoever reaches it is root here.")
    local.create(config, places, names=list(dict.fromkeys(names)), organization=options["organization"])
    _show(config, as_json)


@cli.command(help="Start a VCH's daemons (after a reboot of the host); container VMs are found again.")
@common
@click.argument("name")
def start(target: str, state_dir: Path, run_dir: Path, as_json: bool, name: str) -> None:
    places = _places(target, state_dir, run_dir)
    config = local.find(places, name)
    local.start(config, places)
    _show(config, as_json)


@cli.command(help="Stop a VCH's daemons; its container VMs keep running.")
@common
@click.argument("name")
def stop(target: str, state_dir: Path, run_dir: Path, as_json: bool, name: str) -> None:
    config = local.find(_places(target, state_dir, run_dir), name)
    local.stop(config)
    _say({"name": name, "running": False}, as_json, f"{name} stopped")


@cli.command(help="Start a VCH at every boot of this host, by a systemd unit; --remove ends that.")
@common
@click.argument("name")
@click.option("--remove", is_flag=True, help="do not start it at boot any more")
def service(target: str, state_dir: Path, run_dir: Path, as_json: bool, name: str, remove: bool) -> None:
    places = _places(target, state_dir, run_dir)
    config = local.find(places, name)
    unit = boot.unit_name(name)
    if remove:
        boot.remove(name)
        _say({"name": name, "unit": None}, as_json, f"{name} is not started at boot")
        return
    boot.install(config, places)
    _say({"name": name, "unit": unit}, as_json, f"{name} is started at boot by {unit}")


@cli.command(help="List all VCHs of the target.")
@common
def ls(target: str, state_dir: Path, run_dir: Path, as_json: bool) -> None:
    rows = [_summary(config) for config in _places(target, state_dir, run_dir).all()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(f"{'NAME':<32}{'ID':<14}{'STATE':<10}{'BRIDGE RANGE':<20}DOCKER_HOST")
    for row in rows:
        line = f"{row['name']:<32}{row['id'][:12]:<14}{row['state']:<10}{row['bridge_range']:<20}"
        click.echo(line + row["environment"]["DOCKER_HOST"])


@cli.command(help="Show one VCH: where it is, how to reach it, what runs in it.")
@common
@click.argument("name")
def inspect(target: str, state_dir: Path, run_dir: Path, as_json: bool, name: str) -> None:
    _show(local.find(_places(target, state_dir, run_dir), name), as_json)


@cli.command(help="Remove a VCH with its containers, images, networks and volumes.")
@common
@click.argument("name")
@click.option("--force", is_flag=True, help="power off running containers")
@click.option("--keep-volumes", is_flag=True, help="leave the volume stores in place")
def delete(
    target: str, state_dir: Path, run_dir: Path, as_json: bool, name: str, force: bool, keep_volumes: bool
) -> None:
    places = _places(target, state_dir, run_dir)
    if local.is_leftover(places, name):
        local.delete_leftover(places, name)
    else:
        local.delete(local.find(places, name), places, force=force, keep_volumes=keep_volumes)
    _say({"name": name, "deleted": True}, as_json, f"{name} deleted")


@cli.command(help="Collect logs, consoles and state of a VCH into one archive.")
@common
@click.argument("name")
@click.option("--output", type=click.Path(path_type=Path), help="default: mooring-NAME-debug.tar.gz")
def debug(target: str, state_dir: Path, run_dir: Path, as_json: bool, name: str, output: Path | None) -> None:
    config = local.find(_places(target, state_dir, run_dir), name)
    path = output or Path(f"mooring-{name}-debug.tar.gz")
    write_bundle(config, path)
    _say({"name": name, "bundle": str(path)}, as_json, f"written to {path}")


@cli.command(help="Show the version of this program.")
@common
def version(target: str, state_dir: Path, run_dir: Path, as_json: bool) -> None:
    _places(target, state_dir, run_dir)
    number = package_version("mooring")
    _say({"version": number}, as_json, f"vic-machine (mooring) {number}")


def _places(target: str, state_dir: Path, run_dir: Path) -> Places:
    if target.rstrip("/") not in ("qemu", "qemu:"):
        raise UsageProblem(f"--target {target}: this build deploys to qemu: only (this host)")
    return Places(state=state_dir.absolute(), run=run_dir.absolute())


def _config(places: Places, name: str, options: dict[str, Any]) -> VchConfig:
    others = places.all()
    guest = options["guest"].absolute()
    root = places.root(name)
    return VchConfig(
        name=name,
        id=secrets.token_hex(16),
        root=root,
        run=places.run / name,
        guest=Guest(
            kernel=guest / "kernel",
            initrd=guest / "initrd",
            iso=guest / "bootstrap.iso",
            profile=options["profile"],
            accel=options["accel"],
        ),
        bridge_range=options["bridge_network_range"] or free_bridge_range(others, _host_routes()),
        bridge_width=options["bridge_network_width"],
        dns=tuple(_addresses("--dns-server", options["dns_server"])),
        host_access=options["host_access"],
        shared_paths=tuple(Path(word) for word in options["share_path"]),
        volume_stores=_volume_stores(options["volume_store"]) or {"default": root / "volumes" / "default"},
        docker_group=options["docker_group"],
        tls=_tls(options, root, others),
        defaults=Defaults(memory_mib=options["container_memory"], cpus=options["container_cpus"]),
        registry=Registry(
            insecure=tuple(options["insecure_registry"]),
            mirrors=tuple(options["registry_mirror"]),
            allowed=tuple(options["whitelist_registry"]),
        ),
        max_containers=options["containers"],
        max_memory_mib=options["memory"],
        max_cpus=options["cpu"],
    )


def _tls(options: dict[str, Any], root: Path, others: list[VchConfig]) -> Tls:
    given = [options["tls_ca"], options["tls_server_cert"], options["tls_server_key"]]
    if options["no_tls"] and (options["no_tlsverify"] or any(given)):
        raise UsageProblem("--no-tls excludes --no-tlsverify and certificates")
    if any(given) and not (given[1] and given[2]):
        raise UsageProblem("--tls-server-cert and --tls-server-key go together")
    if given[1] and not given[0] and not options["no_tlsverify"]:
        raise UsageProblem("clients are checked against --tls-ca: give it, or --no-tlsverify")
    mode = (
        TlsMode.NONE if options["no_tls"] else TlsMode.SERVER if options["no_tlsverify"] else TlsMode.MUTUAL
    )
    host, wanted = options["tcp_host"], options["tcp_port"]
    if wanted == "none":
        return Tls(mode=TlsMode.NONE, host=host)
    if wanted == "auto":
        first = FIRST_PLAIN_PORT if mode is TlsMode.NONE else FIRST_TLS_PORT
        port = free_port(host, first, [other.tls.port for other in others])
    elif wanted.isdecimal() and 0 < int(wanted) < 65536:
        port = int(wanted)
    else:
        raise UsageProblem(f"--tcp-port {wanted}: a port number, auto or none")
    if mode is TlsMode.NONE:
        return Tls(mode=mode, host=host, port=port)
    if given[1]:
        ca, cert, key = (path.absolute() if path else None for path in given)
        return Tls(mode=mode, host=host, port=port, ca=ca, cert=cert, key=key)
    tls = root / "tls"
    return Tls(
        mode=mode,
        host=host,
        port=port,
        ca=tls / "ca.pem",
        cert=tls / "server-cert.pem",
        key=tls / "server-key.pem",
    )


def _volume_stores(words: tuple[str, ...]) -> dict[str, Path]:
    stores: dict[str, Path] = {}
    for word in words:
        path, _, label = word.rpartition(":")
        if not path or not label:
            raise UsageProblem(f"--volume-store {word}: expected PATH:LABEL")
        if label in stores:
            raise UsageProblem(f"--volume-store {word}: label {label!r} is given twice")
        stores[label] = Path(path)
    return stores


def _addresses(option: str, words: tuple[str, ...]) -> list[str]:
    try:
        return [str(ipaddress.ip_address(word)) for word in words]
    except ValueError as error:
        raise UsageProblem(f"{option}: {error}") from None


def _host_routes() -> list[str]:
    found = subprocess.run(
        ["ip", "-json", "-4", "route", "show"], capture_output=True, text=True, check=False
    ).stdout
    return [route["dst"] for route in json.loads(found or "[]") if route["dst"] != "default"]


def _summary(config: VchConfig) -> dict[str, Any]:
    info = local.docker_get(config, "/info")
    return {
        "name": config.name,
        "id": config.id,
        "state": "running" if info else "starting" if is_running(config) else "stopped",
        "root": str(config.root),
        "docker_socket": str(config.paths.docker_socket),
        "environment": local.client_environment(config),
        "bridge_range": config.bridge_range,
        "profile": config.guest.profile,
        "tls": config.tls.mode.value,
        "limits": {
            "containers": config.max_containers,
            "memory_mib": config.max_memory_mib,
            "cpus": config.max_cpus,
        },
        "volume_stores": {label: str(path) for label, path in config.volume_stores.items()},
        "containers": info["Containers"] if info else None,
        "containers_running": info["ContainersRunning"] if info else None,
        "images": info["Images"] if info else None,
    }


def _show(config: VchConfig, as_json: bool) -> None:
    summary = _summary(config)
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    click.echo(f"VCH {config.name} ({config.id}) is {summary['state']}")
    click.echo(f"  state          {config.root}")
    click.echo(f"  unix socket    {config.paths.docker_socket}")
    if config.tls.port:
        click.echo(f"  TCP            {config.tls.host}:{config.tls.port} (TLS: {config.tls.mode.value})")
        click.echo(f"  environment    {config.root / f'{config.name}.env'}")
    click.echo(f"  bridge range   {config.bridge_range}")
    if summary["containers"] is not None:
        click.echo(f"  containers     {summary['containers']} ({summary['containers_running']} running)")
    click.echo("\nUse it:")
    click.echo(f"  docker context create {config.name} --docker host=unix://{config.paths.docker_socket}")
    click.echo(f"  docker --context {config.name} run --rm busybox uname -a")


def _say(document: dict[str, Any], as_json: bool, text: str) -> None:
    click.echo(json.dumps(document, indent=2) if as_json else text)


def _shout(text: str) -> None:
    click.secho(f"WARNING: {text}", fg="red", bold=True, err=True)


def main() -> int:
    """Run the command line; failures become one message and a documented exit code."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (MachineError, VchConfigError) as error:
        click.echo(f"vic-machine: {error}", err=True)
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
