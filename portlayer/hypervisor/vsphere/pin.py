"""A TLS context that takes one certificate and no other.

pyVmomi has a pin of its own, but after its first use it turns verification off in
the context that all later connections share, and those it does not check.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
from typing import Any

__all__ = ["fingerprint", "tls_context"]

_ALGORITHMS = {40: "sha1", 64: "sha256", 128: "sha512"}  # by hex digits; vSphere's own tools print SHA-1


def fingerprint(certificate: bytes, like: str) -> str:
    """The certificate's thumbprint, of the same kind as ``like``."""
    return hashlib.new(_ALGORITHMS[len(like)], certificate).hexdigest()


def tls_context(thumbprint: str) -> ssl.SSLContext:
    """Without a thumbprint: the authorities that this host trusts.

    Raises:
        ValueError: no thumbprint has so many digits.
    """
    if not thumbprint:
        return ssl.create_default_context()
    pin = thumbprint.replace(":", "").lower()
    if len(pin) not in _ALGORITHMS or not set(pin) <= set("0123456789abcdef"):
        raise ValueError(f"{thumbprint!r} is no SHA-1, SHA-256 or SHA-512 thumbprint")
    context = _Pinned(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the pin says more than any authority
    context.pin = pin
    return context


class _Pinned(ssl.SSLContext):
    pin: str

    def wrap_socket(self, sock: socket.socket, *args: Any, **words: Any) -> ssl.SSLSocket:
        wrapped = super().wrap_socket(sock, *args, **words)
        certificate = wrapped.getpeercert(binary_form=True) or b""
        have = fingerprint(certificate, self.pin)
        if not hmac.compare_digest(have, self.pin):
            wrapped.close()
            raise ssl.SSLCertVerificationError(
                f"the server's certificate has thumbprint {have}, expected {self.pin}"
            )
        return wrapped
