import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portlayer.network.watch import Finding, Observer, RulesWatcher

NEWTABLE, DELTABLE, NEWCHAIN, DELRULE, NEWSETELEM, NEWGEN = 0, 2, 3, 8, 12, 15
INET, IPV4, BRIDGE = 1, 2, 7


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def message(kind: int, table: str = "", *, family: int = INET) -> bytes:
    body = attribute(3, b"x") + attribute(1, table.encode() + b"\0") if table else b""
    return struct.pack("=IHHIIBBH", 20 + len(body), 10 << 8 | kind, 0, 1, 2, family, 0, 0) + body


END = message(NEWGEN)


@pytest.fixture
def observer() -> Observer:
    return Observer("mooring_a")


def test_our_own_transactions_mean_nothing(observer: Observer) -> None:
    ours = (
        message(DELRULE, "mooring_a")
        + message(DELTABLE, "mooring_a")
        + message(NEWTABLE, "mooring_a")
        + message(NEWSETELEM, "mooring_a")
    )
    assert observer.feed(ours + END) == set()


@pytest.mark.parametrize("kind", [DELTABLE, DELRULE, NEWCHAIN])
@pytest.mark.parametrize("family", [INET, BRIDGE])
def test_whatever_else_touches_our_tables_is_damage(observer: Observer, kind: int, family: int) -> None:
    assert observer.feed(message(kind, "mooring_a", family=family)) == set()
    assert observer.feed(END) == {Finding.DAMAGED}
    assert observer.feed(END) == set()


def test_other_tables_are_not_ours(observer: Observer) -> None:
    assert observer.feed(message(DELTABLE, "mooring_ab") + message(DELTABLE, "filter") + END) == set()


def test_iptables_filter_tables_are_worth_a_look(observer: Observer) -> None:
    assert observer.feed(message(NEWCHAIN, "filter", family=IPV4) + END) == {Finding.OTHERS}
    assert observer.feed(message(NEWCHAIN, "nat", family=IPV4) + END) == set()


def test_a_transaction_may_be_cut_anywhere_between_messages(observer: Observer) -> None:
    for part in (message(DELTABLE, "mooring_a"), message(NEWTABLE, "mooring_a"), END):
        assert observer.feed(part) == set()


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    Observer("mooring_a").feed(data)
    Observer("mooring_a").feed(message(DELTABLE, "mooring_a")[:20] + data)


async def test_a_failed_repair_does_not_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[set[Finding]] = []
    done = asyncio.Event()

    async def repair(found: set[Finding]) -> None:
        seen.append(found)
        if len(seen) == 1:
            raise RuntimeError("cannot")
        done.set()

    watcher = RulesWatcher("mooring_a", repair)
    watcher.report({Finding.DAMAGED})
    task = asyncio.create_task(watcher.run())
    while not seen:
        await asyncio.sleep(0.01)
    watcher.report({Finding.OTHERS})
    await asyncio.wait_for(done.wait(), 10)
    task.cancel()
    assert seen == [{Finding.DAMAGED}, {Finding.OTHERS}]
    assert "repairing the packet rules failed" in caplog.text
