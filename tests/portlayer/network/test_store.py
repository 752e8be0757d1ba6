import errno
import os
from pathlib import Path

import pytest

from portlayer.network.store import NetworkStore, StoreError
from portlayer.portlayer_pb2 import Network, NetworkEndpoint, Pool

ID = "ab" * 32


def network(**fields: object) -> Network:
    return Network(id=ID, name="front", type="bridge", pools=[Pool(subnet="10.0.0.0/24")], **fields)  # type: ignore[arg-type]


def test_everything_but_endpoints_survives(tmp_path: Path) -> None:
    store = NetworkStore(tmp_path / "networks")
    assert store.load() == []
    wanted = network(metadata=b"\0\xff", labels={"a": "b"}, created_at=2**63, internal=True)
    with_endpoints = Network()
    with_endpoints.CopyFrom(wanted)
    with_endpoints.endpoints.append(NetworkEndpoint(container="c"))
    store.save(with_endpoints)
    assert NetworkStore(tmp_path / "networks").load() == [wanted]


def test_half_written_files_are_swept(tmp_path: Path) -> None:
    (tmp_path / f".new-{ID}").write_text('{"id": "')
    assert NetworkStore(tmp_path).load() == []
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("hands off")
    assert NetworkStore(tmp_path).load() == []
    assert (tmp_path / "README").exists()


def test_deleting_is_idempotent(tmp_path: Path) -> None:
    store = NetworkStore(tmp_path)
    store.save(network())
    store.delete(ID)
    store.delete(ID)
    assert store.load() == []


@pytest.mark.parametrize("text", ["", "[]", '{"id": 1}', '{"unknown": 1}', '{"id": "other"}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / f"{ID}.json").write_text(text)
    with pytest.raises(StoreError, match=ID):
        NetworkStore(tmp_path).load()


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / f"{ID}.json").open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(StoreError, match="larger"):
        NetworkStore(tmp_path).load()


def test_builtin_ones_come_first_then_the_oldest(tmp_path: Path) -> None:
    store = NetworkStore(tmp_path)
    for number, (age, builtin) in enumerate([(5, False), (3, False), (9, True)]):
        store.save(Network(id=f"{number:064x}", created_at=age, builtin=builtin))
    assert [n.created_at for n in store.load()] == [9, 3, 5]


def test_a_full_disk_leaves_nothing_of_a_new_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = NetworkStore(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.save(network())
    assert list(tmp_path.iterdir()) == []
