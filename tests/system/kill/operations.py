"""Pairs of operations that undo each other: each of the two goes through the matrix."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import docker.errors

from tests.system.kill.world import World

__all__ = ["PAIRS", "Pair"]

Step = Callable[[World], object]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """``do`` and ``undo`` are no error when they are done already: a second try always works."""

    name: str
    do: Step
    undo: Step
    boots: bool = False  # a VM: seconds, not milliseconds
    engine: bool = False  # made of several calls of the engine to the port layer
    names: bool = False  # an image and its names: between the two it is there without


@contextlib.contextmanager
def done_already(*codes: int):
    try:
        yield
    except docker.errors.APIError as error:
        if error.response.status_code not in codes:
            raise


SUBJECT = "subject"


def create(world: World, name: str = SUBJECT, **host: object) -> None:
    client = world.client
    with done_already(409):
        client.create_container(
            "busybox", ["sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done"], name=name,
            host_config=client.create_host_config(**host),
            networking_config=client.create_networking_config({"base": client.create_endpoint_config()}),
        )  # fmt: skip


def create_with_volumes(world: World) -> None:
    client = world.client
    with done_already(409):
        client.create_container(
            "busybox", ["true"], name=SUBJECT, volumes=["/anonymous"],
            host_config=client.create_host_config(binds=["named:/named"]),
        )  # fmt: skip


def remove(world: World) -> None:
    with done_already(404):
        world.client.remove_container(SUBJECT, v=True, force=True)


def rename(old: str, new: str) -> Step:
    def step(world: World) -> None:
        with done_already(404):
            world.client.rename(old, new)

    return step


def policy(name: str) -> Step:
    return lambda world: world.client.update_container("stopped", restart_policy={"Name": name})


def network_create(world: World) -> None:
    with done_already(409):
        world.client.create_network("extra", check_duplicate=True, enable_ipv6=True)


def network_remove(world: World) -> None:
    with done_already(404):
        world.client.remove_network("extra")


def connect(name: str) -> Step:
    def step(world: World) -> None:
        with done_already(403, 409):
            world.client.connect_container_to_network(name, "other", aliases=["alias"])

    return step


def disconnect(name: str) -> Step:
    def step(world: World) -> None:
        with done_already(403, 404, 409):
            world.client.disconnect_container_from_network(name, "other")

    return step


def volume_remove(world: World) -> None:
    with done_already(404):
        world.client.remove_volume("volume")


def load(world: World) -> None:
    _finish(world.client.load_image((world.host.directory / "two-layers.tar").read_bytes()))


def image_remove(world: World) -> None:
    with done_already(404):
        world.client.remove_image("two-layers")
    for image in world.client.images(filters={"dangling": True}, quiet=True):
        world.client.remove_image(image)


def pull(world: World) -> None:
    _finish(world.client.pull("two-layers", tag="latest", stream=True, decode=True))


def _finish(progress: Iterable[dict[str, str]]) -> None:
    for line in progress:
        if "error" in line:
            raise docker.errors.APIError(line["error"])


def untag(world: World) -> None:
    with done_already(404):
        world.client.remove_image("another:name")


def start(world: World) -> None:
    world.client.start("stopped")


def kill(world: World) -> None:
    with done_already(409):
        world.client.kill("stopped")


PAIRS = (
    Pair(name="container", do=create, undo=remove),
    Pair(name="container-and-volumes", do=create_with_volumes, undo=remove, engine=True),
    Pair(name="name", do=rename("stopped", "renamed"), undo=rename("renamed", "stopped")),
    Pair(name="policy", do=policy("on-failure"), undo=policy("no")),
    Pair(name="network", do=network_create, undo=network_remove),
    Pair(name="endpoint", do=connect("stopped"), undo=disconnect("stopped")),
    Pair(name="volume", do=lambda world: world.client.create_volume("volume"), undo=volume_remove),
    Pair(name="archive", do=load, undo=image_remove, engine=True, names=True),
    Pair(name="image", do=pull, undo=image_remove, engine=True, names=True),
    Pair(name="tag", do=lambda world: world.client.tag("busybox", "another", "name"), undo=untag),
    Pair(name="nic", do=connect("bystander"), undo=disconnect("bystander"), boots=True),
    Pair(name="power", do=start, undo=kill, boots=True),
)
