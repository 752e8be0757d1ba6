"""Documents: atomic, versioned, and findable whatever their key looks like."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason
from portlayer.storage import KeyValueStore, durable, keyvalue


@pytest.fixture
def store(tmp_path: Path) -> KeyValueStore:
    store = KeyValueStore(tmp_path / "kv")
    store.open()
    return store


def reopened(tmp_path: Path) -> KeyValueStore:
    store = KeyValueStore(tmp_path / "kv")
    store.open()
    return store


def test_values_survive_a_restart(store: KeyValueStore, tmp_path: Path) -> None:
    version = store.put("images/sha256:abc", b"line\n\0\xff")
    assert store.get("images/sha256:abc") == (b"line\n\0\xff", version)
    assert reopened(tmp_path).get("images/sha256:abc") == (b"line\n\0\xff", version)


def test_compare_and_set(store: KeyValueStore, tmp_path: Path) -> None:
    first = store.put("key", b"1")
    second = store.put("key", b"2", first)
    assert second > first
    with pytest.raises(PortLayerError, match="somebody else") as caught:
        store.put("key", b"3", first)
    assert caught.value.reason == Reason.VERSION_CONFLICT
    assert store.get("key") == (b"2", second)
    assert reopened(tmp_path).put("key", b"4", second) > second
    assert store.put("key", b"0 overwrites", 0) > second


def test_a_deleted_document_never_gets_an_old_version_again(store: KeyValueStore, tmp_path: Path) -> None:
    old = store.put("key", b"1")
    store.delete("key")
    for each in (store, reopened(tmp_path)):
        with pytest.raises(PortLayerError) as caught:
            each.put("key", b"2", old)
        assert caught.value.reason == Reason.NO_SUCH_KEY
    assert reopened(tmp_path).put("key", b"2") > old


def test_missing_keys(store: KeyValueStore) -> None:
    for call in (lambda: store.get("no"), lambda: store.delete("no")):
        with pytest.raises(PortLayerError, match="no such key: 'no'") as caught:
            call()
        assert caught.value.reason == Reason.NO_SUCH_KEY


def test_list_by_prefix(store: KeyValueStore) -> None:
    versions = {key: store.put(key, key.encode()) for key in ("a/1", "a/2", "ab", "b")}
    assert store.list("a/") == {key: (key.encode(), versions[key]) for key in ("a/1", "a/2")}
    assert list(store.list("")) == ["a/1", "a/2", "ab", "b"]
    assert store.list("nothing") == {}


KEYS = [
    "a", "A", "a/", "a/b", "/a", "//", ".", "..", "../../etc/passwd", ".new-x", "~", "%", "%2F", "a%2Fb", "k" * 300,
    "k" * 300 + "2", "\0", "\n", "é" * 100, "\ud800", "repositories/registry.example:5000/lib/x@sha256:" + "0" * 64,
]  # fmt: skip


def test_keys_of_all_kinds_stay_apart_and_inside(store: KeyValueStore, tmp_path: Path) -> None:
    for number, key in enumerate(KEYS):
        store.put(key, b"%d" % number)
    again = reopened(tmp_path)
    assert {key: again.get(key)[0] for key in KEYS} == {
        key: b"%d" % number for number, key in enumerate(KEYS)
    }
    assert len(list((tmp_path / "kv").iterdir())) == len(KEYS)
    assert list(tmp_path.iterdir()) == [tmp_path / "kv"]


def test_caps(store: KeyValueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyvalue, "MAX_VALUE", 10)
    monkeypatch.setattr(keyvalue, "MAX_KEYS", 2)
    store.put("1", b"x" * 10)
    store.put("2", b"")
    for key, value in (("", b""), ("k" * 1025, b""), ("1", b"x" * 11), ("3", b"")):
        with pytest.raises(PortLayerError) as caught:
            store.put(key, value)
        assert caught.value.reason == Reason.LIMIT_EXCEEDED
    store.put("1", b"again")  # what is there may change


def test_a_kill_leaves_the_old_value_or_the_new_one(
    store: KeyValueStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each system call of a write: nothing of ours runs after it, as after kill -9."""
    store.put("key", b"old")
    for victim, expected in (("fsync", b"old"), ("rename", b"old"), ("sync_directory", b"new")):
        before = {path: path.read_bytes() for path in (tmp_path / "kv").iterdir()}

        class Killed(BaseException):
            pass

        def die(*_: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            if victim == "fsync":
                patch.setattr(os, "fsync", die)
            elif victim == "rename":
                patch.setattr(Path, "rename", die)
            else:
                patch.setattr(durable, "sync_directory", die)
            patch.setattr(Path, "unlink", lambda *_, **__: None)  # the dead do not clean up
            with pytest.raises(Killed):
                store.put("key", b"new")
        assert reopened(tmp_path).get("key")[0] == expected
        assert not list((tmp_path / "kv").glob(".new-*"))
        if expected == b"old":
            assert {path: path.read_bytes() for path in (tmp_path / "kv").iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"garbage", b"{}\n", b"[]\n", b'{"key": "key"}\nvalue'])
def test_damaged_documents_are_reported_and_can_be_put_again(
    store: KeyValueStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    store.put("key", b"x")
    store.put("other", b"y")
    (tmp_path / "kv" / "key").write_bytes(content)
    again = reopened(tmp_path)
    assert list(again.list("")) == ["other"]
    assert "kv/key is damaged" in caplog.text
    again.put("key", b"new")
    assert reopened(tmp_path).get("key")[0] == b"new"


class Model(RuleBasedStateMachine):
    """Any sequence of calls and restarts is a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.expected: dict[str, bytes] = {}
        self.versions: set[int] = set()
        self.store = KeyValueStore(Model.root)
        for path in Model.root.glob("*"):
            path.unlink()
        self.store.open()

    root: Path

    @rule(key=st.sampled_from(["a", "b", "a/b"]), value=st.binary(max_size=20), checked=st.booleans())
    def put(self, key: str, value: bytes, checked: bool) -> None:
        version = self.store.get(key)[1] if checked and key in self.expected else 0
        new = self.store.put(key, value, version)
        assert new not in self.versions
        self.versions.add(new)
        self.expected[key] = value

    @rule(key=st.sampled_from(["a", "b", "a/b"]))
    def delete(self, key: str) -> None:
        if key in self.expected:
            self.store.delete(key)
            del self.expected[key]

    @rule()
    def restart(self) -> None:
        self.store = KeyValueStore(Model.root)
        self.store.open()

    @invariant()
    def same(self) -> None:
        assert {key: value for key, (value, _) in self.store.list("").items()} == self.expected


def test_any_sequence(tmp_path: Path) -> None:
    Model.root = tmp_path / "model"
    run_state_machine_as_test(
        Model, settings=settings(max_examples=20, stateful_step_count=15, deadline=None)
    )


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.text(min_size=1, max_size=300), value=st.binary(max_size=100))
def test_any_key(store: KeyValueStore, key: str, value: bytes) -> None:
    store.put(key, value)
    assert store.get(key)[0] == value
