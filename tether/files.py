"""`docker cp` into and out of the running container.

A child enters the container's mount namespace, so it sees every volume and
tmpfs the workload sees, and works there while PID 1 only moves bytes between
its pipe and the channel. Paths are resolved by `archive`, which follows no link
out of the root; the root here is the container's anyway.
"""

from __future__ import annotations

import errno
import io
import os
import select
import struct
from collections import deque
from collections.abc import Callable
from typing import NoReturn

import archive
from tether import linux
from tether.become import Failure, read_database
from tether.call import Call, RpcError
from tether.container import Container
from tether.loop import Loop
from tether.pump import widen
from tether.spawn import (
    OWN_NAMESPACE,
    Channels,
    Spawned,
    close_ends,
    fork_child,
    open_channels,
    read_report,
)
from tether.tether_pb2 import CopyInRequest, CopyOutRequest, Empty, PathStat, StatPathRequest
from tether.users import UserError, resolve_user
from tether.wire import PIECE, Code

__all__ = ["Files"]

_TURNS = 4  # pieces before others on the loop get a turn
_MAX_PENDING = 8 << 20  # credit keeps it below; a host that ignores credit is cut off
_LENGTH = struct.Struct("<I")
_CODES = {
    errno.ENOENT: Code.NOT_FOUND,
    errno.ENOTDIR: Code.FAILED_PRECONDITION,
    errno.EROFS: Code.PERMISSION_DENIED,
    errno.ENOSPC: Code.RESOURCE_EXHAUSTED,
}


class Files:
    """The three file verbs. A call is answered when its child has ended, or said why it cannot go on."""

    def __init__(self, loop: Loop, container: Container) -> None:
        self._loop = loop
        self._container = container

    def stat(self, request: StatPathRequest, call: Call) -> None:
        path = request.path
        spawned = self._enter(lambda: _write_stat(path), stdin=False)
        _Reader(self._loop, spawned, call, respond_only=True)

    def copy_out(self, request: CopyOutRequest, call: Call) -> None:
        path = request.path
        spawned = self._enter(lambda: _write_archive(path), stdin=False)
        _Reader(self._loop, spawned, call, respond_only=False)

    def copy_in(self, request: CopyInRequest, call: Call) -> None:
        user = self._container.config.process.user if request.copy_uid_gid else ""
        spawned = self._enter(lambda: _read_archive(request, user), stdin=True)
        _Writer(self._loop, spawned, call)

    def _enter(self, work: Callable[[], None], *, stdin: bool) -> Spawned:
        """Run ``work`` in a child inside the container's mount namespace; its errors come by the report."""
        if not self._container.running:
            raise RpcError(Code.FAILED_PRECONDITION, "container is not running")
        door = self._container.process_fd
        ours, theirs = open_channels(tty=False, stdin=stdin)

        def body(_: Channels) -> NoReturn:
            linux.setns(door, linux.CLONE_NEWNS)
            try:
                work()
            except archive.DirectoryConflict as error:
                raise Failure(str(error), Code.ALREADY_EXISTS) from error
            except archive.ArchiveError as error:
                raise Failure(str(error), Code.INVALID_ARGUMENT) from error
            except UserError as error:
                raise Failure(str(error), Code.FAILED_PRECONDITION) from error
            except OSError as error:
                words = os.strerror(error.errno or errno.EIO).lower()
                raise Failure(words, _CODES.get(error.errno or 0, Code.INTERNAL)) from error
            os._exit(0)

        try:
            return fork_child(body, ours, theirs, pid_namespace=OWN_NAMESPACE, keep=(door,))
        except OSError as error:
            close_ends(ours)
            os.close(ours.report)
            raise RpcError(Code.RESOURCE_EXHAUSTED, f"the guest cannot start a helper: {error}") from error


# ---------------------------------------------------------------- in the child


def _root() -> int:
    return os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _send_stat(path: bytes) -> None:
    found = archive.stat_path(_root(), path)
    message = PathStat(
        name=found.name,
        size=found.size,
        mode=found.mode,
        mtime=max(found.mtime_ns, 0),
        link_target=found.link_target,
    ).SerializeToString()
    _write_all(_LENGTH.pack(len(message)) + message)


def _write_stat(path: bytes) -> None:
    _send_stat(path)


def _write_archive(path: bytes) -> None:
    _send_stat(path)
    virtual = [os.stat(mount).st_dev for mount in ("/proc", "/sys", "/dev") if os.path.isdir(mount)]
    for chunk in archive.pack(_root(), path, empty_devices=virtual):
        _write_all(chunk)


def _read_archive(request: CopyInRequest, user: str) -> None:
    owner = None
    if user:
        identity = resolve_user(
            user, (), passwd=read_database("/etc/passwd"), group=read_database("/etc/group")
        )
        owner = (identity.uid, identity.gid)
    options = archive.UnpackOptions(no_overwrite_dir_non_dir=request.no_overwrite_dir_non_dir, owner=owner)
    archive.unpack(_root(), request.path, io.FileIO(0, closefd=False), options=options)


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


# ---------------------------------------------------------------- in PID 1


class _Worker:
    """What reading and writing have in common: the child's end decides the call's."""

    def __init__(self, loop: Loop, spawned: Spawned, call: Call) -> None:
        self._loop = loop
        self._spawned = spawned
        self._call = call
        self._dead = False
        os.close(spawned.stderr)
        loop.on_child(spawned.pid, lambda _: self._child_ended())
        call.on_cancel(self._abandon)

    def _child_ended(self) -> None:
        self._dead = True

    def _abandon(self) -> None:
        """Nobody waits for it any more."""
        self._close()
        if not self._dead:
            os.kill(self._spawned.pid, 9)

    def _outcome(self) -> Failure | None:
        return read_report(self._spawned.report)

    def _fail(self, failure: Failure) -> None:
        self._call.fail(Code(failure.code), str(failure))

    def _close(self) -> None:
        for fd in (self._spawned.stdin, self._spawned.stdout, self._spawned.report):
            if fd >= 0:
                self._loop.remove(fd)
                os.close(fd)
        self._spawned = self._spawned._replace(stdin=-1, stdout=-1, report=-1)


class _Reader(_Worker):
    """The child's output: one PathStat, then raw bytes, sent as the host gives credit."""

    def __init__(self, loop: Loop, spawned: Spawned, call: Call, *, respond_only: bool) -> None:
        super().__init__(loop, spawned, call)
        self._respond_only = respond_only
        self._head = bytearray()
        self._responded = False
        os.set_blocking(spawned.stdout, False)
        widen(spawned.stdout)
        loop.add(spawned.stdout, select.EPOLLIN, lambda _: self._read())

    def _read(self) -> None:
        for _ in range(_TURNS):
            if self._responded and self._call.room <= 0:
                self._loop.modify(self._spawned.stdout, 0)
                self._call.on_writable(self._resume)
                return
            try:
                data = os.read(self._spawned.stdout, PIECE)
            except BlockingIOError:
                return
            if not data:
                self._end()
                return
            if self._responded:
                self._call.send(data)
            else:
                self._head += data
                self._respond()
            if len(data) < PIECE:
                return

    def _resume(self) -> None:
        if self._spawned.stdout >= 0:
            self._loop.modify(self._spawned.stdout, select.EPOLLIN)

    def _respond(self) -> None:
        if len(self._head) < _LENGTH.size:
            return
        end = _LENGTH.size + _LENGTH.unpack_from(self._head)[0]
        if len(self._head) < end:
            return
        self._responded = True
        self._call.respond(PathStat.FromString(bytes(self._head[_LENGTH.size : end])))
        if len(self._head) > end:
            self._call.send(bytes(self._head[end:]))
        self._head.clear()

    def _end(self) -> None:
        failure = self._outcome()
        self._close()
        if failure is not None:
            self._fail(failure)
        elif not self._responded:
            self._call.fail(Code.INTERNAL, "the guest's file helper died")
        elif not self._respond_only:
            self._call.send(end=True)


class _Writer(_Worker):
    """The host's bytes into the child; credit is given back as they leave our hands."""

    def __init__(self, loop: Loop, spawned: Spawned, call: Call) -> None:
        super().__init__(loop, spawned, call)
        self._queue: deque[memoryview] = deque()
        self._pending = 0  # bytes in it
        self._all_here = False
        os.set_blocking(spawned.stdin, False)
        widen(spawned.stdin)
        self._events = 0  # what the loop watches it for
        loop.add(spawned.stdin, 0, self._ready)
        loop.add(spawned.report, select.EPOLLIN, lambda _: self._end())
        call.on_data(self._take, manual_credit=True)

    def _take(self, data: bytes, end: bool) -> None:
        if self._pending + len(data) > _MAX_PENDING:
            self._call.fail(Code.RESOURCE_EXHAUSTED, "more data than credit was given for")
            self._abandon()
            return
        self._queue.append(memoryview(data))
        self._pending += len(data)
        self._all_here = self._all_here or end
        self._flush()

    def _ready(self, events: int) -> None:
        if events & select.EPOLLERR:  # the child stopped reading: its report says why
            self._drop_input()
            return
        self._flush()

    def _flush(self) -> None:
        fd = self._spawned.stdin
        if fd < 0:
            self._drop_input()
            return
        try:
            while self._queue:
                count = os.write(fd, self._queue[0])
                self._done(count)
                if count < len(self._queue[0]):
                    self._queue[0] = self._queue[0][count:]
                else:
                    self._queue.popleft()
        except BlockingIOError:
            self._listen(select.EPOLLOUT)
            return
        except BrokenPipeError:
            self._drop_input()
            return
        if self._all_here:
            self._drop_input()
        else:
            self._listen(0)

    def _done(self, count: int) -> None:
        self._pending -= count
        self._call.consume(count)

    def _listen(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._loop.modify(self._spawned.stdin, events)

    def _drop_input(self) -> None:
        fd = self._spawned.stdin
        if fd >= 0:
            self._loop.remove(fd)
            os.close(fd)
            self._spawned = self._spawned._replace(stdin=-1)
        self._done(self._pending)
        self._queue.clear()

    def _end(self) -> None:
        failure = self._outcome()
        self._close()
        if failure is not None:
            self._fail(failure)
        else:
            self._call.respond(Empty())
