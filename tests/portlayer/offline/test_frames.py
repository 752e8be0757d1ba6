"""The child's end of the pipe."""

import json
import os
from collections.abc import Iterator

import pytest

from portlayer.offline.frames import (
    CANCEL,
    DATA,
    END,
    HEADER,
    MAX_BODY,
    REPLY,
    REQUEST,
    Channel,
    PeerGone,
    encode,
    encode_document,
)


class Pipes:
    def __init__(self) -> None:
        incoming, self.to_child = os.pipe()
        self.from_child, outgoing = os.pipe()
        self.channel = Channel(incoming, outgoing)
        self._open = [incoming, self.to_child, self.from_child, outgoing]

    def hang_up(self) -> None:
        os.close(self.to_child)
        self._open.remove(self.to_child)

    def close(self) -> None:
        for fd in self._open:
            os.close(fd)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    pipes.close()


def test_frames_arrive_however_they_are_cut(pipes: Pipes) -> None:
    frames = encode(DATA, b"one") + encode(END) + encode(DATA, b"x" * 1000)
    for start in range(0, len(frames), 7):
        os.write(pipes.to_child, frames[start : start + 7])
    assert [pipes.channel.receive() for _ in range(3)] == [(DATA, b"one"), (END, b""), (DATA, b"x" * 1000)]


def test_documents_carry_any_path(pipes: Pipes) -> None:
    path = b"/odd \xff\xfe \xe2\x82\xac\n"
    os.write(pipes.to_child, encode_document(REQUEST, {"verb": "stat", "path": os.fsdecode(path)}))
    request = pipes.channel.receive_request()
    assert (request["verb"], os.fsencode(request["path"])) == ("stat", path)


def test_the_rest_of_an_upload_is_dropped_before_the_next_request(pipes: Pipes) -> None:
    os.write(pipes.to_child, encode(DATA, b"late") + encode(END) + encode(CANCEL))
    os.write(pipes.to_child, encode_document(REQUEST, {"verb": "next"}))
    assert pipes.channel.receive_request() == {"verb": "next"}


def test_cancel_is_seen_without_waiting(pipes: Pipes) -> None:
    assert not pipes.channel.cancelled()
    os.write(pipes.to_child, encode(CANCEL))
    assert pipes.channel.cancelled()
    assert not pipes.channel.cancelled()


def test_replies_are_frames(pipes: Pipes) -> None:
    pipes.channel.send(DATA, b"abc")
    pipes.channel.send_document(REPLY, {"size": 1})
    data = os.read(pipes.from_child, 1000)
    assert data[: HEADER.size + 3] == encode(DATA, b"abc")
    assert json.loads(data[2 * HEADER.size + 3 :]) == {"size": 1}


@pytest.mark.parametrize("sent", [b"", b"\1", encode(DATA, b"abc")[:-1]])
def test_the_end_of_input_is_noticed_anywhere(pipes: Pipes, sent: bytes) -> None:
    os.write(pipes.to_child, sent)
    pipes.hang_up()
    with pytest.raises(PeerGone):
        pipes.channel.receive()


def test_absurd_lengths_end_the_conversation(pipes: Pipes) -> None:
    os.write(pipes.to_child, HEADER.pack(DATA, MAX_BODY + 1))
    with pytest.raises(PeerGone, match="too long"):
        pipes.channel.receive()
