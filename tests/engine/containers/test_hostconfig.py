"""No HostConfig field is between honoured and refused, and refusals name their option."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from engine.containers import hostconfig
from engine.containers.config import CreateRequest
from engine.containers.hostconfig import REFUSED, HostConfig, refuse_fields
from engine.http import BadRequest, Unsupported, validated

ROOM = Path(hostconfig.__file__).parent

# facts about the request: kept, shown again by inspect, and with no meaning to translate
ONLY_SHOWN = {"ContainerIDFile"}

BOTH = {"VolumeDriver"}  # two drivers are honoured, others refused

SAMPLES: dict[str, Any] = {
    "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 10}],
    "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1}],
    "BlkioDeviceWriteBps": [{"Path": "/dev/sda", "Rate": 1}],
    "BlkioDeviceReadIOps": [{"Path": "/dev/sda", "Rate": 1}],
    "BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 1}],
    "CgroupParent": "x.slice",
    "Cgroup": "container:x",
    "CgroupnsMode": "host",
    "CpuRealtimePeriod": 1,
    "CpuRealtimeRuntime": 1,
    "CpusetMems": "0",
    "Devices": [{"PathOnHost": "/dev/sda"}],
    "DeviceCgroupRules": ["c 1:3 rwm"],
    "DeviceRequests": [{"Count": -1}],
    "KernelMemory": 1,
    "KernelMemoryTCP": 1,
    "MemorySwappiness": 60,
    "CpuCount": 1,
    "CpuPercent": 1,
    "IOMaximumIOps": 1,
    "IOMaximumBandwidth": 1,
    "Isolation": "hyperv",
    "IpcMode": "host",
    "PidMode": "host",
    "UTSMode": "host",
    "UsernsMode": "private",
    "VolumeDriver": "nfs",
    "Runtime": "runc",
}


def used_attributes() -> set[str]:
    """Every attribute name that some module of the room reads."""
    found: set[str] = set()
    for path in ROOM.glob("*.py"):
        if path.name in ("hostconfig.py", "inspect.py"):
            continue
        tree = ast.parse(path.read_text())
        found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return found


@pytest.mark.parametrize("name", sorted(HostConfig.model_fields))
def test_field_is_translated_or_refused(name: str) -> None:
    translated = name in used_attributes()
    assert translated + (name in REFUSED) + (name in ONLY_SHOWN) == 1 + (name in BOTH), name


def test_every_refused_field_has_a_sample() -> None:
    assert set(SAMPLES) == set(REFUSED)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_refusal_names_the_option(name: str) -> None:
    with pytest.raises(Unsupported) as caught:
        refuse_fields(HostConfig.model_validate({name: SAMPLES[name]}))
    assert f"(HostConfig.{name})" in caught.value.message
    assert REFUSED[name][1] in caught.value.message


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_default_and_harmless_values_are_accepted(name: str) -> None:
    for value in REFUSED[name][0]:
        refuse_fields(HostConfig.model_validate({name: value}))
    refuse_fields(HostConfig())


def test_unknown_option_with_a_value_is_refused_by_name() -> None:
    validated(CreateRequest, {"Image": "x", "HostConfig": {"Future": None, "Empty": "", "Zero": 0}})
    with pytest.raises(BadRequest, match=r"HostConfig\.Future"):
        validated(CreateRequest, {"Image": "x", "HostConfig": {"Future": "value"}})


def test_names_match_whatever_their_case_and_null_is_the_default() -> None:
    host = HostConfig.model_validate(
        {"memory": 7, "BINDS": None, "logConfig": {"type": "none", "Config": None}}
    )
    assert (host.Memory, host.Binds, host.LogConfig.Type) == (7, [], "none")


@pytest.mark.parametrize(
    "value",
    [
        {"Memory": "7"},
        {"Memory": 1.5},
        {"Memory": 1 << 63},
        {"Privileged": 1},
        {"Dns": "1.1.1.1"},
        {"Sysctls": {"a": 1}},
        {"Binds": ["a\0b:/c"]},
        {"RestartPolicy": "always"},
    ],
)
def test_wrong_types_are_bad_requests_that_name_the_field(value: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=rf"^invalid JSON: HostConfig\.{next(iter(value))}"):
        validated(CreateRequest, {"Image": "x", "HostConfig": value})
