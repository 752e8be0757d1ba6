"""The real docker CLI over mutual TLS: piped input and its end, which needs half-close in TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.app import build_application
from engine.context import Engine
from engine.http import HttpServer, server_context
from tests.engine.certificates import Authority, Pair
from tests.engine.conftest import LIMIT

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker CLI is not installed")


class TlsCli:
    def __init__(self, port: int, authority: Authority, pair: Pair | None, home: Path) -> None:
        self._words = [
            "docker",
            "-H",
            f"tcp://127.0.0.1:{port}",
            "--tlsverify",
            f"--tlscacert={authority.cert}",
        ]
        if pair is not None:
            self._words += [f"--tlscert={pair.cert}", f"--tlskey={pair.key}"]
        self._env = {"PATH": os.environ["PATH"], "HOME": str(home), "DOCKER_CONFIG": str(home)}

    async def __call__(self, *words: str, stdin: bytes = b"") -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *self._words,
            *words,
            env=self._env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(stdin), LIMIT)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return process.returncode, output.decode()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
async def port(engine: Engine, authority: Authority) -> AsyncIterator[int]:
    pair = authority.issue("server")
    server = HttpServer(build_application(engine))
    yield await server.listen_tcp(
        "127.0.0.1", 0, tls=server_context(cert=pair.cert, key=pair.key, ca=authority.cert)
    )
    await server.close()


async def test_piped_input_and_its_end(port: int, authority: Authority, tmp_path: Path) -> None:
    docker = TlsCli(port, authority, authority.issue("client"), tmp_path)
    data = "line of input\n" * 50_000
    assert await docker("run", "-i", "--rm", "busybox", "cat", stdin=data.encode()) == (0, data)
    assert await docker("run", "--rm", "busybox", "exit", "5") == (5, "")
    assert (await docker("run", "-d", "--name", "box", "busybox", "sleep"))[0] == 0
    assert await docker("exec", "-i", "box", "cat", stdin=data.encode()) == (0, data)


async def test_client_without_certificate_gets_nothing(
    port: int, authority: Authority, tmp_path: Path
) -> None:
    docker = TlsCli(port, authority, None, tmp_path)
    code, output = await docker("ps")
    assert code == 1
    assert "certificate" in output
