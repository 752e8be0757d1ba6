import asyncio

import pytest

from portlayer.network import firewall
from portlayer.network.firewall import Firewall, FirewallError
from portlayer.network.nft import render, render_change
from portlayer.network.ruleset import Bridge, Guest, Ruleset


def rules(*numbers: int, bridge: str = "mr1") -> Ruleset:
    guests = tuple(Guest(tap=f"mt{n}", mac=f"02:00:00:00:00:{n:02x}", ipv4=f"10.0.0.{n}") for n in numbers)
    return Ruleset(vch="a" * 32, bridges=(Bridge(interface=bridge),), guests=guests)


class Kernel:
    """Applies transactions when told to."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.refuses = 0

    async def load(self, text: str) -> None:
        await self.gate.wait()
        if self.refuses:
            self.refuses -= 1
            raise FirewallError("no")
        self.applied.append(text)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(firewall, "load", kernel.load)
    return kernel


class Wanted:
    def __init__(self) -> None:
        self.rules = rules(1)
        self.firewall = Firewall(lambda: self.rules)

    async def become(self, new: Ruleset) -> None:
        self.rules = new
        await self.firewall.apply()


async def test_first_everything_then_only_what_changes(kernel: Kernel) -> None:
    wanted = Wanted()
    await wanted.become(rules(1))
    await wanted.become(rules(1, 2))
    await wanted.become(rules(1, 2))
    await wanted.become(rules(1, 2, bridge="mr2"))
    assert kernel.applied == [
        render(rules(1)),
        render_change(rules(1), rules(1, 2)),
        render(rules(1, 2, bridge="mr2")),
    ]
    assert wanted.firewall.transactions == 3


async def test_changes_made_during_a_transaction_share_the_next_one(kernel: Kernel) -> None:
    wanted = Wanted()
    kernel.gate.clear()
    seen: list[int] = []

    async def change(number: int) -> None:
        seen.append(number)
        await wanted.become(rules(*seen))
        assert any(f"mt{number}" in text for text in kernel.applied)

    tasks = [asyncio.create_task(change(1))]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(change(n)) for n in range(2, 10)]
    await asyncio.sleep(0)
    kernel.gate.set()
    await asyncio.gather(*tasks)
    assert kernel.applied == [render(rules(1)), render_change(rules(1), rules(*range(1, 10)))]


async def test_a_refused_change_is_followed_by_everything(kernel: Kernel) -> None:
    wanted = Wanted()
    await wanted.become(rules(1))
    kernel.refuses = 1
    await wanted.become(rules(2))
    assert kernel.applied[1:] == [render(rules(2))]


async def test_a_failure_is_heard_by_everyone_it_concerns_and_is_not_remembered(kernel: Kernel) -> None:
    wanted = Wanted()
    kernel.refuses = 2
    results = await asyncio.gather(wanted.become(rules(1)), wanted.become(rules(2)), return_exceptions=True)
    assert [type(result) for result in results] == [FirewallError, FirewallError]
    assert wanted.firewall.dirty
    await wanted.become(rules(1))
    assert kernel.applied == [render(rules(1))] and not wanted.firewall.dirty


async def test_a_cancelled_transaction_leaves_doubt(kernel: Kernel) -> None:
    wanted = Wanted()
    await wanted.become(rules(1))
    kernel.gate.clear()
    task = asyncio.create_task(wanted.become(rules(2)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    kernel.gate.set()
    await wanted.become(rules(2))
    assert kernel.applied[1:] == [render(rules(2))]


async def test_what_was_forgotten_during_a_transaction_stays_forgotten(kernel: Kernel) -> None:
    wanted = Wanted()
    await wanted.become(rules(1))
    kernel.gate.clear()
    task = asyncio.create_task(wanted.become(rules(2)))
    await asyncio.sleep(0)
    wanted.firewall.forget()
    kernel.gate.set()
    await task
    await wanted.become(rules(2))
    assert kernel.applied[2:] == [render(rules(2))]
