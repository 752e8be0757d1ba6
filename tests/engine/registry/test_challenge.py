from hypothesis import given
from hypothesis import strategies as st

from engine.registry.challenge import Challenge, parse_challenges


def test_a_token_challenge() -> None:
    header = 'Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push"'
    assert parse_challenges([header]) == [
        Challenge(
            scheme="bearer",
            parameters={
                "realm": "https://auth.example/token",
                "service": "registry",
                "scope": "repository:a/b:pull,push",
            },
        )
    ]


def test_several_challenges_in_one_header_and_in_several() -> None:
    found = parse_challenges(['Basic realm="x", Bearer realm="y",service=z', "Negotiate"])
    assert [(challenge.scheme, dict(challenge.parameters)) for challenge in found] == [
        ("basic", {"realm": "x"}),
        ("bearer", {"realm": "y", "service": "z"}),
        ("negotiate", {}),
    ]


def test_quoted_characters_and_unquoted_urls() -> None:
    assert parse_challenges(['basic realm="a \\"b\\" c"'])[0].parameters == {"realm": 'a "b" c'}
    assert parse_challenges(["Bearer realm=https://a/b?c=d , service=s"])[0].parameters == {
        "realm": "https://a/b?c=d",
        "service": "s",
    }


def test_the_first_of_repeated_parameters_counts() -> None:
    assert parse_challenges(['Bearer realm="one",realm="two"'])[0].parameters == {"realm": "one"}


@given(st.lists(st.text(max_size=300), max_size=3))
def test_any_text_is_read_without_a_crash(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
