"""What a VM carries in its extraConfig: the keys, who sees them, and their version. Pure but for the seal.

| scope | key begins with | who reads | who writes | survives power-off |
|---|---|---|---|---|
| hidden | ``mooring.`` | we | we | yes |
| secret | ``mooring.`` | we, with the VCH's key | we | yes |
| read-only | ``guestinfo.mooring.`` | guest | we | yes |
| read-write | ``guestinfo.mooring.`` | guest, we | guest, we | yes |
| non-persistent | ``guestinfo.mooring.`` | guest, we | guest | no: emptied at each start |

vSphere deletes a key whose value is set to ``""``: no value of ours is ever empty.
``mooring.format`` is the version of all this; :func:`migrate` brings older VMs up.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from portlayer.hypervisor.base import HypervisorError, VmConfig
from portlayer.hypervisor.documents import decode_hardware, encode_hardware

__all__ = [
    "BOOT",
    "COMPLETE",
    "DISKS",
    "GOODBYE",
    "ID",
    "RESTORES",
    "RUN",
    "UNFINISHED",
    "VCH",
    "VERSION",
    "Key",
    "Record",
    "Scope",
    "Seal",
    "changes",
    "decode",
    "disk_values",
    "encode",
    "migrate",
    "pack",
    "relevant",
    "start_values",
    "unpack",
]

FORMAT = 2
_NONCE = 12
_HIDDEN = "mooring."
_GUEST = "guestinfo.mooring."


class Scope(enum.Enum):
    HIDDEN = "hidden"
    SECRET = "secret"  # noqa: S105 a name
    READ_ONLY = "read-only"
    READ_WRITE = "read-write"
    NON_PERSISTENT = "non-persistent"


@dataclass(frozen=True)
class Key:
    path: str
    scope: Scope

    @property
    def name(self) -> str:
        """As vSphere knows it."""
        return (_HIDDEN if self.scope in (Scope.HIDDEN, Scope.SECRET) else _GUEST) + self.path


VERSION = Key("version", Scope.HIDDEN)  # of the configuration; grows with each change of ours
ID = Key("id", Scope.HIDDEN)
VCH = Key("vch", Scope.HIDDEN)
_FORMAT = Key("format", Scope.HIDDEN)
_CONFIG = Key("config", Scope.HIDDEN)  # VmConfig but for the two below
_NEXT_BOOT = Key("boot", Scope.SECRET)  # what the next start shows
RESTORES = Key("restores", Scope.HIDDEN)  # a clone that has memory to go on with
UNFINISHED, COMPLETE = "unfinished", "complete"  # values of that
BOOT = Key("boot", Scope.READ_ONLY)  # a serialized BootConfig, packed
DISKS = Key("disks", Scope.READ_ONLY)  # "id=controller:channel:target:lun …"
RUN = Key("run", Scope.NON_PERSISTENT)  # the guest's boot nonce: it changes when the guest boots again
GOODBYE = Key("goodbye", Scope.NON_PERSISTENT)  # the guest powers off on purpose
_EXTRA = "extra."  # one secret key per document of the port layer


def _extra(name: str) -> Key:
    return Key(f"{_EXTRA}{name}", Scope.SECRET)


@dataclass(frozen=True, kw_only=True)
class Record:
    config: VmConfig
    version: int


class Seal:
    """AES-GCM under the VCH's key. What is sealed is bound to its VM and its key's name."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise HypervisorError(f"the key of the VCH has {len(key)} bytes, expected 32")
        self._cipher = AESGCM(key)

    @classmethod
    def load(cls, path: Path) -> Seal:
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise HypervisorError(f"key of the VCH: {error}") from error

    def close(self, vm: str, key: Key, data: bytes) -> str:
        nonce = os.urandom(_NONCE)
        sealed = self._cipher.encrypt(nonce, data, f"{vm} {key.name}".encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, vm: str, key: Key, text: str) -> bytes:
        raw = _plain(key, text)
        try:
            return self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], f"{vm} {key.name}".encode())
        except (InvalidTag, ValueError) as error:
            raise HypervisorError(f"VM {vm[:12]}: {key.name} was not sealed by this VCH") from error


def pack(data: bytes) -> str:
    """gzip and base64, as cloud-init calls it: what a shell in the guest can undo."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return base64.b64encode(squeezer.compress(data) + squeezer.flush()).decode()


def unpack(text: str) -> bytes:
    try:
        return zlib.decompress(base64.b64decode(text, validate=True), 31)
    except (binascii.Error, zlib.error) as error:
        raise HypervisorError(f"a packed value cannot be read: {error}") from error


def relevant(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours, of all that VMs carry."""
    return {key: value for key, value in extra.items() if key.startswith((_HIDDEN, _GUEST))}


def encode(
    record: Record, vch: str, seal: Seal, *, unless: tuple[Record, Mapping[str, str]] | None = None
) -> dict[str, str]:
    """The keys that make a VM ours and say what it is. Guests see none of them.

    ``unless``: what it was and what it carries; a document that is the same keeps its sealed form.
    """
    config = record.config
    values = {
        _FORMAT.name: str(FORMAT),
        VCH.name: vch,
        ID.name: config.id,
        VERSION.name: str(record.version),
        _CONFIG.name: json.dumps(encode_hardware(config), sort_keys=True),
    }
    old, carried = unless or (None, {})
    documents = {_NEXT_BOOT: config.boot_config} | {_extra(name): data for name, data in config.extra.items()}
    before: dict[Key, bytes] = {}
    if old is not None:
        before = {_NEXT_BOOT: old.config.boot_config} | {_extra(n): d for n, d in old.config.extra.items()}
    for key, data in documents.items():
        same = key.name in carried and before.get(key) == data
        values[key.name] = carried[key.name] if same else seal.close(config.id, key, data)
    return values


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """What to write so that ``old`` becomes ``new``: documents that are gone become ``""``, which deletes."""
    prefix = _HIDDEN + _EXTRA
    gone = {key: "" for key in old if key.startswith(prefix) and key not in new}
    return {key: value for key, value in new.items() if old.get(key) != value} | gone


def decode(values: Mapping[str, str], seal: Seal) -> Record:
    """The inverse of :func:`encode`.

    Raises:
        HypervisorError: a key is missing or damaged, or of a newer version of us.
    """
    values = migrate(values)
    try:
        vm = values[ID.name]
        document: dict[str, Any] = json.loads(values[_CONFIG.name])
        prefix = _HIDDEN + _EXTRA
        extra = {
            key.removeprefix(prefix): seal.open(vm, _extra(key.removeprefix(prefix)), value)
            for key, value in values.items()
            if key.startswith(prefix)
        }
        return Record(
            version=int(values[VERSION.name]),
            config=decode_hardware(
                vm, document, boot_config=seal.open(vm, _NEXT_BOOT, values[_NEXT_BOOT.name]), extra=extra
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HypervisorError(f"the VM's extraConfig cannot be read: {error!r}") from error


def start_values(config: VmConfig, addresses: Mapping[str, str]) -> dict[str, str]:
    """What a start writes for the guest; what the last run said is emptied."""
    return {
        BOOT.name: pack(config.boot_config) if config.boot_config else "",
        **disk_values(addresses),
        RUN.name: "",
        GOODBYE.name: "",
    }


def disk_values(addresses: Mapping[str, str]) -> dict[str, str]:
    """Where the guest finds its disks: vSphere lets nobody choose a disk's serial number."""
    return {DISKS.name: " ".join(f"{disk}={address}" for disk, address in sorted(addresses.items()))}


# -- versions


def _from_1(values: dict[str, str]) -> dict[str, str]:
    """Format 1 kept a NIC without its MTU."""
    document = json.loads(values[_CONFIG.name])
    for nic in document["nics"]:
        nic.setdefault("mtu", 1500)
    return {**values, _CONFIG.name: json.dumps(document, sort_keys=True)}


_MIGRATIONS: dict[int, Callable[[dict[str, str]], dict[str, str]]] = {1: _from_1}


def migrate(values: Mapping[str, str]) -> dict[str, str]:
    """The same VM in today's format. Written back with its next change.

    Raises:
        HypervisorError: the VM was written by a newer version of us.
    """
    result = dict(values)
    try:
        version = int(result[_FORMAT.name])
    except (KeyError, ValueError) as error:
        raise HypervisorError(f"the VM carries no {_FORMAT.name}") from error
    if version > FORMAT:
        raise HypervisorError(f"the VM's extraConfig has format {version}; this version knows up to {FORMAT}")
    while version < FORMAT:
        try:
            result = _MIGRATIONS[version](result)
        except (KeyError, ValueError, TypeError) as error:
            raise HypervisorError(f"extraConfig of format {version} is damaged: {error!r}") from error
        version += 1
        result[_FORMAT.name] = str(version)
    return result


def _plain(key: Key, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise HypervisorError(f"{key.name}: {error}") from error
