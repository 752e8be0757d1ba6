"""The tether in real VMs, driven by the host's channel client, without port layer or engine.

One VM ("box", which runs a script that only waits) serves all of them; what ends a VM
has one of its own (test_tether_ends.py).
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from portlayer.channel import TetherError
from tests.system.guestvm import (
    DEFAULT_CAPABILITIES,
    GuestVm,
    Nic,
    boot_config,
    messages,
    running,
    volume,
)
from tests.system.tetherscene import MAC, SECOND_MAC, make_vm, netns, root_image
from tether import tether_pb2 as pb
from tether.journal import Kind
from tether.wire import Code

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

__all__ = ["netns", "root_image"]  # fixtures

BOX = """
trap 'echo got USR1' USR1
trap 'echo stopping; exit 5' TERM
echo started; echo to-stderr >&2
touch /healthy
while :; do sleep 3600 & wait $!; kill $!; done
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(
    tmp_path_factory: pytest.TempPathFactory, root_image: Path, netns: str
) -> AsyncIterator[GuestVm]:
    """A container with everything Docker can ask for at once."""
    directory = tmp_path_factory.mktemp("box")
    config = boot_config("sh", "-c", BOX, env=["GREETING=hello"])
    config.mounts.add(disk=pb.DiskAddress(serial="vol1"), destination="/data", copy_up=True)
    config.mounts.add(disk=pb.DiskAddress(serial="vol2"), destination="/mnt/ro", read_only=True)
    config.mounts.add(
        disk=pb.DiskAddress(serial="vol2"), destination="/sub", subpath="../../inner", read_only=True
    )
    config.tmpfs.add(destination="/scratch", options=["size=1m,mode=1700", "exec"])
    config.sysctls["kernel.shm_rmid_forced"] = "1"
    config.shm_size = 32 << 20
    config.process.rlimits.add(type="RLIMIT_NOFILE", soft=1234, hard=4321)
    config.process.oom_score_adj = 321
    config.resources.pids_limit = 200
    config.resources.memory = 100 << 20
    config.interfaces.add(
        mac=MAC,
        name="eth0",
        addresses=["10.9.0.2/24", "fd00:9::2/64"],
        routes=[pb.Route(destination="0.0.0.0/0", gateway="10.9.0.1")],
        mtu=1400,
    )
    config.resolver.servers.append("10.9.0.1")
    config.resolver.search.append("example.test")
    config.hosts.add(address="10.9.0.2", names=["box"])
    first, second = volume(directory / "vol1.img"), volume(directory / "vol2.img")
    for path in ("data/inner", "data/inner/deep"):
        subprocess.run(["debugfs", "-w", "-R", f"mkdir {path}", str(second)], check=True)
    vm = make_vm(
        directory,
        root_image,
        config,
        disks=[("vol1", first), ("vol2", second)],
        read_only_disks=["vol2"],
        nics=[Nic(tap="tap0", mac=MAC), Nic(tap="tap1", mac=SECOND_MAC)],
        netns=netns,
    )
    async with running(vm):
        try:
            await vm.main_state(pb.MainState.RUNNING, pb.MainState.FAILED)
        except TimeoutError:
            pytest.fail(f"the container did not start; console:\n{vm.console()}")
        yield vm


async def sh(vm: GuestVm, script: str, **process: object) -> str:
    """Output of a shell script in the container."""
    code, out, err = await vm.run(f"sh-{time.monotonic_ns()}", "sh", "-c", script, **process)  # type: ignore[arg-type]
    assert (code, err) == (0, b"")
    return out.decode().strip()


# ---------------------------------------------------------------- what the container sees


async def test_the_main_process_has_dockers_environment(box: GuestVm) -> None:
    environment = (await sh(box, "tr '\\0' '\\n' < /proc/1/environ")).splitlines()
    assert environment[:3] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=box",
        "GREETING=hello",
    ]
    assert environment[-1] == "HOME=/root"


async def test_mounts_are_dockers(box: GuestVm) -> None:
    mounts = {}
    for line in (await sh(box, "cat /proc/self/mounts")).splitlines():
        _, place, fstype, options, *_ = line.split()
        mounts[place] = (fstype, set(options.split(",")))
    assert mounts["/"][0] == "ext4"
    assert mounts["/proc"][0] == "proc"
    assert mounts["/sys"][0] == "sysfs" and "ro" in mounts["/sys"][1]
    assert mounts["/sys/fs/cgroup"][0] == "cgroup2" and "ro" in mounts["/sys/fs/cgroup"][1]
    assert {"nosuid", "nodev", "noexec", "size=32768k"} <= mounts["/dev/shm"][1]
    assert "size=1024k" in mounts["/scratch"][1] and "noexec" not in mounts["/scratch"][1]
    assert "ro" in mounts["/proc/sys"][1]
    assert mounts["/proc/keys"][0] == "tmpfs"  # masked by /dev/null
    assert mounts["/sys/firmware"][0] == "tmpfs"
    for name in ("hosts", "hostname", "resolv.conf"):
        assert mounts[f"/etc/{name}"][0] == "tmpfs"


async def test_namespaces_limits_and_names(box: GuestVm) -> None:
    assert await sh(box, "hostname; cat /etc/hostname") == "box\nbox"
    assert await sh(box, "tail -1 /etc/hosts") == "10.9.0.2\tbox"
    assert await sh(box, "cat /etc/resolv.conf") == "nameserver 10.9.0.1\nsearch example.test"
    assert await sh(box, "cat /proc/1/oom_score_adj /proc/sys/kernel/shm_rmid_forced") == "321\n1"
    assert await sh(box, "grep 'open files' /proc/1/limits | tr -s ' '") == "Max open files 1234 4321 files"
    assert await sh(box, "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max") == f"200\n{100 << 20}"
    assert await sh(box, "cat /proc/1/cgroup") == "0::/"
    status = await sh(box, "grep -E '^(CapPrm|CapBnd|CapAmb|Seccomp):' /proc/1/status")
    assert status.split() == [
        "CapPrm:", "00000000a80425fb", "CapBnd:", "00000000a80425fb", "CapAmb:", "0000000000000000",
        "Seccomp:", "2",
    ]  # fmt: skip


async def test_devices_are_dockers_and_the_others_are_out_of_reach(box: GuestVm) -> None:
    nodes = (await sh(box, "ls /dev")).split()
    wanted = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert nodes == wanted.split()
    # A node can be made (CAP_MKNOD) but the disks cannot be opened; the tether's ports not even made.
    ports = await sh(box, "grep virtio-portsdev /proc/devices | tr -dc 0-9")
    for device, program in (
        ("b 254 0", "head"),
        ("b 253 0", "head"),
        ("c 1 1", "head"),
        (f"c {ports} 1", "mknod"),
    ):
        script = f"rm -f /tmp/node; mknod /tmp/node {device} && head -c1 /tmp/node"
        code, _, err = await box.run(f"node {device}", "sh", "-c", script)
        assert (code, err) == (1, f"{program}: /tmp/node: Operation not permitted\n".encode())
    assert await sh(box, "head -c 4 /dev/zero | wc -c; echo x > /dev/null; echo ok") == "4\nok"


async def test_an_empty_volume_is_filled_from_the_image(box: GuestVm) -> None:
    assert await sh(box, "cat /data/link") == "image content"
    assert await sh(box, "stat -c '%u %g %a' /data") == "1000 1000 2750"
    assert await sh(box, "ls -a /data | xargs") == ". .. from-image link"


async def test_read_only_volumes_and_subpaths(box: GuestVm) -> None:
    code, _, err = await box.run("ro", "touch", "/mnt/ro/x")
    assert (code, err) == (1, b"touch: /mnt/ro/x: Read-only file system\n")
    assert await sh(box, "ls /mnt/ro /sub | xargs") == "/mnt/ro: inner /sub: deep"


# ---------------------------------------------------------------- execs


async def test_exec_returns_output_and_exit_code(box: GuestVm) -> None:
    result = await box.run("codes", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert result == (42, b"out\n", b"err\n")


async def test_exec_reads_stdin_to_its_end(box: GuestVm) -> None:
    assert await box.run("cat", "cat", stdin=b"words\n") == (0, b"words\n", b"")


async def test_exec_runs_as_a_user_of_the_image(box: GuestVm) -> None:
    script = "id; echo $HOME; pwd; grep -E 'CapEff|CapPrm' /proc/self/status"
    out = await sh(box, script, user="user", cwd="/home/user", additional_groups=["audio", "3000"])
    assert out.splitlines() == [
        "uid=1000(user) gid=1000(user) groups=63(audio),1000(user),2000(extra),3000",
        "/home/user",
        "/home/user",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
    ]


async def test_a_user_can_open_stdout_again(box: GuestVm) -> None:
    assert await sh(box, "echo again > /dev/stdout", user="1000:1000") == "again"


@pytest.mark.parametrize(
    ("process", "code", "text"),
    [
        ({"argv": ["nope"]}, Code.NOT_FOUND, 'exec: "nope": executable file not found in $PATH'),
        ({"argv": ["/nope"]}, Code.NOT_FOUND, 'exec: "/nope": stat /nope: no such file or directory'),
        (
            {"argv": ["/etc/not-executable"]},
            Code.PERMISSION_DENIED,
            'exec: "/etc/not-executable": permission denied',
        ),
        ({"argv": ["/etc"]}, Code.PERMISSION_DENIED, 'exec: "/etc": is a directory'),
        (
            {"argv": ["true"], "cwd": "/nope"},
            Code.INVALID_ARGUMENT,
            'chdir to cwd ("/nope") set in config.json failed: no such file or directory',
        ),
        (
            {"argv": ["true"], "user": "who"},
            Code.INVALID_ARGUMENT,
            "unable to find user who: no matching entries in passwd file",
        ),
        ({"argv": ["true"], "capabilities": ["CAP_X"]}, Code.INVALID_ARGUMENT, 'invalid capability: "CAP_X"'),
    ],
)
async def test_execs_that_cannot_start_say_why(
    box: GuestVm, process: dict[str, object], code: Code, text: str
) -> None:
    fields = {"cwd": "/", "env": ["PATH=/bin"], "capabilities": DEFAULT_CAPABILITIES, **process}
    request = pb.ExecRequest(exec_id=f"bad-{text}", process=pb.Process(**fields))  # type: ignore[arg-type]
    with pytest.raises(TetherError) as caught:
        await box.channel.call("Exec", request, pb.ExecReply)
    assert (caught.value.code, str(caught.value)) == (code, text)


async def test_a_terminal_is_the_execs_own(box: GuestVm) -> None:
    process = pb.Process(
        argv=["sh", "-c", "tty; stty size; read word; stty size; echo got $word"],
        env=["PATH=/bin"], cwd="/", tty=True, open_stdin=True, rows=10, columns=20,
    )  # fmt: skip
    await box.channel.call("Exec", pb.ExecRequest(exec_id="tty", process=process), pb.ExecReply)
    out = b""
    request = pb.AttachRequest(exec_id="tty", stdin=True, stdout=True)
    async with await box.channel.stream("Attach", request) as stream:
        await stream.response(pb.Empty)
        async for piece in messages(stream):
            if piece.stream == pb.AttachOutput.STDOUT:
                out += piece.data
                if out.endswith(b"10 20\r\n"):
                    await box.channel.call(
                        "Resize", pb.ResizeRequest(exec_id="tty", rows=30, columns=40), pb.Empty
                    )
                    await stream.send(pb.AttachInput(data=b"word\n").SerializeToString())
            if piece.stream == pb.AttachOutput.EXITED:
                assert piece.exit.exit_code == 0
                break
    assert out == b"/dev/pts/0\r\n10 20\r\nword\r\n30 40\r\ngot word\r\n"


async def test_signals_to_an_exec_reach_one_or_all(box: GuestVm) -> None:
    process = pb.Process(argv=["sh", "-c", "sleep 3600 & wait"], env=["PATH=/bin"], cwd="/")
    await box.channel.call("Exec", pb.ExecRequest(exec_id="sleeper", process=process), pb.ExecReply)
    request = pb.SignalRequest(exec_id="sleeper", signal=9, scope=pb.SignalRequest.ALL)
    async with asyncio.timeout(10):
        async with await box.channel.stream(
            "Attach", pb.AttachRequest(exec_id="sleeper", stdout=True)
        ) as stream:
            await stream.response(pb.Empty)
            await box.channel.call("Signal", request, pb.Empty)
            async for piece in messages(stream):
                if piece.stream == pb.AttachOutput.EXITED:
                    assert piece.exit.exit_code == 137
                    break
    with pytest.raises(TetherError) as caught:
        await box.channel.call("Signal", request, pb.Empty)
    assert caught.value.code == Code.FAILED_PRECONDITION


async def test_the_main_process_gets_signals(box: GuestVm) -> None:
    await box.channel.call("Signal", pb.SignalRequest(signal=10), pb.Empty)
    async with asyncio.timeout(10):
        while b"got USR1" not in box.output(1):
            await asyncio.sleep(0.01)  # the journal is a file: there is nothing to wait on
    assert box.output(1).startswith(b"started\n")
    assert box.output(2) == b"to-stderr\n"


# ---------------------------------------------------------------- files


async def copy_out(vm: GuestVm, path: bytes) -> tuple[pb.PathStat, bytes]:
    data = b""
    async with await vm.channel.stream("CopyOut", pb.CopyOutRequest(path=path)) as stream:
        stat = await stream.response(pb.PathStat)
        while piece := await stream.receive():
            data += piece
    return stat, data


def tar_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid, member.gid = len(content), 0o640, 1000, 1000
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


async def test_files_go_in_and_out(box: GuestVm) -> None:
    content = os.urandom(3 << 20)
    async with await box.channel.stream("CopyIn", pb.CopyInRequest(path=b"/data")) as stream:
        archive = tar_of(big=content, small=b"small\n")
        for start in range(0, len(archive), 1 << 18):
            await stream.send(archive[start : start + (1 << 18)])
        await stream.send(b"", end=True)
        await stream.response(pb.Empty)
    assert (
        await sh(box, "stat -c '%a %u %g %s' /data/big; cat /data/small")
        == f"640 1000 1000 {len(content)}\nsmall"
    )
    stat, data = await copy_out(box, b"/data/big")
    assert (stat.name, stat.size, stat.mode) == (b"big", len(content), 0o100640)
    with tarfile.open(fileobj=io.BytesIO(data)) as back:
        member = back.extractfile("big")
        assert member is not None
        assert member.read() == content


async def test_paths_are_resolved_in_the_containers_view(box: GuestVm) -> None:
    await sh(box, "ln -sfn /../../../../data/from-image /tmp/escape; echo tmpfs > /scratch/file")
    stat = await box.channel.call("StatPath", pb.StatPathRequest(path=b"/tmp/escape"), pb.PathStat)
    assert stat.link_target == b"/data/from-image"
    _, data = await copy_out(box, b"/scratch/file")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.extractfile("file")
        assert member is not None
        assert member.read() == b"tmpfs\n"
    for method, request in (
        ("StatPath", pb.StatPathRequest(path=b"/nope")),
        ("StatPath", pb.StatPathRequest(path=b"/run/mooring")),  # the tether's own
    ):
        with pytest.raises(TetherError) as caught:
            await box.channel.call(method, request, pb.PathStat)
        assert caught.value.code == Code.NOT_FOUND


async def test_a_bad_archive_is_refused(box: GuestVm) -> None:
    async with await box.channel.stream("CopyIn", pb.CopyInRequest(path=b"/tmp")) as stream:
        await stream.send(b"no tar" * 1000, end=True)
        with pytest.raises(TetherError) as caught:
            await stream.response(pb.Empty)
    assert caught.value.code == Code.INVALID_ARGUMENT


# ---------------------------------------------------------------- looking inside, changing


async def test_stats_count_what_the_container_does(box: GuestVm) -> None:
    samples = []
    async with await box.channel.stream("WatchStats", pb.StatsRequest(interval=100_000_000)) as stream:
        while len(samples) < 2:
            samples.append(pb.Stats.FromString(await stream.receive()))
    first, second = samples
    assert second.time - first.time >= 90_000_000
    assert second.system_cpu > first.system_cpu > 0
    assert second.cpu_usage >= first.cpu_usage > 0
    assert first.memory_limit == 100 << 20
    assert 0 < first.memory_usage < 100 << 20
    assert first.memory_stat["anon"] > 0
    assert (first.pids, first.pids_limit) == (2, 200)
    assert "eth0" in [network.name for network in first.networks]
    assert any(block.read_bytes for block in first.blocks)


async def test_top_lists_the_containers_processes_only(box: GuestVm) -> None:
    reply = await box.channel.call("Top", pb.Empty(), pb.TopReply)
    assert [(info.comm, info.user, info.argv[0]) for info in reply.processes] == [
        ("sh", "root", b"sh"),
        ("sleep", "root", b"sleep"),
    ]
    assert reply.processes[1].ppid == reply.processes[0].pid


async def test_health_follows_the_probe(box: GuestVm) -> None:
    check = pb.HealthCheck(test=["test", "-e", "/healthy"], interval=200_000_000, retries=2)
    wanted = [pb.HealthEvent.HEALTHY, pb.HealthEvent.UNHEALTHY, pb.HealthEvent.HEALTHY]
    await box.channel.call("Update", pb.UpdateRequest(health=check, set_health=True), pb.Empty)
    async with asyncio.timeout(30):
        async for event in box.channel.events():
            if not event.HasField("health") or event.health.status != wanted[0]:
                continue
            unhealthy = wanted.pop(0) == pb.HealthEvent.UNHEALTHY
            assert (event.health.failing_streak, event.health.exit_code) == ((2, 1) if unhealthy else (0, 0))
            if not wanted:
                break
            await sh(box, "touch /healthy" if unhealthy else "rm /healthy")
    await box.channel.call("Update", pb.UpdateRequest(set_health=True), pb.Empty)
    kinds = [record.kind for record in box.records()]
    assert kinds.count(Kind.HEALTH) >= 4


async def test_the_health_check_can_be_changed(box: GuestVm) -> None:
    check = pb.HealthCheck(
        test=["sh", "-c", "echo wrong; sleep 3600"], interval=10**8, timeout=10**9, retries=1
    )
    try:
        await box.channel.call("Update", pb.UpdateRequest(health=check, set_health=True), pb.Empty)
        async with asyncio.timeout(10):
            async for event in box.channel.events():
                if event.health.status == pb.HealthEvent.UNHEALTHY and event.health.exit_code == -1:
                    assert event.health.output == "Health check exceeded timeout (1s)"
                    break
    finally:
        await box.channel.call("Update", pb.UpdateRequest(set_health=True), pb.Empty)


async def test_limits_change_while_it_runs(box: GuestVm) -> None:
    resources = pb.Resources(memory=80 << 20, nano_cpus=500_000_000, pids_limit=100)
    await box.channel.call("Update", pb.UpdateRequest(resources=resources), pb.Empty)
    values = await sh(box, "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max")
    assert values == f"{80 << 20}\n50000 100000\n100"
    with pytest.raises(TetherError) as caught:
        await box.channel.call(
            "Update", pb.UpdateRequest(resources=pb.Resources(cpuset_cpus="7-9")), pb.Empty
        )
    assert "cpuset.cpus 7-9" in str(caught.value)
    await box.channel.call("Update", pb.UpdateRequest(resources=box.config.resources), pb.Empty)
    assert await sh(box, "cat /sys/fs/cgroup/cpu.max") == "max 100000"


async def test_freezing_holds_writes_back_until_the_thaw(box: GuestVm) -> None:
    await box.channel.call("Freeze", pb.FreezeRequest(thaw_after=60 * 10**9), pb.Empty)
    with pytest.raises(TetherError):
        await box.channel.call("Freeze", pb.FreezeRequest(), pb.Empty)
    writing = asyncio.ensure_future(sh(box, "echo x > /data/frozen; sync /data/frozen"))
    await sh(box, "true")  # another exec comes and goes meanwhile
    assert not writing.done()
    await box.channel.call("Thaw", pb.Empty(), pb.Empty)
    await writing
    await sh(box, "rm /data/frozen")


async def test_what_is_frozen_thaws_by_itself(box: GuestVm) -> None:
    await box.channel.call("Freeze", pb.FreezeRequest(thaw_after=300_000_000), pb.Empty)
    await sh(box, "echo x > /data/frozen; sync /data/frozen")
    await sh(box, "rm /data/frozen")


async def test_time_and_entropy_come_from_the_host(box: GuestVm) -> None:
    reply = await box.channel.call("TimeSet", pb.TimeSetRequest(time=1_000_000_000 * 10**9), pb.TimeSetReply)
    assert reply.drift > 10**9
    assert await sh(box, "date +%Y") == "2001"
    reply = await box.channel.call("TimeSet", pb.TimeSetRequest(time=time.time_ns()), pb.TimeSetReply)
    assert reply.drift < 0
    assert abs(int(await sh(box, "date +%s")) - time.time()) < 5
    await box.channel.call("Entropy", pb.EntropyRequest(seed=os.urandom(64)), pb.Empty)
    with pytest.raises(TetherError) as caught:
        await box.channel.call("Entropy", pb.EntropyRequest(), pb.Empty)
    assert caught.value.code == Code.INVALID_ARGUMENT


async def test_hello_and_diagnostics_tell_about_the_guest(box: GuestVm) -> None:
    hello = await box.channel.call("Hello", pb.HelloRequest(operation="op"), pb.HelloReply)
    assert (hello.protocol, hello.id) == (1, box.config.id)
    assert hello.main.state == pb.MainState.RUNNING
    assert 0 < hello.import_ns < hello.boot_ns
    assert 0 < hello.rss < 24 << 20
    assert len(bytes.fromhex(hello.boot_nonce)) == 16
    reply = await box.channel.call("Diagnostics", pb.Empty(), pb.DiagnosticsReply)
    assert "Run /init as init process" in reply.dmesg
    assert any("tether ready" in line for line in reply.log)
    assert "MemTotal" in reply.facts["meminfo"]


# ---------------------------------------------------------------- network


def on_host(netns: str, *command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ip", "netns", "exec", netns, *command], capture_output=True, check=False)


async def ping(netns: str, address: str) -> bool:
    result = await asyncio.to_thread(on_host, netns, "busybox", "ping", "-c1", "-W2", address)
    return result.returncode == 0


async def test_the_wanted_network_is_there(box: GuestVm, netns: str) -> None:
    assert await ping(netns, "10.9.0.2")
    assert await ping(netns, "fd00:9::2")
    assert await sh(box, "cat /sys/class/net/eth0/mtu") == "1400"
    assert await sh(box, "ip route | head -1") == "default via 10.9.0.1 dev eth0"
    first = next(record for record in box.records() if record.kind == Kind.NETWORK)
    assert pb.NetworkEvent.FromString(first.body).interfaces[0].name == "eth0"


async def test_the_network_changes_to_another_wanted_set_and_back(box: GuestVm, netns: str) -> None:
    first = box.config.interfaces[0]
    second = pb.Interface(mac=SECOND_MAC, name="eth1", addresses=["10.9.0.77/24"])
    request = pb.NetworkSetRequest(
        interfaces=[pb.Interface(mac=MAC, name="lan0", addresses=["10.9.0.3/24"]), second],
        resolver=pb.Resolver(servers=["10.9.0.9"]),
        hosts=[pb.HostEntry(address="10.9.0.3", names=["box", "alias"])],
    )
    event = await box.channel.call("NetworkSet", request, pb.NetworkEvent)
    assert [interface.name for interface in event.interfaces] == ["lan0", "eth1"]
    assert await ping(netns, "10.9.0.3") and await ping(netns, "10.9.0.77")
    assert not await ping(netns, "10.9.0.2")
    assert await sh(box, "ip route | grep -c default || true") == "0"
    assert (
        await sh(box, "cat /etc/resolv.conf; tail -1 /etc/hosts")
        == "nameserver 10.9.0.9\n10.9.0.3\tbox alias"
    )
    back = pb.NetworkSetRequest(interfaces=[first], resolver=box.config.resolver, hosts=box.config.hosts)
    await box.channel.call("NetworkSet", back, pb.NetworkEvent)
    assert await ping(netns, "10.9.0.2")
    assert not await ping(netns, "10.9.0.77")
    assert await sh(box, "ip route | head -1") == "default via 10.9.0.1 dev eth0"


async def test_an_impossible_network_is_refused_by_name(box: GuestVm) -> None:
    request = pb.NetworkSetRequest(
        interfaces=[
            box.config.interfaces[0],
            pb.Interface(mac=SECOND_MAC, name="eth1", addresses=["10.9.0.300/24"]),
        ]
    )
    with pytest.raises(TetherError) as caught:
        await box.channel.call("NetworkSet", request, pb.NetworkEvent)
    assert "eth1" in str(caught.value) and "'10.9.0.300/24' is no address" in str(caught.value)


# ---------------------------------------------------------------- the end


async def test_shutdown_lets_the_container_end_and_nothing_is_lost(box: GuestVm) -> None:
    """The last test with this VM."""
    await sh(box, "echo kept > /data/kept; echo kept > /root/kept")
    await box.channel.call("Shutdown", pb.ShutdownRequest(reason="test"), pb.Empty)
    await box.powered_off()
    state = box.final_state()
    assert (state.state, state.exit_code, state.signal) == (pb.MainState.EXITED, 5, 0)
    assert state.started_at < state.finished_at
    assert box.output(1).endswith(b"stopping\n")
    for name, path in (("root.img", "/root/kept"), ("vol1.img", "/data/kept")):
        image = str(box.directory / name)
        content = subprocess.run(["debugfs", "-R", f"cat {path}", image], capture_output=True, check=True)
        assert content.stdout == b"kept\n"
        subprocess.run(["e2fsck", "-fn", image], check=True, capture_output=True)
        header = subprocess.run(["dumpe2fs", "-h", image], capture_output=True, text=True, check=True)
        assert "needs_recovery" not in header.stdout, "it was not unmounted"
