"""From BootConfig to what must be done: a pure function, no file is touched here.

This is the guest's OCI runtime specification, in our own words: the same
mounts, devices, masks and limits that Docker gives a runc container. The
network namespace is the VM's own, so it is not in here.

We set the container up ourselves because an OCI runtime does not meet the
budgets: Debian's crun takes 310 ms to run a container and 250 ms for an exec
under TCG (it starts itself twice and links twelve libraries each time); a fork
of the tether takes a tenth of that.

Records are NamedTuples: importing dataclasses costs PID 1 about 0.1 s.
"""

from __future__ import annotations

from typing import NamedTuple

from tether import capabilities, linux
from tether.seccomp import program
from tether.tether_pb2 import BootConfig, Process

__all__ = ["Bind", "FileSystem", "Plan", "PlanError", "ProcessPlan", "make_plan", "process_plan"]

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM = 64 << 20
ENGINE_SOCKET = "/run/mooring/engine.sock"  # tether.relay listens there
INIT = "/sbin/docker-init"  # where `docker run --init` shows the minimal init
_DEFAULT_RLIMITS = (
    ("RLIMIT_NOFILE", 1 << 20, 1 << 20),
    ("RLIMIT_NPROC", (1 << 64) - 1, (1 << 64) - 1),
    ("RLIMIT_CORE", (1 << 64) - 1, (1 << 64) - 1),
)
# asm-generic/resource.h
_RLIMITS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}
_NSE = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
# mount(8) words of a tmpfs: (flags to clear, flags to set)
_FLAG_WORDS = {
    "ro": (0, linux.MS_RDONLY),
    "rw": (linux.MS_RDONLY, 0),
    "nosuid": (0, linux.MS_NOSUID),
    "suid": (linux.MS_NOSUID, 0),
    "nodev": (0, linux.MS_NODEV),
    "dev": (linux.MS_NODEV, 0),
    "noexec": (0, linux.MS_NOEXEC),
    "exec": (linux.MS_NOEXEC, 0),
    "sync": (0, linux.MS_SYNCHRONOUS),
    "async": (linux.MS_SYNCHRONOUS, 0),
    "dirsync": (0, linux.MS_DIRSYNC),
    "noatime": (0, linux.MS_NOATIME),
    "atime": (linux.MS_NOATIME, 0),
    "nodiratime": (0, linux.MS_NODIRATIME),
    "diratime": (linux.MS_NODIRATIME, 0),
    "relatime": (0, linux.MS_RELATIME),
    "norelatime": (linux.MS_RELATIME, 0),
    "strictatime": (0, linux.MS_STRICTATIME),
    "nostrictatime": (linux.MS_STRICTATIME, 0),
    # Nothing is shared with anybody in here: every propagation comes to the same.
    "private": (0, 0),
    "rprivate": (0, 0),
    "slave": (0, 0),
    "rslave": (0, 0),
}
_DATA_WORDS = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol")


class PlanError(Exception):
    """The configuration asks for something that does not exist; the message names it."""


class FileSystem(NamedTuple):
    """Mount a new file system."""

    destination: str
    fstype: str
    flags: int
    data: str
    keep_mode: bool = False  # take over the mode of the directory that is mounted upon, as runc does


class Bind(NamedTuple):
    """Show a file or directory of the tether's own view inside the container."""

    destination: str
    source: str
    read_only: bool
    directory: bool


class ProcessPlan(NamedTuple):
    argv: list[str]
    env: list[str]
    cwd: str
    make_cwd: bool
    user: str
    groups: list[str]
    tty: bool
    rows: int
    columns: int
    capabilities: int
    no_new_privileges: bool
    seccomp: bytes  # the filter program; b"" is unconfined
    rlimits: list[tuple[int, int, int]]
    oom_score_adj: int


class Plan(NamedTuple):
    hostname: str
    domainname: str
    mounts: list[FileSystem | Bind]
    masked: list[str]
    read_only: list[str]
    read_only_root: bool
    all_devices: bool
    sysctls: list[tuple[str, str, bool]]  # name, value, whether a failure matters
    process: ProcessPlan


def make_plan(config: BootConfig, *, files: str, volumes: list[str], init: str) -> Plan:
    """What must be done to make ``config`` a running container.

    Args:
        files: directory of the tether with the files hosts, hostname and resolv.conf.
        volumes: for each of ``config.mounts``, the directory in the tether's view that holds its content.
        init: path of the minimal init in the tether's view.

    Raises:
        PlanError: names the option that asks for something that does not exist.
    """
    process = config.process
    mounts = _mounts(config, files=files, volumes=volumes, init=init)
    return Plan(
        hostname=config.hostname or config.id[:12],
        domainname=config.domainname,
        mounts=mounts,
        masked=[] if process.privileged else list(config.masked_paths),
        read_only=[] if process.privileged else list(config.readonly_paths),
        read_only_root=config.read_only_root,
        all_devices=process.privileged,
        sysctls=_sysctls(config),
        process=process_plan(process, hostname=config.hostname or config.id[:12], main=True),
    )


def process_plan(process: Process, *, hostname: str, main: bool) -> ProcessPlan:
    """The same for one process: the main one, an exec or a health probe.

    Raises:
        PlanError: as for :func:`make_plan`.
    """
    if not process.argv or not process.argv[0]:
        raise PlanError("no command specified")
    if any("\0" in word for word in (*process.argv, *process.env, process.cwd)):
        raise PlanError("a command, an environment variable or a directory has a zero byte in it")
    try:
        bits = capabilities.mask(process.capabilities)
    except ValueError as error:
        raise PlanError(str(error)) from error
    if process.privileged:
        bits = (1 << capabilities.LAST + 1) - 1
    argv = list(process.argv)
    if main and process.init:
        argv = [INIT, "--", *argv]
    return ProcessPlan(
        argv=argv,
        env=_environment(process, hostname) if main else list(process.env),
        cwd=process.cwd or "/",
        make_cwd=main,
        user=process.user,
        groups=list(process.additional_groups),
        tty=process.tty,
        rows=process.rows,
        columns=process.columns,
        capabilities=bits,
        no_new_privileges=process.no_new_privileges,
        seccomp=b"" if process.seccomp_unconfined or process.privileged else program(bits),
        rlimits=_rlimits(process),
        oom_score_adj=process.oom_score_adj,
    )


# ---------------------------------------------------------------- parts


def _mounts(config: BootConfig, *, files: str, volumes: list[str], init: str) -> list[FileSystem | Bind]:
    privileged = config.process.privileged
    view = 0 if privileged else linux.MS_RDONLY
    shm = config.shm_size or DEFAULT_SHM
    defaults: list[FileSystem | Bind] = [
        FileSystem("/proc", "proc", _NSE, ""),
        FileSystem("/dev", "tmpfs", linux.MS_NOSUID | linux.MS_STRICTATIME, "mode=755,size=65536k"),
        FileSystem(
            "/dev/pts",
            "devpts",
            linux.MS_NOSUID | linux.MS_NOEXEC,
            "newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        FileSystem("/sys", "sysfs", _NSE | view, ""),
        FileSystem("/sys/fs/cgroup", "cgroup2", _NSE | view, ""),
        FileSystem("/dev/mqueue", "mqueue", _NSE, ""),
        FileSystem("/dev/shm", "tmpfs", _NSE, f"mode=1777,size={shm}"),  # noqa: S108 - a mount point
    ]
    for name in ("resolv.conf", "hostname", "hosts"):
        defaults.append(Bind(f"/etc/{name}", f"{files}/{name}", False, False))
    if config.process.init:
        defaults.append(Bind(INIT, init, True, False))
    wanted: list[FileSystem | Bind] = [
        Bind(
            _destination(mount.destination),
            source,
            mount.read_only,
            mount.volume or not (mount.share and mount.subpath),
        )
        for mount, source in zip(config.mounts, volumes, strict=True)
    ]
    wanted += [Bind(_destination(path), ENGINE_SOCKET, False, False) for path in config.engine_sockets]
    for tmpfs in config.tmpfs:
        flags, data = _tmpfs_options(tmpfs.destination, list(tmpfs.options))
        wanted.append(FileSystem(_destination(tmpfs.destination), "tmpfs", flags, data, True))
    taken = {mount.destination for mount in wanted}
    kept = [
        mount
        for mount in defaults
        if mount.destination not in taken and not ("/dev" in taken and mount.destination.startswith("/dev/"))
    ]
    # Parents before children; the order of the request decides between equals.
    wanted.sort(key=lambda mount: mount.destination.count("/"))
    return kept + wanted


def _destination(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if not path.startswith("/") or not parts:
        raise PlanError(f"invalid mount destination: {path!r} is not an absolute path below /")
    return "/" + "/".join(parts)


def _tmpfs_options(destination: str, options: list[str]) -> tuple[int, str]:
    flags = _NSE
    data: dict[str, str] = {}
    for option in (word for words in options for word in words.split(",") if word):
        name, separator, value = option.partition("=")
        if option in _FLAG_WORDS:
            clear, add = _FLAG_WORDS[option]
            flags = flags & ~clear | add
        elif separator and value and name in _DATA_WORDS:
            data[name] = value
        else:
            raise PlanError(f'invalid tmpfs option "{option}" for {destination}')
    return flags, ",".join(f"{name}={value}" for name, value in data.items())


def _environment(process: Process, hostname: str) -> list[str]:
    defaults = [DEFAULT_PATH, f"HOSTNAME={hostname}"]
    if process.tty:
        defaults.append("TERM=xterm")
    given = {word.partition("=")[0] for word in process.env}
    return [word for word in defaults if word.partition("=")[0] not in given] + list(process.env)


def _rlimits(process: Process) -> list[tuple[int, int, int]]:
    limits = {name: (soft, hard) for name, soft, hard in _DEFAULT_RLIMITS}
    for limit in process.rlimits:
        name = limit.type.upper()
        if name not in _RLIMITS:
            raise PlanError(f"invalid ulimit type: {limit.type}")
        if limit.soft > limit.hard:
            raise PlanError(f"ulimit {limit.type}: soft limit {limit.soft} is above hard limit {limit.hard}")
        limits[name] = (limit.soft, limit.hard)
    return [(_RLIMITS[name], soft, hard) for name, (soft, hard) in limits.items()]


def _sysctls(config: BootConfig) -> list[tuple[str, str, bool]]:
    """Docker's two defaults (which a kernel may lack), then the wanted ones."""
    defaults = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    result = [(name, value, False) for name, value in defaults.items() if name not in config.sysctls]
    for name, value in sorted(config.sysctls.items()):
        if ".." in name or "/" in name or not name:
            raise PlanError(f"invalid sysctl name: {name!r}")
        result.append((name, value, True))
    return result
