import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.registry.credentials import Credentials, credentials_from, parse_registry_auth, registry_domain
from engine.registry.errors import InvalidReference


def header(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def test_the_header_as_docker_sends_it() -> None:
    found = parse_registry_auth(
        header({"username": "me", "password": "pass>?", "serveraddress": "https://r.example:5000/v2/"})
    )
    assert found == Credentials(username="me", password="pass>?", server="r.example:5000")
    assert parse_registry_auth(header({"username": "m"}).rstrip("=")).username == "m"
    assert parse_registry_auth(header({"identitytoken": "t"})).identity_token == "t"
    assert parse_registry_auth(header({"registrytoken": "t"})).registry_token == "t"


def test_nobody() -> None:
    assert not parse_registry_auth("")
    assert not parse_registry_auth(header({}))
    assert not parse_registry_auth(header({"username": "", "password": None}))


def test_the_old_auth_field_and_any_case() -> None:
    assert credentials_from({"Auth": base64.b64encode(b"me:a:b").decode()}) == Credentials(
        username="me", password="a:b"
    )
    assert credentials_from({"Username": "u", "ServerAddress": "r.example"}).server == "r.example"


@pytest.mark.parametrize(
    "text", ["!!", "bm8", header([]), header({"username": 7}), "é", header({"auth": "!"})]
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="invalid X-Registry-Auth header"):
        parse_registry_auth(text)


@pytest.mark.parametrize(
    ("server", "domain"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://registry-1.docker.io", "docker.io"),
        ("http://r.example:5000", "r.example:5000"),
        ("r.example/path", "r.example"),
        ("https://user@r.example/", "r.example"),
        ("", ""),
    ],
)
def test_server_addresses(server: str, domain: str) -> None:
    assert registry_domain(server) == domain


def test_they_belong_to_their_registry() -> None:
    assert Credentials(username="x", server="r.example").belong_to("r.example")
    assert not Credentials(username="x", server="r.example").belong_to("s.example")
    assert Credentials(username="x").belong_to("s.example")


def test_secrets_are_not_printed() -> None:
    shown = repr(Credentials(username="me", password="hush", identity_token="hush", registry_token="hush"))
    assert "hush" not in shown


@given(st.text(max_size=200))
def test_any_header_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidReference):
        parse_registry_auth(text)


@given(st.dictionaries(st.sampled_from(["username", "auth", "serveraddress"]), st.text(max_size=40)))
def test_any_object_is_read_or_refused(value: dict[str, str]) -> None:
    with contextlib.suppress(InvalidReference):
        parse_registry_auth(header(value))
