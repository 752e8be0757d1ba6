import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.registry.errors import BadContent, InvalidReference
from engine.registry.manifest import Index, Manifest, parse_manifest
from engine.registry.platform import DEFAULT_PLATFORM, Platform, choose, parse_platform

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DIGEST = "sha256:" + "0" * 64


def descriptor(media_type: str = OCI_LAYER, **changes: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 3} | changes


def manifest(**changes: Any) -> bytes:
    whole = {"schemaVersion": 2, "config": descriptor(OCI_CONFIG), "layers": [descriptor()]} | changes
    return json.dumps({key: value for key, value in whole.items() if value is not ...}).encode()


def index(*entries: Any, **changes: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": list(entries)} | changes).encode()


def test_a_manifest_by_its_own_type_its_label_or_its_shape() -> None:
    for data, label in (
        (manifest(mediaType=OCI_MANIFEST), ""),
        (manifest(), OCI_MANIFEST + "; charset=utf-8"),
        (manifest(), "text/plain"),
        (manifest(), ""),
    ):
        parsed = parse_manifest(data, label)
        assert isinstance(parsed, Manifest)
        assert parsed.media_type == OCI_MANIFEST
        assert parsed.layers[0].size == 3


def test_an_index() -> None:
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    parsed = parse_manifest(
        index(descriptor(OCI_MANIFEST, platform=platform, annotations={"a": "b"}), descriptor(OCI_MANIFEST)),
        OCI_INDEX,
    )
    assert isinstance(parsed, Index)
    assert parsed.entries[0].platform == Platform(os="linux", architecture="arm64", variant="v8")
    assert parsed.entries[0].annotations == {"a": "b"}
    assert parsed.entries[1].platform is None


@pytest.mark.parametrize(
    ("data", "label", "words"),
    [
        (manifest(mediaType=OCI_MANIFEST), OCI_INDEX, "calls itself"),
        (manifest(manifests=[]), "", "ambiguous"),
        (manifest(), OCI_INDEX, "has no manifests"),
        (index(), OCI_MANIFEST, "config is not a descriptor"),
        (manifest(mediaType=7), "", "mediaType is not a string"),
        (manifest(schemaVersion=1), "", "schema 1 is not supported"),
        (manifest(schemaVersion=3), "", "unsupported manifest schema version"),
        (manifest(), "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (manifest(config=...), "", "config is not a descriptor"),
        (
            manifest(config=descriptor("application/vnd.cncf.helm.config.v1+json")),
            "",
            "not a container image",
        ),
        (manifest(config=descriptor(OCI_CONFIG, size=5 << 20)), "", "larger than"),
        (manifest(layers=...), "", "no layers"),
        (manifest(layers={}), "", "no layers"),
        (manifest(layers=[7]), "", "layer 0 is not a descriptor"),
        (manifest(layers=[descriptor("text/plain")]), "", "unsupported layer media type 'text/plain'"),
        (manifest(layers=[descriptor()] * 128), "", "max depth exceeded"),
        (manifest(layers=[descriptor(digest="sha256:0")]), "", "invalid checksum digest length"),
        (manifest(layers=[descriptor(digest="md5:" + "0" * 32)]), "", "unsupported digest algorithm"),
        (manifest(layers=[descriptor(size=-1)]), "", "no valid size"),
        (manifest(layers=[descriptor(size=True)]), "", "no valid size"),
        (manifest(layers=[descriptor(size=1.5)]), "", "no valid size"),
        (manifest(layers=[descriptor(size=1 << 60)]), "", "no valid size"),
        (manifest(layers=[descriptor(digest=7)]), "", "no digest"),
        (index(*[descriptor(OCI_MANIFEST)] * 1001), "", "more than 1000"),
        (index(descriptor(OCI_MANIFEST, platform="linux")), "", "malformed platform"),
        (index(descriptor(OCI_MANIFEST, platform={"os": 7})), "", "malformed platform"),
        (index(descriptor(OCI_MANIFEST, annotations={"a": 7})), "", "malformed annotations"),
    ],
)
def test_what_is_malformed_or_unsupported_is_refused_by_name(data: bytes, label: str, words: str) -> None:
    with pytest.raises(BadContent, match=words):
        parse_manifest(data, label)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests"]),
        json_values
        | st.just(2)
        | st.sampled_from([OCI_INDEX, OCI_MANIFEST])
        | st.lists(
            st.fixed_dictionaries(
                {key: st.just(value) for key, value in descriptor().items()},
                optional={"platform": json_values},
            ),
            max_size=3,
        ),
    ),
    st.sampled_from(["", OCI_INDEX, OCI_MANIFEST]),
)
def test_any_json_is_parsed_or_refused(value: dict[str, Any], label: str) -> None:
    with contextlib.suppress(BadContent):
        parse_manifest(json.dumps(value).encode(), label)


@given(st.binary(max_size=100))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadContent):
        parse_manifest(data)


# -------------------------------------------------------------------- platforms


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("LINUX/AMD64", "linux/amd64"),
        ("linux", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm"),
        ("windows", "windows/amd64"),
    ],
)
def test_platforms_are_normalised(text: str, shown: str) -> None:
    assert str(parse_platform(text)) == shown


@pytest.mark.parametrize("text", ["", "/", "linux/", "a/b/c/d", "lin ux/amd64", "linux/é"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="invalid platform"):
        parse_platform(text)


class Entry:
    def __init__(self, name: str, platform: Platform | None) -> None:
        self.name = name
        self.platform = platform


def linux(architecture: str, variant: str = "") -> Platform:
    return Platform(os="linux", architecture=architecture, variant=variant)


@pytest.mark.parametrize(
    ("platforms", "wanted", "chosen"),
    [
        ([linux("arm64"), linux("amd64")], DEFAULT_PLATFORM, 1),
        ([linux("amd64", "v2"), linux("amd64")], DEFAULT_PLATFORM, 1),
        ([linux("amd64", "v3")], DEFAULT_PLATFORM, None),
        ([linux("arm", "v6"), linux("arm", "v7")], linux("arm"), 1),
        ([linux("arm"), linux("arm", "v6")], linux("arm", "v6"), 1),
        ([linux("arm64", "v8")], linux("arm64"), 0),
        ([None, linux("amd64")], DEFAULT_PLATFORM, 1),
        ([linux("arm64"), None], DEFAULT_PLATFORM, 1),
        ([Platform(os="windows", architecture="amd64")], DEFAULT_PLATFORM, None),
        ([Platform(os="unknown", architecture="unknown")], DEFAULT_PLATFORM, None),
        ([], DEFAULT_PLATFORM, None),
    ],
)
def test_the_best_entry_is_chosen(
    platforms: list[Platform | None], wanted: Platform, chosen: int | None
) -> None:
    entries = [Entry(str(number), platform) for number, platform in enumerate(platforms)]
    found = choose(entries, wanted)
    assert (found.name if found else None) == (None if chosen is None else str(chosen))
