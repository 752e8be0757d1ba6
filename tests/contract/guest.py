"""The guest of the contract tests: a busybox shell that does as the channel says.

It stands for the tether: same kernel, same ports, none of our code. One command
a line, one answer a line.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from imagebuild.cpio import CpioWriter, Node
from imagebuild.iso import write_iso

__all__ = ["BootFiles", "Guest", "make_boot_files"]

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "build" / "guest"
BUSYBOX = Path("/usr/bin/busybox")

INIT = r"""#!/contract/busybox sh
/contract/busybox mkdir -p /contract/bin /proc /sys /dev
/contract/busybox --install -s /contract/bin
export PATH=/contract/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev 2>/dev/null
if [ -f /etc/mooring/modules ]; then
  while read -r path ids; do insmod $path 2>/dev/null; done < /etc/mooring/modules
fi
tries=0
while [ ! -e /sys/class/virtio-ports/vport0p1 ] && [ ! -e /dev/vport0p1 ] && [ $tries -lt 20 ]; do
  [ -e /sys/bus/virtio ] && [ -n "$(ls /sys/bus/virtio/devices 2>/dev/null)" ] || break
  usleep 50000; tries=$((tries + 1))
done
channel=/dev/ttyS1 journal=/dev/ttyS2
for port in /sys/class/virtio-ports/*; do
  case "$(cat $port/name 2>/dev/null)" in
    mooring.channel) channel=/dev/${port##*/} ;;
    mooring.journal) journal=/dev/${port##*/} ;;
  esac
done
case $channel in /dev/ttyS*) for tty in $channel $journal; do stty -F $tty raw -echo; done ;; esac
exec 3<>$channel 4>$journal
for port in /sys/class/virtio-ports/*; do
  [ "$(cat $port/name 2>/dev/null)" = org.lab.guestinfo ] && exec 5<>/dev/${port##*/} && guestinfo=yes
done
rpc() { # request -> value
  [ $guestinfo ] || return 1
  echo "$*" >&5; read -r status value <&5; echo "$value"; [ "$status" = 1 ]
}
rpc info-set guestinfo.mooring.run $(cat /proc/sys/kernel/random/boot_id) >/dev/null
dmesg -n 4
echo "booted $(cat /proc/sys/kernel/random/boot_id)" >&4

block() { # serial -> device
  for path in /sys/block/vd* /sys/block/sd*; do
    [ -e $path ] || continue
    if [ -e $path/serial ]; then found=$(cat $path/serial)
    elif [ $guestinfo ]; then # id=controller:channel:target:lun
      at=$(readlink $path/device); at=${at##*/}
      found=$(rpc info-get guestinfo.mooring.disks | tr ' ' '\n' | sed -n "s/=0:${at#*:}\$//p")
    else found=$(tail -c +5 $path/device/vpd_pg80 2>/dev/null | tr -d '\0 '); fi
    [ "$1" = "$found" ] && echo /dev/${path##*/} && return 0
    [ "$1" = all ] && echo "$found=$(cat $path/size)"
  done
  [ "$1" = all ]
}
nic() { # MAC -> interface
  for path in /sys/class/net/*; do
    [ -e $path/device ] || continue
    [ "$(cat $path/address)" = "$1" ] && echo ${path##*/} && return 0
    [ "$1" = all ] && cat $path/address
  done
  [ "$1" = all ]
}
while :; do
  read -r command one two three <&3 || { usleep 20000; continue; }
  case $command in
    ping) echo "pong $one" >&3 ;;
    boot)
      raw=$(base64 /sys/firmware/qemu_fw_cfg/by_name/opt/mooring/boot/raw 2>/dev/null | tr -d '\n')
      [ $guestinfo ] && raw=$(rpc info-get guestinfo.mooring.boot | base64 -d | gunzip | base64 | tr -d '\n')
      echo "boot $raw" >&3 ;;
    disks) echo "disks $(block all | sort | tr '\n' ' ')" >&3 ;;
    nics) echo "nics $(nic all | sort | tr '\n' ' ')" >&3 ;;
    put) if disk=$(block $one) && echo "$two" | dd of=$disk conv=fsync 2>/dev/null; then echo done; else echo failed; fi >&3 ;;
    get) if disk=$(block $one); then blockdev --flushbufs $disk; echo "got $(head -n 1 $disk)"; else echo failed; fi >&3 ;;
    net) if ip link set $(nic $one) up && ip addr add $two dev $(nic $one) && ping -c 1 -W 5 $three >/dev/null; then echo done; else echo failed; fi >&3 ;;
    journal) awk "BEGIN { for (i = $one; i < $two; i++) printf \"%015d\n\", i }" >&4; echo done >&3 ;;
    console) echo "$one" >/dev/console; echo done >&3 ;;
    note) noted=$one; echo done >&3 ;;
    noted) echo "noted $noted" >&3 ;;
    off) rpc info-set guestinfo.mooring.goodbye poweroff >/dev/null; poweroff -f ;;
    reboot) reboot -f ;;
    panic) exit 1 ;;
    *) echo "what is $command" >&3 ;;
  esac
done
"""


@dataclass(frozen=True, kw_only=True)
class BootFiles:
    kernel: Path
    initrd: Path
    iso: Path


def make_boot_files(directory: Path) -> BootFiles:
    """Kernel as built by ``make guest``, initramfs with our shell, and an ISO of both."""
    assert (BUILT / "kernel").exists(), "the guest is not built: run `make guest`"
    files = BootFiles(kernel=directory / "kernel", initrd=directory / "initrd", iso=directory / "test.iso")
    shutil.copyfile(BUILT / "kernel", files.kernel)
    built = (BUILT / "initrd").read_bytes()
    modular = b"etc/mooring/modules\0" in built
    with files.initrd.open("wb") as output:
        if modular:
            output.write(built)  # the kernel unpacks archive after archive; the later file wins
        writer = CpioWriter(output)
        for name in ("dev", "proc", "sys", "contract"):
            writer.add(Node(name=name, mode=stat.S_IFDIR | 0o755))
        writer.add(Node(name="dev/console", mode=stat.S_IFCHR | 0o600, rdev=(5, 1)))
        writer.add(Node(name="contract/busybox", mode=stat.S_IFREG | 0o755, data=BUSYBOX.read_bytes()))
        writer.add(Node(name="init", mode=stat.S_IFREG | 0o755, data=INIT.encode()))
        writer.close()
    bios_kernel = directory / "kernel.bios"  # a directly booted kernel may be one that isolinux cannot load
    subprocess.run(
        [
            "xorriso",
            "-osirrox",
            "on",
            "-indev",
            BUILT / "bootstrap.iso",
            "-extract",
            "/boot/kernel",
            bios_kernel,
        ],
        check=True,
        capture_output=True,
    )
    write_iso(files.iso, kernel=bios_kernel, initrd=files.initrd)
    for path in (files.kernel, files.initrd, files.iso):
        path.chmod(0o644)
    directory.chmod(0o711)
    return files


class Guest:
    """The host's end of one channel connection."""

    _words = itertools.count()

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def contact(self, *, timeout: float = 60) -> Guest:
        """Wait until the guest listens. A serial port loses what came before."""
        word = f"{os.getpid()}-{next(self._words)}"
        async with asyncio.timeout(timeout):
            while True:
                self._writer.write(f"ping {word}\n".encode())
                try:
                    async with asyncio.timeout(0.5):
                        while (await self._line()) != f"pong {word}":
                            pass
                except TimeoutError:
                    continue
                break
        # answers to earlier pings may follow: one more, with a word of its own, ends them
        assert (await self.ask(f"ping {word}-last", until=f"pong {word}-last")) == f"pong {word}-last"
        return self

    async def ask(self, command: str, *, timeout: float = 60, until: str = "") -> str:
        self.tell(command)
        async with asyncio.timeout(timeout):
            while True:
                answer = await self._line()
                if not until or answer == until:
                    return answer

    def tell(self, command: str) -> None:
        self._writer.write(f"{command}\n".encode())

    async def boot_config(self) -> bytes:
        return base64.b64decode((await self.ask("boot")).removeprefix("boot "))

    async def disks(self) -> dict[str, int]:
        """Serial number -> bytes."""
        words = (await self.ask("disks")).split()[1:]
        return {serial: int(size) * 512 for serial, size in (word.split("=") for word in words)}

    async def nics(self) -> set[str]:
        return set((await self.ask("nics")).split()[1:])

    async def until(self, question: str, wanted: str) -> None:
        """Ask until the answer is ``wanted``: hot-plugged hardware takes the guest a moment."""
        async with asyncio.timeout(30):
            while (await self.ask(question)).strip() != wanted:
                pass

    async def _line(self) -> str:
        line = await self._reader.readline()
        if not line:
            raise EOFError("the channel ended")
        return line.decode(errors="replace").strip("\r\n\0 ")
