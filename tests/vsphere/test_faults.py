"""Each call fails, hangs up before or after it took effect, or meets somebody else's change.

After each: a legal state, an error of the contract, nothing orphaned (the fixture checks).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from portlayer.hypervisor.base import (
    HypervisorError,
    LaunchError,
    PowerState,
    VmConfig,
)
from portlayer.hypervisor.vsphere import VsphereHypervisor
from tests.lab.process import LabProcess

pytestmark = pytest.mark.lab

Step = Callable[[VsphereHypervisor, VmConfig], Awaitable[Any]]


async def _create(hypervisor: VsphereHypervisor, config: VmConfig) -> None:
    await hypervisor.create(config)


async def _configure(hypervisor: VsphereHypervisor, config: VmConfig) -> None:
    changed = dataclasses.replace(config, name="changed", extra={"container": b"other"})
    info = await hypervisor.get(config.id)
    await hypervisor.configure(changed, version=info.version)
    assert (await hypervisor.get(config.id)).config == changed


async def _start(hypervisor: VsphereHypervisor, config: VmConfig) -> None:
    await hypervisor.start(config.id)
    assert (await hypervisor.get(config.id)).power is PowerState.ON


async def _power_off(hypervisor: VsphereHypervisor, config: VmConfig) -> None:
    await hypervisor.power_off(config.id)
    assert (await hypervisor.get(config.id)).power is PowerState.OFF


async def _suspend(hypervisor: VsphereHypervisor, config: VmConfig) -> None:
    await hypervisor.suspend(config.id)
    assert (await hypervisor.get(config.id)).power is PowerState.SUSPENDED


async def _delete(hypervisor: VsphereHypervisor, config: VmConfig) -> None:
    await hypervisor.delete(config.id)
    assert await hypervisor.list() == []


# what is done, the call that is hit, and whether the VM exists and runs before
STEPS: list[tuple[Step, str, str]] = [
    (_create, "CreateVM_Task", "absent"),
    (_configure, "ReconfigVM_Task", "off"),
    (_start, "ReconfigVM_Task", "off"),
    (_start, "PowerOnVM_Task", "off"),
    (_power_off, "PowerOffVM_Task", "on"),
    (_suspend, "SuspendVM_Task", "on"),
    (_delete, "Destroy_Task", "off"),
]
ANOTHER = {"task": {"type": "Task", "value": "task-1"}}
IDS = [f"{step.__name__[1:]}-{method}" for step, method, _ in STEPS]


async def _prepare(hypervisor: VsphereHypervisor, config: VmConfig, before: str) -> None:
    if before != "absent":
        await hypervisor.create(config)
    if before == "on":
        await hypervisor.start(config.id)


@pytest.mark.parametrize(("step", "method", "before"), STEPS, ids=IDS)
@pytest.mark.parametrize("drop", ["before", "after"])
async def test_an_answer_that_is_lost_costs_nothing(
    lab: LabProcess,
    hypervisor: VsphereHypervisor,
    config: VmConfig,
    step: Step,
    method: str,
    before: str,
    drop: str,
) -> None:
    await _prepare(hypervisor, config, before)
    lab.fault(method=method, count=1, drop=drop)
    await step(hypervisor, config)


@pytest.mark.parametrize(("step", "method", "before"), STEPS, ids=IDS)
async def test_a_refusal_that_passes_is_waited_out(
    lab: LabProcess, hypervisor: VsphereHypervisor, config: VmConfig, step: Step, method: str, before: str
) -> None:
    await _prepare(hypervisor, config, before)
    lab.fault(method=method, count=2, fault="TaskInProgress", detail=ANOTHER)
    await step(hypervisor, config)


@pytest.mark.parametrize(("step", "method", "before"), STEPS, ids=IDS)
async def test_a_refusal_changes_nothing_and_the_next_try_works(
    lab: LabProcess, hypervisor: VsphereHypervisor, config: VmConfig, step: Step, method: str, before: str
) -> None:
    await _prepare(hypervisor, config, before)
    seen = await hypervisor.list()
    lab.fault(method=method, count=1, fault="GenericVmConfigFault", detail={"reason": "refused"})
    with pytest.raises(HypervisorError, match="refused") as raised:
        await step(hypervisor, config)
    if step is _start:
        assert isinstance(raised.value, LaunchError)
    assert await hypervisor.list() == seen
    await step(hypervisor, config)


@pytest.mark.parametrize(
    ("step", "method", "before"), [s for s in STEPS if s[1] == "ReconfigVM_Task"], ids=["configure", "start"]
)
async def test_somebody_elses_change_is_met_by_making_ours_again(
    lab: LabProcess, hypervisor: VsphereHypervisor, config: VmConfig, step: Step, method: str, before: str
) -> None:
    await _prepare(hypervisor, config, before)
    lab.fault(method=method, count=3, fault="ConcurrentAccess")
    await step(hypervisor, config)


@pytest.mark.parametrize(("step", "method", "before"), STEPS, ids=IDS)
async def test_a_session_that_has_ended_is_begun_again(
    lab: LabProcess, hypervisor: VsphereHypervisor, config: VmConfig, step: Step, method: str, before: str
) -> None:
    await _prepare(hypervisor, config, before)
    lab.control("POST", "sessions", {"expire": True})
    await asyncio.wait_for(step(hypervisor, config), 60)


async def test_a_slow_task_is_waited_for(
    lab: LabProcess, hypervisor: VsphereHypervisor, config: VmConfig
) -> None:
    lab.fault(method="CreateVM_Task", count=1, queued_ms=300, latency_ms=300)
    assert (await hypervisor.create(config)).config == config


async def test_a_task_that_fails_after_its_effect_leaves_a_state_that_is_told(
    lab: LabProcess, hypervisor: VsphereHypervisor, config: VmConfig
) -> None:
    await hypervisor.create(config)
    lab.fault(method="PowerOnVM_Task", count=1, fault="GenericVmConfigFault", after=True)
    with pytest.raises(LaunchError):
        await hypervisor.start(config.id)
    assert (await hypervisor.get(config.id)).power is PowerState.OFF


async def test_fifty_at_once(hypervisor: VsphereHypervisor, config: VmConfig) -> None:
    configs = [
        dataclasses.replace(config, id=f"{number:064x}"[::-1], name=f"c{number}") for number in range(50)
    ]
    await asyncio.gather(*(hypervisor.create(each) for each in configs))
    await asyncio.gather(*(hypervisor.start(each.id) for each in configs[:10]))
    assert sum(info.power is PowerState.ON for info in await hypervisor.list()) == 10
