"""``/version``: the engine, and the port layer and hypervisor as its components."""

from __future__ import annotations

import datetime
import platform
import sys
from typing import Any

from engine import product
from engine.context import Engine
from engine.http import LATEST, OLDEST, Request, Response, Router, json_response, version_text
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["register"]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def register(router: Router, engine: Engine) -> None:
    async def version(request: Request) -> Response:
        try:
            info = await engine.port.call(engine.port.system.Info, tether_pb2.Empty(), patience=0.5)
        except PortLayerError:  # the engine's own version is still worth telling
            info = None
        return json_response(describe(info))

    router.add("GET", "/version", version)


def describe(info: pb.SystemInfo | None) -> dict[str, Any]:
    kernel = info.kernel if info else ""
    built = datetime.datetime.fromtimestamp(0, datetime.UTC).isoformat()
    components: list[dict[str, Any]] = [
        {
            "Name": "Engine",
            "Version": product.VERSION,
            "Details": {
                "ApiVersion": version_text(LATEST),
                "MinAPIVersion": version_text(OLDEST),
                "Arch": architecture(),
                "Os": "linux",
                "KernelVersion": kernel,
                "GitCommit": "",
                "GoVersion": f"none (Python {sys.version.split()[0]})",
                "BuildTime": built,
                "Experimental": "true",
            },
        }
    ]
    if info:
        components += [
            {
                "Name": "portlayer",
                "Version": info.version,
                "Details": {"VCH": info.vch, "VCH ID": info.vch_id},
            },
            {
                "Name": info.hypervisor or "hypervisor",
                "Version": info.hypervisor_version,
                "Details": {"Accelerator": info.accelerator, "Profile": info.machine_profile},
            },
        ]
    return {
        "Platform": {"Name": product.NAME},
        "Components": components,
        "Version": product.VERSION,
        "ApiVersion": version_text(LATEST),
        "MinAPIVersion": version_text(OLDEST),
        "GitCommit": "",
        "GoVersion": f"none (Python {sys.version.split()[0]})",
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": kernel,
        "Experimental": True,
        "BuildTime": built,
    }
