"""vic-machine's command line, without deploying anything."""

import errno
import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from machine import local
from machine.__main__ import cli
from machine.certificates import generate_certificates
from machine.errors import MachineError, UsageProblem, VchExists
from machine.places import Places
from machine.supervisor import Backoff, is_running
from machine.validate import free_bridge_range, free_port, validate
from vch import Guest, VchConfig


def config(root: Path, name: str = "a", **changes: object) -> VchConfig:
    for file in ("kernel", "initrd"):
        (root / file).touch()
    values = {
        "name": name,
        "id": "0" * 32,
        "root": root / "state" / name,
        "run": root / "run" / name,
        "guest": Guest(kernel=root / "kernel", initrd=root / "initrd"),
        "bridge_range": "172.30.0.0/16",
        **changes,
    }
    return VchConfig(**values)  # type: ignore[arg-type]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "machine", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["inspect", "absent"], 3, "no virtual container host named 'absent'"),
        (["inspect", "../etc"], 2, "cannot name a virtual container host"),
        (["ls", "--target", "vc.example.com"], 2, "qemu: only"),
        (["create", "--name", "x"], 2, "--guest"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_exit_codes_are_the_documented_ones(tmp_path: Path, words: list[str], code: int, text: str) -> None:
    places = ["--state-dir", str(tmp_path)] if words[0] in ("inspect", "ls") else []
    result = command(*words, *places)
    assert (result.returncode, text in result.stderr) == (code, True), result.stderr


def test_create_shows_every_problem_and_changes_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    result = command(
        *("create", "--name", "x", "--guest", str(tmp_path / "nothing"), "--state-dir", str(state)),
        *(
            "--run-dir",
            str(tmp_path / "run"),
            "--bridge-network-range",
            "8.0.0.0/8",
            "--container-memory",
            "1",
        ),
    )
    assert result.returncode == 5
    for words in ("no guest kernel", "no guest initrd", "only private ranges", "at least 64 MiB"):
        assert words in result.stderr
    assert not state.exists()


def test_ls_is_empty_json_when_there_is_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["ls", "--json", "--state-dir", str(tmp_path)])
    assert json.loads(result.output) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--no-tls", "--no-tlsverify"], "excludes"),
        (["--tcp-port", "99999"], "a port number, auto or none"),
        (["--volume-store", "/tmp"], "expected PATH:LABEL"),
        (["--volume-store", "/a:x", "--volume-store", "/b:x"], "given twice"),
        (["--dns-server", "dns.example"], "--dns-server"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, options: list[str], text: str) -> None:
    words = ["create", "--name", "x", "--guest", str(tmp_path), "--state-dir", str(tmp_path / "s"), *options]
    result = CliRunner().invoke(cli, words)
    assert isinstance(result.exception, UsageProblem)
    assert text in str(result.exception)


def test_ranges_of_two_hosts_may_not_overlap(tmp_path: Path) -> None:
    problems = validate(config(tmp_path, "b"), [config(tmp_path)])
    assert any("overlaps 172.30.0.0/16 of VCH 'a'" in problem for problem in problems)


def test_a_run_directory_too_deep_for_sockets_is_refused(tmp_path: Path) -> None:
    problems = validate(config(tmp_path, run=tmp_path / ("d" * 90)), [])
    assert any("too long" in problem for problem in problems)


def test_the_free_range_avoids_hosts_and_routes(tmp_path: Path) -> None:
    first = free_bridge_range([], [])
    second = free_bridge_range([config(tmp_path, bridge_range=first)], [])
    third = free_bridge_range([config(tmp_path, bridge_range=first)], [second])
    assert len({first, second, third}) == 3


def test_a_listened_port_is_not_free() -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert free_port("127.0.0.1", port, []) > port
    assert free_port("127.0.0.1", port, [port]) > port


def test_places_find_only_directories_with_a_configuration(tmp_path: Path) -> None:
    places = Places(state=tmp_path / "state", run=tmp_path / "run")
    (tmp_path / "state/half-made").mkdir(parents=True)
    made = config(tmp_path)
    made.root.mkdir(parents=True)
    made.save(places.config_file("a"))
    assert [found.name for found in places.all()] == ["a"]


def test_certificates_fit_together(tmp_path: Path) -> None:
    generate_certificates(tmp_path / "tls", names=["127.0.0.1", "vch.example"], organization="Test")
    server = x509.load_pem_x509_certificate((tmp_path / "tls/server-cert.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["vch.example"]
    ca = x509.load_pem_x509_certificate((tmp_path / "tls/ca.pem").read_bytes())
    server.verify_directly_issued_by(ca)
    context = ssl.create_default_context(cafile=str(tmp_path / "tls/ca.pem"))
    context.load_cert_chain(tmp_path / "tls/cert.pem", tmp_path / "tls/key.pem")
    assert (tmp_path / "tls/key.pem").stat().st_mode & 0o777 == 0o600


def test_certificates_are_made_once(tmp_path: Path) -> None:
    generate_certificates(tmp_path, names=["a"], organization="Test")
    before = (tmp_path / "cert.pem").read_bytes()
    generate_certificates(tmp_path, names=["b"], organization="Test")
    assert (tmp_path / "cert.pem").read_bytes() == before


def test_a_daemon_that_keeps_dying_is_started_ever_later_up_to_a_limit() -> None:
    backoff = Backoff(first=1, most=4, healthy_after=10)
    assert [backoff.after(0) for _ in range(4)] == [1, 2, 4, 4]
    assert backoff.after(11) == 1


def test_a_host_without_pid_file_is_not_running(tmp_path: Path) -> None:
    assert is_running(config(tmp_path)) == 0


def test_errors_have_distinct_exit_codes() -> None:
    codes = [kind.exit_code for kind in (MachineError, *MachineError.__subclasses__())]
    assert sorted(codes) == [1, 2, 3, 4, 5, 6]


def test_a_create_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = config(tmp_path, qemu_user="root", docker_group="root")
    monkeypatch.setattr(local, "validate", lambda *_: [])
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(MachineError, match=r"cannot create a: .*No space left"):
        local.create(made, Places(state=tmp_path / "state"), names=["a"], organization="Test")
    assert not made.root.exists()


def test_a_vch_boots_from_a_copy_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(tmp_path, qemu_user="root", docker_group="root")
    places = Places(state=tmp_path / "state")
    (tmp_path / "kernel").write_text("as it was")
    monkeypatch.setattr(local, "validate", lambda *_: [])
    monkeypatch.setattr(local, "start", lambda *_: None)
    local.create(made, places, names=["a"], organization="Test")
    (tmp_path / "kernel").write_text("a new build")
    stored = places.load("a")
    assert stored.guest.kernel.read_text() == "as it was"
    assert stored.guest.kernel.parent == stored.paths.guest
    with pytest.raises(VchExists):
        local.create(made, places, names=["a"], organization="Test")


def test_of_two_creates_at_once_the_second_is_refused_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(tmp_path, qemu_user="root", docker_group="root")
    made.paths.guest.mkdir(parents=True)
    monkeypatch.setattr(local, "validate", lambda *_: [])
    with pytest.raises(VchExists):
        local.create(made, Places(state=tmp_path / "state"), names=["a"], organization="Test")
    assert made.paths.guest.exists()


def test_what_a_killed_create_left_is_named_and_deleted(tmp_path: Path) -> None:
    (tmp_path / "a/guest").mkdir(parents=True)
    where = ["--state-dir", str(tmp_path), "--run-dir", str(tmp_path / "run")]
    inspected = command("inspect", "a", *where)
    assert (inspected.returncode, "`vic-machine delete a` removes it" in inspected.stderr) == (1, True)
    assert command("delete", "a", *where).returncode == 0
    assert not (tmp_path / "a").exists()
    assert command("delete", "a", *where).returncode == 3
