"""Docker's API of images that come from outside: pull, import, load, login, and a look at a registry."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator

from engine.http import (
    ApiError,
    BadRequest,
    NotFound,
    Request,
    Response,
    Router,
    Unauthorized,
    Unsupported,
    json_response,
    streamed,
)
from engine.images.changes import apply_changes
from engine.images.download import fetch_raw
from engine.images.progress import Progress
from engine.images.pull import pull_error
from engine.images.save import SavedImage, archive, choose
from engine.images.service import ImageService
from engine.images.stream import reporting
from engine.registry.credentials import Credentials, credentials_from, parse_registry_auth
from engine.registry.errors import InvalidReference, RegistryError, RegistryForbidden, RegistryRefused
from engine.registry.manifest import Manifest, parse_manifest
from engine.registry.platform import DEFAULT_PLATFORM, Platform, parse_platform
from engine.registry.reference import DEFAULT_DOMAIN, Reference, parse_reference

__all__ = ["credentials_of", "json_platform", "new_name", "platform_mismatch", "register"]


def register(router: Router, service: ImageService) -> None:
    exchange = _Exchange(service)
    router.add("POST", "/images/create", exchange.create, blocking=True)
    router.add("POST", "/images/load", exchange.load)
    router.add("POST", "/auth", exchange.auth, blocking=True)
    router.add("GET", "/distribution/{name...}/json", exchange.distribution, blocking=True)
    router.add("GET", "/images/get", exchange.save)
    router.add("GET", "/images/{name...}/get", exchange.save)
    router.add("POST", "/images/{name...}/push", exchange.push, blocking=True)


class _Exchange:
    def __init__(self, service: ImageService) -> None:
        self._service = service

    async def create(self, request: Request) -> Response:
        """POST /images/create: pull with fromImage, import with fromSrc"""
        query = request.query
        platform = _platform(query.text("platform"))
        if query.text("fromImage"):
            for name in ("repo", "message", "changes"):
                if query.text(name):
                    raise Unsupported(f"{name} goes with fromSrc: a pulled image is kept as it is")
            return await self._pull(request, platform)
        if query.text("fromSrc"):
            return await self._import(request, platform or DEFAULT_PLATFORM)
        raise BadRequest("fromImage or fromSrc must be given")

    async def _pull(self, request: Request, platform: Platform | None) -> Response:
        reference = _pulled(request.query.text("fromImage"), request.query.text("tag"))
        credentials = credentials_of(request)

        async def work(progress: Progress) -> None:
            for one in await self._all_tags(reference, credentials):
                image = await self._service.puller.pull(one, platform, credentials, progress)
                self._service.publish("pull", one.familiar, one.familiar_name, image)

        return await reporting(work)

    async def _all_tags(self, reference: Reference, credentials: Credentials) -> list[Reference]:
        """One reference, or every tag of its repository when it names none."""
        if reference.tag or reference.digest:
            return [reference]
        try:
            client = await self._service.puller.client(reference, credentials)
            return [reference.with_tag(tag) for tag in await client.tags()]
        except RegistryError as error:
            raise pull_error(error, reference) from error

    async def _import(self, request: Request, platform: Platform) -> Response:
        query = request.query
        url = query.text("fromSrc")
        name = new_name(query.text("repo"), query.text("tag")) if query.text("repo") else None
        config = apply_changes(query.all("changes"))

        async def work(progress: Progress) -> None:
            with self._service.spool.file() as fetched:
                if url != "-":
                    target = url if "://" in url else f"http://{url}"
                    progress.message(f"Downloading from {target}")
                    await fetch_raw(self._service.transport, target, fetched)
                image = await self._service.loader.import_(
                    request.stream() if url == "-" else fetched.content(),
                    config=config,
                    platform=platform,
                    comment=query.text("message") or f"Imported from {url}",
                    name=name,
                )
            self._service.published("import", image)
            if name is not None:
                self._service.publish("tag", image.id, name.familiar, image)
            progress.message(image.id)

        return await reporting(work)

    async def load(self, request: Request) -> Response:
        """POST /images/load"""
        platform = json_platform(request.query.text("platform"))
        quiet = request.query.flag("quiet")

        async def work(progress: Progress) -> None:
            images = await self._service.loader.load(request.stream(), platform, progress, quiet=quiet)
            for image in images:
                self._service.published("load", image)

        return await reporting(work)

    async def save(self, request: Request) -> Response:
        """GET /images/get and /images/{name}/get"""
        _one_platform(request)
        index = await self._service.catalog.index()
        name = request.match.get("name")
        images = choose(index, [name] if name else request.query.all("names"))
        if not images:
            raise BadRequest("no images to save: names must be given")
        return streamed(self._saved(images), content_type="application/x-tar")

    async def _saved(self, images: list[SavedImage]) -> AsyncGenerator[bytes, None]:
        layers = self._service.layers
        held = {layer.chain_id for saved in images for layer in saved.image.layers}
        async with layers.hold(held), contextlib.aclosing(archive(images, layers)) as chunks:
            async for chunk in chunks:
                yield chunk
        for saved in images:
            self._service.published("save", saved.image)

    async def push(self, request: Request) -> Response:
        """POST /images/{name}/push"""
        _one_platform(request)
        reference = _reference(request.match["name"])
        tag = request.query.text("tag")
        if reference.digest:
            raise BadRequest("cannot push a digest reference")
        try:
            reference = reference.with_tag(tag) if tag else reference
        except InvalidReference as error:
            raise BadRequest(str(error)) from error
        credentials = credentials_of(request)

        async def work(progress: Progress) -> None:
            for name, image in await self._service.pusher.push(reference, credentials, progress):
                self._service.publish("push", name.familiar, name.familiar_name, image)

        return await reporting(work)

    async def auth(self, request: Request) -> Response:
        """POST /auth: whether a registry takes these credentials"""
        try:
            credentials = credentials_from(await request.json())
        except InvalidReference as error:
            raise BadRequest(str(error)) from error
        domain = credentials.server or DEFAULT_DOMAIN
        try:
            client = await self._service.puller.client(Reference(domain=domain, path=""), credentials)
            await client.ping()
        except RegistryForbidden as error:
            raise ApiError(str(error), status=403) from error
        except RegistryRefused as error:
            if error.status in (401, 403):
                raise Unauthorized(
                    f'Get "https://{domain}/v2/": unauthorized: incorrect username or password'
                ) from error
            raise ApiError(f"login attempt to https://{domain}/v2/ failed: {error}") from error
        except RegistryError as error:
            raise ApiError(str(error)) from error
        return json_response({"IdentityToken": credentials.identity_token, "Status": "Login Succeeded"})

    async def distribution(self, request: Request) -> Response:
        """GET /distribution/{name}/json"""
        reference = _reference(request.match["name"]).tagged
        puller = self._service.puller
        try:
            client = await puller.client(reference, credentials_of(request))
            document = await client.manifest(reference.digest or reference.tag)
            parsed = parse_manifest(document.data, document.media_type)
            if isinstance(parsed, Manifest):
                resolved = await puller.resolve(client, document.digest, None)
                platforms = [resolved.config.platform]
            else:
                platforms = [entry.platform for entry in parsed.entries if entry.platform]
        except RegistryRefused as error:
            if error.status == 401:
                raise Unauthorized(str(error)) from error
            raise pull_error(error, reference) from error
        except RegistryError as error:
            raise pull_error(error, reference) from error
        return json_response(
            {
                "Descriptor": {
                    "mediaType": parsed.media_type,
                    "digest": document.digest,
                    "size": len(document.data),
                },
                "Platforms": [_platform_json(platform) for platform in platforms],
            }
        )


def _one_platform(request: Request) -> None:
    """One platform of an image is kept: asking for it by name changes nothing, but another is not here."""
    for text in request.query.all("platform"):
        wanted = json_platform(text)
        if wanted is not None and not DEFAULT_PLATFORM.matches(wanted):
            raise NotFound(
                f"no image for the platform {wanted}: this virtual container host keeps one platform"
            )


def _pulled(name: str, tag: str) -> Reference:
    """`fromImage` with `tag`, which may be a digest, too."""
    try:
        reference = parse_reference(name)
        if tag:
            reference = reference.with_digest(tag) if ":" in tag else reference.with_tag(tag)
    except InvalidReference as error:
        raise BadRequest(str(error)) from error
    # with a digest the tag says nothing more
    return reference.with_digest(reference.digest) if reference.digest else reference


def new_name(repository: str, tag: str) -> Reference:
    """The name that `tag` and `import` give: a repository, and a tag unless the repository has it."""
    reference = _reference(repository)
    if reference.digest:
        raise BadRequest("refusing to create a tag with a digest reference")
    try:
        return reference.with_tag(tag) if tag else reference.tagged
    except InvalidReference as error:
        raise BadRequest(str(error)) from error


def _reference(text: str) -> Reference:
    try:
        return parse_reference(text)
    except InvalidReference as error:
        raise BadRequest(str(error)) from error


def credentials_of(request: Request) -> Credentials:
    try:
        return parse_registry_auth(request.headers.get("x-registry-auth", ""))
    except InvalidReference as error:
        raise BadRequest(str(error)) from error


def _platform(text: str) -> Platform | None:
    if not text:
        return None
    try:
        return parse_platform(text)
    except InvalidReference as error:
        raise BadRequest(str(error)) from error


def json_platform(text: str) -> Platform | None:
    """The JSON form of newer endpoints; the plain one is taken, too."""
    if not text.startswith("{"):
        return _platform(text)
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"invalid platform: {error}") from error
    parts = [raw.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts) or not parts[0] or not parts[1]:
        raise BadRequest("invalid platform: os and architecture must be given")
    return _platform("/".join(part for part in parts if part))


def platform_mismatch(name: str, wanted: Platform, actual: Platform) -> NotFound:
    return NotFound(
        f"image with reference {name} was found but does not provide the specified platform "
        f"({wanted}): it is for {actual}"
    )


def _platform_json(platform: Platform) -> dict[str, str]:
    fields = {
        "architecture": platform.architecture,
        "os": platform.os,
        "os.version": platform.os_version,
        "variant": platform.variant,
    }
    return {key: value for key, value in fields.items() if value or key in ("architecture", "os")}
