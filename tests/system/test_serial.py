"""The tether behind plain serial ports, as on vSphere: slow, without a hang-up, and it must not lose a byte."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from portlayer.channel import ChannelError, ChannelLost
from tests.system.guestvm import GuestVm, boot_config, busybox_root, ext4, messages, running
from tests.system.harness import GUEST
from tether import tether_pb2 as pb
from tether.journal import Kind

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

LINES = 6000
SCRIPT = "echo started; trap 'echo stopping; exit 5' TERM; while :; do sleep 3600 & wait $!; kill $!; done"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GuestVm]:
    directory = tmp_path_factory.mktemp("serial")
    root = ext4(directory / "root.img", busybox_root(directory / "root"))
    vm = GuestVm(
        directory=directory,
        guest=GUEST,
        config=boot_config("sh", "-c", SCRIPT, env=["PATH=/bin"]),
        disks=[("root", root)],
        serial=True,
    )
    async with running(vm):
        await vm.main_state(pb.MainState.RUNNING, seconds=60)
        yield vm


async def test_calls_and_streams_go_over_the_serial_port(box: GuestVm) -> None:
    assert await box.run("words", "cat", stdin=b"words\n") == (0, b"words\n", b"")


async def test_output_survives_cuts_of_the_line(box: GuestVm) -> None:
    """QEMU drops what it has of a cut connection; the reader resumes by offset."""
    process = pb.Process(argv=["seq", str(LINES)], env=["PATH=/bin"], cwd="/")
    await box.channel.call("Exec", pb.ExecRequest(exec_id="seq", process=process), pb.ExecReply)
    expected = b"".join(b"%d\n" % number for number in range(1, LINES + 1))
    got, cuts, code = b"", 0, None
    while code is None:
        request = pb.AttachRequest(exec_id="seq", stdout=True, stdout_offset=len(got))
        try:
            async with await box.channel.stream("Attach", request) as stream:
                async for piece in messages(stream):
                    if piece.stream == pb.AttachOutput.EXITED:
                        code = piece.exit.exit_code
                        break
                    if piece.stream == pb.AttachOutput.STDOUT:
                        assert (piece.offset, piece.lost) == (len(got), 0)
                        got += piece.data
                    if cuts < 2:
                        cuts += 1
                        box.connections[-1].transport.abort()
        except ChannelLost:
            continue
    assert (code, cuts) == (0, 2)
    assert got == expected


async def test_the_journal_tells_the_whole_life(box: GuestVm) -> None:
    while b"stopping" not in box.output(1):
        # The last cut may be noticed only now; and the power may be off before the answer is through.
        with contextlib.suppress(ChannelError):
            await box.channel.call("Signal", pb.SignalRequest(signal=15), pb.Empty)
    await box.powered_off()
    assert box.output(1) == b"started\nstopping\n"
    assert box.final_state().exit_code == 5
    kinds = [record.kind for record in box.records()]
    assert kinds[0] == Kind.BOOT
    assert kinds[-1] == Kind.EXITED
