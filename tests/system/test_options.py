"""Every option of docker run whose meaning lives in the guest."""

from __future__ import annotations

import json
import time

import pytest

from tests.system.harness import Docker, eventually

pytestmark = pytest.mark.system


def shell(docker: Docker, *options: str, script: str, image: str = "busybox") -> str:
    return docker.out("run", "--rm", *options, image, "sh", "-c", script)


def test_identity(docker: Docker) -> None:
    """--user, --group-add, --workdir, --env, --hostname, --domainname, --label, --entrypoint."""
    seen = shell(
        docker,
        *("--user", "www-data", "--group-add", "mail", "--workdir", "/some/where"),
        *("--env", "A=b c", "--env", "EMPTY=", "--hostname", "ship", "--domainname", "sea.example"),
        script='id -un; id -Gn; pwd; echo "$A|${EMPTY-unset}|$HOME"; hostname; cat /proc/sys/kernel/domainname',
    ).splitlines()
    assert seen == ["www-data", "www-data mail", "/some/where", "b c||/var/www", "ship", "sea.example"]
    assert docker.out("run", "--rm", "--entrypoint", "echo", "busybox", "-n", "ok") == "ok"


def test_a_user_that_does_not_exist_is_named(docker: Docker) -> None:
    result = docker("run", "--rm", "--user", "nobodyknows", "busybox", "true", check=False)
    assert result.returncode == 125
    assert "unable to find user nobodyknows: no matching entries in passwd file" in result.stderr


def test_names_and_resolvers(docker: Docker) -> None:
    """--add-host, --dns-search, --dns-option, and the container's own name in /etc/hosts."""
    seen = shell(
        docker,
        *("--add-host", "db:10.1.2.3", "--dns-search", "corp.example", "--dns-option", "ndots:3"),
        *("--hostname", "me"),
        script="cat /etc/hosts /etc/resolv.conf",
    )
    assert "10.1.2.3\tdb" in seen
    assert "\tme" in seen
    assert "search corp.example" in seen
    assert "options ndots:3" in seen
    assert "127.0.0.1\tlocalhost" in seen


def test_capabilities(docker: Docker) -> None:
    """--cap-add, --cap-drop, --privileged, and Docker's default set."""
    script = "grep CapEff /proc/self/status | cut -f2"
    default = int(shell(docker, script=script), 16)
    assert default == 0x00000000A80425FB  # the fourteen of Docker
    added = int(shell(docker, "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", script=script), 16)
    assert added == (default | 1 << 12) & ~1
    none = int(shell(docker, "--cap-drop", "ALL", script=script), 16)
    assert none == 0
    everything = int(shell(docker, "--privileged", script=script), 16)
    assert everything & default == default
    assert everything.bit_count() > 35


def test_privileged_owns_its_own_machine_but_not_the_tether(docker: Docker) -> None:
    seen = shell(
        docker, "--privileged", script="mount -t tmpfs none /mnt && echo mounted; ls /dev | wc -l; ps"
    )
    assert "mounted" in seen
    assert "tether" not in seen


def test_a_default_container_cannot_mount_or_see_the_tether(docker: Docker) -> None:
    seen = shell(
        docker, script="mount -t tmpfs none /mnt 2>&1; ls /dev; ps; ls /dev/vport* /dev/vd* 2>&1; true"
    )
    assert "denied" in seen or "not permitted" in seen
    assert "tether" not in seen
    assert "vport" not in seen.replace("/dev/vport*", "")


def test_limits(docker: Docker) -> None:
    """--ulimit, --pids-limit, --shm-size, --sysctl, --memory, --cpus, --cpu-shares."""
    seen = shell(
        docker,
        *("--ulimit", "nofile=123:456", "--pids-limit", "50", "--shm-size", "16m"),
        *("--sysctl", "net.core.somaxconn=321", "--memory", "64m", "--cpus", "0.5"),
        script="ulimit -Sn; ulimit -Hn; cat /sys/fs/cgroup/pids.max; df -m /dev/shm | tail -1 |"
        " awk '{print $2}'; cat /proc/sys/net/core/somaxconn; cat /sys/fs/cgroup/memory.max; cat /sys/fs/cgroup/cpu.max",
    ).splitlines()
    assert seen == ["123", "456", "50", "16", "321", str(64 << 20), "50000 100000"]


def test_out_of_memory_kills_and_says_so(docker: Docker) -> None:
    docker("run", "--name", "oom", "--memory", "32m", "busybox", "sh", "-c",
           "x=a; while :; do x=$x$x; done", check=False)  # fmt: skip
    state = docker.json("inspect", "oom")[0]["State"]
    docker("rm", "oom")
    assert (state["ExitCode"], state["OOMKilled"]) == (137, True)


def test_a_read_only_root_with_tmpfs(docker: Docker) -> None:
    seen = shell(
        docker,
        *("--read-only", "--tmpfs", "/scratch:size=4m,mode=1777"),
        script="touch /x 2>&1; touch /scratch/y && echo ok; df -m /scratch | tail -1 | awk '{print $2}'",
    )
    assert "Read-only file system" in seen
    assert seen.splitlines()[-2:] == ["ok", "4"]


def test_init_reaps(docker: Docker) -> None:
    assert "docker-init" in shell(docker, "--init", script="cat /proc/1/comm; cat /proc/1/cmdline")


def test_stop_signal_and_timeout(docker: Docker) -> None:
    """--stop-signal, --stop-timeout, and the exit codes of stop."""
    script = "trap 'exit 4' USR1; echo up; while :; do sleep 0.1; done"
    docker("run", "--detach", "--name", "s1", "--stop-signal", "USR1", "busybox", "sh", "-c", script)
    eventually(lambda: "up" in docker.out("logs", "s1"), "the trap is set")
    docker("stop", "s1")
    assert docker.out("inspect", "--format", "{{.State.ExitCode}}", "s1") == "4"
    docker("run", "--detach", "--name", "s2", "--stop-timeout", "1", "busybox", "sleep", "1000")
    started = time.monotonic()
    docker("stop", "s2")
    assert time.monotonic() - started < 9
    assert docker.out("inspect", "--format", "{{.State.ExitCode}}", "s2") == "137"
    docker("rm", "s1", "s2")


def test_labels_and_what_inspect_says(docker: Docker) -> None:
    docker("create", "--name", "lab", "--label", "a=1", "--label", "b", "--memory", "128m", "busybox", "true")
    inspected = docker.json("inspect", "lab")[0]
    assert inspected["Config"]["Labels"] == {"a": "1", "b": ""}
    assert inspected["HostConfig"]["Memory"] == 128 << 20
    assert docker.out("ps", "-aq", "--filter", "label=a=1", "--no-trunc") == inspected["Id"]
    assert docker.out("ps", "-aq", "--filter", "label=a=2") == ""
    docker("rm", "lab")


def test_restart_policies(docker: Docker) -> None:
    docker("run", "--detach", "--name", "r1", "--restart", "on-failure:2", "busybox", "false")
    eventually(
        lambda: docker.out("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "r1") == "2 exited",
        "two restarts, then exited",
        seconds=120,
    )
    docker("run", "--detach", "--name", "r2", "--restart", "always", "busybox", "sh", "-c", "sleep 1")
    eventually(
        lambda: int(docker.out("inspect", "-f", "{{.RestartCount}}", "r2")) >= 1, "restarted", seconds=120
    )
    docker("stop", "r2")
    assert docker.out("inspect", "-f", "{{.State.Status}}", "r2") == "exited"
    docker("rm", "r1", "r2")


def test_health_checks(docker: Docker) -> None:
    docker("run", "--detach", "--name", "hc", "--health-cmd", "test -e /tmp/well && echo fine",
           "--health-interval", "1s", "--health-retries", "2", "--health-timeout", "20s",
           "busybox", "sleep", "1000")  # fmt: skip

    def health() -> str:
        return docker.out("inspect", "-f", "{{.State.Health.Status}}", "hc")

    eventually(lambda: health() == "unhealthy", "two failures", seconds=90)
    docker("exec", "hc", "touch", "/tmp/well")
    eventually(lambda: health() == "healthy", "one success", seconds=90)
    log = json.loads(docker.out("inspect", "-f", "{{json .State.Health.Log}}", "hc"))
    assert log[-1]["Output"].strip() == "fine"
    assert "(healthy)" in docker.out("ps", "--filter", "name=hc", "--format", "{{.Status}}")
    docker("rm", "--force", "hc")


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (("--network", "host"), "host"),
        (("--pid", "host"), "pid"),
        (("--ipc", "host"), "ipc"),
        (("--device", "/dev/sda"), "device"),
        (("--volume", "/etc:/mnt"), "/etc"),
        (("--runtime", "kata"), "kata"),
        (("--log-driver", "fluentd"), "fluentd"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    docker: Docker, option: tuple[str, str], named: str
) -> None:
    result = docker("run", "--rm", *option, "busybox", "true", check=False)
    assert result.returncode == 125
    assert named in result.stderr.lower()
