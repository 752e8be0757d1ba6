"""Binds, Mounts, Tmpfs, VolumesFrom and Volumes become one plan, or an error that names the reason."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.containers.hostconfig import HostConfig
from engine.containers.mounts import MountPlan, check_volumes_from, plan, shown
from engine.http import ApiError, BadRequest, Unsupported


def planned(
    volumes: tuple[str, ...] = (), lent: tuple[MountPlan, ...] = (), **host: Any
) -> list[tuple[str, str, bool]]:
    made = plan(HostConfig.model_validate(host), volumes, lent)
    return [(item.destination, item.volume, item.read_only) for item in made.volumes]


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("data:/data", ("/data", "data", False)),
        ("data:/data:ro", ("/data", "data", True)),
        ("data:/data/../x/:rw,z", ("/x", "data", False)),
        ("/anonymous", ("/anonymous", "", False)),
        ("data://srv", ("/srv", "data", False)),
    ],
)
def test_binds(bind: str, expected: tuple[str, str, bool]) -> None:
    assert planned(Binds=[bind]) == [expected]


@pytest.mark.parametrize(
    ("bind", "kind", "message"),
    [
        ("/etc:/etc:rshared", Unsupported, "bind propagation rshared is not supported"),
        ("/etc:/etc:nocopy", BadRequest, "invalid mode: nocopy"),
        ("./x:/x", BadRequest, "includes invalid characters for a local volume name"),
        ("data:/", BadRequest, "destination can't be '/'"),
        ("data:relative", BadRequest, "mount path must be absolute"),
        (":/x", BadRequest, "invalid volume specification: ':/x'"),
        ("data:/x:ro:more", BadRequest, "invalid volume specification"),
        ("data:/x:ro,rw", BadRequest, "invalid mode: ro,rw"),
        ("data:/x:sideways", BadRequest, "invalid mode: sideways"),
        ("", BadRequest, "mount path must be absolute"),
    ],
)
def test_refused_binds(bind: str, kind: type[ApiError], message: str) -> None:
    with pytest.raises(kind) as caught:
        planned(Binds=[bind])
    assert message in caught.value.message


def test_host_paths() -> None:
    made = plan(
        HostConfig.model_validate(
            {
                "Binds": ["/srv/../data/:/data:ro,z", "/a:/b:rprivate"],
                "Mounts": [{"Type": "bind", "Source": "/c", "Target": "/d", "ReadOnly": True}],
            }
        ),
        (),
        (),
    )
    found = [(i.host_path, i.destination, i.read_only, i.create_path, i.volume) for i in made.volumes]
    assert found == [
        ("/data", "/data", True, True, ""),
        ("/a", "/b", False, True, ""),
        ("/c", "/d", True, False, ""),
    ]
    entry = shown(made.volumes[0])
    assert (entry["Type"], entry["Source"], entry["RW"], entry["Mode"]) == ("bind", "/data", False, "ro,z")
    assert "Name" not in entry


def test_order_of_precedence() -> None:
    lent = (
        MountPlan(destination="/a", volume="lent-a", read_only=True),
        MountPlan(destination="/b", volume="lent-b"),
    )
    assert planned(("/a", "/b", "/c", "/t"), lent, Binds=["mine:/b"], Tmpfs={"/t": ""}) == [
        ("/a", "lent-a", True),
        ("/b", "mine", False),
        ("/c", "", False),
    ]


@pytest.mark.parametrize(
    "host",
    [
        {"Binds": ["one:/x", "two:/x/"]},
        {"Binds": ["one:/x"], "Tmpfs": {"/x": ""}},
        {"Binds": ["one:/x"], "Mounts": [{"Type": "volume", "Target": "/x"}]},
        {"Mounts": [{"Type": "tmpfs", "Target": "/x"}, {"Type": "volume", "Target": "/x"}]},
    ],
)
def test_two_mounts_at_one_place(host: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=r"^Duplicate mount point: /x$"):
        planned(**host)


def test_mount_objects() -> None:
    made = plan(
        HostConfig.model_validate(
            {
                "Mounts": [
                    {
                        "Type": "volume",
                        "Source": "data",
                        "Target": "/data",
                        "ReadOnly": True,
                        "VolumeOptions": {
                            "NoCopy": True,
                            "Subpath": "sub/dir",
                            "Labels": {"a": "b"},
                            "DriverConfig": {"Name": "local", "Options": {"Capacity": "1GB"}},
                        },
                    },
                    {
                        "Type": "tmpfs",
                        "Target": "/t",
                        "TmpfsOptions": {"SizeBytes": 1024, "Mode": 0o1777, "Options": [["exec"]]},
                    },
                ]
            }
        ),
        (),
        (),
    )
    item = made.volumes[0]
    assert (item.volume, item.read_only, item.no_copy, item.subpath) == ("data", True, True, "sub/dir")
    assert (dict(item.labels), dict(item.options)) == ({"a": "b"}, {"Capacity": "1GB"})
    assert list(made.tmpfs[0].options) == ["nosuid", "nodev", "exec", "size=1024", "mode=1777"]


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"Type": "bind", "Target": "/x"}, "field Source must not be empty"),
        ({"Type": "bind", "Source": "x", "Target": "/x"}, "mount path must be absolute"),
        (
            {"Type": "bind", "Source": "/x", "Target": "/x", "VolumeOptions": {}},
            "field VolumeOptions must not",
        ),
        (
            {"Type": "bind", "Source": "/x", "Target": "/x", "BindOptions": {"Propagation": "slave"}},
            "propagation slave is not supported",
        ),
        (
            {"Type": "bind", "Source": "/x", "Target": "/x", "BindOptions": {"NonRecursive": True}},
            "BindOptions.NonRecursive is not supported",
        ),
        ({"Type": "image", "Source": "x", "Target": "/x"}, "mounts of type image are not supported"),
        ({"Type": "cloud", "Target": "/x"}, "mount type unknown"),
        ({"Type": "volume"}, "field Target must not be empty"),
        ({"Type": "volume", "Target": "/x", "ReadOnly": True}, "anonymous volumes"),
        ({"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "a"}}, "anonymous volumes"),
        (
            {"Type": "volume", "Source": "d", "Target": "/x", "VolumeOptions": {"Subpath": "../a"}},
            "relative path",
        ),
        (
            {
                "Type": "volume",
                "Source": "d",
                "Target": "/x",
                "VolumeOptions": {"DriverConfig": {"Name": "nfs"}},
            },
            "nfs",
        ),
        ({"Type": "volume", "Target": "/x", "TmpfsOptions": {}}, "TmpfsOptions must not be specified"),
        ({"Type": "tmpfs", "Target": "/x", "Source": "a"}, "field Source must not be specified"),
        (
            {"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["a", "b", "c"]]}},
            "option array length",
        ),
        (
            {"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["huge"]]}},
            'invalid tmpfs option ["huge"]',
        ),
    ],
)
def test_refused_mounts(mount: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError) as caught:
        planned(Mounts=[mount])
    assert message in caught.value.message


def test_tmpfs_options_override_the_defaults() -> None:
    made = plan(HostConfig.model_validate({"Tmpfs": {"/t": "exec,size=64m,size=32m,uid=1"}}), (), ())
    assert list(made.tmpfs[0].options) == ["nosuid", "nodev", "exec", "size=32m", "uid=1"]


@pytest.mark.parametrize(
    ("text", "expected"), [("web", ("web", None)), ("web:ro", ("web", True)), ("web:rw,z", ("web", False))]
)
def test_volumes_from(text: str, expected: tuple[str, bool | None]) -> None:
    assert check_volumes_from(text) == expected


@pytest.mark.parametrize("text", ["", ":ro", "web:no", "web:ro,rw", "web:"])
def test_bad_volumes_from(text: str) -> None:
    with pytest.raises(BadRequest):
        check_volumes_from(text)


@given(
    binds=st.lists(st.text(max_size=20) | st.from_regex(r"[a-z./:]{1,15}(:ro)?", fullmatch=True), max_size=4),
    tmpfs=st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
)
def test_nothing_is_our_fault(binds: list[str], tmpfs: dict[str, str]) -> None:
    host = HostConfig()
    host.Binds, host.Tmpfs = binds, tmpfs
    with contextlib.suppress(ApiError):
        for item in plan(host, (), ()).volumes:
            assert item.destination.startswith("/")
            assert item.destination != "/"
