"""``GET /images/search``: the search of the first registry API, which is all that registries have."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from engine.filters import Filters
from engine.http import ApiError, BadRequest, Forbidden, Request, Response, Router, json_response
from engine.images.exchange import credentials_of
from engine.images.service import ImageService
from engine.registry.answers import raise_for
from engine.registry.authorization import Authorizer
from engine.registry.credentials import Credentials
from engine.registry.errors import (
    BadContent,
    InvalidReference,
    RegistryError,
    RegistryForbidden,
    RegistryRefused,
)
from engine.registry.reference import DEFAULT_DOMAIN, Reference, parse_name
from engine.registry.site import Site
from engine.registry.sources import Source
from engine.registry.transport import Transport, read_limited

__all__ = ["register"]

_HUB = Source(domain=DEFAULT_DOMAIN, bases=("https://index.docker.io",))
_FILTERS = ("is-automated", "is-official", "stars")
_MOST = 100
_DEFAULT = 25
_ANSWER_LIMIT = 4 << 20


def register(router: Router, service: ImageService) -> None:
    async def search(request: Request) -> Response:
        query = request.query
        term = query.text("term")
        if not term:
            raise BadRequest("term must be given")
        limit = query.integer("limit") or _DEFAULT
        if not 1 <= limit <= _MOST:
            raise BadRequest(f"limit {limit} is outside the range of [1, {_MOST}]")
        filters = Filters.parse(query.text("filters"), _FILTERS)
        stars = _stars(filters)
        try:
            domain, rest = _split(term)
            found = await _ask(service, domain, rest, limit, credentials_of(request))
        except InvalidReference as error:
            raise BadRequest(str(error)) from error
        except RegistryForbidden as error:
            raise Forbidden(str(error)) from error
        except RegistryRefused as error:
            raise ApiError(f"Unexpected status code {error.status}: {error}", status=500) from error
        except RegistryError as error:
            raise ApiError(str(error), status=500) from error
        official, automated = filters.boolean("is-official"), filters.boolean("is-automated")
        return json_response(
            [
                item
                for item in found
                if item["star_count"] >= stars
                and official in (None, item["is_official"])
                and automated in (None, item["is_automated"])
            ]
        )

    router.add("GET", "/images/search", search, blocking=True)


def _stars(filters: Filters) -> int:
    numbers = []
    for text in filters["stars"]:
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise BadRequest(f"invalid filter 'stars={text}'")
        numbers.append(int(text))
    return max(numbers, default=0)


def _split(term: str) -> tuple[str, str]:
    """The registry, and what to look for there."""
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return parse_name(f"{first}/x").domain, rest
    return DEFAULT_DOMAIN, term


async def _ask(
    service: ImageService, domain: str, term: str, limit: int, credentials: Credentials
) -> list[dict[str, Any]]:
    sources = await service.puller.sources(Reference(domain=domain, path=""))
    source = _HUB if domain == DEFAULT_DOMAIN else sources[-1]
    transport: Transport = service.transport
    site = Site(transport, Authorizer(transport, source, credentials), source)
    path = f"/v1/search?{urlencode({'q': term.removeprefix('library/'), 'n': limit})}"
    async with site.ask("GET", path, scope="") as response:
        await raise_for(response)
        data = await read_limited(response, _ANSWER_LIMIT, "the registry's answer")
    try:
        results = json.loads(data)["results"]
        return [_result(item) for item in results[:_MOST]]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise BadContent(f"the registry's answer to a search is malformed: {error}") from error


def _result(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "star_count": int(item.get("star_count") or 0),
        "is_official": item.get("is_official") is True,
        "name": str(item["name"]),
        "is_automated": item.get("is_automated") is True,
        "description": str(item.get("description") or ""),
    }
