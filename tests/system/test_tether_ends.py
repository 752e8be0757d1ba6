"""Containers that end, each in a VM of its own: why, with what code, and what the journal keeps of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.system.guestvm import GuestVm, Nic, boot_config, messages, running
from tests.system.tetherscene import MAC, make_vm, netns, root_image
from tether import tether_pb2 as pb
from tether.journal import Kind

__all__ = ["netns", "root_image"]  # fixtures

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]


async def run_to_end(vm: GuestVm) -> pb.MainState:
    async with running(vm):
        await vm.powered_off()
    return vm.final_state()


async def test_a_command_that_is_not_there(tmp_path: Path, root_image: Path) -> None:
    state = await run_to_end(make_vm(tmp_path, root_image, boot_config("nope", "--help")))
    assert (state.state, state.exit_code) == (pb.MainState.FAILED, 127)
    assert state.error == 'exec: "nope": executable file not found in $PATH'


async def test_a_root_disk_that_is_not_there(tmp_path: Path, root_image: Path) -> None:
    config = boot_config("true")
    config.root.serial = "other"
    state = await run_to_end(make_vm(tmp_path, root_image, config))
    assert (state.state, state.exit_code) == (pb.MainState.FAILED, 128)
    assert state.error == "no disk with serial other within 10 s (present: vda)"


async def test_running_out_of_memory_is_told(tmp_path: Path, root_image: Path) -> None:
    # One read(2) that fills its buffer in the kernel. A program that grows step by step may go on at the edge
    # for minutes: its own code's pages are thrown away and read again, which counts as progress.
    config = boot_config("sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1; true")
    config.resources.memory = 32 << 20
    vm = make_vm(tmp_path, root_image, config)
    state = await run_to_end(vm)
    assert state.oom_killed
    assert [pb.OomEvent.FromString(r.body).kills for r in vm.records() if r.kind == Kind.OOM] == [1]


async def test_a_terminal_with_a_minimal_init_and_all_privileges(tmp_path: Path, root_image: Path) -> None:
    script = "tty; stty size; ls -l /dev/console; head -c0 /dev/vda && echo disk; cat /proc/1/comm; read x; kill -9 $$"
    config = boot_config(
        "sh", "-c", script,
        tty=True, open_stdin=True, rows=24, columns=80, init=True, privileged=True, cwd="/new/dir",
    )  # fmt: skip
    config.wait_for_launch = True
    vm = make_vm(tmp_path, root_image, config)
    out = b""
    async with running(vm):
        hello = await vm.channel.ready()
        assert hello.main.state in (pb.MainState.WAITING, pb.MainState.UNKNOWN)
        async with await vm.channel.stream("Attach", pb.AttachRequest(stdin=True, stdout=True)) as stream:
            await stream.response(pb.Empty)
            state = await vm.channel.call("Launch", pb.LaunchRequest(), pb.MainState)
            assert state.state == pb.MainState.RUNNING
            async for piece in messages(stream):
                if piece.stream == pb.AttachOutput.STDOUT:
                    out += piece.data
                    if out.endswith(b"docker-init\r\n"):
                        await stream.send(pb.AttachInput(data=b"\n").SerializeToString())
                if piece.stream == pb.AttachOutput.EXITED:
                    break
        await vm.powered_off()
    lines = out.decode().splitlines()
    assert lines[:2] == ["/dev/pts/0", "24 80"]
    assert lines[2].startswith("crw") and "136," in lines[2]
    assert lines[3] == "disk"
    state = vm.final_state()
    assert (state.state, state.exit_code) == (pb.MainState.EXITED, 137)


async def test_an_address_by_dhcp(tmp_path: Path, root_image: Path, netns: str) -> None:
    leases = tmp_path / "leases"
    leases.touch()
    server = tmp_path / "udhcpd.conf"
    server.write_text(
        f"start 10.9.0.50\nend 10.9.0.50\ninterface br0\nlease_file {leases}\n"
        "option subnet 255.255.255.0\noption router 10.9.0.1\noption dns 10.9.0.53\noption domain lan.test\n"
    )
    daemon = subprocess.Popen(
        ["ip", "netns", "exec", netns, "busybox", "udhcpd", "-f", str(server)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        config = boot_config(
            "sh", "-c", "ip -4 addr show eth0; ip route; cat /etc/resolv.conf; tail -1 /etc/hosts"
        )
        config.interfaces.add(mac=MAC, name="eth0", dhcp=True)
        vm = make_vm(tmp_path, root_image, config, nics=[Nic(tap="tap0", mac=MAC)], netns=netns)
        await run_to_end(vm)
    finally:
        daemon.terminate()
        daemon.wait()
    out = vm.output(1).decode()
    assert "inet 10.9.0.50/24" in out
    assert "default via 10.9.0.1" in out
    assert "nameserver 10.9.0.53\nsearch lan.test" in out
    assert out.endswith("10.9.0.50\tbox\n")
