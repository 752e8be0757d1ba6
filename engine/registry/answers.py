"""What a registry's answer says when it is not a success."""

from __future__ import annotations

import contextlib
import json
import re

import httpx

from engine.registry.errors import BadContent, RegistryRefused, RegistryUnreachable
from engine.registry.transport import read_limited

__all__ = ["raise_for"]

_ERROR_LIMIT = 64 << 10


async def raise_for(response: httpx.Response, *, missing: str = "") -> None:
    """RegistryRefused for anything but success, in the distribution API's words where it has them.

    ``missing`` is the code a bare 404 stands for.
    """
    if response.is_success:
        return
    data = b""
    with contextlib.suppress(BadContent, RegistryUnreachable):  # the status alone must do then
        data = await read_limited(response, _ERROR_LIMIT, "the error")
    status = response.status_code
    code, message = parse_error(data)
    what = f'{response.request.method.capitalize()} "{response.request.url}"'
    if not code and status == 401:
        offered = response.headers.get("www-authenticate", "").lower()
        if offered.startswith("basic") and "authorization" not in response.request.headers:
            raise RegistryRefused(status, "", f"{what}: no basic auth credentials")
        code, message = "UNAUTHORIZED", "authentication required"
    if not code and status == 404 and missing:
        code, message = missing, missing.lower().replace("_", " ")
    raise RegistryRefused(status, code, message or f"{what}: the registry answered {status}")


def parse_error(data: bytes) -> tuple[str, str]:
    """Code and message of the first error in the body; empty where it is no such document."""
    try:
        first = json.loads(data)["errors"][0]
        code, message = first.get("code", ""), first.get("message", "")
    except (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError):
        return "", ""
    if not isinstance(code, str) or not isinstance(message, str) or not re.fullmatch(r"[A-Z_]{1,64}", code):
        return "", ""
    return code, message[:1000]
