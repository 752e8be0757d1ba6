"""The engine as a process: it serves, ends in order on SIGTERM, and a killed one is simply replaced."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engine.certificates import Authority
from tests.engine.conftest import LIMIT, Api
from tests.engine.fake.state import FakeHost
from vch.config import Tls, TlsMode, VchConfig

ROOT = Path(__file__).resolve().parent.parent.parent


class Daemon:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log = b""

    async def serving(self) -> None:
        """Read the log until it says so."""
        assert self.process.stderr is not None
        async with asyncio.timeout(LIMIT):
            while b" serving " not in self.log:
                line = await self.process.stderr.readline()
                assert line, self.log.decode()
                self.log += line

    async def ended(self) -> int:
        assert self.process.stderr is not None
        self.log += await asyncio.wait_for(self.process.stderr.read(), LIMIT)
        return await asyncio.wait_for(self.process.wait(), LIMIT)


async def start(config: VchConfig) -> Daemon:
    config.root.mkdir(exist_ok=True)
    config.save(config.paths.config)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "engine", "--config", str(config.paths.config)),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    return Daemon(process)


@pytest.fixture
async def daemon(config: VchConfig, host: FakeHost) -> AsyncIterator[Daemon]:
    made = await start(config)
    await made.serving()
    yield made
    if made.process.returncode is None:
        made.process.kill()
        await made.ended()


async def test_sigterm_ends_it_with_0_although_clients_hold_on(daemon: Daemon, config: VchConfig) -> None:
    client = Api(config.paths.docker_socket)
    reader, _ = await client.open("GET", "/events")
    assert (await client.head(reader))[0] == 200
    daemon.process.send_signal(signal.SIGTERM)
    assert await daemon.ended() == 0
    assert not config.paths.docker_socket.exists()
    assert b"Traceback" not in daemon.log
    await client.close()


async def test_killed_one_is_replaced_and_knows_everything(
    daemon: Daemon, config: VchConfig, host: FakeHost
) -> None:
    client = Api(config.paths.docker_socket)
    host.add_network("d" * 64, "back", "10.9.0.0/24", "10.9.0.1")
    for machine_name in ("one", "two"):
        body = {"Image": "none", "Cmd": ["sleep"]}
        assert (await client("POST", f"/containers/create?name={machine_name}", body)).status == 404
    daemon.process.kill()
    assert await daemon.ended() == -signal.SIGKILL
    assert config.paths.docker_socket.exists(), "a killed process cleans nothing up"
    second = await start(config)
    await second.serving()
    assert {n["Name"] for n in (await client("GET", "/networks")).json} == {"bridge", "none", "back"}
    second.process.send_signal(signal.SIGTERM)
    assert await second.ended() == 0
    await client.close()


async def test_log_lines_carry_the_operation(daemon: Daemon, config: VchConfig, host: FakeHost) -> None:
    client = Api(config.paths.docker_socket)
    host.operations.clear()
    assert (await client("POST", "/session")).status == 501
    daemon.process.send_signal(signal.SIGTERM)
    assert await daemon.ended() == 0
    line = next(line for line in daemon.log.decode().splitlines() if "/session" in line)
    assert " op=" in line
    assert " op=- " not in line
    await client.close()


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (Tls(mode=TlsMode.MUTUAL, port=1), "tls.mode mutual needs tls.cert and tls.key"),
        (Tls(mode=TlsMode.SERVER, port=1, cert=Path("/no"), key=Path("/no")), "cannot serve"),
    ],
)
async def test_what_cannot_be_served_is_said(config: VchConfig, host: FakeHost, tls: Tls, words: str) -> None:
    daemon = await start(dataclasses.replace(config, tls=tls))
    assert await daemon.ended() == 1
    assert words in daemon.log.decode()
    assert "Traceback" not in daemon.log.decode()


async def test_mutual_tls_needs_an_authority(config: VchConfig, host: FakeHost, tmp_path: Path) -> None:
    pair = Authority(tmp_path / "tls").issue("server")
    tls = Tls(mode=TlsMode.MUTUAL, port=1, cert=pair.cert, key=pair.key)
    daemon = await start(dataclasses.replace(config, tls=tls))
    assert await daemon.ended() == 1
    assert "tls.mode mutual needs tls.ca" in daemon.log.decode()


async def test_missing_configuration_is_said(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "engine", "--config", str(tmp_path / "none.json")),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    daemon = Daemon(process)
    assert await daemon.ended() == 1
    assert "none.json" in daemon.log.decode()
