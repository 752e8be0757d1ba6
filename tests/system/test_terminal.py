"""docker run -it: a working terminal."""

from __future__ import annotations

import pytest

from tests.system.harness import Docker, eventually

pytestmark = pytest.mark.system


def test_a_shell_on_a_terminal(docker: Docker) -> None:
    with docker.terminal("run", "--rm", "-it", "busybox", "sh", rows=31, columns=101) as terminal:
        terminal.expect("# ")
        terminal.type("stty size\r")
        terminal.expect("31 101")
        terminal.resize(40, 120)
        terminal.type("sleep 0; stty size\r")
        terminal.expect("40 120")
        terminal.type("echo $TERM $((6*7))\r")
        terminal.expect("xterm 42")
        terminal.type("echo now; sleep 1000\r")
        terminal.expect("\nnow\r")  # the shell has left its line editor: Ctrl-C is a signal from here on
        terminal.type("\x03")  # Ctrl-C reaches the foreground program, not the shell
        terminal.expect("# ")
        terminal.type("exit 7\r")
        assert terminal.wait() == 7


def test_detach_and_attach_again(docker: Docker) -> None:
    with docker.terminal("run", "-it", "--name", "det", "busybox", "sh") as terminal:
        terminal.expect("# ")
        terminal.type("a=remembered\r")
        terminal.expect("# ")
        terminal.type("\x10\x11")  # Ctrl-P Ctrl-Q
        assert terminal.wait() == 0
    assert docker.out("inspect", "--format", "{{.State.Running}}", "det") == "true"
    with docker.terminal("attach", "det") as terminal:
        terminal.type("echo $a\r")
        terminal.expect("remembered\r\n")
        terminal.type("exit 5\r")
        assert terminal.wait() == 5
    docker("rm", "det")


def test_detach_keys_of_ones_own(docker: Docker) -> None:
    with docker.terminal(
        "run", "-it", "--name", "own", "--detach-keys", "ctrl-x,x", "busybox", "cat"
    ) as terminal:
        terminal.type("hello\r")
        terminal.expect("hello\r\nhello")
        terminal.type("\x18x")
        assert terminal.wait() == 0
    assert docker.out("inspect", "--format", "{{.State.Running}}", "own") == "true"
    docker("rm", "--force", "own")


def test_exec_on_a_terminal(docker: Docker) -> None:
    docker("run", "--detach", "--name", "ex", "busybox", "sleep", "1000")
    with docker.terminal("exec", "-it", "ex", "sh", rows=22, columns=77) as terminal:
        terminal.expect("# ")
        terminal.type("stty size; tty\r")
        terminal.expect("22 77")
        terminal.expect("/dev/pts/")
        terminal.type("exit 3\r")
        assert terminal.wait() == 3
    docker("rm", "--force", "ex")


def test_ctrl_c_of_an_attached_run_without_terminal_is_forwarded(docker: Docker) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    with docker.terminal("run", "--name", "sig", "busybox", "sh", "-c", script) as terminal:
        terminal.expect("ready")
        terminal.type("\x03")
        terminal.expect("caught")
        assert terminal.wait() == 9
    docker("rm", "sig")


def test_two_clients_see_the_same_output(docker: Docker) -> None:
    docker("run", "--detach", "-it", "--name", "two", "busybox", "sh")
    with docker.terminal("attach", "two") as first, docker.terminal("attach", "two") as second:
        first.type("echo on$((1+1))both\r")
        first.expect("on2both")
        second.expect("on2both")
    docker("rm", "--force", "two")
    eventually(lambda: docker("inspect", "two", check=False).returncode != 0, "the container is gone")
