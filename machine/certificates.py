"""Certificates of one VCH: a CA of its own, a server and a client certificate.

The files have the names the docker CLI looks for (``ca.pem``, ``cert.pem``,
``key.pem``), so that DOCKER_CERT_PATH can point at the directory. The CA's key
is kept: more client certificates can be made from it.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["generate_certificates"]

_LIFE = datetime.timedelta(days=3 * 365)
_Key = ec.EllipticCurvePrivateKey


def generate_certificates(directory: Path, *, names: Sequence[str], organization: str) -> None:
    """Write ca, server and client files into ``directory``; existing ones stay.

    Args:
        names: host names and IP addresses the server answers to.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (directory / "key.pem").exists():  # written last
        return
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name(organization, "Mooring CA")
    ca = _builder(ca_name, ca_name, ca_key)
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    ca = ca.add_extension(_key_usage(ca=True), critical=True)
    ca_certificate = ca.sign(ca_key, hashes.SHA256())

    def issue(common_name: str, usage: x509.ObjectIdentifier, stem: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(organization, common_name), ca_name, key)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(ca=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if usage == ExtendedKeyUsageOID.SERVER_AUTH:
            alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(ca_key, hashes.SHA256())
        _write(directory / f"{stem}cert.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        _write(directory / f"{stem}key.pem", _key_bytes(key), 0o600)

    _write(directory / "ca-key.pem", _key_bytes(ca_key), 0o600)
    _write(directory / "ca.pem", ca_certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    issue(names[0], ExtendedKeyUsageOID.SERVER_AUTH, "server-")
    issue("client", ExtendedKeyUsageOID.CLIENT_AUTH, "")


def _builder(subject: x509.Name, issuer: x509.Name, key: _Key) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks of clients may lag
        .not_valid_after(now + _LIFE)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _name(organization: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_bytes(key: _Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor: its mode was set at creation
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
