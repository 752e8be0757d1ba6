"""bootstrap.iso boots to "tether ready" and runs a container, on both machine profiles.

``fast`` has virtio devices and no CD-ROM (it boots kernel and initramfs
directly), so here it is given one. ``vsphere`` is what ESXi shows: pvscsi, vmxnet3,
an AHCI CD-ROM, serial ports.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from portlayer.portlayer_pb2 import Volume, VolumeMount
from tests.system.guestvm import GuestVm, boot_config, busybox_root, ext4, running
from tests.system.harness import GUEST, Host
from tests.system.portlayer import PortLayer, busybox_layer
from vch.config import Guest

pytestmark = pytest.mark.system
ISO = GUEST / "bootstrap.iso"


class CdRomVm(GuestVm):
    """The virtio machine, started by its firmware from a CD-ROM."""

    def _qemu(self) -> list[str]:
        words = super()._qemu()
        for option in ("-kernel", "-initrd", "-append"):
            at = words.index(option)
            del words[at : at + 2]
        words[words.index("-M") + 1] = "q35"  # with its AHCI
        return [*words, "-boot", "order=d", "-cdrom", str(ISO)]


async def test_on_virtio(tmp_path: Path) -> None:
    root = ext4(tmp_path / "root.img", busybox_root(tmp_path / "root"))
    config = boot_config("/bin/sh", "-c", "cat /data/from-image; exit 7")
    vm = CdRomVm(directory=tmp_path, guest=GUEST, config=config, disks=[("root", root)])
    async with running(vm):
        assert (await vm.channel.ready()).version
        await vm.powered_off()
    assert (vm.output(1), vm.final_state().exit_code) == (b"image content\n", 7)


async def test_on_what_esxi_shows(host: Host) -> None:
    guest = Guest(kernel=GUEST / "kernel", initrd=GUEST / "initrd", iso=ISO, profile="vsphere")
    portlayer = PortLayer(host, guest=guest)
    await portlayer.start()
    try:
        async with portlayer.client() as client:
            layer = await client.put_layer(busybox_layer())
            await client.volumes.Create(Volume(name="volume"))
            script = "echo one > /v/file; nc -l -p 80 -e cat /v/file"
            mounts = [VolumeMount(volume="volume", destination="/v")]
            serving = await client.run(layer, "sh", "-c", script, mounts=mounts)
            address = (await client.get(serving)).handle.spec.endpoints[0].assigned_ipv4.partition("/")[0]
            asking = await client.create(
                layer, "sh", "-c", f"until nc {address} 80; do sleep 0.1; done; exit 7"
            )
            await client.start(asking)
            assert (await client.wait(asking)).exit_code == 7
            assert await client.logs(asking) == b"one\n"
            for container in (asking, serving):
                await client.remove(container)
    finally:
        assert await portlayer.stop() == 0
