"""Docker's user words against passwd and group files, hostile ones included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.users import Identity, UserError, resolve_user, user_names

PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
# a comment

alice:x:1000:1000:Alice:/home/alice:/bin/sh
1001:x:1500:1500::/home/digits:/bin/sh
nohome:x:1002:1002
broken line
bob:x:1003:50::/home/bob
"""
GROUP = b"""\
root:x:0:
wheel:x:10:root,alice
users:x:50:
staff:x:60:alice
alice:x:1000:
"""


def resolve(user: str, *additional: str) -> Identity:
    return resolve_user(user, additional, passwd=PASSWD, group=GROUP)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Identity(0, 0, (0, 10), "/root")),
        ("root", Identity(0, 0, (0, 10), "/root")),
        ("alice", Identity(1000, 1000, (1000, 10, 60), "/home/alice")),
        ("1000", Identity(1000, 1000, (1000, 10, 60), "/home/alice")),
        ("alice:staff", Identity(1000, 60, (60,), "/home/alice")),
        ("alice:7", Identity(1000, 7, (7,), "/home/alice")),
        ("1001", Identity(1001, 0, (0,), "/")),  # a number is never a name
        ("4242:4343", Identity(4242, 4343, (4343,), "/")),
        ("nohome", Identity(1002, 1002, (1002,), "/")),
        ("bob", Identity(1003, 50, (50,), "/home/bob")),
    ],
)
def test_words_are_resolved_as_docker_does(user: str, expected: Identity) -> None:
    assert resolve(user) == expected


def test_additional_groups_are_names_or_numbers() -> None:
    assert resolve("alice", "users", "99", "staff").groups == (1000, 10, 60, 50, 99)


@pytest.mark.parametrize(
    ("user", "additional", "text"),
    [
        ("mallory", (), "unable to find user mallory: no matching entries in passwd file"),
        ("alice:nope", (), "unable to find group nope: no matching entries in group file"),
        ("alice", ("nope",), "unable to find group nope: no matching entries in group file"),
        ("-1", (), "uids and gids must be in range 0-2147483647"),
        ("2147483648", (), "uids and gids must be in range 0-2147483647"),
        ("0:2147483648", (), "uids and gids must be in range 0-2147483647"),
    ],
)
def test_errors_are_dockers(user: str, additional: tuple[str, ...], text: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(user, *additional)
    assert str(caught.value) == text


def test_an_image_without_the_files_has_root_and_numbers() -> None:
    assert resolve_user("", (), passwd=b"", group=b"") == Identity(0, 0, (0,), "/")
    assert resolve_user("5:6", ("7",), passwd=b"", group=b"") == Identity(5, 6, (6, 7), "/")
    with pytest.raises(UserError, match="unable to find user x"):
        resolve_user("x", (), passwd=b"", group=b"")


def test_an_outsized_id_of_the_image_is_refused_not_wrapped() -> None:
    with pytest.raises(UserError, match="in range"):
        resolve_user("big", (), passwd=b"big:x:4294967296:0::/:", group=b"")


def test_the_first_name_of_an_id_counts() -> None:
    assert user_names(b"a:x:1:1::/:\nb:x:1:1::/:\n") == {1: "a"}


@given(st.binary(max_size=300), st.binary(max_size=300), st.text(max_size=20))
def test_no_file_makes_it_fail_otherwise(passwd: bytes, group: bytes, user: str) -> None:
    try:
        identity = resolve_user(user, (), passwd=passwd, group=group)
    except UserError:
        return
    assert 0 <= identity.uid < 1 << 31
    assert 0 <= identity.gid < 1 << 31
