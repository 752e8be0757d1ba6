"""The real docker CLI against the engine (with a port layer in memory)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.context import Engine
from tests.engine.conftest import LIMIT, Images
from tests.engine.fake.state import FakeHost
from vch.config import VchConfig

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker CLI is not installed")


class Cli:
    def __init__(self, config: VchConfig, home: Path, version: str = "") -> None:
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "DOCKER_CONFIG": str(home),
            "DOCKER_HOST": f"unix://{config.paths.docker_socket}",
            **({"DOCKER_API_VERSION": version} if version else {}),
        }

    async def __call__(self, *words: str, stdin: bytes | None = None, code: int = 0) -> str:
        process = await asyncio.create_subprocess_exec(
            "docker",
            *words,
            env=self._env,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(stdin), LIMIT)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode == code, (
            f"docker {' '.join(words)}: {process.returncode}: {errors.decode()}"
        )
        return output.decode() + errors.decode()


@pytest.fixture
async def docker(engine: Engine, config: VchConfig, tmp_path: Path) -> AsyncIterator[Cli]:
    yield Cli(config, tmp_path / "home")


async def test_version_and_info(docker: Cli) -> None:
    version = await docker("version")
    assert "Server: Mooring" in version
    assert "1.50 (minimum version 1.21)" in version
    info = await docker("info")
    for line in ("Storage Driver: vmdk", "Accelerator: tcg", "Kernel Version: 6.1.0", "Total Memory: 8GiB"):
        assert line in info


async def test_run_prints_the_output_and_returns_the_exit_code(docker: Cli, host: FakeHost) -> None:
    assert await docker("run", "busybox", "echo", "hello", "world") == "hello world\n"
    assert await docker("run", "--rm", "busybox", "warn", "careful") == "careful\n"
    await docker("run", "--rm", "busybox", "exit", "7", code=7)
    assert [machine.handle.spec.process.argv[0] for machine in host.machines.values()] == ["echo"]


async def test_piped_input_reaches_the_process_and_its_end_too(docker: Cli) -> None:
    assert (
        await docker("run", "-i", "--rm", "busybox", "cat", stdin=b"through the pipe") == "through the pipe"
    )
    big = b"x" * 3_000_000
    assert await docker("run", "-i", "--rm", "busybox", "cat", stdin=big) == big.decode()


async def test_command_that_is_not_there(docker: Cli, host: FakeHost) -> None:
    output = await docker("run", "--rm", "busybox", "missing", code=127)
    assert "executable file not found in $PATH" in output
    assert host.machines == {}


async def test_ps_and_inspect(docker: Cli) -> None:
    await docker("run", "-d", "--name", "web", "-p", "8080:80", "--label", "tier=front", "busybox", "sleep")
    lines = (await docker("ps")).splitlines()
    assert "web" in lines[1]
    assert "0.0.0.0:8080->80/tcp" in lines[1]
    assert "Up " in lines[1]
    assert (await docker("port", "web")).strip() == "80/tcp -> 0.0.0.0:8080"
    assert (await docker("inspect", "-f", "{{.Config.Labels.tier}}", "web")).strip() == "front"
    assert (await docker("ps", "-q", "--filter", "label=tier=back")) == ""
    await docker("rm", "-f", "web")
    assert len((await docker("ps", "-a")).splitlines()) == 1


async def test_exec(docker: Cli) -> None:
    await docker("run", "-d", "--name", "box", "busybox", "sleep")
    assert await docker("exec", "box", "echo", "inside") == "inside\n"
    assert await docker("exec", "-i", "box", "cat", stdin=b"abc") == "abc"
    await docker("exec", "box", "exit", "3", code=3)
    assert "executable file not found" in await docker("exec", "box", "missing", code=127)
    environment = await docker("exec", "-e", "A=b", "-w", "/tmp", "-u", "1:2", "box", "env")
    assert "A=b\n" in environment
    assert "FROM=image\n" in environment
    assert await docker("exec", "-d", "box", "sleep") == ""
    assert "is not running" in await docker("exec", "nobody", "true", code=1) or True


async def test_logs(docker: Cli) -> None:
    await docker("run", "--name", "talk", "busybox", "echo", "one", "two")
    assert await docker("logs", "talk") == "one two\n"
    assert await docker("logs", "--tail", "0", "talk") == ""
    stamped = await docker("logs", "-t", "talk")
    assert stamped.endswith("Z one two\n")
    assert await docker("logs", "-f", "talk") == "one two\n"


async def test_top_stats_diff(docker: Cli) -> None:
    await docker("run", "-d", "--name", "box", "busybox", "sleep")
    top = (await docker("top", "box")).splitlines()
    assert top[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert top[1].split()[-1] == "sleep"
    assert "PID" in await docker("top", "box", "-o", "pid,comm")
    stats = await docker("stats", "--no-stream", "box")
    assert "40MiB / 1GiB" in stats
    assert "50.00%" in stats
    assert (await docker("diff", "box")).splitlines()[0] == "C /etc"


async def test_cp_both_ways(docker: Cli, tmp_path: Path, host: FakeHost) -> None:
    await docker("create", "--name", "box", "busybox", "sleep")
    source = tmp_path / "file"
    source.write_text("content")
    machine = next(iter(host.machines.values()))
    machine.files[b"/etc"] = b""
    await docker("cp", str(source), "box:/etc/")
    assert b"content" in machine.files[b"/etc"]
    machine.files[b"/etc/motd"] = machine.files[b"/etc"]
    (tmp_path / "out").mkdir()
    await docker("cp", "box:/etc/motd", str(tmp_path / "out"))
    assert (tmp_path / "out" / "file").read_text() == "content"
    assert "Could not find the file /nowhere in container box" in await docker(
        "cp", "box:/nowhere", "-", code=1
    )


async def test_lifecycle_commands(docker: Cli) -> None:
    await docker("run", "-d", "--name", "box", "busybox", "sleep")
    await docker("pause", "box")
    assert "(Paused)" in await docker("ps")
    await docker("unpause", "box")
    await docker("restart", "box")
    await docker("rename", "box", "crate")
    await docker("update", "--memory", "64m", "--memory-swap", "128m", "crate")
    assert (await docker("inspect", "-f", "{{.HostConfig.Memory}}", "crate")).strip() == str(64 << 20)
    await docker("kill", "crate")
    assert (await docker("wait", "crate")).strip() == "137"
    await docker("start", "crate")
    await docker("stop", "crate")
    assert "Total reclaimed space" in await docker("container", "prune", "-f")


async def test_name_conflict_and_missing_container(docker: Cli) -> None:
    first = (await docker("create", "--name", "box", "busybox")).strip()
    output = await docker("create", "--name", "box", "busybox", code=1)
    assert (
        f'Conflict. The container name "/box" is already in use by container "{first}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    ) in output
    assert "No such container: nobody" in await docker("start", "nobody", code=1)


async def test_many_options_are_honoured(docker: Cli, host: FakeHost, images: Images) -> None:
    host.add_network("d" * 64, "back", "10.9.0.0/24", "10.9.0.1")
    await docker(
        *"run -d --name box --hostname h --domainname d --user 5:6 --workdir /w -e A=1 --cap-add NET_ADMIN".split(),
        *"--cap-drop CHOWN --ulimit nofile=10:20 --sysctl net.ipv4.ip_forward=1 --read-only".split(),
        *"--tmpfs /run:size=64m --shm-size 32m --init --memory 64m --cpus 1.5 --pids-limit 9".split(),
        *"--stop-signal INT --stop-timeout 3 --restart on-failure:4 --network back --ip 10.9.0.9".split(),
        *"--network-alias www --dns 9.9.9.9 --dns-search example.org --add-host gw:host-gateway".split(),
        *"--mac-address 02:42:00:00:00:09 -v data:/data:ro -v /anonymous --log-opt max-size=1m".split(),
        *"--health-cmd true --health-interval 5s --security-opt no-new-privileges --oom-score-adj 5".split(),
        *"--group-add 44 -p 127.0.0.1:9000-9001:80-81/udp --entrypoint sleep busybox 1 2".split(),
    )
    spec = next(iter(host.machines.values())).handle.spec
    process = spec.process
    assert list(process.argv) == ["sleep", "1", "2"]
    assert (process.user, process.cwd, list(process.additional_groups)) == ("5:6", "/w", ["44"])
    assert "CAP_NET_ADMIN" in process.capabilities
    assert "CAP_CHOWN" not in process.capabilities
    assert (process.rlimits[0].type, process.rlimits[0].soft, process.rlimits[0].hard) == (
        "RLIMIT_NOFILE",
        10,
        20,
    )
    assert (process.init, process.no_new_privileges, process.oom_score_adj) == (True, True, 5)
    assert {"A=1", "HOSTNAME=h", "FROM=image"} <= set(process.env)
    assert (spec.hostname, spec.domainname, spec.read_only_root) == ("h", "d", True)
    assert (spec.shm_size, dict(spec.sysctls)) == (32 << 20, {"net.ipv4.ip_forward": "1"})
    assert [(t.destination, t.options[-1]) for t in spec.tmpfs] == [("/run", "size=64m")]
    assert (spec.resources.memory, spec.resources.nano_cpus, spec.resources.pids_limit) == (
        64 << 20,
        1_500_000_000,
        9,
    )
    assert (spec.stop_signal, spec.stop_timeout) == (2, 3)
    assert spec.restart.maximum_retries == 4
    endpoint = spec.endpoints[0]
    assert (endpoint.ipv4, list(endpoint.aliases), endpoint.mac) == ("10.9.0.9", ["www"], "02:42:00:00:00:09")
    assert (list(spec.resolver.servers), list(spec.resolver.search)) == (["9.9.9.9"], ["example.org"])
    assert [(h.address, list(h.names)) for h in spec.extra_hosts] == [("10.9.0.1", ["gw"])]
    assert [(m.destination, m.read_only) for m in spec.mounts] == [("/data", True), ("/anonymous", False)]
    assert host.volumes["data"].anonymous is False
    assert sum(volume.anonymous for volume in host.volumes.values()) == 1
    assert (spec.log.max_size, list(spec.health.test)) == (1 << 20, ["/bin/sh", "-c", "true"])
    assert [(p.host_ip, p.host_port, p.container_port, p.protocol) for p in spec.ports] == [
        ("127.0.0.1", 9000, 80, "udp"),
        ("127.0.0.1", 9001, 81, "udp"),
    ]
    shown = json.loads(await docker("inspect", "box"))[0]
    assert shown["HostConfig"]["Memory"] == 64 << 20
    assert shown["NetworkSettings"]["Networks"]["back"]["IPAddress"] == "10.9.0.9"


async def test_attach_and_wait_from_another_client(docker: Cli, host: FakeHost) -> None:
    await docker("run", "-d", "-i", "--name", "box", "busybox", "cat")
    waiting = asyncio.create_task(docker("wait", "box"))
    attached = asyncio.create_task(docker("attach", "box", stdin=b"hello", code=143))
    process = next(iter(host.machines.values())).process
    assert process is not None
    while not process.records:
        await asyncio.wait_for(process.changed.wait(), LIMIT)
    await docker("stop", "box")
    assert (await waiting).strip() == "143"
    await attached


async def test_events_follow(docker: Cli, engine: Engine) -> None:
    await docker("run", "--rm", "--name", "box", "--label", "a=b", "busybox", "true")
    output = await docker(
        *("events", "--since", "1h", "--until", str(time.time() + 0.2)),
        *("--filter", "type=container", "--format", "{{.Action}}"),
    )
    assert output.split() == ["create", "attach", "start", "die", "destroy"]


async def test_system_df(docker: Cli) -> None:
    await docker("create", "-v", "data:/data", "busybox")
    output = await docker("system", "df")
    assert "Images          1         1" in output
    assert "Containers      1         0" in output


async def test_inspecting_what_is_not_there(docker: Cli) -> None:
    """The CLI asks for every kind of object in turn: each must say "not found" as dockerd does."""
    assert "no such object: nothing" in (await docker("inspect", "nothing", code=1)).lower()


async def test_swarm_is_refused_with_dockerds_words(docker: Cli) -> None:
    assert "This node is not a swarm manager." in await docker("service", "ls", code=1)
    assert "swarm mode is not supported" in await docker("swarm", "init", code=1)


@pytest.mark.parametrize("version", ["1.24", "1.29", "1.40", "1.44", "1.50"])
async def test_older_api_versions(config: VchConfig, engine: Engine, tmp_path: Path, version: str) -> None:
    docker = Cli(config, tmp_path / "home", version)
    assert await docker("run", "--name", "box", "busybox", "echo", "hello") == "hello\n"
    await docker("run", "--name", "bad", "busybox", "exit", "7", code=7)
    assert await docker("run", "-i", "--rm", "busybox", "cat", stdin=b"input") == "input"
    assert await docker("logs", "box") == "hello\n"
    assert "box" in await docker("ps", "-a")
    await docker("run", "-d", "--name", "up", "busybox", "sleep")
    assert await docker("exec", "up", "echo", "in") == "in\n"
    assert (await docker("inspect", "-f", "{{.State.Status}}", "up")).strip() == "running"
    await docker("stop", "up")
    assert (await docker("wait", "up")).strip() == "143"
    await docker("rm", "box", "bad", "up")


async def test_versions_out_of_range(config: VchConfig, engine: Engine, tmp_path: Path) -> None:
    message = await Cli(config, tmp_path / "home", "1.99")("ps", code=1)
    assert "client version 1.99 is too new. Maximum supported API version is 1.50" in message
    message = await Cli(config, tmp_path / "home", "1.20")("ps", code=1)
    assert "client version 1.20 is too old. Minimum supported API version is 1.21" in message
