"""``--log-opt tag=…``: Docker's template of what a line is tagged with. No I/O.

The fields are those of Docker's documentation. The container's name may change,
so the port layer fills in ``{{.Name}}`` whenever the container starts.
"""

from __future__ import annotations

import re

from engine import product
from engine.http import BadRequest

__all__ = ["NAME", "check", "expand"]

NAME = "{{.Name}}"
_FIELD = re.compile(r"\{\{\s*\.([A-Za-z]+)\s*\}\}")
_FIELDS = ("ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName", "Command")
_LONGEST = 4096


def check(template: str) -> None:
    """BadRequest for a field that does not exist, and for Go templates beyond plain fields."""
    rest = _FIELD.sub("", template)
    if "{{" in rest or len(template) > _LONGEST:
        raise BadRequest(
            f"log tag {template[:80]!r} is not supported: it may hold plain fields such as {NAME}"
        )
    for name in _FIELD.findall(template):
        if name not in _FIELDS:
            raise BadRequest(f"template: log-tag: can't evaluate field {name} in type loggerutils.Info")


def expand(template: str, *, container: str, image: str, image_id: str, command: str) -> str:
    """All fields but the name."""
    bare = image_id.removeprefix("sha256:")
    values = {
        "ID": container[:12],
        "FullID": container,
        "Name": NAME,
        "ImageID": bare[:12],
        "ImageFullID": bare,
        "ImageName": image,
        "DaemonName": product.NAME,
        "Command": command,
    }
    return _FIELD.sub(lambda found: values[found[1]], template)
