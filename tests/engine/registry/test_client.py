import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from engine.registry.client import RegistryClient
from engine.registry.credentials import Credentials
from engine.registry.errors import BadContent, RegistryRefused, RegistryUnreachable
from engine.registry.manifest import Descriptor
from engine.registry.sources import Source, sources
from engine.registry.transport import Transport
from tests.engine.registry.server import Answer, Asked, FakeRegistry, digest_of, error
from vch.config import Registry

USER = Credentials(username="me", password="secret")
BASIC = "Basic " + base64.b64encode(b"me:secret").decode()


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport("test/1")
    yield transport
    await transport.close()


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry().serving() as registry:
        registry.manifest("a/b", "1", {"schemaVersion": 2}, "application/json")
        yield registry


@pytest.fixture
async def other() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry().serving() as registry:
        yield registry


async def no_wait(seconds: int) -> None:
    await asyncio.sleep(0)


def client(
    transport: Transport, registry: FakeRegistry, credentials: Credentials | None = None, path: str = "a/b"
) -> RegistryClient:
    return RegistryClient(transport, sources(registry.host, Registry()), path, credentials or Credentials())


def tokens(
    registry: FakeRegistry, realm: FakeRegistry, *, expires: int | None = None, grant: str = "good"
) -> list[Asked]:
    """Let `registry` want tokens of `realm`; the requests for tokens."""
    asked_for: list[Asked] = []

    def guard(asked: Asked) -> Answer | None:
        if asked.headers.get("authorization", "").startswith("Bearer good"):
            return None
        challenge = f'Bearer realm="http://{realm.host}/token",service="reg",scope="repository:a/b:pull"'
        return error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})

    def issue(asked: Asked) -> Answer | None:
        if asked.path != "/token":
            return None
        asked_for.append(asked)
        document = {"token": f"{grant}-{len(asked_for)}"} | ({"expires_in": expires} if expires else {})
        return Answer(body=json.dumps(document).encode())

    registry.rules.append(guard)
    realm.rules.append(issue)
    return asked_for


async def test_an_open_registry_is_asked_without_credentials(
    transport: Transport, registry: FakeRegistry
) -> None:
    document = await client(transport, registry, USER).manifest("1")
    assert document.data == b'{"schemaVersion": 2}'
    assert document.digest == digest_of(document.data)
    assert [asked.headers.get("authorization") for asked in registry.asked] == [None]


async def test_a_token_is_fetched_with_the_credentials_and_used_again(
    transport: Transport, registry: FakeRegistry, other: FakeRegistry
) -> None:
    asked_for = tokens(registry, other)
    reader = client(transport, registry, USER)
    await reader.manifest("1")
    await reader.manifest("1")
    assert len(asked_for) == 1
    assert asked_for[0].headers["authorization"] == BASIC
    assert parse_qs(urlsplit(asked_for[0].target).query) == {
        "service": ["reg"],
        "scope": ["repository:a/b:pull"],
        "account": ["me"],
    }
    sent = [asked.headers.get("authorization") for asked in registry.asked]
    assert sent == [None, "Bearer good-1", "Bearer good-1"]


async def test_nobody_gets_an_anonymous_token(
    transport: Transport, registry: FakeRegistry, other: FakeRegistry
) -> None:
    asked_for = tokens(registry, other)
    await client(transport, registry).manifest("1")
    assert "authorization" not in asked_for[0].headers
    assert "account" not in asked_for[0].target


async def test_an_expired_token_is_fetched_anew_before_it_is_used(
    transport: Transport, registry: FakeRegistry, other: FakeRegistry
) -> None:
    asked_for = tokens(registry, other, expires=100)
    now = 0.0
    reader = client(transport, registry, USER)
    authorizer = reader._sources[0]._authorizer
    authorizer._clock = lambda: now
    await reader.manifest("1")
    now = 94
    await reader.manifest("1")
    assert len(asked_for) == 1
    now = 96
    await reader.manifest("1")
    assert len(asked_for) == 2


async def test_a_token_that_is_refused_is_asked_for_once_more_and_no_further(
    transport: Transport, registry: FakeRegistry, other: FakeRegistry
) -> None:
    asked_for = tokens(registry, other, grant="bad")
    with pytest.raises(RegistryRefused, match="unauthorized: authentication required"):
        await client(transport, registry, USER).manifest("1")
    assert len(asked_for) == 1


async def test_parallel_requests_share_one_token(
    transport: Transport, registry: FakeRegistry, other: FakeRegistry
) -> None:
    asked_for = tokens(registry, other)
    reader = client(transport, registry, USER)
    await reader.manifest("1")
    reader._sources[0]._authorizer._tokens.clear()
    await asyncio.gather(*(reader.manifest("1") for _ in range(5)))
    assert len(asked_for) == 2


async def test_an_identity_token_is_exchanged_by_post(
    transport: Transport, registry: FakeRegistry, other: FakeRegistry
) -> None:
    asked_for = tokens(registry, other)
    await client(transport, registry, Credentials(identity_token="refresh-me")).manifest("1")
    assert asked_for[0].method == "POST"
    form = parse_qs(asked_for[0].body.decode())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["refresh-me"]
    assert "refresh-me" not in asked_for[0].target


async def test_a_registry_token_is_sent_as_it_is(
    transport: Transport, registry: FakeRegistry, other: FakeRegistry
) -> None:
    asked_for = tokens(registry, other)
    await client(transport, registry, Credentials(registry_token="good-mine")).manifest("1")
    assert asked_for == []


async def test_wrong_credentials_at_the_token_server(
    transport: Transport, registry: FakeRegistry, other: FakeRegistry
) -> None:
    tokens(registry, other)
    other.rules.append(lambda asked: Answer(status=401, body=b'{"details":"incorrect username or password"}'))
    with pytest.raises(RegistryRefused, match="unauthorized: incorrect username or password") as caught:
        await client(transport, registry, USER).manifest("1")
    assert caught.value.status == 401


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "not JSON"),
        (b"[]", "not an object"),
        (b"{}", "sent no token"),
        (b'{"token":"a\\nb"}', "sent no token"),
        (b'{"token":7}', "sent no token"),
    ],
)
async def test_a_malformed_token_is_refused(
    transport: Transport, registry: FakeRegistry, other: FakeRegistry, answer: bytes, words: str
) -> None:
    tokens(registry, other)
    other.rules.append(lambda asked: Answer(body=answer))
    with pytest.raises(BadContent, match=words):
        await client(transport, registry, USER).manifest("1")


async def test_a_secure_registry_cannot_name_a_plain_token_server(transport: Transport) -> None:
    """The realm is the registry's word; what it may not do is make us send secrets in the clear."""
    source = Source(domain="r.example", bases=("https://r.example",))
    reader = RegistryClient(transport, [source], "a", USER)
    authorizer = reader._sources[0]._authorizer

    class Response:
        class headers:  # noqa: N801
            @staticmethod
            def get_list(name: str) -> list[str]:
                return ['Bearer realm="http://evil.example/token"']

    assert authorizer.challenged(Response(), "")  # type: ignore[arg-type]
    with pytest.raises(BadContent, match="names no usable token server"):
        await authorizer.headers("")


async def test_basic_authentication(transport: Transport, registry: FakeRegistry) -> None:
    def guard(asked: Asked) -> Answer | None:
        if asked.headers.get("authorization") == BASIC:
            return None
        return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    registry.rules.append(guard)
    await client(transport, registry, USER).manifest("1")
    assert len(registry.asked) == 2
    with pytest.raises(RegistryRefused, match="no basic auth credentials"):
        await client(transport, registry).manifest("1")
    with pytest.raises(RegistryRefused, match="unauthorized: authentication required"):
        await client(transport, registry, Credentials(username="me", password="wrong")).manifest("1")


async def test_credentials_of_another_registry_are_not_sent(
    transport: Transport, registry: FakeRegistry
) -> None:
    registry.rules.append(lambda asked: Answer(status=401, headers={"WWW-Authenticate": "Basic"}))
    stranger = Credentials(username="me", password="secret", server="elsewhere.example")
    with pytest.raises(RegistryRefused, match="no basic auth credentials"):
        await client(transport, registry, stranger).manifest("1")
    assert all("authorization" not in asked.headers for asked in registry.asked)


async def test_mirrors_never_see_the_credentials_of_the_registry_they_mirror(
    transport: Transport, registry: FakeRegistry
) -> None:
    registry.rules.append(lambda asked: Answer(status=401, headers={"WWW-Authenticate": "Basic"}))
    config = Registry(mirrors=(f"http://{registry.host}",), allowed=("nothing.example",))
    reader = RegistryClient(
        transport,
        sources("docker.io", config),
        "library/a",
        Credentials(username="me", password="secret", server="docker.io"),
    )
    with pytest.raises(RegistryRefused, match="no basic auth credentials"):
        await reader.manifest("1")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_elsewhere_is_followed_without_the_authorization(
    transport: Transport, registry: FakeRegistry, other: FakeRegistry, status: int
) -> None:
    tokens(registry, registry)
    blob = other.blob(b"content")
    target = f"http://{other.host}/storage/blobs/{blob}?signature=x"

    def redirect(asked: Asked) -> Answer | None:
        if "/blobs/" in asked.path and "authorization" in asked.headers:
            return Answer(status=status, headers={"Location": target, "Set-Cookie": "session=1"})
        return None

    registry.rules.append(redirect)
    reader = client(transport, registry, USER)
    parts = [
        part async for part in reader.blob(Descriptor(media_type="", digest=blob, size=7), retry=no_wait)
    ]
    assert parts == [b"content"]
    assert [asked.headers.get("authorization") for asked in other.asked] == [None]
    await reader.manifest("1")
    assert all("cookie" not in asked.headers for asked in registry.asked)


async def test_a_redirect_to_the_same_origin_keeps_the_authorization(
    transport: Transport, registry: FakeRegistry
) -> None:
    tokens(registry, registry)
    registry.rules.append(
        lambda asked: (
            Answer(status=307, headers={"Location": "/v2/a/b/manifests/1"})
            if asked.path.endswith("/old") and "authorization" in asked.headers
            else None
        )
    )
    assert (await client(transport, registry, USER).manifest("old")).data == b'{"schemaVersion": 2}'


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("ftp://x/y", "invalid redirect"),
        ("file:///etc/passwd", "invalid redirect"),
        ("/v2/a/b/manifests/1", "stopped after 5 redirects"),
    ],
)
async def test_redirects_that_lead_nowhere_are_refused(
    transport: Transport, registry: FakeRegistry, location: str, words: str
) -> None:
    registry.rules.append(lambda asked: Answer(status=302, headers={"Location": location}))
    with pytest.raises(BadContent, match=words):
        await client(transport, registry).manifest("1")


async def test_mirrors_come_first_and_are_left_when_they_have_not_got_it(
    transport: Transport, registry: FakeRegistry, other: FakeRegistry
) -> None:
    found = [
        Source(domain=other.host, bases=(f"http://{other.host}",), insecure=True, loopback=True, mirror=True),
        Source(domain="r", bases=(f"http://{registry.host}",), insecure=True, loopback=True),
    ]
    blob = registry.blob(b"x")
    reader = RegistryClient(transport, found, "a/b", Credentials())
    await reader.manifest("1")
    assert len(other.asked) == 1
    assert [part async for part in reader.blob(Descriptor(media_type="", digest=blob, size=1))] == [b"x"]
    assert len(other.asked) == 1


async def test_a_blob_that_the_mirror_lost_comes_from_the_next_source(
    transport: Transport, registry: FakeRegistry, other: FakeRegistry
) -> None:
    other.manifest("a/b", "1", {"schemaVersion": 2}, "application/json")
    found = [
        Source(domain=other.host, bases=(f"http://{other.host}",), loopback=True, insecure=True, mirror=True),
        Source(domain="r", bases=(f"http://{registry.host}",), loopback=True, insecure=True),
    ]
    blob = registry.blob(b"x")
    reader = RegistryClient(transport, found, "a/b", Credentials())
    await reader.manifest("1")
    assert [part async for part in reader.blob(Descriptor(media_type="", digest=blob, size=1))] == [b"x"]
    assert len(other.paths("/blobs/")) == 1


async def test_not_found_in_the_mirror_says_more_than_a_registry_out_of_reach(
    transport: Transport, other: FakeRegistry
) -> None:
    found = [
        Source(domain=other.host, bases=(f"http://{other.host}",), loopback=True, insecure=True, mirror=True),
        Source(domain="r", bases=("http://127.0.0.1:1",), loopback=True, insecure=True),
    ]
    with pytest.raises(RegistryRefused, match="manifest unknown"):
        await RegistryClient(transport, found, "a/b", Credentials()).manifest("1")


async def test_an_overloaded_registry_is_asked_again(transport: Transport, registry: FakeRegistry) -> None:
    busy = [503, 429]
    registry.rules.append(lambda asked: Answer(status=busy.pop()) if busy else None)
    assert await client(transport, registry).manifest("1", retry=no_wait)
    assert len(registry.asked) == 3


async def test_nobody_listens(transport: Transport) -> None:
    reader = RegistryClient(transport, sources("127.0.0.1:1", Registry()), "a", Credentials())
    with pytest.raises(RegistryUnreachable) as caught:
        await reader.manifest("1")
    assert str(caught.value) == (
        'Get "http://127.0.0.1:1/v2/a/manifests/1": dial tcp 127.0.0.1:1: connect: connection refused'
    )


async def test_a_host_without_an_address(transport: Transport) -> None:
    source = Source(domain="no.invalid", bases=("https://no.invalid",))
    with pytest.raises(RegistryUnreachable, match=r"dial tcp: lookup no\.invalid: "):
        await RegistryClient(transport, [source], "a", Credentials()).manifest("1")


async def test_an_answer_that_is_no_registrys(transport: Transport, registry: FakeRegistry) -> None:
    registry.rules.append(lambda asked: Answer(status=500, body=b"<html>no</html>"))
    with pytest.raises(RegistryRefused, match="the registry answered 500"):
        await client(transport, registry).manifest("1", retry=no_wait)
    registry.rules.append(lambda asked: Answer(status=404, body=b"<html>no</html>"))
    with pytest.raises(RegistryRefused, match="manifest unknown: manifest unknown"):
        await client(transport, registry).manifest("1", retry=no_wait)


async def test_tags_are_read_page_by_page(transport: Transport, registry: FakeRegistry) -> None:
    def pages(asked: Asked) -> Answer | None:
        if not asked.path.endswith("/tags/list"):
            return None
        if "last" in asked.target:
            return Answer(body=b'{"name":"a/b","tags":["3"]}')
        link = {"Link": '</v2/a/b/tags/list?last=2>; rel="next"'}
        return Answer(headers=link, body=b'{"name":"a/b","tags":["1","2"]}')

    registry.rules.append(pages)
    assert await client(transport, registry).tags() == ["1", "2", "3"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tags":7}', b'{"tags":[7]}', b'{"tags":null}'])
async def test_malformed_tags_are_refused(transport: Transport, registry: FakeRegistry, body: bytes) -> None:
    registry.rules.append(lambda asked: Answer(body=body))
    with pytest.raises(BadContent, match="list of tags is malformed"):
        await client(transport, registry).tags()


async def test_tags_do_not_lead_elsewhere(transport: Transport, registry: FakeRegistry) -> None:
    link = {"Link": '<http://elsewhere.example/>; rel="next"'}
    registry.rules.append(lambda asked: Answer(headers=link, body=b'{"tags":[]}'))
    with pytest.raises(BadContent, match="goes on elsewhere"):
        await client(transport, registry).tags()


async def test_another_range_than_asked_for_is_refused(transport: Transport, registry: FakeRegistry) -> None:
    blob = registry.blob(b"0123456789")
    answers: list[Callable[[Asked], Answer]] = [
        lambda asked: Answer(status=206, headers={"Content-Range": "bytes 2-9/10"}, body=b"23456789"),
        lambda asked: Answer(body=b"0123456789", cut=5),
    ]
    registry.rules.append(lambda asked: answers.pop()(asked) if "/blobs/" in asked.path else None)
    descriptor = Descriptor(media_type="", digest=blob, size=10)
    with pytest.raises(BadContent, match="another range"):
        async for _ in client(transport, registry).blob(descriptor, retry=no_wait):
            pass


async def test_a_document_is_verified(transport: Transport, registry: FakeRegistry) -> None:
    blob = registry.blob(b"right")
    registry.blobs[blob] = b"wrong"
    with pytest.raises(BadContent, match="the thing failed verification"):
        await client(transport, registry).document(
            Descriptor(media_type="", digest=blob, size=5), 100, "the thing"
        )
    with pytest.raises(BadContent, match="the thing is larger than 3 bytes"):
        await client(transport, registry).document(
            Descriptor(media_type="", digest=blob, size=5), 3, "the thing"
        )


async def test_a_blob_of_nothing(transport: Transport, registry: FakeRegistry) -> None:
    blob = registry.blob(b"")
    descriptor = Descriptor(media_type="", digest=blob, size=0)
    assert await client(transport, registry).document(descriptor, 10, "it") == b""


async def test_certificates_are_verified_unless_the_registry_is_insecure(transport: Transport) -> None:
    def verifies(source: Source) -> bool:
        context = transport._client(source)._transport._pool._ssl_context  # type: ignore[attr-defined]
        return bool(context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname)

    assert verifies(Source(domain="r", bases=("https://r",)))
    assert not verifies(Source(domain="r", bases=("https://r",), insecure=True))
