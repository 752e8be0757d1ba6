import pytest

from portlayer.storage.capacity import parse_capacity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("10GB", 10 << 30),
        ("10 gb", 10 << 30),
        (" 10gib ", 10 << 30),
        ("1.5G", 3 << 29),
        ("0.5k", 512),
        ("100b", 100),
        ("2TB", 2 << 40),
        ("1p", 1 << 50),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_capacity(text) == expected


@pytest.mark.parametrize(
    "text", ["", "GB", "-1", "1e9", "10GiBB", "10i", "0x10", "1,5G", "1.5", "9" * 16, "ten", "1..5G"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (size|whole number)"):
        parse_capacity(text)
