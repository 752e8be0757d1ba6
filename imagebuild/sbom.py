"""A software bill of materials in SPDX 2.3 JSON (https://spdx.github.io/spdx-spec/v2.3/).

Lists the kernel, every Debian package that a program or library of the
initramfs came from, and the Python packages frozen into the tether.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

__all__ = ["Component", "debian_components", "python_components", "spdx_document"]


@dataclass(frozen=True, kw_only=True, order=True)
class Component:
    name: str
    version: str
    license: str = "NOASSERTION"
    purl: str = ""


def debian_components(files: Iterable[Path]) -> list[Component]:
    """The packages that own ``files``, each once, sorted."""
    spellings = {str(path) for path in files} | {str(path.resolve()) for path in files}
    # merged-usr: dpkg may know /lib/x where we say /usr/lib/x, and the other way round
    spellings |= {name.removeprefix("/usr") for name in spellings if name.startswith("/usr/lib")}
    found = subprocess.run(
        ["dpkg-query", "--search", *sorted(spellings)], capture_output=True, text=True, check=False
    )  # exits 1 when one spelling of a file is unknown: expected
    packages = sorted(
        {name for line in found.stdout.splitlines() for name in line.split(": ")[0].split(", ")}
    )
    if not packages:
        return []
    shown = subprocess.run(
        [
            "dpkg-query",
            "--show",
            "--showformat",
            "${binary:Package} ${Version}\n",
            *packages,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    components = []
    for line in shown.stdout.splitlines():
        package, version = line.split(" ")
        name = package.split(":")[0]
        components.append(Component(name=name, version=version, purl=f"pkg:deb/debian/{name}@{version}"))
    return sorted(set(components))


def python_components(names: Sequence[str]) -> list[Component]:
    components = []
    for name in names:
        found = distribution(name)
        metadata = found.metadata
        declared = metadata["License-Expression"] or metadata["License"]
        components.append(
            Component(
                name=name,
                version=found.version,
                license=(declared or "NOASSERTION").splitlines()[0],
                purl=f"pkg:pypi/{name}@{found.version}",
            )
        )
    return components


def spdx_document(components: Iterable[Component], images: Sequence[Path]) -> str:
    """The document as JSON text; the same inputs give the same text."""
    files = [
        {
            "SPDXID": f"SPDXRef-File-{path.name}",
            "fileName": path.name,
            "checksums": [{"algorithm": "SHA256", "checksumValue": _sha256(path)}],
        }
        for path in images
    ]
    packages = [
        {
            "SPDXID": f"SPDXRef-Package-{number}",
            "name": component.name,
            "versionInfo": component.version,
            "licenseDeclared": component.license,
            "downloadLocation": "NOASSERTION",
            "externalRefs": [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": component.purl,
                }
            ]
            if component.purl
            else [],
        }
        for number, component in enumerate(sorted(set(components)))
    ]
    identity = hashlib.sha256(json.dumps([files, packages], sort_keys=True).encode()).hexdigest()
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "mooring-guest",
        "documentNamespace": f"urn:mooring:guest:{identity}",
        "creationInfo": {"created": "1970-01-01T00:00:00Z", "creators": ["Tool: mooring-imagebuild"]},
        "files": files,
        "packages": packages,
    }
    return json.dumps(document, indent=2) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
