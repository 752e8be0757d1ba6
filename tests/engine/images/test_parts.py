"""The small pure parts of the image room."""

import asyncio
import contextlib
import gzip
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.http import ApiError, BadRequest
from engine.images.changes import apply_changes
from engine.images.config import chain_ids, parse_config
from engine.images.index import ImageIndex, StoredImage, StoredLayer
from engine.images.pipe import through_thread
from engine.images.progress import Progress, human_size
from engine.images.references import matches, pattern
from engine.images.spool import Spool, SpoolFile
from engine.images.stream import reporting
from engine.images.transfer import unpacked
from engine.images.views import history, inspect, summary
from engine.registry.errors import BadContent
from engine.registry.reference import parse_reference
from tests.engine.images.samples import sample, tar
from tests.engine.registry.server import digest_of

# ---------------------------------------------------------------------- configuration


def test_chain_ids_are_those_of_the_specification() -> None:
    one, two, three = ("sha256:" + digit * 64 for digit in "123")
    chain = chain_ids([one, two, three])
    assert chain[0] == one
    assert chain[1] == digest_of(f"{one} {two}".encode())
    assert chain[2] == digest_of(f"{chain[1]} {three}".encode())
    assert chain_ids([]) == ()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "not valid JSON"),
        (b"\xff", "not UTF-8"),
        (b"{}", "no rootfs"),
        (b'{"rootfs":{"type":"other"}}', "no rootfs"),
        (b'{"rootfs":{"diff_ids":"x"}}', "diff_ids"),
        (b'{"rootfs":{"diff_ids":["sha256:1"]}}', "diff_ids"),
        (b'{"rootfs":{},"config":7}', "config is malformed"),
        (b'{"rootfs":{},"config":{"Labels":7}}', "config is malformed"),
        (b'{"rootfs":{},"os":7}', "os is not a string"),
        (b'{"rootfs":{},"history":7}', "history is malformed"),
        (b'{"rootfs":{},"history":[7]}', "history is malformed"),
        (b'{"rootfs":{},"history":[{"created":7}]}', "created is not a string"),
        (b" " * (5 << 20), "larger than"),
    ],
)
def test_malformed_configurations_are_refused(document: bytes, words: str) -> None:
    with pytest.raises(BadContent, match=words):
        parse_config(document)


@given(
    st.dictionaries(
        st.sampled_from(["rootfs", "config", "history", "os", "created"]),
        st.none()
        | st.integers()
        | st.text(max_size=5)
        | st.just({})
        | st.just({"diff_ids": None})
        | st.just([{}]),
    )
)
def test_any_configuration_is_parsed_or_refused(value: dict[str, Any]) -> None:
    with contextlib.suppress(BadContent):
        parse_config(json.dumps(value).encode())


# ---------------------------------------------------------------------- views


def stored(**options: Any) -> StoredImage:
    image = sample(tar(a=b"a"), tar(b=b"b"), **options)
    return StoredImage(
        config=parse_config(image.config),
        layers=tuple(
            StoredLayer(chain_id=chain, diff_id=diff, size=100 * (number + 1))
            for number, (chain, diff) in enumerate(zip(image.chain, image.diff_ids, strict=True))
        ),
    )


def test_a_row_of_the_list() -> None:
    image = stored(labels={"k": "v"})
    row = summary(image, version=(1, 50), tags=["a:1"], digests=[])
    assert row == {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": ["a:1"],
        "RepoDigests": [],
        "Created": 1714979289,
        "Size": 300,
        "SharedSize": -1,
        "Labels": {"k": "v"},
        "Containers": -1,
    }
    old = summary(image, version=(1, 40), tags=[], digests=[])
    assert (old["RepoTags"], old["RepoDigests"]) == (["<none>:<none>"], ["<none>@<none>"])
    assert old["VirtualSize"] == 300


def test_inspecting() -> None:
    index = ImageIndex()
    image = stored(Env=["A=b"])
    index.add(image)
    index.name(parse_reference("a:1"), image.id, 1_700_000_000_000_000_000)
    shown = inspect(index, image, version=(1, 50), disk="/d")
    assert shown["Config"]["Env"] == ["A=b"]
    assert shown["Config"]["Entrypoint"] is None
    assert shown["RootFS"] == {"Type": "layers", "Layers": [layer.diff_id for layer in image.layers]}
    assert shown["GraphDriver"] == {"Name": "vmdk", "Data": {"Disk": "/d", "Layer": image.top}}
    assert shown["Metadata"]["LastTagTime"] == "2023-11-14T22:13:20Z"
    assert "VirtualSize" not in shown
    assert inspect(index, image, version=(1, 43), disk="/d")["VirtualSize"] == 300


def test_history_counts_the_layers_of_the_steps_that_made_some() -> None:
    image = stored()
    document = json.loads(image.config.data)
    document["history"] = [
        {"created": "2024-01-01T00:00:00Z", "created_by": "one"},
        {"created_by": "env", "empty_layer": True, "comment": "c"},
        {"created_by": "two"},
    ]
    image = StoredImage(config=parse_config(json.dumps(document).encode()), layers=image.layers)
    index = ImageIndex()
    index.add(image)
    index.name(parse_reference("a:1"), image.id, 1)
    rows = history(index, image)
    assert [(row["CreatedBy"], row["Size"]) for row in rows] == [("two", 200), ("env", 0), ("one", 100)]
    assert [row["Id"] for row in rows] == [image.id, "<missing>", "<missing>"]
    assert rows[0]["Tags"] == ["a:1"]
    document["history"] = None
    bare = StoredImage(config=parse_config(json.dumps(document).encode()), layers=image.layers)
    index.add(bare)
    assert [row["Size"] for row in history(index, bare)] == [200, 100]


# ---------------------------------------------------------------------- the reference filter


@pytest.mark.parametrize(
    ("text", "name", "matched"),
    [
        ("busybox", "busybox:1", True),
        ("busy*", "busybox:1", True),
        ("busybox:*", "busybox:1", True),
        ("busybox:2", "busybox:1", False),
        ("*", "a/b:1", False),
        ("*/*", "a/b:1", True),
        ("a/?", "a/b:1", True),
        ("a/[a-c]", "a/b:1", True),
        ("a/[^a-c]", "a/b:1", False),
        ("r.io/*:1", "r.io/x:1", True),
        ("r.io/*:1", "r.io/x/y:1", False),
        ("docker.io/library/busybox", "busybox:1", False),
        (r"busy\*", "busybox:1", False),
        ("a[b]c", "abc", True),
    ],
)
def test_reference_patterns(text: str, name: str, matched: bool) -> None:
    assert matches(pattern(text), parse_reference(name)) is matched


@pytest.mark.parametrize("text", ["[", "[a", "a\\", "[a-", "[]", "[-]", "a" * 600])
def test_malformed_patterns_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="reference"):
        pattern(text)


@given(st.text(alphabet="ab[]^-*?\\/.é", max_size=20))
def test_any_pattern_is_compiled_or_refused(text: str) -> None:
    with contextlib.suppress(BadRequest):
        pattern(text).fullmatch("a/b:c")


# ---------------------------------------------------------------------- changes


def test_every_instruction() -> None:
    assert apply_changes(
        [
            "CMD echo hi",
            'ENTRYPOINT ["a", "b"]',
            "ENV A=1 B='two words' C=x\\ y",
            "ENV A 2 3",
            "EXPOSE 80 90/udp 100-101",
            'LABEL x="y z" k=v',
            "USER me:us",
            'VOLUME ["/data", "/more"]',
            "VOLUME /third",
            "WORKDIR /srv",
            "WORKDIR sub",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=5s --timeout=1m --retries=3 CMD curl x",
        ]
    ) == {
        "Cmd": ["/bin/sh", "-c", "echo hi"],
        "Entrypoint": ["a", "b"],
        "Env": ["A=2 3", "B=two words", "C=x y"],
        "ExposedPorts": {"80/tcp": {}, "90/udp": {}, "100/tcp": {}, "101/tcp": {}},
        "Labels": {"x": "y z", "k": "v"},
        "User": "me:us",
        "Volumes": {"/data": {}, "/more": {}, "/third": {}},
        "WorkingDir": "/srv/sub",
        "StopSignal": "SIGINT",
        "OnBuild": ["RUN x"],
        "Healthcheck": {
            "Interval": 5_000_000_000,
            "Timeout": 60_000_000_000,
            "Retries": 3,
            "Test": ["CMD-SHELL", "curl x"],
        },
    }
    assert apply_changes(["HEALTHCHECK NONE"])["Healthcheck"] == {"Test": ["NONE"]}
    assert apply_changes(['healthcheck CMD ["a"]'])["Healthcheck"] == {"Test": ["CMD", "a"]}
    assert apply_changes(["CMD a\nUSER b"]) == {"Cmd": ["/bin/sh", "-c", "a"], "User": "b"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("RUN x", "run is not a valid change command"),
        ("LABEL", "LABEL requires at least one argument"),
        ("ENV A", "must have two arguments"),
        ("ENV A=1 B", 'can\'t find = in "B"'),
        ("ENV A='a", "looking for matching single-quote"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("EXPOSE 0", "invalid containerPort"),
        ("EXPOSE 70000", "invalid containerPort"),
        ("USER", "exactly one argument"),
        ('VOLUME [""]', "empty string"),
        ("ONBUILD FROM x", "isn't allowed"),
        ("HEALTHCHECK x", "unknown type"),
        ("HEALTHCHECK --interval=x CMD y", "invalid duration"),
    ],
)
def test_instructions_that_cannot_be_read_are_refused_by_name(change: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        apply_changes([change])


@given(
    st.sampled_from(["ENV ", "LABEL ", "CMD ", "VOLUME ", "EXPOSE ", "HEALTHCHECK ", ""]),
    st.text(max_size=30),
)
def test_any_change_is_applied_or_refused(word: str, text: str) -> None:
    with contextlib.suppress(BadRequest):
        apply_changes([word + text])


# ---------------------------------------------------------------------- progress


async def said(progress: Progress) -> list[dict[str, Any]]:
    progress.close()
    return [json.loads(line) async for lines in progress.lines() for line in lines.splitlines()]


async def test_only_the_newest_numbers_of_a_layer_wait() -> None:
    now = 0.0
    progress = Progress(lambda: now)
    for current in range(1, 101):
        progress.numbers("a", "Downloading", current, 100)
        now += 1
    progress.state("a", "Download complete")
    assert [message["progressDetail"] for message in await said(progress)] == [
        {"current": 100, "total": 100},
        {},
    ]


async def test_numbers_are_not_sent_more_often_than_anybody_can_see() -> None:
    now = 0.0
    progress = Progress(lambda: now)
    progress.numbers("a", "Downloading", 1, 100)
    progress.state("b", "Waiting")
    now = 0.05
    progress.numbers("a", "Downloading", 2, 100)
    progress.numbers("a", "Extracting", 1, 100)
    progress.numbers("a", "Extracting", 100, 100)
    shown = [(m["status"], m["progressDetail"].get("current")) for m in await said(progress)]
    assert shown == [("Downloading", 1), ("Waiting", None), ("Extracting", 100)]


async def test_a_bar_for_old_clients() -> None:
    progress = Progress()
    progress.numbers("a", "Downloading", 1_500_000, 3_000_000)
    (message,) = await said(progress)
    assert message["progress"] == f"[{'=' * 25}>{' ' * 25}]    1.5MB/3MB"


def test_human_sizes() -> None:
    assert [human_size(size) for size in (0, 999, 1000, 1_234_567, 10**18)] == [
        "0B",
        "999B",
        "1kB",
        "1.235MB",
        "1EB",
    ]


# ---------------------------------------------------------------------- reports


async def test_an_error_before_the_first_word_is_the_answer() -> None:
    async def work(progress: Progress) -> None:
        raise BadRequest("no")

    with pytest.raises(BadRequest, match="no"):
        await reporting(work)


async def test_an_error_after_the_first_word_is_a_message() -> None:
    async def work(progress: Progress) -> None:
        progress.message("working")
        await asyncio.sleep(0)
        raise BadRequest("no")

    response = await reporting(work)
    assert not isinstance(response.body, bytes)
    lines = b"".join([chunk async for chunk in response.body])  # type: ignore[union-attr]
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"status": "working"},
        {"errorDetail": {"message": "no"}, "error": "no"},
    ]


async def test_closing_the_answer_ends_the_work_even_unread() -> None:
    ended = asyncio.Event()

    async def work(progress: Progress) -> None:
        progress.message("working")
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    response = await reporting(work)
    await response.body.aclose()  # type: ignore[union-attr]
    assert ended.is_set()


# ---------------------------------------------------------------------- pipe and spool


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_what_goes_through_a_thread_comes_out_in_order() -> None:
    def double(chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            yield chunk

    found = [piece async for piece in through_thread(double, pieces(b"a", b"", b"b" * (9 << 20), b"c"))]
    assert b"".join(found) == b"aa" + b"b" * (18 << 20) + b"cc"


async def test_errors_of_either_side_arrive() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ApiError("source")

    def same(chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield from chunks

    def bad(chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield next(chunks)
        raise BadContent("transform")

    with pytest.raises(ApiError, match="source"):
        async for _ in through_thread(same, broken()):
            pass
    with pytest.raises(BadContent, match="transform"):
        async for _ in through_thread(bad, pieces(b"1", b"2")):
            pass


async def test_closing_early_ends_the_thread_and_closes_the_source() -> None:
    closed = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1 << 20)
        finally:
            closed.append(True)

    before = threading.active_count()
    stream = through_thread(iter, endless())
    await anext(stream)
    await stream.aclose()
    assert closed == [True]
    assert threading.active_count() == before


async def test_a_reader_follows_the_writer_of_a_spool_file(tmp_path: Path) -> None:
    with SpoolFile(tmp_path / "spool") as file:
        read: list[bytes] = []

        async def follow() -> None:
            read.extend([chunk async for chunk in file.tail()])

        task = asyncio.create_task(follow())
        for part in (b"one", b"two"):
            await asyncio.sleep(0)
            file.append(part)
            file.written()
        file.end()
        await task
        assert b"".join(read) == b"onetwo"
        assert list((tmp_path / "spool").iterdir()) == []


async def test_the_writers_error_reaches_the_reader(tmp_path: Path) -> None:
    with SpoolFile(tmp_path) as file:
        file.append(b"x")
        file.fail(BadContent("wrong"))
        with pytest.raises(BadContent, match="wrong"):
            async for _ in file.tail():
                pass


def test_a_spool_is_bounded(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10)
    assert spool.reserve(6)
    assert not spool.reserve(5)
    spool.release(6)
    assert spool.reserve(10)


def test_unpacking_checks_the_blobs_digest() -> None:
    data = os.urandom(100_000)
    blob = gzip.compress(data)
    assert b"".join(unpacked(digest_of(blob), iter([blob]))) == data
    with pytest.raises(BadContent, match="verification failed"):
        list(unpacked(digest_of(b"other"), iter([blob])))
    # damaged on the way: the transport is to blame, not the image
    with pytest.raises(BadContent, match="verification failed"):
        list(unpacked(digest_of(blob), iter([blob[:100] + b"x" + blob[101:]])))
    # and with the right digest it is the image
    wrong = blob[:100] + b"x" + blob[101:]
    with pytest.raises(BadContent, match="cannot be decompressed"):
        list(unpacked(digest_of(wrong), iter([wrong])))
