"""The line that a host has dialled, and who is on it."""

from __future__ import annotations

import asyncio

import pytest

from portlayer.hypervisor.vsphere.channels import ChannelPort


async def listening() -> ChannelPort:
    port = ChannelPort("vm")
    await port.listen("127.0.0.1")
    port.guest_listens()
    return port


async def line(port: ChannelPort) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The host dials."""
    return await asyncio.open_connection("127.0.0.1", port.number)


async def test_bytes_go_both_ways_and_a_newer_user_takes_over() -> None:
    port = await listening()
    host_reader, host_writer = await line(port)
    reader, writer = await port.open()
    writer.write(b"to the guest")
    assert await host_reader.readexactly(12) == b"to the guest"
    host_writer.write(b"from the guest")
    assert await reader.readexactly(14) == b"from the guest"

    second, second_writer = await port.open()
    assert await reader.read() == b""
    second_writer.write(b"second")
    assert await host_reader.readexactly(6) == b"second"
    host_writer.write(b"answer")
    assert await second.readexactly(6) == b"answer"
    await port.close()
    assert await second.read() == b""
    host_writer.transport.abort()


async def test_a_host_that_dials_again_is_the_line() -> None:
    port = await listening()
    first_reader, first_writer = await line(port)
    reader, writer = await port.open()
    writer.write(b"x")
    await first_reader.readexactly(1)
    second_reader, second_writer = await line(port)
    assert await first_reader.read() == b"", "after a vMotion the old host's end is nobody's"
    second_writer.write(b"moved")
    assert await reader.readexactly(5) == b"moved"
    writer.write(b"y")
    assert await second_reader.readexactly(1) == b"y"
    await port.close()
    for each in (first_writer, second_writer):
        each.transport.abort()


async def test_what_is_said_to_nobody_is_dropped() -> None:
    port = await listening()
    _, writer = await line(port)
    writer.write(b"x" * 1_000_000)
    await asyncio.wait_for(writer.drain(), 10)
    await port.close()
    writer.transport.abort()


async def test_without_a_host_the_caller_is_told_what_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portlayer.hypervisor.vsphere.channels._CONNECT_TIMEOUT", 0.01)
    port = ChannelPort("vm")
    await port.listen("127.0.0.1")
    with pytest.raises(Exception, match="firewall"):
        await port.open()
    await port.close()


async def test_what_is_said_before_the_guest_listens_is_dropped() -> None:
    port = ChannelPort("vm")
    await port.listen("127.0.0.1")
    host_reader, host_writer = await line(port)
    _, writer = await port.open()
    writer.write(b"early" * 100_000)
    await asyncio.wait_for(writer.drain(), 10)
    port.guest_listens()
    while True:  # what is in the pipe at that moment may still come
        writer.write(b"late!")
        if (await host_reader.read(1 << 16)).endswith(b"late!"):
            break
    await port.close()
    host_writer.transport.abort()
