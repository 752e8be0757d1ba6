"""The VCH configuration: what is written is read back, and typos are refused."""

import json
from pathlib import Path

import pytest

from vch import Guest, Registry, Tls, TlsMode, VchConfig, VchConfigError


@pytest.fixture
def config(tmp_path: Path) -> VchConfig:
    return VchConfig(
        name="a",
        id="0" * 32,
        root=tmp_path / "root",
        run=tmp_path / "run",
        guest=Guest(kernel=Path("/k"), initrd=Path("/i")),
        volume_stores={"default": tmp_path / "volumes"},
        tls=Tls(mode=TlsMode.MUTUAL, port=2376, ca=Path("/ca.pem")),
        registry=Registry(insecure=("127.0.0.1:5000",)),
    )


def test_what_is_saved_is_loaded(config: VchConfig, tmp_path: Path) -> None:
    config.save(tmp_path / "vch.json")
    assert VchConfig.load(tmp_path / "vch.json") == config
    assert [path.name for path in tmp_path.iterdir()] == ["vch.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bridge_rnage": "10.0.0.0/8"}, "unknown key 'bridge_rnage'"),
        ({"max_containers": "many"}, "max_containers: expected int"),
        ({"max_containers": True}, "max_containers: expected int"),
        ({"tls": {"mode": "sometimes"}}, "tls.mode"),
        ({"guest": {"kernel": "/k"}}, "initrd"),
        ({"dns": "8.8.8.8"}, "dns: expected a list"),
        ({"volume_stores": []}, "volume_stores: expected an object"),
    ],
)
def test_a_wrong_value_is_named(
    config: VchConfig, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    path = tmp_path / "vch.json"
    config.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(VchConfigError, match=words):
        VchConfig.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "vch.json"
    path.write_text(text)
    with pytest.raises(VchConfigError):
        VchConfig.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VchConfigError, match=r"absent\.json"):
        VchConfig.load(tmp_path / "absent.json")


def test_sockets_of_a_vm_have_short_paths(config: VchConfig) -> None:
    assert config.paths.vm_run("f" * 64).name == "f" * 16
