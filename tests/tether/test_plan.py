"""From BootConfig to the plan: golden cases, one option at a time."""

from __future__ import annotations

import pytest

from tether import capabilities, linux
from tether.plan import Bind, FileSystem, Plan, PlanError, make_plan, process_plan
from tether.tether_pb2 import BootConfig, Process

NSE = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
ID = "0123456789ab" + "c" * 52


def config(**process: object) -> BootConfig:
    return BootConfig(version=1, id=ID, process=Process(argv=["app"], **process))  # type: ignore[arg-type]


def plan(wanted: BootConfig) -> Plan:
    volumes = [f"/v/{number}" for number in range(len(wanted.mounts))]
    return make_plan(wanted, files="/f", volumes=volumes, init="/tini")


def destinations(wanted: BootConfig) -> list[str]:
    return [mount.destination for mount in plan(wanted).mounts]


def test_the_default_mounts_are_dockers() -> None:
    assert plan(config()).mounts == [
        FileSystem("/proc", "proc", NSE, ""),
        FileSystem("/dev", "tmpfs", linux.MS_NOSUID | linux.MS_STRICTATIME, "mode=755,size=65536k"),
        FileSystem(
            "/dev/pts",
            "devpts",
            linux.MS_NOSUID | linux.MS_NOEXEC,
            "newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        FileSystem("/sys", "sysfs", NSE | linux.MS_RDONLY, ""),
        FileSystem("/sys/fs/cgroup", "cgroup2", NSE | linux.MS_RDONLY, ""),
        FileSystem("/dev/mqueue", "mqueue", NSE, ""),
        FileSystem("/dev/shm", "tmpfs", NSE, "mode=1777,size=67108864"),
        Bind("/etc/resolv.conf", "/f/resolv.conf", False, False),
        Bind("/etc/hostname", "/f/hostname", False, False),
        Bind("/etc/hosts", "/f/hosts", False, False),
    ]


def test_a_privileged_container_may_write_sys_and_cgroup_and_sees_everything() -> None:
    wanted = config(privileged=True)
    wanted.masked_paths.append("/proc/kcore")
    wanted.readonly_paths.append("/proc/sys")
    made = plan(wanted)
    flags = {mount.destination: mount.flags for mount in made.mounts if isinstance(mount, FileSystem)}
    assert (flags["/sys"], flags["/sys/fs/cgroup"]) == (NSE, NSE)
    assert (made.masked, made.read_only, made.all_devices) == ([], [], True)
    assert made.process.capabilities == (1 << capabilities.LAST + 1) - 1
    assert not made.process.seccomp


def test_paths_are_masked_and_protected_as_asked() -> None:
    wanted = config()
    wanted.masked_paths.append("/proc/kcore")
    wanted.readonly_paths.append("/proc/sys")
    wanted.read_only_root = True
    made = plan(wanted)
    assert (made.masked, made.read_only, made.read_only_root) == (["/proc/kcore"], ["/proc/sys"], True)


def test_shared_memory_has_the_wanted_size() -> None:
    wanted = config()
    wanted.shm_size = 1 << 20
    assert FileSystem("/dev/shm", "tmpfs", NSE, "mode=1777,size=1048576") in plan(wanted).mounts


def test_volumes_and_tmpfs_come_parents_first() -> None:
    wanted = config()
    wanted.mounts.add(destination="/a/b/", read_only=True)
    wanted.mounts.add(destination="/a")
    wanted.tmpfs.add(destination="/c/./d/../e", options=["size=64m,mode=1700", "exec", "ro"])
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_RDONLY
    assert plan(wanted).mounts[-3:] == [
        Bind("/a", "/v/1", False, True),
        Bind("/a/b", "/v/0", True, True),
        FileSystem("/c/e", "tmpfs", flags, "size=64m,mode=1700", True),
    ]


def test_a_wanted_mount_replaces_the_default_at_its_place() -> None:
    wanted = config()
    wanted.tmpfs.add(destination="/dev/shm")
    assert destinations(wanted).count("/dev/shm") == 1
    assert destinations(wanted)[-1] == "/dev/shm"


def test_a_volume_at_dev_replaces_all_that_is_below_it() -> None:
    wanted = config()
    wanted.mounts.add(destination="/dev")
    assert [path for path in destinations(wanted) if path.startswith("/dev")] == ["/dev"]


@pytest.mark.parametrize("option", ["size", "size=", "nonsense", "mode", "bind", "uid"])
def test_unknown_tmpfs_options_are_refused_by_name(option: str) -> None:
    wanted = config()
    wanted.tmpfs.add(destination="/t", options=[option])
    with pytest.raises(PlanError, match=f'invalid tmpfs option "{option}" for /t'):
        plan(wanted)


@pytest.mark.parametrize("path", ["", "/", "relative", "/a/..", "//"])
def test_impossible_destinations_are_refused(path: str) -> None:
    wanted = config()
    wanted.mounts.add(destination=path)
    with pytest.raises(PlanError, match="invalid mount destination"):
        plan(wanted)


def test_destinations_cannot_climb() -> None:
    wanted = config()
    wanted.mounts.add(destination="/../../a/../../b")
    assert destinations(wanted)[-1] == "/b"


def test_the_environment_begins_with_dockers_defaults() -> None:
    assert plan(config()).process.env == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=0123456789ab",
    ]
    wanted = config(env=["PATH=/bin", "X=1"], tty=True)
    wanted.hostname = "box"
    assert plan(wanted).process.env == ["HOSTNAME=box", "TERM=xterm", "PATH=/bin", "X=1"]


def test_an_execs_environment_is_taken_as_it_is() -> None:
    made = process_plan(Process(argv=["x"], env=["A=1"], tty=True), hostname="box", main=False)
    assert (made.env, made.make_cwd) == (["A=1"], False)


def test_init_goes_before_the_command_and_is_shown_in_the_container() -> None:
    wanted = config(init=True)
    made = plan(wanted)
    assert made.process.argv == ["/sbin/docker-init", "--", "app"]
    assert Bind("/sbin/docker-init", "/tini", True, False) in made.mounts


def test_the_hostname_defaults_to_the_short_id() -> None:
    assert plan(config()).hostname == ID[:12]


def test_capabilities_are_exactly_the_given_ones() -> None:
    wanted = config(capabilities=["CAP_CHOWN", "net_raw"])
    assert capabilities.names(plan(wanted).process.capabilities) == ["CAP_CHOWN", "CAP_NET_RAW"]


def test_rlimits_override_the_defaults() -> None:
    wanted = config()
    wanted.process.rlimits.add(type="rlimit_nofile", soft=10, hard=20)
    wanted.process.rlimits.add(type="RLIMIT_STACK", soft=1, hard=2)
    unlimited = (1 << 64) - 1
    assert plan(wanted).process.rlimits == [
        (7, 10, 20),
        (6, unlimited, unlimited),
        (4, unlimited, unlimited),
        (3, 1, 2),
    ]


def test_sysctls_come_after_dockers_two_defaults() -> None:
    wanted = config()
    wanted.sysctls["net.ipv4.ip_unprivileged_port_start"] = "1024"
    wanted.sysctls["kernel.msgmax"] = "1"
    assert plan(wanted).sysctls == [
        ("net.ipv4.ping_group_range", "0 2147483647", False),
        ("kernel.msgmax", "1", True),
        ("net.ipv4.ip_unprivileged_port_start", "1024", True),
    ]


@pytest.mark.parametrize(
    ("process", "text"),
    [
        ({"argv": []}, "no command specified"),
        ({"argv": [""]}, "no command specified"),
        ({"argv": ["a\0b"]}, "zero byte"),
        ({"env": ["A=\0"]}, "zero byte"),
        ({"cwd": "/\0"}, "zero byte"),
        ({"capabilities": ["CAP_NOPE"]}, 'invalid capability: "CAP_NOPE"'),
        ({"rlimits": [{"type": "RLIMIT_X"}]}, "invalid ulimit type: RLIMIT_X"),
        ({"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}, "soft limit 2 is above hard limit 1"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(process: dict[str, object], text: str) -> None:
    fields = {"argv": ["app"], **process}
    with pytest.raises(PlanError, match=text):
        make_plan(BootConfig(process=Process(**fields)), files="", volumes=[], init="")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a/b", "a..b"])
def test_sysctl_names_cannot_be_paths(name: str) -> None:
    wanted = config()
    wanted.sysctls[name] = "1"
    with pytest.raises(PlanError, match="invalid sysctl name"):
        plan(wanted)


def test_process_options_are_passed_on() -> None:
    made = process_plan(
        Process(
            argv=["x"],
            cwd="/w",
            user="a:b",
            additional_groups=["c"],
            tty=True,
            rows=3,
            columns=4,
            no_new_privileges=True,
            oom_score_adj=-5,
            seccomp_unconfined=True,
        ),
        hostname="",
        main=False,
    )
    assert (made.cwd, made.user, made.groups) == ("/w", "a:b", ["c"])
    assert (made.tty, made.rows, made.columns) == (True, 3, 4)
    assert (made.no_new_privileges, made.oom_score_adj, made.seccomp) == (True, -5, b"")
