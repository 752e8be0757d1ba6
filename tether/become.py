"""The last steps of a process before it becomes the workload: terminal, limits, identity, exec.

Runs in a forked child that is inside the container already, for the main
process, execs and health probes alike, so that all of them live under the same
rules. Nothing is imported here: the tether's files are out of reach by now.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from typing import NoReturn

from tether import capabilities, linux
from tether.plan import ProcessPlan
from tether.users import Identity, UserError, resolve_user

__all__ = ["Failure", "become", "open_terminal", "read_database", "read_regular"]

CANNOT_START, CANNOT_INVOKE, NOT_FOUND = 128, 126, 127  # Docker's exit codes
_MAX_DATABASE = 4 << 20  # passwd and group files are the image's: hostile input

# asm-generic/ioctls.h
TIOCSCTTY = 0x540E
TIOCSWINSZ = 0x5414
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431


class Failure(Exception):
    """The workload cannot be started; text and exit code are for Docker's user."""

    def __init__(self, text: str, code: int = CANNOT_START) -> None:
        super().__init__(text)
        self.code = code


def open_terminal(rows: int, columns: int) -> tuple[int, str]:
    """A new pseudo terminal of the container's own: the master, and the path of the other end."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    number = struct.unpack("I", fcntl.ioctl(master, TIOCGPTN, bytes(4)))[0]
    if rows or columns:
        fcntl.ioctl(master, TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    return master, f"/dev/pts/{number}"


def become(plan: ProcessPlan, *, terminal: str = "") -> NoReturn:
    """Turn the caller into the workload.

    Args:
        terminal: path of the pseudo terminal to run on; without one, descriptors 0 to 2 stay what they are.

    Raises:
        Failure: with Docker's words for what is wrong.
    """
    os.setsid()
    if terminal:
        slave = os.open(terminal, os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(slave, TIOCSCTTY, 0)
        for number in (0, 1, 2):
            os.dup2(slave, number)
    linux.join_new_session_keyring()
    for resource, soft, hard in plan.rlimits:
        linux.setrlimit(resource, soft, hard)
    identity = _identity(plan)
    _own_stdio(identity)
    if plan.make_cwd:
        _make_directory(plan.cwd)
    _change_directory_early(plan.cwd)
    os.umask(0o022)
    _drop_bounding_set(plan.capabilities)
    if not plan.no_new_privileges and plan.seccomp:
        linux.seccomp_filter(plan.seccomp)  # needs CAP_SYS_ADMIN, so before it goes
    _take_identity(identity, plan.capabilities)
    try:
        os.chdir(plan.cwd)
    except OSError as error:
        raise Failure(
            f'chdir to cwd ("{plan.cwd}") set in config.json failed: {_words(error)}',
            CANNOT_INVOKE if error.errno == errno.EACCES else CANNOT_START,
        ) from error
    environment = _environment(plan.env, identity)
    path = _find(plan.argv[0], environment.get("PATH", ""))
    if plan.no_new_privileges:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        if plan.seccomp:
            linux.seccomp_filter(plan.seccomp)
    try:
        os.execve(path, plan.argv, environment)  # noqa: S606 - the workload itself
    except OSError as error:
        code = NOT_FOUND if error.errno == errno.ENOENT else CANNOT_INVOKE
        raise Failure(f"exec {path}: {_words(error)}", code) from error


# ---------------------------------------------------------------- identity


def _identity(plan: ProcessPlan) -> Identity:
    try:
        return resolve_user(
            plan.user, plan.groups, passwd=read_database("/etc/passwd"), group=read_database("/etc/group")
        )
    except UserError as error:
        raise Failure(str(error)) from error


def read_database(path: str) -> bytes:
    """The content of a file of the image; nothing when it is missing or no regular file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no file, or a path that leads nowhere: the same to Docker
        return b""
    return read_regular(fd)


def read_regular(fd: int) -> bytes:
    """All of an open regular file, up to a limit, and close it; nothing of what is none."""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        content = bytearray()
        while len(content) < _MAX_DATABASE and (piece := os.read(fd, 1 << 16)):
            content += piece
        return bytes(content)
    finally:
        os.close(fd)


def _own_stdio(identity: Identity) -> None:
    """Let the user open /dev/stdout again, which needs the pipe or terminal to be his."""
    null = os.makedev(1, 3)
    for fd in (0, 1, 2):
        status = os.fstat(fd)
        if status.st_uid != identity.uid and status.st_rdev != null:
            os.fchown(fd, identity.uid, -1)


def _drop_bounding_set(wanted: int) -> None:
    for number in range(64):
        if number > capabilities.LAST or not wanted >> number & 1:
            try:
                linux.prctl(linux.PR_CAPBSET_DROP, number)
            except linux.SyscallError as error:
                if error.errno != errno.EINVAL:
                    raise
                if number > capabilities.LAST:  # the kernel knows no more
                    return


def _take_identity(identity: Identity, wanted: int) -> None:
    linux.prctl(linux.PR_SET_KEEPCAPS, 1)
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    linux.prctl(linux.PR_SET_KEEPCAPS, 0)
    # Nothing inheritable or ambient: root gets the bounding set at exec, others get nothing, as in Docker.
    kept = wanted if identity.uid == 0 else 0
    linux.capset(effective=kept, permitted=kept, inheritable=0)


# ---------------------------------------------------------------- directory, program


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except FileExistsError as error:
        raise Failure(f"Cannot mkdir: {path} is not a directory") from error
    except OSError as error:
        if error.errno != errno.EROFS:
            raise Failure(f"mkdir {path}: {_words(error)}") from error


def _change_directory_early(path: str) -> None:
    """As root: a user's directory may be one that he cannot reach by path. He tries again later."""
    try:
        os.chdir(path)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise Failure(f'chdir to cwd ("{path}") set in config.json failed: {_words(error)}') from error


def _environment(words: list[str], identity: Identity) -> dict[str, str]:
    environment = {}
    for word in words:
        name, separator, value = word.partition("=")
        if name and separator:
            environment[name] = value
    if not environment.get("HOME"):
        environment["HOME"] = identity.home
    return environment


def _find(name: str, path: str) -> str:
    """Where the program is: the rules and the words of Go's exec.LookPath, which are Docker's."""
    if "/" in name:
        problem = _problem(name)
        if problem is None:
            return name
        if problem == errno.ENOENT:
            raise Failure(f'exec: "{name}": stat {name}: no such file or directory', NOT_FOUND)
        words = os.strerror(problem).lower()
        if problem == errno.ENOTDIR:
            raise Failure(f'exec: "{name}": stat {name}: {words}', NOT_FOUND)
        raise Failure(f'exec: "{name}": {words}', CANNOT_INVOKE)
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        if _problem(candidate) is None:
            return candidate
    raise Failure(f'exec: "{name}": executable file not found in $PATH', NOT_FOUND)


def _problem(path: str) -> int | None:
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    if stat.S_ISDIR(status.st_mode):
        return errno.EISDIR
    if not status.st_mode & 0o111 or not os.access(path, os.X_OK, effective_ids=True):
        return errno.EACCES
    return None


def _words(error: OSError) -> str:
    return os.strerror(error.errno or errno.EIO).lower()
