import asyncio
from pathlib import Path

from portlayer.storage.disklocks import DiskLocks

A, B = Path("/a"), Path("/b")


async def test_one_at_a_time_per_disk() -> None:
    locks = DiskLocks()
    order: list[str] = []

    async def use(name: str, *disks: Path) -> None:
        async with locks.hold(disks):
            order.append(f"{name} in")
            await asyncio.sleep(0)
            order.append(f"{name} out")

    await asyncio.gather(use("1", A), use("2", A), use("3", A, A))
    assert order == ["1 in", "1 out", "2 in", "2 out", "3 in", "3 out"]
    order.clear()
    await asyncio.gather(use("1", A), use("2", B))
    assert order == ["1 in", "2 in", "1 out", "2 out"]


async def test_two_callers_with_the_same_disks_in_other_orders_do_not_block_each_other() -> None:
    locks = DiskLocks()

    async def use(*disks: Path) -> None:
        async with locks.hold(disks):
            await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await asyncio.gather(*(use(A, B) if number % 2 else use(B, A) for number in range(20)))


async def test_nothing_is_kept_of_disks_nobody_uses() -> None:
    locks = DiskLocks()
    async with locks.hold([A]):
        assert len(locks._locks) == 1
    assert len(locks._locks) == 0
