"""Everything that stands in a VCH's way on vSphere, collected, each with what is there instead."""

from __future__ import annotations

from portlayer.hypervisor.base import HypervisorError
from portlayer.hypervisor.vsphere.inventory import find_place, list_entities
from portlayer.hypervisor.vsphere.session import Session
from vch.config import VchConfig

__all__ = ["validate"]


async def validate(config: VchConfig) -> list[str]:
    assert config.vsphere is not None
    session = Session(config.vsphere)
    try:
        await session.open()
        inventory = await session.read(lambda: list_entities(session), "read the inventory")
        find_place(inventory, config.vsphere)
    except HypervisorError as error:
        return [str(error)]
    finally:
        await session.close()
    return []
