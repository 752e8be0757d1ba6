import hashlib

import pytest

from engine.registry.digest import check_digest, is_image_id, sha256_digest, short, verify
from engine.registry.errors import BadContent, InvalidReference


def test_content_is_verified_by_either_algorithm() -> None:
    for algorithm in ("sha256", "sha512"):
        digest = f"{algorithm}:{hashlib.new(algorithm, b'data').hexdigest()}"
        assert verify(b"data", check_digest(digest), "blob") == b"data"
        with pytest.raises(
            BadContent, match=f"blob failed verification: expected {digest}, got {algorithm}:"
        ):
            verify(b"Data", digest, "blob")


@pytest.mark.parametrize("text", ["", ":", "sha256:", "sha256:xyz", "sha256:ab", "crc32:" + "a" * 64, "\n"])
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        check_digest(text)


def test_short_and_whole_ids() -> None:
    digest = sha256_digest(b"")
    assert digest == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert short(digest) == "e3b0c44298fc"
    assert is_image_id(digest)
    assert not is_image_id(digest[:-1])
    assert not is_image_id(digest + "\n")
