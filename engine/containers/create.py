"""``POST /containers/create``.

Everything is checked before anything is made. Then volumes are made, then the
container is committed, which is the durable point. When the commit fails, or we
are killed before it, the anonymous volumes made for the container are removed
(:mod:`engine.containers.anonymous`).
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from typing import Any

from engine.catalog import ImageRecord
from engine.containers import logtag, mounts, names, networking, translation
from engine.containers.config import CreateRequest
from engine.containers.document import Document
from engine.containers.hostconfig import HostConfig
from engine.containers.imageconfig import merge
from engine.containers.ports import bindings_to_spec
from engine.context import Engine
from engine.http import (
    BadRequest,
    Conflict,
    NotFound,
    Request,
    Response,
    Router,
    json_response,
    validated,
)
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["create_container", "register"]

NAME_ATTEMPTS = 6
_PLATFORM = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+(/[a-z0-9_]+)?)?")


def register(router: Router, engine: Engine) -> None:
    async def create(request: Request) -> Response:
        body = await request.json(optional=True)
        if not body:
            raise BadRequest("config cannot be empty in order to create a container")
        wanted = validated(CreateRequest, body)
        name, platform = request.query.text("name"), request.query.text("platform")
        for what, in_query, in_body in (("name", name, wanted.name), ("platform", platform, wanted.platform)):
            if in_body not in ("", in_query):
                raise BadRequest(f"the container's {what} belongs into the query, not into the body")
        container = await create_container(engine, wanted, names.checked(name) if name else "", platform)
        return json_response({"Id": container, "Warnings": []}, 201)

    router.add("POST", "/containers/create", create)


async def create_container(
    engine: Engine,
    wanted: CreateRequest,
    name: str,
    platform: str,
    *,
    image: ImageRecord | None = None,
    builder: str = "",
) -> str:
    """The new container's ID. ``image``: what it is made from, when the caller knows already."""
    host = wanted.HostConfig.model_copy(deep=True)
    if not wanted.Image:
        raise BadRequest("invalid reference format")
    if image is None:
        image = await engine.images.resolve(wanted.Image)
    check_platform(wanted.Image, image, platform)
    config = merge(wanted.config(), image.config)
    translation.check(config, host)
    networks = list(
        (await engine.port.call(engine.port.networks.List, tether_pb2.Empty(), idempotent=True)).networks
    )
    wanted_endpoints = wanted.NetworkingConfig.EndpointsConfig
    links = [*host.Links, *(link for item in wanted_endpoints.values() if item for link in item.Links)]
    endpoints = networking.endpoints(
        config, host, wanted_endpoints, networks, await link_targets(engine, links)
    )
    plan = mounts.plan(host, config.Volumes, await _lent(engine, host.VolumesFrom))
    container = secrets.token_hex(32)
    spec = translation.to_spec(
        container=container,
        name=name,
        created_at=time.time_ns(),
        layer=image.layer,
        config=config,
        host=host,
        endpoints=endpoints,
        ports=bindings_to_spec(host.PortBindings, config.ExposedPorts, publish_all=host.PublishAllPorts),
        mounts=(),
        tmpfs=plan.tmpfs,
        hosts=networking.extra_hosts(host, networks, endpoints[0].network if endpoints else ""),
        resolver=networking.resolver(host),
    )
    if tag := spec.log.options.get("tag"):
        spec.log.options["tag"] = logtag.expand(
            tag,
            container=container,
            image=wanted.Image,
            image_id=image.id,
            command=" ".join(spec.process.argv),
        )
    host.NetworkMode = "none" if config.NetworkDisabled else networking.mode_of(host)
    # An anonymous volume has its name before it is there: whoever finds it without us knows whose it was.
    volumes = [(item, item.volume or secrets.token_hex(32)) for item in plan.volumes]
    anonymous = [name for item, name in volumes if not item.volume and not item.host_path]
    async with engine.anonymous.of(container, anonymous):
        shown = [await _realise(engine, item, volume, spec) for item, volume in volumes]
        document = Document(
            image=wanted.Image,
            image_id=image.id,
            platform=image.os,
            config=config.kept(),
            host=_kept_host(host),
            mounts=shown,
            builder=builder,
        )
        spec.metadata = document.encode()
        await _commit(engine, container, spec)
    return container


def check_platform(reference: str, image: ImageRecord, platform: str) -> None:
    if not platform:
        return
    if not _PLATFORM.fullmatch(platform.lower()):
        raise BadRequest(f'"{platform}" is an invalid component of a platform')
    wanted = platform.lower().split("/")
    have = [image.os, image.architecture, image.variant]
    if wanted[0] != image.os and len(wanted) == 1:
        have = have[1:]  # "amd64" alone is an architecture
    if any(part != actual for part, actual in zip(wanted, have, strict=False)):
        actual_text = "/".join(part for part in (image.os, image.architecture, image.variant) if part)
        raise NotFound(
            f"image with reference {reference} was found but its platform ({actual_text}) "
            f"does not match the specified platform ({platform})"
        )


def name_conflict(name: str, container: str) -> Conflict:
    return Conflict(
        f'Conflict. The container name "/{name}" is already in use by container "{container}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


async def link_targets(engine: Engine, links: Sequence[str]) -> networking.LinkTarget:
    """Looks up the containers that ``links`` name, for :func:`networking.endpoint`."""
    targets: dict[str, str] = {}
    for name in {networking.link_name(link) for link in links}:
        try:
            targets[name] = (await engine.containers.find(name)).handle.id
        except NotFound as error:  # a 404 from create means "no such image" to clients: they would pull
            raise BadRequest(f"could not get container for {name}: {error.message}") from error
    return targets.__getitem__


async def _lent(engine: Engine, specifications: Sequence[str]) -> list[mounts.MountPlan]:
    """The mounts of the containers named by VolumesFrom."""
    result: list[mounts.MountPlan] = []
    for text in specifications:
        reference, read_only = mounts.check_volumes_from(text)
        try:
            lender = (await engine.containers.find(reference)).handle
        except NotFound as error:  # a 404 from create means "no such image" to clients: they would pull
            raise BadRequest(error.message) from error
        result += [
            mounts.MountPlan(
                destination=mount.destination,
                volume=mount.volume,
                read_only=mount.read_only if read_only is None else read_only,
                no_copy=mount.no_copy,
                subpath=mount.subpath,
            )
            for mount in lender.spec.mounts
        ]
        result += [
            mounts.MountPlan(
                destination=mount.destination,
                host_path=mount.path,
                create_path=mount.create,
                read_only=mount.read_only if read_only is None else read_only,
            )
            for mount in lender.spec.host_mounts
        ]
        result += [
            mounts.MountPlan(destination=place, host_path=mounts.ENGINE_SOCKETS[0], engine_socket=True)
            for place in lender.spec.engine_sockets
        ]
    return result


async def _realise(
    engine: Engine, item: mounts.MountPlan, name: str, spec: pb.ContainerSpec
) -> dict[str, Any]:
    """Make sure the volume ``name`` is there, add the mount to ``spec``, and return how inspect shows it."""
    if item.engine_socket:
        spec.engine_sockets.append(item.destination)
        return mounts.shown(item)
    if item.host_path:
        spec.host_mounts.append(
            pb.HostMount(
                path=item.host_path,
                destination=item.destination,
                read_only=item.read_only,
                create=item.create_path,
            )
        )
        return mounts.shown(item)
    volume: pb.Volume | None = None
    if item.volume:
        try:
            volume = await engine.port.call(engine.port.volumes.Get, pb.VolumeRef(name=name))
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_VOLUME:
                raise
    if volume is None:
        volume = await engine.port.call(
            engine.port.volumes.Create,
            pb.Volume(
                name=name,
                driver=item.driver,
                labels={**item.labels, **({} if item.volume else {"com.docker.volume.anonymous": ""})},
                options=item.options,
                anonymous=not item.volume,
                created_at=time.time_ns(),
            ),
        )
    spec.mounts.append(
        pb.VolumeMount(
            volume=volume.name,
            destination=item.destination,
            read_only=item.read_only,
            no_copy=item.no_copy,
            subpath=item.subpath,
        )
    )
    return mounts.shown(item, name=volume.name, source=volume.path, driver=volume.driver)


async def name_taken(engine: Engine, name: str) -> Conflict:
    """The error for a name that the port layer calls taken."""
    try:
        owner = (await engine.containers.find(name)).handle
    except NotFound:  # gone again meanwhile
        owner = pb.Handle()
    return name_conflict(name, owner.id)


async def _commit(engine: Engine, container: str, spec: pb.ContainerSpec) -> None:
    """Create the container; without a name, make names up until one is free."""
    given = spec.name
    for attempt in range(NAME_ATTEMPTS):
        spec.name = given or names.made_up(attempt)
        try:
            handle = await engine.port.call(engine.port.containers.Commit, pb.Handle(id=container, spec=spec))
        except PortLayerError as error:
            if error.reason != pb.NAME_IN_USE:
                raise
            if given:
                raise await name_taken(engine, given) from error
        else:
            engine.containers.note(handle)
            return
    raise Conflict("could not make up a container name that is free: give one with --name")


def _kept_host(host: HostConfig) -> dict[str, Any]:
    kept = host.kept()
    kept.setdefault("LogConfig", {}).setdefault("Type", "json-file")
    return kept
