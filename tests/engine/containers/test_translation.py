"""Docker's configuration as the guest gets it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.containers import capabilities, resources, translation
from engine.containers.config import Config
from engine.containers.hostconfig import HostConfig, RestartSpec
from engine.containers.imageconfig import merge
from engine.containers.sizes import size_in_bytes
from engine.http import ApiError, BadRequest, InternalError, Unsupported
from portlayer import portlayer_pb2 as pb


def host(**values: Any) -> HostConfig:
    return HostConfig.model_validate(values)


def config(**values: Any) -> Config:
    return Config.model_validate(values)


# ---------------------------------------------------------------- capabilities


@pytest.mark.parametrize(
    ("add", "drop", "privileged", "expected"),
    [
        ([], [], False, set(capabilities.DEFAULT)),
        (["net_admin"], [], False, {*capabilities.DEFAULT, "CAP_NET_ADMIN"}),
        ([], ["CAP_CHOWN"], False, set(capabilities.DEFAULT) - {"CAP_CHOWN"}),
        (["ALL"], ["SYS_ADMIN"], False, set(capabilities.ALL) - {"CAP_SYS_ADMIN"}),
        (["CHOWN"], ["ALL"], False, {"CAP_CHOWN"}),
        ([], ["all"], False, set()),
        ([], ["ALL"], True, set(capabilities.ALL)),
    ],
)
def test_capabilities(add: list[str], drop: list[str], privileged: bool, expected: set[str]) -> None:
    assert set(capabilities.final_set(add, drop, privileged=privileged)) == expected


def test_unknown_capability() -> None:
    with pytest.raises(BadRequest, match=r'^unknown capability: "FLY"$'):
        capabilities.final_set(["FLY"], [], privileged=False)


# ---------------------------------------------------------------- image configuration

IMAGE = {
    "Env": ["PATH=/image", "A=image"],
    "Cmd": ["serve"],
    "Entrypoint": ["/entry"],
    "Labels": {"a": "image", "b": "image"},
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/data": {}},
    "User": "app",
    "WorkingDir": "/srv",
    "StopSignal": "SIGQUIT",
    "Healthcheck": {"Test": ["CMD", "probe"], "Interval": 5_000_000_000},
    "Unknown": "is not ours to judge",
}


def test_silence_takes_everything_from_the_image() -> None:
    merged = merge(config(), IMAGE)
    assert (merged.Entrypoint, merged.Cmd, merged.User, merged.WorkingDir) == (
        ["/entry"],
        ["serve"],
        "app",
        "/srv",
    )
    assert (merged.StopSignal, merged.Labels) == ("SIGQUIT", {"a": "image", "b": "image"})
    assert merged.Healthcheck is not None
    assert merged.Healthcheck.Test == ["CMD", "probe"]


def test_what_the_user_says_wins() -> None:
    merged = merge(
        config(
            Env=["A=user", "C=user"],
            Labels={"a": "user"},
            ExposedPorts={"81/tcp": {}},
            Volumes={"/more": {}},
            User="root",
            Healthcheck={"Retries": 9},
        ),
        IMAGE,
    )
    assert merged.Env == ["A=user", "C=user", "PATH=/image"]
    assert merged.Labels == {"a": "user", "b": "image"}
    assert set(merged.ExposedPorts) == {"80/tcp", "81/tcp"}
    assert set(merged.Volumes) == {"/data", "/more"}
    assert merged.User == "root"
    assert merged.Healthcheck is not None
    assert (merged.Healthcheck.Retries, merged.Healthcheck.Interval) == (9, 5_000_000_000)


@pytest.mark.parametrize(
    ("user", "argv"),
    [
        ({"Cmd": ["x"]}, ["/entry", "x"]),
        ({"Cmd": "x"}, ["/entry", "x"]),
        ({"Entrypoint": ["e"]}, ["e"]),
        ({"Entrypoint": ["e"], "Cmd": ["x"]}, ["e", "x"]),
        ({"Entrypoint": [""], "Cmd": ["x"]}, ["x"]),
        ({"Entrypoint": [], "Cmd": ["x"]}, ["x"]),
    ],
)
def test_entrypoint_and_command(user: dict[str, Any], argv: list[str]) -> None:
    merged = merge(config(**user), IMAGE)
    assert (merged.Entrypoint or []) + (merged.Cmd or []) == argv


def test_nothing_to_run_and_broken_images() -> None:
    with pytest.raises(BadRequest, match=r"^no command specified$"):
        merge(config(), {})
    with pytest.raises(InternalError, match="malformed"):
        merge(config(), {"Env": "not a list"})


# ---------------------------------------------------------------- environment, process


def test_environment_has_dockers_base_and_bare_names_remove() -> None:
    made = translation.environment(config(Env=["A=1", "PATH=/mine", "B"], Tty=True), hostname="h")
    assert made == ["PATH=/mine", "HOSTNAME=h", "TERM=xterm", "A=1"]
    assert translation.replaced(["A=1", "B=2"], ["A", "B=3", "C="]) == ["B=3", "C="]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (False, False)),
        (["no-new-privileges"], (True, False)),
        (["no-new-privileges:true"], (True, False)),
        (["no-new-privileges=false"], (False, False)),
        (["seccomp=unconfined", "apparmor=unconfined", "label=disable"], (False, True)),
        (["seccomp:builtin"], (False, False)),
    ],
)
def test_security_options(options: list[str], expected: tuple[bool, bool]) -> None:
    made = translation.process(config(Cmd=["x"]), host(SecurityOpt=options), hostname="h")
    assert (made.no_new_privileges, made.seccomp_unconfined) == expected


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("seccomp={}", Unsupported),
        ("apparmor=docker-default", Unsupported),
        ("label=type:x", Unsupported),
        ("no-new-privileges=maybe", BadRequest),
        ("nonsense", BadRequest),
    ],
)
def test_other_security_options(option: str, kind: type[ApiError]) -> None:
    with pytest.raises(kind, match="security-opt"):
        translation.process(config(Cmd=["x"]), host(SecurityOpt=[option]), hostname="h")


# ---------------------------------------------------------------- health


def test_health_checks() -> None:
    made = translation.health_check(config(Healthcheck={"Test": ["CMD-SHELL", "probe || exit 1"]}))
    assert made is not None
    assert list(made.test) == ["/bin/sh", "-c", "probe || exit 1"]
    assert (made.interval, made.timeout, made.retries) == (30_000_000_000, 30_000_000_000, 3)
    made = translation.health_check(
        config(Healthcheck={"Test": ["CMD", "a", "b"], "Retries": 1}, Shell=["/bin/bash", "-c"])
    )
    assert made is not None
    assert (list(made.test), made.retries) == (["a", "b"], 1)
    assert translation.health_check(config(Healthcheck={"Test": ["NONE"]})) is None
    assert translation.health_check(config()) is None


@pytest.mark.parametrize(
    ("health", "message"),
    [
        ({"Test": ["PROBE", "x"]}, "Unknown healthcheck type 'PROBE' (expected 'CMD')"),
        ({"Test": ["CMD"]}, "Healthcheck CMD without a command"),
        ({"Test": ["CMD", "x"], "Interval": 5}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "x"], "Retries": -1}, "Retries in Healthcheck cannot be negative"),
    ],
)
def test_bad_health_checks(health: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        translation.health_check(config(Healthcheck=health))
    assert caught.value.message == message


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("text", "size"), [("100", 100), ("1k", 1024), ("1.5GB", 3 << 29), ("20 MiB", 20 << 20), ("2T", 2 << 40)]
)
def test_sizes(text: str, size: int) -> None:
    assert size_in_bytes(text, "bad") == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1x", "9" * 15 + "p", "1e3"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(BadRequest, match=r"^bad$"):
        size_in_bytes(text, "bad")


def test_storage_options() -> None:
    assert translation.disk_size({"size": "20G"}) == 20 << 30
    with pytest.raises(Unsupported, match="--storage-opt dm"):
        translation.disk_size({"dm.basesize": "1"})


# ---------------------------------------------------------------- resources


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"Memory": 1}, "Minimum memory limit allowed is 6MB"),
        (
            {"MemorySwap": 1 << 30},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            {"Memory": 1 << 30, "MemorySwap": 1 << 29},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"Memory": 8 << 20, "MemoryReservation": 9 << 20},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (
            {"NanoCpus": 1, "CpuQuota": 1000},
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            {"NanoCpus": 1, "CpuPeriod": 1000},
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        ({"CpuQuota": 1}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (
            {"CpuPeriod": 1},
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        ({"CpuShares": -1}, "invalid CPU shares (-1): value must be a positive integer"),
        ({"BlkioWeight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"CpusetCpus": "a"}, "Invalid value a for cpuset cpus"),
    ],
)
def test_resource_checks(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        resources.validate(host(**values))
    assert caught.value.message == message


def test_resources() -> None:
    made = resources.to_resources(host(Memory=64 << 20, NanoCpus=5, PidsLimit=-1, CpusetCpus="0-1,3"))
    assert (made.memory, made.memory_swap, made.nano_cpus) == (64 << 20, 128 << 20, 5)
    assert (made.pids_limit, made.cpuset_cpus) == (-1, "0-1,3")
    assert resources.to_resources(host(Memory=64 << 20, MemorySwap=-1)).memory_swap == -1


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, (pb.RestartPolicy.NO, 0)),
        ({"Name": "always"}, (pb.RestartPolicy.ALWAYS, 0)),
        ({"Name": "unless-stopped"}, (pb.RestartPolicy.UNLESS_STOPPED, 0)),
        ({"Name": "on-failure", "MaximumRetryCount": 3}, (pb.RestartPolicy.ON_FAILURE, 3)),
    ],
)
def test_restart_policies(policy: dict[str, Any], expected: tuple[int, int]) -> None:
    made = resources.restart_policy(RestartSpec.model_validate(policy))
    assert (made.condition, made.maximum_retries) == expected


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"Name": "sometimes"}, "unknown policy 'sometimes'"),
        (
            {"Name": "always", "MaximumRetryCount": 3},
            "maximum retry count can only be used with 'on-failure'",
        ),
        ({"Name": "on-failure", "MaximumRetryCount": -3}, "maximum retry count cannot be negative"),
    ],
)
def test_bad_restart_policies(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        resources.restart_policy(RestartSpec.model_validate(policy))


def test_ulimits() -> None:
    made = resources.rlimits(host(Ulimits=[{"Name": "nofile", "Soft": 1, "Hard": -1}]))
    assert (made[0].type, made[0].soft, made[0].hard) == ("RLIMIT_NOFILE", 1, (1 << 64) - 1)
    with pytest.raises(BadRequest, match=r"^invalid ulimit type: wings$"):
        resources.rlimits(host(Ulimits=[{"Name": "wings"}]))
    with pytest.raises(BadRequest, match=r"must be less than or equal to hard limit: 5 > 4$"):
        resources.rlimits(host(Ulimits=[{"Name": "nproc", "Soft": 5, "Hard": 4}]))


@pytest.mark.parametrize(
    ("config_values", "host_values", "message"),
    [
        (
            {"WorkingDir": "srv"},
            {},
            "the working directory 'srv' is invalid, it needs to be an absolute path",
        ),
        ({"Env": ["=x"]}, {}, "invalid environment variable: =x"),
        ({"Hostname": "no spaces"}, {}, "invalid hostname format: no spaces"),
        ({"ExposedPorts": {"http": {}}}, {}, 'invalid port specification: "http"'),
        ({"StopSignal": "X"}, {}, "invalid signal: X"),
        (
            {},
            {"AutoRemove": True, "RestartPolicy": {"Name": "always"}},
            "can't create 'AutoRemove' container with restart policy",
        ),
        ({}, {"ShmSize": -1}, "SHM size can not be less than 0"),
        ({}, {"OomScoreAdj": 1001}, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        ({}, {"Sysctls": {"a b": "1"}}, "invalid sysctl name 'a b'"),
        ({}, {"ConsoleSize": [1]}, "invalid ConsoleSize: height and width of the console are wanted"),
    ],
)
def test_checks(config_values: dict[str, Any], host_values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        translation.check(config(**config_values), host(**host_values))
    assert caught.value.message == message


def test_shown_command() -> None:
    assert translation.shown_command(["sh", "-c", "echo hi"]) == "sh -c 'echo hi'"
    assert translation.shown_command([]) == ""
