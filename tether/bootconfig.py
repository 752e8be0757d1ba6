"""Read BootConfig from where the hypervisor shows it.

Sources are tried in order; a machine has one. QEMU shows a file through
fw_cfg. It may be padded with an unknown protobuf field to a fixed size, so that
a clone of a waiting VM can be shown another one through the same window. vSphere
has guestinfo, and beside the configuration a table of where the disks are: nobody
can choose a disk's serial number there.
"""

from __future__ import annotations

import os

from google.protobuf.message import DecodeError

from tether.guestinfo import BOOT, DISKS, Guestinfo, GuestinfoError
from tether.tether_pb2 import BootConfig

__all__ = ["ConfigError", "located", "read_boot_config"]

FW_CFG = "/sys/firmware/qemu_fw_cfg/by_name/opt/mooring/boot/raw"
_MAX_SIZE = 16 << 20
_VERSION = 1


class ConfigError(Exception):
    """There is no usable boot configuration; the text says what was tried."""


def read_boot_config() -> BootConfig:
    """The configuration of this VM.

    Raises:
        ConfigError: none found, or one that we do not understand.
    """
    raw = _from_fw_cfg()
    if raw is not None:
        return parse(raw)
    shown = _from_guestinfo()
    if shown is not None:
        raw, addresses = shown
        return located(parse(raw), addresses)
    raise ConfigError(f"the hypervisor shows no boot configuration ({FW_CFG} and {BOOT} are missing)")


def parse(raw: bytes) -> BootConfig:
    try:
        config = BootConfig.FromString(raw)
    except DecodeError as error:
        raise ConfigError(f"the boot configuration is damaged: {error}") from error
    if config.version != _VERSION:
        raise ConfigError(
            f"boot configuration version {config.version} is not {_VERSION}: image and host differ"
        )
    return config


def located(config: BootConfig, addresses: dict[str, str]) -> BootConfig:
    """The same with every disk at the SCSI address that the table has for it."""
    for address in (config.root, *(mount.disk for mount in config.mounts)):
        if address.serial in addresses:
            address.scsi = addresses[address.serial]
            address.serial = ""
    return config


def _from_guestinfo() -> tuple[bytes, dict[str, str]] | None:
    guestinfo = Guestinfo.find()
    if guestinfo is None:
        return None
    with guestinfo:
        return _unpack(guestinfo)


def _unpack(guestinfo: Guestinfo) -> tuple[bytes, dict[str, str]] | None:
    try:
        packed = guestinfo.get(BOOT)
        if packed is None:
            return None
        # Only on this way, so that other machines do not pay for the imports.
        import binascii
        import zlib

        try:
            squeezer = zlib.decompressobj(31)
            raw = squeezer.decompress(binascii.a2b_base64(packed), _MAX_SIZE)
            if squeezer.unconsumed_tail:
                raise ConfigError(f"the boot configuration is above {_MAX_SIZE} bytes")
            if not squeezer.eof:
                raise ConfigError("the boot configuration is damaged: it ends early")
            table = guestinfo.get(DISKS) or ""
        except (binascii.Error, zlib.error, ValueError) as error:
            raise ConfigError(f"the boot configuration is damaged: {error}") from error
    except GuestinfoError as error:
        raise ConfigError(f"guestinfo: {error}") from error
    return raw, dict(entry.split("=", 1) for entry in table.split() if "=" in entry)


def _from_fw_cfg() -> bytes | None:
    try:
        fd = os.open(FW_CFG, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        content = bytearray()
        while piece := os.read(fd, 1 << 20):
            content += piece
            if len(content) > _MAX_SIZE:
                raise ConfigError(f"the boot configuration is above {_MAX_SIZE} bytes")
        return bytes(content)
    finally:
        os.close(fd)
