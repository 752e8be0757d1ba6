import json
from pathlib import Path

from imagebuild.elf import shared_libraries
from imagebuild.sbom import Component, debian_components, python_components, spdx_document


def test_a_program_belongs_to_its_debian_package() -> None:
    [component] = debian_components([Path("/usr/bin/dpkg-deb")])
    assert component.name == "dpkg"
    assert component.purl == f"pkg:deb/debian/dpkg@{component.version}"


def test_a_program_needs_the_loader_and_the_c_library() -> None:
    names = {path.name for path in shared_libraries([Path("/usr/bin/dpkg-deb")])}
    assert {"ld-linux-x86-64.so.2", "libc.so.6"} <= names


def test_a_static_program_needs_nothing() -> None:
    assert shared_libraries([Path("/bin/busybox")]) == []


def test_the_document_lists_packages_and_checksums(tmp_path: Path) -> None:
    image = tmp_path / "initrd"
    image.write_bytes(b"abc")
    components = [Component(name="linux", version="6.1"), *python_components(["protobuf"])]
    document = json.loads(spdx_document(components, [image]))
    assert document["spdxVersion"] == "SPDX-2.3"
    assert [package["name"] for package in document["packages"]] == ["linux", "protobuf"]
    assert document["files"][0]["checksums"][0]["checksumValue"].startswith("ba7816bf")


def test_the_same_inputs_give_the_same_document(tmp_path: Path) -> None:
    image = tmp_path / "initrd"
    image.write_bytes(b"abc")
    a, b = Component(name="a", version="1"), Component(name="b", version="2")
    assert spdx_document([a, b], [image]) == spdx_document([b, a, a], [image])
