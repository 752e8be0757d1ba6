"""How one user answers a registry's challenges: basic, or bearer tokens fetched and renewed.

One :class:`Authorizer` serves one source and one user, so a token can reach neither another
registry nor another user. A token server is believed only over https (over http when the registry
itself is insecure).
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx

from engine.registry.challenge import Challenge, parse_challenges
from engine.registry.credentials import Credentials
from engine.registry.errors import BadContent, RegistryRefused
from engine.registry.sources import Source
from engine.registry.transport import Transport, read_limited

__all__ = ["Authorizer"]

_TOKEN_LIMIT = 1 << 20
_DEFAULT_LIFE = 60.0  # seconds, where the server does not say (the specification's)
_MARGIN = 5.0
_CLIENT_ID = "mooring"


@dataclass(frozen=True, kw_only=True)
class _Token:
    value: str
    expires: float


class Authorizer:
    def __init__(
        self,
        transport: Transport,
        source: Source,
        credentials: Credentials,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._source = source
        self._credentials = credentials if credentials.belong_to(source.domain) else Credentials()
        self._clock = clock
        self._challenge: Challenge | None = None
        self._tokens: dict[str, _Token] = {}
        self._lock = asyncio.Lock()

    async def headers(self, scope: str) -> Mapping[str, str]:
        """What to send along; nothing before the registry has asked once."""
        if self._credentials.registry_token:
            return {"Authorization": f"Bearer {self._credentials.registry_token}"}
        challenge = self._challenge
        if challenge is None:
            return {}
        if challenge.scheme == "basic":
            return self._basic()
        async with self._lock:  # parallel downloads share one token
            token = self._tokens.get(scope)
            if token is None or token.expires - _MARGIN <= self._clock():
                token = self._tokens[scope] = await self._fetch(challenge, scope)
        return {"Authorization": f"Bearer {token.value}"}

    def challenged(self, response: httpx.Response, scope: str) -> bool:
        """Note a 401's challenge. False when it cannot be answered any better than before."""
        offered = parse_challenges(response.headers.get_list("www-authenticate"))
        if self._credentials.registry_token:
            return False
        by_scheme = {challenge.scheme: challenge for challenge in reversed(offered)}
        challenge = by_scheme.get("bearer") or by_scheme.get("basic")
        if challenge is None or (challenge.scheme == "basic" and not self._credentials.username):
            return False
        self._challenge = challenge
        self._tokens.pop(scope, None)  # whatever was sent has not been good enough
        return True

    def _basic(self) -> dict[str, str]:
        pair = f"{self._credentials.username}:{self._credentials.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    async def _fetch(self, challenge: Challenge, scope: str) -> _Token:
        realm = challenge.parameters.get("realm", "")
        if not realm.startswith("https://") and not (realm.startswith("http://") and self._source.insecure):
            raise BadContent(
                f"the registry {self._source.domain} names no usable token server: {realm[:200]!r}"
            )
        service = challenge.parameters.get("service", "")
        fields = [("service", service)] if service else []
        fields += [("scope", item) for item in scope.split()]
        if self._credentials.identity_token:
            raw = await self._post(realm, fields)
        else:
            raw = await self._get(realm, fields)
        value = raw.get("token") or raw.get("access_token")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise BadContent(f"the token server {realm[:200]} sent no token")
        life = raw.get("expires_in")
        seconds = float(life) if isinstance(life, (int, float)) and life > 0 else _DEFAULT_LIFE
        return _Token(value=value, expires=self._clock() + max(seconds, _DEFAULT_LIFE))

    async def _get(self, realm: str, fields: Sequence[tuple[str, str]]) -> dict[str, object]:
        secret: Mapping[str, str] = {}
        if self._credentials.username:
            fields = [*fields, ("account", self._credentials.username)]
            secret = self._basic()
        url = realm + ("&" if "?" in realm else "?") + urlencode(fields)
        async with self._transport.request(self._source, "GET", url, secret=secret) as response:
            return await self._answer(response)

    async def _post(self, realm: str, fields: Sequence[tuple[str, str]]) -> dict[str, object]:
        form = urlencode(
            [
                *fields,
                ("grant_type", "refresh_token"),
                ("client_id", _CLIENT_ID),
                ("refresh_token", self._credentials.identity_token),
            ]
        )
        async with self._transport.request(
            self._source,
            "POST",
            realm,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            content=form.encode(),
        ) as response:
            return await self._answer(response)

    async def _answer(self, response: httpx.Response) -> dict[str, object]:
        data = await read_limited(response, _TOKEN_LIMIT, "the token server's answer")
        if response.status_code in (400, 401, 403):
            raise RegistryRefused(401, "UNAUTHORIZED", _words(data) or "incorrect username or password")
        if not response.is_success:
            raise RegistryRefused(
                response.status_code,
                "",
                f"the token server {response.request.url.host} answered {response.status_code}",
            )
        try:
            raw = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadContent(f"the token server's answer is not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise BadContent("the token server's answer is not an object")
        return raw


def _words(data: bytes) -> str:
    """The server's own reason, in either of the two shapes they use."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(raw, dict):
        return ""
    if isinstance(raw.get("details"), str):
        return str(raw["details"])[:500]
    errors = raw.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return str(errors[0].get("message", ""))[:500]
    return ""
