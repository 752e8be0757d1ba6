"""Debian's real docker-registry, filled by skopeo, read by our client: every format it can hold.

The port layer is the one in memory: what layers become on disk is tested elsewhere.
"""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ipaddress
import json
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.events.hub import EventHub
from engine.http import ApiError
from engine.images.progress import Progress
from engine.images.service import ImageService
from engine.registry.credentials import Credentials
from engine.registry.platform import parse_platform
from engine.registry.reference import parse_reference
from engine.rpc import PortLayer
from tests.engine.images.portlayer import FakePortLayer, serving
from tests.engine.images.samples import OCI_INDEX, OCI_MANIFEST, Sample, sample, tar, zstd
from tests.engine.registry.server import digest_of
from vch.config import Guest, Registry, VchConfig

pytestmark = pytest.mark.system

LAYERS = (tar(base=os.urandom(300_000)), tar(middle=b"m" * 100_000), tar(top=b"t"))


@dataclass
class RealRegistry:
    host: str
    directory: Path

    def push(self, layout: Path, name: str, *options: str) -> None:
        subprocess.run(
            [
                *("skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"),
                *options,
                f"oci:{layout}:it",
                f"docker://{self.host}/{name}",
            ],
            check=True,
            timeout=60,
        )


def serve(directory: Path, *, tls: tuple[Path, Path] | None = None) -> Iterator[RealRegistry]:
    """A registry on a port that the system chose (read back from its own socket)."""
    directory.mkdir()
    config = directory / "config.yml"
    http: dict[str, Any] = {"addr": "127.0.0.1:0"}
    if tls:
        http["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    config.write_text(
        json.dumps(
            {
                "version": 0.1,
                "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
                "http": http,
            }
        )
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", config], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stderr is not None
    drain = threading.Thread(target=process.stderr.read, daemon=True)  # a full pipe would stop it
    try:
        for line in process.stderr:
            if b"listening on" in line:
                address = json.loads(line)["msg"].partition("listening on ")[2].partition(",")[0]
                break
        else:
            raise AssertionError("the registry did not start")
        drain.start()
        yield RealRegistry(host=address, directory=directory)
    finally:
        process.kill()
        process.wait(10)
        drain.join(10)
        process.stderr.close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    yield from serve(tmp_path_factory.mktemp("registry") / "plain")


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakePortLayer]:
    fake = FakePortLayer()
    async with serving(fake, tmp_path / "portlayer.sock"):
        yield fake


async def service_with(tmp_path: Path, registries: Registry) -> AsyncIterator[ImageService]:
    config = VchConfig(
        name="test",
        id="0" * 32,
        root=tmp_path / "root",
        run=tmp_path,
        guest=Guest(kernel=tmp_path, initrd=tmp_path),
        registry=registries,
    )
    port = PortLayer(config.paths.portlayer_socket)
    service = ImageService(config, port, EventHub())
    yield service
    await service.close()
    await port.close()


@pytest.fixture
async def service(tmp_path: Path, fake: FakePortLayer, registry: RealRegistry) -> AsyncIterator[ImageService]:
    mirrors = Registry(mirrors=(f"http://{registry.host}",), allowed=(registry.host,))
    async for service in service_with(tmp_path, mirrors):
        yield service


def layout(directory: Path, image: Sample) -> Path:
    """An OCI layout that skopeo reads, tag "it"."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for blob in (image.config, image.manifest, *image.blobs):
        (blobs / digest_of(blob)[7:]).write_bytes(blob)
    entry = {
        "mediaType": OCI_MANIFEST,
        "digest": image.digest,
        "size": len(image.manifest),
        "annotations": {"org.opencontainers.image.ref.name": "it"},
    }
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return directory


async def pull(service: ImageService, name: str, platform: str = "") -> None:
    wanted = parse_platform(platform) if platform else None
    await service.puller.pull(parse_reference(name).tagged, wanted, Credentials(), Progress())


@pytest.mark.parametrize(("format", "compression"), [("oci", "gzip"), ("oci", "zstd"), ("v2s2", "gzip")])
async def test_every_manifest_and_compression(
    service: ImageService,
    fake: FakePortLayer,
    registry: RealRegistry,
    tmp_path: Path,
    format: str,
    compression: str,
) -> None:
    image = sample(*LAYERS, compress=zstd if compression == "zstd" else gzip.compress)
    name = f"library/it-{format}-{compression}"
    registry.push(layout(tmp_path / "layout", image), name, "--format", format)
    await pull(service, f"it-{format}-{compression}")
    record = await service.resolve(f"it-{format}-{compression}")
    assert [fake.tars[chain] for chain in image.chain] == list(LAYERS)
    assert record.layer == image.chain[-1]
    (digest,) = record.repo_digests
    await pull(service, digest)
    assert (await service.resolve(digest)).id == record.id
    assert fake.done("put") == image.chain


async def test_a_tag_and_a_digest_beside_each_other(
    service: ImageService, registry: RealRegistry, tmp_path: Path
) -> None:
    image = sample(*LAYERS)
    registry.push(layout(tmp_path / "layout", image), "a/b:1.0")
    await pull(service, f"{registry.host}/a/b:1.0")
    (digest,) = (await service.resolve(f"{registry.host}/a/b:1.0")).repo_digests
    with pytest.raises(ApiError, match="manifest unknown"):
        await pull(service, f"{registry.host}/a/b:2.0")
    with pytest.raises(ApiError, match="manifest unknown"):
        await pull(service, f"{registry.host}/nothing")
    assert digest.startswith(f"{registry.host}/a/b@sha256:")


async def test_an_index_as_a_registry_keeps_it(
    service: ImageService, registry: RealRegistry, tmp_path: Path
) -> None:
    images = {arch: sample(*LAYERS[:2], architecture=arch) for arch in ("amd64", "arm64")}
    directory = layout(tmp_path / "layout", images["amd64"])
    blobs = directory / "blobs" / "sha256"
    for blob in (images["arm64"].config, images["arm64"].manifest):
        (blobs / digest_of(blob)[7:]).write_bytes(blob)
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                {
                    "mediaType": OCI_MANIFEST,
                    "digest": image.digest,
                    "size": len(image.manifest),
                    "platform": {"os": "linux", "architecture": arch},
                }
                for arch, image in images.items()
            ],
        }
    ).encode()
    (blobs / digest_of(index)[7:]).write_bytes(index)
    entry = {
        "mediaType": OCI_INDEX,
        "digest": digest_of(index),
        "size": len(index),
        "annotations": {"org.opencontainers.image.ref.name": "it"},
    }
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    registry.push(directory, "library/multi", "--all")
    await pull(service, "multi")
    record = await service.resolve("multi")
    assert (record.id, record.repo_digests) == (images["amd64"].id, [f"multi@{digest_of(index)}"])
    await pull(service, "multi", "linux/arm64")
    assert (await service.resolve("multi")).id == images["arm64"].id


async def test_a_registry_with_a_certificate_of_its_own_on_loopback(
    fake: FakePortLayer, tmp_path: Path
) -> None:
    image = sample(*LAYERS)
    for registry in serve(tmp_path / "tls", tls=certificate(tmp_path)):
        registry.push(layout(tmp_path / "layout", image), "secure")
        async for service in service_with(tmp_path, Registry()):
            await pull(service, f"{registry.host}/secure")
            assert (await service.resolve(f"{registry.host}/secure")).id == image.id


async def test_tags_of_a_repository(service: ImageService, registry: RealRegistry, tmp_path: Path) -> None:
    directory = layout(tmp_path / "layout", sample(*LAYERS))
    for tag in ("1", "2", "latest"):
        registry.push(directory, f"many:{tag}")
    reference = parse_reference(f"{registry.host}/many")
    client = await service.puller.client(reference, Credentials())
    assert sorted(await client.tags()) == ["1", "2", "latest"]


async def test_ten_pulls_at_once(
    service: ImageService, fake: FakePortLayer, registry: RealRegistry, tmp_path: Path
) -> None:
    images = [sample(LAYERS[0], tar(own=bytes([number]) * 50_000)) for number in range(5)]
    for number, image in enumerate(images):
        registry.push(layout(tmp_path / f"layout{number}", image), f"library/many{number}")
    names = [f"many{number}" for number in range(5)] * 2
    await asyncio.gather(*(pull(service, name) for name in names))
    assert sorted(fake.done("put")) == sorted({chain for image in images for chain in image.chain})


def certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
