"""What the options of ``docker volume create`` ask for. No I/O.

Ours: ``VolumeStore`` (a label), ``Capacity`` (like 10GB), ``Shared`` (true: a
directory on the host, which any number of running containers may have), in any
case. Docker's ``local`` driver's: ``type=none``, ``o=bind[,ro]``,
``device=/path``: a path of the host by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason
from portlayer.storage.capacity import parse_capacity

__all__ = ["DEFAULT_CAPACITY", "MAX_CAPACITY", "MIN_CAPACITY", "VolumeOptions", "parse_options"]

DEFAULT_CAPACITY = 10 << 30
MIN_CAPACITY = 16 << 20  # what an ext4 with a journal needs
MAX_CAPACITY = 2 << 40  # of a sparse VMDK
_BIND_WORDS = frozenset(("bind", "rbind", "ro", "rw"))


@dataclass(frozen=True, kw_only=True)
class VolumeOptions:
    store: str = "default"
    capacity: int = DEFAULT_CAPACITY
    shared: bool = False
    device: str = ""  # a path of the host instead of a place in the store
    read_only: bool = False


def parse_options(options: Mapping[str, str], stores: Collection[str]) -> VolumeOptions:
    """
    Raises:
        PortLayerError: NOT_SUPPORTED, naming the option.
    """
    given = {key.lower(): (key, value) for key, value in options.items()}
    for key, (name, _) in given.items():
        if key not in ("volumestore", "capacity", "shared", "type", "o", "device"):
            raise _refusal(f"volume option {name[:80]!r} is not supported")
    store = given.get("volumestore", ("", "default"))[1]
    if store not in stores:
        raise _refusal(f"no volume store {store[:80]!r}; there are: {', '.join(sorted(stores))}")
    shared = given.get("shared", ("", "false"))[1].lower()
    if shared not in ("true", "false"):
        raise _refusal(f"volume option Shared: {shared[:80]!r} is neither true nor false")
    if {"type", "o", "device"} & set(given):
        return _bind({key: value for key, (_, value) in given.items()})
    if shared == "true" and "capacity" in given:
        raise _refusal(
            "volume option Capacity: a shared volume is a directory and has no capacity of its own"
        )
    return VolumeOptions(
        store=store, capacity=_capacity(*given.get("capacity", ("", ""))), shared=shared == "true"
    )


def _capacity(name: str, text: str) -> int:
    if not name:
        return DEFAULT_CAPACITY
    try:
        capacity = parse_capacity(text)
    except ValueError as error:
        raise _refusal(f"volume option {name}: {error}") from None
    if not MIN_CAPACITY <= capacity <= MAX_CAPACITY:
        raise _refusal(f"volume option {name}: {text} is not between 16MB and 2TB")
    return capacity


def _bind(options: Mapping[str, str]) -> VolumeOptions:
    kind, words, device = (options.get(key, "") for key in ("type", "o", "device"))
    given = set(words.split(",")) if words else set()
    if kind not in ("none", "bind"):
        raise _refusal(f"volume option type={kind[:80]} is not supported: only none, with o=bind")
    if not given & {"bind", "rbind"} or not given <= _BIND_WORDS:
        raise _refusal(f"volume option o={words[:80]} is not supported: only bind, with ro or rw")
    if not device.startswith("/"):
        raise _refusal(f"volume option device={device[:200]}: an absolute path is wanted")
    if "capacity" in options or "shared" in options:
        raise _refusal("volume options Capacity and Shared mean nothing for a path of the host")
    return VolumeOptions(device=device, read_only="ro" in given)


def _refusal(message: str) -> PortLayerError:
    return PortLayerError(Reason.NOT_SUPPORTED, message)
