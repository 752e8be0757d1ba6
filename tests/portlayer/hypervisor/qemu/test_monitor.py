"""One QMP session: answers, refusals, events, and every way it can end."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from portlayer.hypervisor.qemu import monitor as module
from portlayer.hypervisor.qemu.monitor import Monitor, MonitorError, MonitorLost
from tests.portlayer.hypervisor.qemu.fake_qmp import FakeQmp, Refusal

VM = "ab" * 32


async def test_arguments_get_their_hyphens(qmp: FakeQmp, monitor: Monitor) -> None:
    qmp.answers["blockdev-del"] = lambda arguments: arguments
    assert await monitor.execute("blockdev-del", node_name="n") == {"node-name": "n"}
    await monitor.run("device_add", {"host_mtu": 9000})
    assert qmp.commands[-1] == ("device_add", {"host_mtu": 9000})


async def test_a_refusal_carries_qemus_words(qmp: FakeQmp, monitor: Monitor) -> None:
    def refuse(_: object) -> None:
        raise Refusal("Bus 'pcie.0' does not support hotplugging")

    qmp.answers["device_del"] = refuse
    with pytest.raises(MonitorError, match="VM abababababab: device_del: Bus") as caught:
        await monitor.execute("device_del", id="x")
    assert caught.value.reason == "Bus 'pcie.0' does not support hotplugging"
    await monitor.execute("query-status")


async def test_events_are_handed_over_before_the_answer_behind_them(
    qmp: FakeQmp, monitor: Monitor, events: list[tuple[str, dict[str, Any]]]
) -> None:
    qmp.answers["stop"] = lambda _: qmp.event("STOP") or {}
    await monitor.execute("stop")
    assert events == [("STOP", {})]


async def test_no_event_is_kept(qmp: FakeQmp, monitor: Monitor) -> None:
    for _ in range(10):
        qmp.event("VSERPORT_CHANGE", open=True)
    await monitor.execute("query-status")
    assert monitor._client.events.empty()
    assert monitor._client.events.history == ()


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(MonitorLost, match="no answer"):
        await Monitor.connect(VM, tmp_path / "none.sock", lambda name, data: None, timeout=5)


async def test_somebody_who_does_not_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "deaf.sock"))
        listener.listen()
        with pytest.raises(MonitorLost, match="TimeoutError"):
            await Monitor.connect(VM, tmp_path / "deaf.sock", lambda name, data: None, timeout=0.05)


async def test_the_end_fails_who_waits_and_who_comes_later(qmp: FakeQmp, monitor: Monitor) -> None:
    def end(_: object) -> dict[str, Any]:
        qmp.hang_up()
        return {}

    qmp.answers["quit"] = end
    with pytest.raises(MonitorLost):
        await monitor.execute("quit")
    await monitor.drain()
    assert not monitor.connected
    with pytest.raises(MonitorLost):
        await monitor.execute("query-status")


async def test_what_was_said_before_the_end_is_heard(
    qmp: FakeQmp, monitor: Monitor, events: list[tuple[str, dict[str, Any]]]
) -> None:
    qmp.event("SHUTDOWN", guest=True, reason="guest-shutdown")
    qmp.hang_up()
    await monitor.drain()
    assert events == [("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})]


async def test_a_cancelled_command_does_not_end_the_session(qmp: FakeQmp, monitor: Monitor) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def slow(_: object) -> dict[str, Any]:
        begun.set()
        await gate.wait()
        return {"late": True}

    qmp.answers["query-block"] = slow
    task = asyncio.ensure_future(monitor.execute("query-block"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert await monitor.execute("query-status") == {}
    assert monitor.connected


async def test_no_answer_in_time(qmp: FakeQmp, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    gate = asyncio.Event()

    async def slow(_: object) -> dict[str, Any]:
        await gate.wait()
        return {}

    qmp.answers["query-block"] = slow
    with pytest.raises(MonitorLost, match="no answer in"):
        await monitor.execute("query-block")
    gate.set()


async def test_closing_twice_and_after_the_peer(qmp: FakeQmp, monitor: Monitor) -> None:
    qmp.hang_up()
    await monitor.close()
    await monitor.close()


async def test_a_descriptor_goes_along(tmp_path: Path) -> None:
    """The real socket, because an asyncio server cannot receive descriptors."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "qmp.sock"))
        listener.listen()
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        connecting = asyncio.ensure_future(
            Monitor.connect(VM, tmp_path / "qmp.sock", lambda name, data: None, timeout=10)
        )
        peer, _ = await loop.sock_accept(listener)
        with peer:
            await loop.sock_sendall(peer, b'{"QMP": {"version": {}, "capabilities": []}}\r\n')
            await loop.sock_recv(peer, 4096)
            await loop.sock_sendall(peer, b'{"return": {}}\r\n')
            monitor = await connecting
            reading, writing = os.pipe()
            task = asyncio.ensure_future(monitor.execute("getfd", fd=writing, fdname="tap"))
            await asyncio.sleep(0)
            await asyncio.to_thread(peer.setblocking, True)
            _, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, peer, 4096, 1)
            os.close(writing)
            os.write(descriptors[0], b"same pipe")
            assert os.read(reading, 20) == b"same pipe"
            os.close(descriptors[0])
            os.close(reading)
            task.cancel()
        await monitor.close()
