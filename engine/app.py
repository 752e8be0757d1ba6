"""Puts the engine together: every resource registers its routes here."""

from __future__ import annotations

from engine import product, refusals
from engine.build import routes as build_routes
from engine.containers import (
    attach,
    changes,
    checkpoints,
    create,
    files,
    inspect,
    lifecycle,
    listing,
    logs,
    processes,
    removal,
    statistics,
    waiting,
)
from engine.context import Engine
from engine.events import routes as event_routes
from engine.execs import routes as exec_routes
from engine.http import LATEST, Application, Router, version_text
from engine.images import ImageService, commit
from engine.images import routes as image_routes
from engine.networks import routes as network_routes
from engine.system import diskusage, info, ping, version
from engine.volumes import routes as volume_routes

__all__ = ["build_application"]

HEADERS = (
    ("Api-Version", version_text(LATEST)),
    ("Builder-Version", "1"),  # the classic one
    ("Docker-Experimental", "true"),  # the docker CLI wants it before it offers checkpoints
    ("Ostype", "linux"),
    ("Server", f"{product.NAME}/{product.VERSION} (linux)"),
)


def build_application(engine: Engine) -> Application:
    router = Router()
    ping.register(router)
    version.register(router, engine)
    info.register(router, engine)
    diskusage.register(router, engine)
    event_routes.register(router, engine.events)
    for resource in (
        listing,
        create,
        inspect,
        lifecycle,
        checkpoints,
        removal,
        waiting,
        changes,
        attach,
        logs,
        files,
        statistics,
        processes,
        exec_routes,
        volume_routes,
        network_routes,
    ):
        resource.register(router, engine)
    if isinstance(engine.images, ImageService):  # tests of other rooms bring a catalog of their own
        image_routes.register(router, engine.images)
        commit.register(router, engine, engine.images)
        build_routes.register(router, engine, engine.images)
    refusals.register(router)
    return Application(router=router, headers=HEADERS)
