"""kill -9 before every persisted step of every operation; then a restart finds a legal state.

Legal is: what was there before the operation or what is there after it, as
clients see it and as the host holds it; a second try of the operation works;
and a container that runs beside it never notices. The steps are found by
running the operation once (:mod:`tests.system.kill.steps`).
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import Any

import pytest

from tests.system.harness import eventually
from tests.system.kill.operations import PAIRS, Pair, Step, create, remove
from tests.system.kill.world import CUT_SHORT, World, dump

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(1500),
    # docker-py forgets sockets of calls that are cut short
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

INTENT_WRITTEN = 3  # the first step of a removal that follows its record
VICTIMS = (("portlayer",), ("engine",), ("portlayer", "engine"))
Look = tuple[dict[str, Any], dict[str, Any]]


def look(world: World) -> Look:
    return world.seen(), world.left()


def quietly(do: Step, world: World) -> None:
    with contextlib.suppress(*CUT_SHORT):
        do(world)


def bystander(world: World) -> dict[str, Any]:
    inspected = world.client.inspect_container("bystander")
    inspected["NetworkSettings"]["Networks"].pop("other", None)  # which one operation plugs it into
    return {key: inspected[key] for key in ("Id", "State", "NetworkSettings", "RestartCount")}


class Matrix:
    """One operation, from a world in the state ``before`` it."""

    def __init__(self, world: World, do: Step, undo: Step, *, names: bool = False) -> None:
        self.world = world
        self.names = names
        self.do = do
        self.undo = undo
        self.before = look(world)
        world.steps.arm()
        do(world)
        self.after = self._rest()
        self.steps = world.steps.disarm()
        undo(world)
        self._expect("the operation was taken back", self.before)

    def _rest(self) -> Look:
        """What there is once nothing moves any more."""
        found = look(self.world)

        def same() -> bool:
            nonlocal found
            last, found = found, look(self.world)
            return last == found

        eventually(same, "the world stands still")
        return found

    def kill_at(self, number: int, victims: tuple[str, ...]) -> str:
        """Returns what is wrong afterwards; "" when all is well."""
        world = self.world
        what = f"kill -9 of {'+'.join(victims)} before step {self.steps[number - 1]}"
        steady = bystander(world)
        world.steps.arm(
            number,
            other=world.pid("engine") if "engine" in victims else 0,
            ourselves="portlayer" in victims,
        )
        doing = threading.Thread(target=quietly, args=(self.do, world))
        doing.start()
        eventually(lambda: world.steps.reached() or not doing.is_alive(), "the step is reached")
        if world.steps.reached():
            for name in victims:
                world.reap(name)
            world.steps.disarm()
            world.start(*victims)
        world.steps.disarm()
        doing.join(60)
        world.wait_ready()
        try:
            what_is = f"{what}: it is as before or as after"
            state = self._expect(what_is, self.before, self.after, halfway=self.names)
            if state != self.after:
                self.do(world)
                self._expect(f"{what}: a second try succeeds", self.after)
            self.undo(world)
            self._expect(f"{what}: it can be taken back", self.before)
            assert bystander(world) == steady, f"{what}: a container beside it noticed"
        except (AssertionError, *CUT_SHORT) as error:
            self.undo(world)
            return f"{what}: {error}"
        return ""

    def _expect(self, what: str, *legal: Look, halfway: bool = False) -> Look:
        """Wait until the world is one of ``legal``; what it is."""
        found = look(self.world)

        def complaint() -> str:
            nonlocal found
            found = look(self.world)
            if found in legal or (halfway and _without_names(found, legal)):
                return ""
            return f"{what}: " + " | ".join(_difference(one, found) for one in legal)

        self.world.settled(complaint)
        return found


def _without_names(found: Look, legal: tuple[Look, ...]) -> bool:
    """The image is whole and has not all of its names yet (or no longer), as Docker leaves it, too."""
    whole = max(legal, key=lambda one: len(one[0]["images"]))
    seen, left = found
    same_images = set(seen["images"].values()) == set(whole[0]["images"].values())
    rest = all(one[0][key] == seen[key] for one in legal for key in seen if key != "images")
    return same_images and rest and {**left, "kv": 0} == {**whole[1], "kv": 0} and not left["kv"][1]


def _difference(wanted: Look, found: Look) -> str:
    """Only the parts that differ."""
    lines = []
    for one, other in zip(wanted, found, strict=True):
        lines += [f"{key}: {dump(one[key])} → {dump(other[key])}" for key in one if one[key] != other[key]]
    return "\n".join(lines)


def chosen(count: int, limit: int) -> list[int]:
    """All steps, or ``limit`` of them evenly spread, the last one included."""
    if count <= limit:
        return list(range(1, count + 1))
    return sorted({count - index * count // limit for index in range(limit)})


DIRECTIONS = pytest.mark.parametrize("direction", ["do", "undo"])
EACH_PAIR = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)


@DIRECTIONS
@EACH_PAIR
def test_a_kill_before_a_step(world: World, pair: Pair, direction: str) -> None:
    """A sample where there are many steps, so that it ends in minutes."""
    kills(world, pair, direction, portlayer=2 if pair.boots else 12, engine=3)


@pytest.mark.slow
@DIRECTIONS
@EACH_PAIR
def test_a_kill_before_each_step(world: World, pair: Pair, direction: str) -> None:
    kills(world, pair, direction, portlayer=1000, engine=1000)


def test_a_kill_before_each_step_of_the_recovery(world: World) -> None:
    """A removal is cut short behind its durable intent; then each port layer dies one step later than the last."""
    before = look(world)
    create(world)
    world.steps.arm(INTENT_WRITTEN)
    removing = threading.Thread(target=quietly, args=(remove, world))
    removing.start()
    eventually(world.steps.reached, "the removal is killed")
    world.reap("portlayer")
    for number in itertools.count(1):
        world.steps.arm(number)
        world.start("portlayer")
        eventually(lambda: world.steps.reached() or world.serving(), "it dies or serves")
        if not world.steps.reached():
            break
        world.reap("portlayer")
    print("\n".join(world.steps.disarm()))
    removing.join(60)
    assert number > INTENT_WRITTEN
    world.wait_ready()
    eventually(lambda: look(world) == before, "the removal is finished and nothing is left")


def kills(world: World, pair: Pair, direction: str, *, portlayer: int, engine: int) -> None:
    do, undo = (pair.do, pair.undo) if direction == "do" else (pair.undo, pair.do)
    if direction == "undo":
        undo(world)
    matrix = Matrix(world, do, undo, names=pair.names)
    print("\n".join(matrix.steps))
    wrong = []
    for victims in VICTIMS if pair.engine else VICTIMS[:1]:
        for number in chosen(len(matrix.steps), portlayer if victims == ("portlayer",) else engine):
            wrong.append(matrix.kill_at(number, victims))
            print(f"{'+'.join(victims)} killed at {number}", wrong[-1], flush=True)
    if direction == "undo":
        do(world)
    assert [words for words in wrong if words] == []
