"""Copies of a VM on vSphere: snapshots, and instant clones.

vSphere saves memory and devices; disks are independent of its snapshots, so they
are copied, and only of a VM that is off.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from portlayer.hypervisor.base import HypervisorError, NotSupported, PowerState, VmConfig
from portlayer.hypervisor.copies import Draft, Running, Snapshot, check_clone, copy_disks, names
from portlayer.hypervisor.vsphere import hardware, keys
from portlayer.hypervisor.vsphere.channels import ChannelPort
from portlayer.hypervisor.vsphere.keys import Record

if TYPE_CHECKING:
    from portlayer.hypervisor.vsphere.machine import Machine

__all__ = ["Copies"]


class Copies:
    """What is copied of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def snapshot(self, name: str, *, stop: bool) -> None:
        """A record under ``snapshots/<name>``; memory and devices are vSphere's own snapshot of that name."""
        async with self._machine.held():
            draft = Draft(self._machine.files.snapshots, name)
            try:
                await asyncio.to_thread(draft.begin)
                if self._machine.power is PowerState.OFF:
                    await copy_disks(self._machine.record.config.disks, draft.path)
                else:
                    await self._save_memory(name)
                document = keys.encode(
                    self._machine.record, self._machine.host.config.id, self._machine.host.seal
                )
                await asyncio.to_thread(draft.finish, json.dumps(document, indent=1).encode())
                if stop and self._machine.power is not PowerState.OFF:
                    await self._machine.cut_power(ours=True)
            except OSError as error:
                raise HypervisorError(f"VM {self._machine.id[:12]}: snapshot {name}: {error}") from error
            finally:
                await asyncio.to_thread(shutil.rmtree, draft.path, ignore_errors=True)

    async def snapshots(self) -> list[str]:
        return await asyncio.to_thread(names, self._machine.files.snapshots)

    async def delete_snapshot(self, name: str) -> None:
        """The record goes last: killed before that, it is still there and can be deleted."""
        async with self._machine.held():
            record = Snapshot(self._machine.files.snapshots, name)
            snapshot = await self._machine.calls.find_snapshot(name)
            if snapshot is not None:
                await self._machine.change(lambda: snapshot.RemoveSnapshot_Task(False), "remove the snapshot")
            await asyncio.to_thread(record.delete)

    async def _save_memory(self, name: str) -> None:
        disks = self._machine.record.config.disks
        if disks:
            raise NotSupported(
                f"VM {self._machine.id[:12]} runs with {disks[0].path.name}: "
                "vSphere saves no memory beside independent disks"
            )
        vm = self._machine.calls.vm
        await self._machine.change(
            lambda: vm.CreateSnapshot_Task(name, f"mooring {self._machine.id}", True, False), "snapshot"
        )

    async def clone(self, config: VmConfig) -> Any:
        """Make ``config`` a suspended VM with this running one's memory; returns vSphere's object.

        Killed half-way, the next :meth:`attach` of what is there finishes it or takes it away.
        """
        async with self._machine.held():
            source = self._machine.record.config
            running = Running(disks=[d.id for d in source.disks], nics=len(source.nics), plugged=False)
            check_clone(source, config, running)
            if source.disks or source.nics:
                raise NotSupported(
                    f"VM {self._machine.id[:12]} runs with disks or NICs: vSphere would give the clone others"
                )
            spec = await self._clone_spec(config)
            vm = self._machine.calls.vm
            return await self._machine.change(lambda: vm.InstantClone_Task(spec), "instant clone")

    async def _clone_spec(self, config: VmConfig) -> Any:
        host = self._machine.host
        ports = hardware.serial_devices(await self._machine.calls.devices())
        layout = host.layout(config.id)
        port = ChannelPort(config.id)
        await port.listen(host.target.channel_host)
        await port.close()  # its number is the clone's from now on
        values = keys.encode(Record(config=config, version=1), host.config.id, host.seal)
        values |= {keys.RESTORES.name: keys.UNFINISHED, keys.GOODBYE.name: ""}
        return vim.vm.InstantCloneSpec(
            name=hardware.display_name(config),
            biosUuid=hardware.instance_uuid(config.id),
            config=hardware.options(values),
            location=vim.vm.RelocateSpec(
                folder=host.place.folder,
                pool=host.place.pool,
                deviceChange=[
                    hardware.edit_serial(ports.console, file=layout.console),
                    hardware.edit_serial(ports.channel, uri=self._machine.channel_uri(port.number)),
                    hardware.edit_serial(ports.journal, file=layout.journal),
                ],
            ),
        )

    async def finish_clone(self) -> None:
        async with self._machine.held():
            await self.finish_clone_held()

    async def finish_clone_held(self) -> None:
        """An instant clone runs at once; ours waits for its start. With the key's change it is complete."""
        if self._machine.powered is not PowerState.ON:
            return

        async def build(_seen: Mapping[str, Any]) -> Any:
            return vim.vm.ConfigSpec(extraConfig=hardware.options({keys.RESTORES.name: keys.COMPLETE}))

        await self._machine.calls.reconfigure(build, "finish the clone", fresh=True)
        await self._machine.settle(self._machine.calls.vm.SuspendVM_Task, "suspend the clone", "suspended")
