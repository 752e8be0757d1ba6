"""Read BootConfig from where the hypervisor shows it.

Sources are tried in order; a machine has one. QEMU shows a file through
fw_cfg. It may be padded with an unknown protobuf field to a fixed size, so that
a clone of a waiting VM can be shown another one through the same window.
"""

from __future__ import annotations

import os

from google.protobuf.message import DecodeError

from tether.tether_pb2 import BootConfig

__all__ = ["ConfigError", "read_boot_config"]

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
    sources = (_from_fw_cfg,)
    for source in sources:
        raw = source()
        if raw is not None:
            return parse(raw)
    raise ConfigError(f"the hypervisor shows no boot configuration ({FW_CFG} is missing)")


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
