"""What the engine keeps with a container's VM: ``ContainerSpec.metadata``, a JSON document.

Only what was asked for is stored, without defaults: a thousand containers are
listed often and inspected rarely. What the port layer knows (names, addresses,
ports, state) is not repeated here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from engine.containers.config import Config
from engine.containers.hostconfig import HostConfig

__all__ = ["Document"]

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Document:
    image: str = ""  # as the user said it
    image_id: str = ""
    platform: str = "linux"
    config: dict[str, Any] = field(default_factory=dict)  # Config.kept()
    host: dict[str, Any] = field(default_factory=dict)  # HostConfig.kept()
    mounts: list[dict[str, Any]] = field(default_factory=list)  # inspect's Mounts
    builder: str = ""  # the engine process whose build has it; swept when that has died

    def encode(self) -> bytes:
        return json.dumps(
            {
                "version": VERSION,
                "image": self.image,
                "image_id": self.image_id,
                "platform": self.platform,
                "config": self.config,
                "host": self.host,
                "mounts": self.mounts,
                **({"builder": self.builder} if self.builder else {}),
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Document:
        """An unreadable document is an empty one: the container must stay visible and removable."""
        try:
            value = json.loads(raw)
        except ValueError:
            return cls()
        if not isinstance(value, dict) or value.get("version") != VERSION:
            return cls()
        del value["version"]
        return cls(**value)

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.config.get("Labels", {})
        return labels

    @property
    def exposed(self) -> list[str]:
        return list(self.config.get("ExposedPorts", ()))

    @property
    def tty(self) -> bool:
        return bool(self.config.get("Tty"))

    def full_config(self) -> Config:
        return Config.model_validate(self.config)

    def full_host(self) -> HostConfig:
        return HostConfig.model_validate(self.host)
