"""One container VM without a port layer: QEMU, a root disk made of busybox, the host's channel client.

Tests of the tether against a real kernel. Everything lives below one directory
and ends with the VM.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from portlayer.channel import ChannelStream, TetherChannel
from tether import tether_pb2 as pb
from tether.journal import JournalReader, Kind, Record

DEFAULT_CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "
        "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
]
MASKED = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/sys/firmware",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
ID = "c0ffee" + "0" * 58


def host_khz() -> int:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("cpu MHz"):
            return int(float(line.split(":")[1]) * 1000)
    return 2_000_000


def busybox_root(directory: Path) -> Path:
    """A root file system of one program and the files that tests look for."""
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "home/user", "root", "data", "usr/bin"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy("/usr/bin/busybox", directory / "bin/busybox")
    applets = subprocess.run(["/usr/bin/busybox", "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
    )
    (directory / "etc/group").write_text("root:x:0:\nuser:x:1000:\nextra:x:2000:user\naudio:x:63:\n")
    (directory / "tmp").chmod(0o1777)
    (directory / "data/from-image").write_text("image content\n")
    (directory / "data/link").symlink_to("from-image")
    os.chown(directory / "data", 1000, 1000)
    (directory / "data").chmod(0o2750)
    (directory / "etc/not-executable").write_text("#!/bin/sh\n")
    return directory


def ext4(image: Path, content: Path | None, size: str = "64M") -> Path:
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1", "-O", "^resize_inode"]
    if content is not None:
        command += ["-d", str(content)]
    subprocess.run([*command, str(image), size], check=True)
    return image


def volume(image: Path, size: str = "16M") -> Path:
    content = image.with_suffix(".content")
    (content / "data").mkdir(parents=True)
    return ext4(image, content, size)


@dataclass(kw_only=True)
class Nic:
    tap: str
    mac: str


@dataclass(kw_only=True)
class GuestVm:
    """A VM that is not started yet. ``guest`` holds kernel and initrd."""

    directory: Path
    guest: Path
    config: pb.BootConfig
    disks: Sequence[tuple[str, Path]]
    nics: Sequence[Nic] = ()
    memory: int = 256
    netns: str = ""
    read_only_disks: Sequence[str] = ()
    serial: bool = False  # the machine profile vsphere: pvscsi, channel and journal on 16550s
    started: float = 0.0
    process: asyncio.subprocess.Process | None = None
    channel: TetherChannel = field(init=False)
    connections: list[asyncio.StreamWriter] = field(default_factory=list)  # of the channel, all there were

    async def start(self) -> None:
        (self.directory / "boot.bin").write_bytes(self.config.SerializeToString())
        command = ["ip", "netns", "exec", self.netns] if self.netns else []
        command += self._qemu()
        self.started = time.monotonic()
        errors = (self.directory / "qemu.err").open("wb")
        self.process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=errors, stderr=errors
        )
        errors.close()
        self.channel = TetherChannel(self._connect, name="test")
        await self.channel.start()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(self.directory / "channel")
        self.connections.append(writer)
        return reader, writer

    def _qemu(self) -> list[str]:
        place = self.directory
        words = f"console=ttyS0 quiet reboot=t panic=-1 tsc_early_khz={host_khz()} random.trust_cpu=on"
        command = ["qemu-system-x86_64", "-M", "q35,sata=off,smbus=off,i8042=off,vmport=off,smm=off"]
        command += [
            "-cpu",
            "max",
            "-m",
            str(self.memory),
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ]
        command += [
            "-no-reboot",
            "-kernel",
            str(self.guest / "kernel"),
            "-initrd",
            str(self.guest / "initrd"),
        ]
        command += ["-append", words, "-fw_cfg", f"name=opt/mooring/boot,file={place}/boot.bin"]
        command += ["-chardev", f"file,id=console,path={place}/console", "-serial", "chardev:console"]
        command += ["-device", "virtio-rng-pci"]
        command += ["-chardev", f"socket,id=channel,path={place}/channel,server=on,wait=off"]
        command += ["-chardev", f"file,id=journal,path={place}/journal,append=on"]
        if self.serial:
            command += ["-serial", "chardev:channel", "-serial", "chardev:journal", "-device", "pvscsi"]
        else:
            command += ["-device", "virtio-serial-pci"]
            command += ["-device", "virtserialport,chardev=channel,name=mooring.channel"]
            command += ["-device", "virtserialport,chardev=journal,name=mooring.journal"]
        for number, (serial, path) in enumerate(self.disks):
            mode = ",read-only=on" if serial in self.read_only_disks else ""
            command += ["-drive", f"file={path},format=raw,if=none,id=d{number}{mode}"]
            driver = "scsi-hd" if self.serial else "virtio-blk-pci"
            command += ["-device", f"{driver},drive=d{number},serial={serial}"]
        for number, nic in enumerate(self.nics):
            command += ["-netdev", f"tap,id=n{number},ifname={nic.tap},script=no,downscript=no"]
            command += ["-device", f"virtio-net-pci,netdev=n{number},mac={nic.mac},romfile="]
        return command

    async def powered_off(self, seconds: float = 60) -> None:
        assert self.process is not None
        async with asyncio.timeout(seconds):
            await self.process.wait()

    async def close(self) -> None:
        await self.channel.close()
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def console(self) -> str:
        return (self.directory / "console").read_text(errors="replace")

    def records(self) -> list[Record]:
        reader = JournalReader()
        found = reader.feed((self.directory / "journal").read_bytes())
        assert reader.lost == 0
        return found

    def output(self, stream: int) -> bytes:
        return b"".join(r.body for r in self.records() if r.kind == Kind.OUTPUT and r.stream == stream)

    def final_state(self) -> pb.MainState:
        for record in reversed(self.records()):
            if record.kind in (Kind.EXITED, Kind.FAILED):
                return pb.MainState.FromString(record.body)
        raise AssertionError(f"no end in the journal; console:\n{self.console()}")

    # ------------------------------------------------------------ what tests do with it

    async def main_state(self, *states: pb.MainState.State.ValueType, seconds: float = 30) -> pb.MainState:
        """The first state of ``states`` that the events tell."""
        async with asyncio.timeout(seconds):
            async for event in self.channel.events():
                if event.HasField("main") and event.main.state in states:
                    return event.main
        raise AssertionError("the events ended")

    async def run(
        self, name: str, *argv: str, stdin: bytes | None = None, **process: object
    ) -> tuple[int, bytes, bytes]:
        """An exec to its end: exit code, stdout, stderr."""
        request = pb.ExecRequest(
            exec_id=name,
            process=pb.Process(
                argv=argv,
                open_stdin=stdin is not None,
                **{"cwd": "/", "capabilities": DEFAULT_CAPABILITIES, "env": ["PATH=/bin"], **process},  # type: ignore[arg-type]
            ),
        )
        await self.channel.call("Exec", request, pb.ExecReply)
        wanted = pb.AttachRequest(exec_id=name, stdin=stdin is not None, stdout=True, stderr=True)
        out = {pb.AttachOutput.STDOUT: b"", pb.AttachOutput.STDERR: b""}
        async with await self.channel.stream("Attach", wanted) as stream:
            await stream.response(pb.Empty)
            if stdin is not None:
                message = pb.AttachInput(data=stdin, close=True)
                await stream.send(message.SerializeToString())
            async for piece in messages(stream):
                if piece.stream == pb.AttachOutput.EXITED:
                    return piece.exit.exit_code, out[pb.AttachOutput.STDOUT], out[pb.AttachOutput.STDERR]
                if piece.stream in out:
                    out[piece.stream] += piece.data
        raise AssertionError("the attach stream ended without EXITED")


async def messages(stream: ChannelStream) -> AsyncIterator[pb.AttachOutput]:
    while body := await stream.receive():
        yield pb.AttachOutput.FromString(body)


def boot_config(*argv: str, **process: object) -> pb.BootConfig:
    """A container as Docker would make it by default, on the disk "root"."""
    return pb.BootConfig(
        version=1,
        id=ID,
        name="test",
        hostname="box",
        process=pb.Process(argv=argv, **{"cwd": "/", "capabilities": DEFAULT_CAPABILITIES, **process}),  # type: ignore[arg-type]
        root=pb.DiskAddress(serial="root"),
        masked_paths=MASKED,
        readonly_paths=READ_ONLY,
    )


@asynccontextmanager
async def running(vm: GuestVm) -> AsyncIterator[GuestVm]:
    await vm.start()
    try:
        yield vm
    finally:
        await vm.close()
