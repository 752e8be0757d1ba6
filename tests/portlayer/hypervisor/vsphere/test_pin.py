"""One certificate and no other, on every connection."""

from __future__ import annotations

import hashlib
import ssl

import pytest

from portlayer.hypervisor.vsphere.pin import fingerprint, tls_context


@pytest.mark.parametrize("thumbprint", ["ab", "z" * 64, "a" * 63])
def test_what_is_no_thumbprint_is_refused(thumbprint: str) -> None:
    with pytest.raises(ValueError, match="thumbprint"):
        tls_context(thumbprint)


def test_without_one_the_hosts_authorities_decide() -> None:
    context = tls_context("")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_the_kind_is_told_by_its_length(algorithm: str) -> None:
    digest = hashlib.new(algorithm, b"certificate").hexdigest()
    assert fingerprint(b"certificate", digest) == digest
