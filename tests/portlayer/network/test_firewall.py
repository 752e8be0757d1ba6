import asyncio

import pytest

from portlayer.network import firewall
from portlayer.network.firewall import Firewall, FirewallError


class Kernel:
    """Applies transactions when told to."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.gate = asyncio.Event()
        self.fail = False

    async def load(self, text: str) -> None:
        await self.gate.wait()
        if self.fail:
            raise FirewallError("no")
        self.applied.append(text)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(firewall, "load", kernel.load)
    return kernel


async def test_changes_made_during_a_transaction_share_the_next_one(kernel: Kernel) -> None:
    state: list[int] = []
    rules = Firewall(lambda: str(state))

    async def change(number: int) -> None:
        state.append(number)
        await rules.apply()
        assert any(str(number) in text for text in kernel.applied)

    tasks = [asyncio.create_task(change(0))]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(change(n)) for n in range(1, 9)]
    await asyncio.sleep(0)
    kernel.gate.set()
    await asyncio.gather(*tasks)
    assert kernel.applied == ["[0]", "[0, 1, 2, 3, 4, 5, 6, 7, 8]"]


async def test_a_failure_is_heard_by_everyone_it_concerns_and_is_not_remembered(kernel: Kernel) -> None:
    kernel.gate.set()
    kernel.fail = True
    rules = Firewall(lambda: "rules")
    results = await asyncio.gather(rules.apply(), rules.apply(), return_exceptions=True)
    assert [type(result) for result in results] == [FirewallError, FirewallError]
    assert rules.dirty
    kernel.fail = False
    await rules.apply()
    assert kernel.applied == ["rules"] and not rules.dirty
