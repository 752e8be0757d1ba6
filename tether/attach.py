"""One attached reader: output of a process to a call, input from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from google.protobuf.message import DecodeError

from tether.call import Call, RpcError
from tether.output import Output
from tether.stdin import Stdin
from tether.tether_pb2 import AttachInput, AttachOutput, ExecState
from tether.wire import Code

__all__ = ["Reader"]


class Reader:
    """Lives as long as its call. Output first, then EXITED, then the end."""

    def __init__(
        self,
        call: Call,
        outputs: Mapping[AttachOutput.Stream.ValueType, Output],
        stdin: Stdin | None,
        on_gone: Callable[[Reader, bool], None],
    ) -> None:
        """``outputs`` have been joined in our name. ``on_gone(reader, lost)`` runs at the call's end."""
        self._call = call
        self._outputs = outputs
        self._stdin = stdin
        self._on_gone = on_gone
        self._exit: ExecState | None = None
        self._input: deque[tuple[AttachInput, int]] = deque()  # with the credit it holds; so it is bounded

    def begin(self) -> None:
        self._call.on_cancel(lambda: self._on_gone(self, self._call.lost))
        self._call.on_writable(self.push)
        if self._stdin is not None:
            self._acknowledge(self._stdin)
        self._call.on_data(self._receive, manual_credit=True)
        self.push()

    def exited(self, state: ExecState) -> None:
        """The process is gone and its streams have ended: say so behind the last byte."""
        self._exit = state
        self.push()

    def push(self) -> None:
        """Send what there is while the call takes it."""
        more = True
        while more and self._call.room > 0:
            more = False
            for stream, output in self._outputs.items():
                taken = output.take(self)
                if taken is not None:
                    offset, data, lost = taken
                    self._call.send_message(AttachOutput(stream=stream, offset=offset, data=data, lost=lost))
                    more = True
        if self._exit is not None and self._call.open and not more and self._caught_up():
            self._call.send_message(AttachOutput(stream=AttachOutput.EXITED, exit=self._exit), end=True)
            self._on_gone(self, True)  # it may be cut off yet, and ask again

    def _caught_up(self) -> bool:
        return all(output.caught_up(self) for output in self._outputs.values())

    # -- input

    def _receive(self, data: bytes, end: bool) -> None:
        # `end` closes the call's half, not the process's input: another may attach.
        del end
        if not data:
            return
        if self._stdin is None:
            raise RpcError(Code.FAILED_PRECONDITION, "attached without stdin")
        message = AttachInput()
        try:
            message.ParseFromString(data)
        except DecodeError as error:
            raise RpcError(Code.INVALID_ARGUMENT, f"input: {error}") from error
        self._input.append((message, len(data)))
        if len(self._input) == 1:
            self._feed()

    def _feed(self) -> None:
        stdin = self._stdin
        if stdin is None or not self._input:
            return
        while self._input and self._call.open:
            if not stdin.room:
                stdin.when_room(self._feed)
                break
            message, size = self._input.popleft()
            try:
                stdin.accept(message.offset, message.data)
            except ValueError as error:
                self._call.fail(Code.OUT_OF_RANGE, str(error))
                self._on_gone(self, False)
                return
            if message.close:
                stdin.end()
            self._call.consume(size)
        self._acknowledge(stdin)

    def _acknowledge(self, stdin: Stdin) -> None:
        self._call.send_message(AttachOutput(stream=AttachOutput.STDIN_ACK, offset=stdin.accepted))
