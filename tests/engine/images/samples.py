"""Images made for tests: layers as tars, configurations, manifests of both kinds."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

from engine.images.config import chain_ids
from tests.engine.registry.server import FakeRegistry, digest_of

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def archive(files: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def _suffix(blob: bytes) -> str:
    return {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}.get(blob[:2], "")


@dataclass
class Sample:
    """One image. `layers` are plain tars, `blobs` what a registry has of them."""

    layers: list[bytes]
    config: bytes
    blobs: list[bytes]
    manifest: bytes
    media_type: str

    @property
    def id(self) -> str:
        return digest_of(self.config)

    @property
    def diff_ids(self) -> list[str]:
        return [digest_of(layer) for layer in self.layers]

    @property
    def chain(self) -> list[str]:
        return list(chain_ids(self.diff_ids))

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    def put(self, registry: FakeRegistry, repository: str, tag: str) -> str:
        for blob in (self.config, *self.blobs):
            registry.blob(blob)
        return registry.manifest(repository, tag, self.manifest, self.media_type)


def sample(
    *layers: bytes,
    docker: bool = False,
    compress: Callable[[bytes], bytes] = gzip.compress,
    created: str = "2024-05-06T07:08:09Z",
    labels: dict[str, str] | None = None,
    architecture: str = "amd64",
    os: str = "linux",
    **config: Any,
) -> Sample:
    tars = list(layers)
    document = {
        "architecture": architecture,
        "os": os,
        "created": created,
        "config": {"Cmd": ["/bin/true"], **({"Labels": labels} if labels else {}), **config},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in tars]},
        "history": [{"created": created, "created_by": f"step {n}"} for n in range(len(tars))],
    }
    data = json.dumps(document).encode()
    blobs = [compress(layer) for layer in tars]
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
        "config": {
            "mediaType": DOCKER_CONFIG if docker else OCI_CONFIG,
            "digest": digest_of(data),
            "size": len(data),
        },
        "layers": [
            {
                "mediaType": DOCKER_LAYER if docker else OCI_LAYER + _suffix(blob),
                "digest": digest_of(blob),
                "size": len(blob),
            }
            for blob in blobs
        ],
    }
    return Sample(
        layers=tars,
        config=data,
        blobs=blobs,
        manifest=json.dumps(manifest).encode(),
        media_type=str(manifest["mediaType"]),
    )
