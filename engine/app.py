"""Puts the engine together: every resource registers its routes here."""

from __future__ import annotations

from engine import product
from engine.context import Engine
from engine.http import LATEST, Application, Router, version_text
from engine.images import ImageService
from engine.images import routes as image_routes
from engine.system import ping, version

__all__ = ["build_application"]

HEADERS = (
    ("Api-Version", version_text(LATEST)),
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", f"{product.NAME}/{product.VERSION} (linux)"),
)


def build_application(engine: Engine) -> Application:
    router = Router()
    ping.register(router)
    version.register(router, engine)
    if isinstance(engine.images, ImageService):  # tests of other rooms bring a catalog of their own
        image_routes.register(router, engine, engine.images)
    return Application(router=router, headers=HEADERS)
