"""Names of a tar stream lose their leading slashes; everything else stays."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.containers.tarnames import BadTar, NameStripper, _pax_record

Entry = tuple[str, bytes, str, bytes]  # name, type, link name, content


def archive(entries: list[Entry], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, kind, link, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def contents(data: bytes) -> list[Entry]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        result = []
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            result.append((info.name, info.type, info.linkname, file.read() if file else b""))
        return result


def stripped(data: bytes, sizes: list[int]) -> bytes:
    stripper = NameStripper()
    output = b""
    position = 0
    for size in sizes:
        output += stripper.feed(data[position : position + size])
        position += size
    output += stripper.feed(data[position:])
    stripper.finish()
    return output


names = st.text(alphabet="abcé/ .", min_size=1, max_size=12).map(lambda name: "/" + name.strip("/ .") + "x")
long_names = st.builds(lambda name, n: name + "/y" * n, names, st.integers(min_value=30, max_value=160))
entries = st.lists(
    st.one_of(
        st.tuples(names | long_names, st.just(tarfile.REGTYPE), st.just(""), st.binary(max_size=1500)),
        st.tuples(names, st.just(tarfile.DIRTYPE), st.just(""), st.just(b"")),
        st.tuples(names | long_names, st.just(tarfile.SYMTYPE), names | long_names, st.just(b"")),
        st.tuples(names | long_names, st.just(tarfile.LNKTYPE), names | long_names, st.just(b"")),
    ),
    max_size=6,
)


@given(
    entries=entries,
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    sizes=st.lists(st.integers(min_value=1, max_value=3000), max_size=20),
)
def test_names_and_hard_links_lose_their_slash(entries: list[Entry], form: int, sizes: list[int]) -> None:
    data = archive(entries, form)
    expected = [
        (
            name.lstrip("/"),
            kind,
            link.lstrip("/") if kind == tarfile.LNKTYPE else link,
            content,
        )
        for name, kind, link, content in contents(data)
    ]
    assert contents(stripped(data, sizes)) == expected


def test_root_is_called_dot() -> None:
    data = archive(
        [("/", tarfile.DIRTYPE, "", b""), ("/bin", tarfile.DIRTYPE, "", b"")], tarfile.USTAR_FORMAT
    )
    assert [entry[0] for entry in contents(stripped(data, []))] == [".", "bin"]


def test_prefix_of_ustar() -> None:
    name = "/" + "d" * 90 + "/" + "e" * 90
    data = archive([(name, tarfile.REGTYPE, "", b"x")], tarfile.USTAR_FORMAT)
    assert contents(stripped(data, [])) == [(name[1:], tarfile.REGTYPE, "", b"x")]


@given(st.integers(min_value=0, max_value=12_000))
def test_pax_records_count_themselves(size: int) -> None:
    record = _pax_record(b"path", b"x" * size)
    assert int(record.split(b" ")[0]) == len(record)


@given(st.binary(max_size=3000))
def test_anything_else_is_said_to_be_no_archive(data: bytes) -> None:
    stripper = NameStripper()
    try:
        stripper.feed(data)
        stripper.finish()
    except BadTar:
        return


@pytest.mark.parametrize("cut", [1, 511, 513, 1000])
def test_cut(cut: int) -> None:
    data = archive([("/file", tarfile.REGTYPE, "", bytes(600))], tarfile.PAX_FORMAT)
    stripper = NameStripper()
    stripper.feed(data[:cut])
    with pytest.raises(BadTar, match="cut short"):
        stripper.finish()
