import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.registry.errors import InvalidReference
from engine.registry.reference import parse_name, parse_reference, valid_tag

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("someone/thing", "docker.io/someone/thing", "someone/thing"),
        ("a/b/c", "docker.io/a/b/c", "a/b/c"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/thing", "localhost/thing", "localhost/thing"),
        ("localhost", "docker.io/library/localhost", "localhost"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("localhost:5000/a", "localhost:5000/a", "localhost:5000/a"),
        ("localhost:5000/a:1", "localhost:5000/a:1", "localhost:5000/a:1"),
        ("127.0.0.1:5000/a/b:x.y-z", "127.0.0.1:5000/a/b:x.y-z", "127.0.0.1:5000/a/b:x.y-z"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ("Host/a", "Host/a", "Host/a"),
        ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f", "a__b/c--d.e_f"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"r.io/x:t@{DIGEST}", f"r.io/x:t@{DIGEST}", f"r.io/x:t@{DIGEST}"),
    ],
)
def test_names_are_normalised_and_made_familiar_again(text: str, full: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert str(reference) == full
    assert reference.familiar == familiar
    assert parse_reference(full) == reference


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "at least one component"),
        (":tag", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("/a", "invalid reference format"),
        ("a/", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("Busybox", r"repository name \(library/Busybox\) must be lowercase"),
        ("r.io/Foo", r"repository name \(Foo\) must be lowercase"),
        ("ab" * 32, "cannot specify 64-byte hexadecimal strings"),
        ("a@sha256:" + "ab" * 31, "invalid checksum digest length"),
        ("a@sha256:" + "AB" * 32, "invalid checksum digest format"),
        ("a@md5:" + "ab" * 16, "unsupported digest algorithm"),
        ("a@nothing", "invalid checksum digest format"),
        (f"a@{DIGEST}@{DIGEST}", "invalid checksum digest format"),
        ("bad_host.io:x/a", "invalid reference format"),
        ("r.io/" + "a" * 256, "must not be more than 255 characters"),
        ("é", "invalid reference format"),
        ("a:é", "invalid reference format"),
        ("a" * 2000, "too long"),
    ],
)
def test_what_is_no_reference_is_refused_with_dockers_words(text: str, words: str) -> None:
    with pytest.raises(InvalidReference, match=words):
        parse_reference(text)


def test_the_default_tag_is_added_only_where_nothing_is_said() -> None:
    assert parse_reference("a").tagged.tag == "latest"
    assert parse_reference("a:1").tagged.tag == "1"
    assert parse_reference(f"a@{DIGEST}").tagged.tag == ""


def test_tag_and_digest_replace_each_other() -> None:
    reference = parse_reference("a:1")
    assert reference.with_digest(DIGEST).familiar == f"a@{DIGEST}"
    assert reference.with_digest(DIGEST).with_tag("2").familiar == "a:2"
    with pytest.raises(InvalidReference, match="invalid tag format"):
        reference.with_tag("no/tag")
    assert reference.name_only == parse_name("a")


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return
    assert parse_reference(str(reference)) == reference


component = st.from_regex(r"[a-z0-9]+(?:[._-][a-z0-9]+)?", fullmatch=True)


@given(
    st.sampled_from(["", "r.io/", "localhost:5000/", "10.0.0.1:1/"]),
    st.lists(component, min_size=1, max_size=3),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
)
def test_well_formed_names_keep_their_parts(domain: str, path: list[str], tag: str) -> None:
    reference = parse_reference(f"{domain}{'/'.join(path)}:{tag}")
    assert reference.tag == tag
    assert valid_tag(tag)
    assert reference.path.endswith(path[-1])
    if domain:
        assert reference.domain == domain.rstrip("/")
        assert parse_reference(reference.familiar) == reference
