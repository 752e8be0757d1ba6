import pytest

from engine.registry.errors import RegistryForbidden
from engine.registry.sources import host_of, sources
from vch.config import Registry


def test_the_default_registry_is_docker_hub() -> None:
    (source,) = sources("docker.io", Registry())
    assert source.bases == ("https://registry-1.docker.io",)
    assert not source.insecure


@pytest.mark.parametrize(
    "domain", ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000"]
)
def test_loopback_is_always_insecure(domain: str) -> None:
    (source,) = sources(domain, Registry())
    assert source.bases == (f"https://{domain}", f"http://{domain}")
    assert source.insecure
    assert source.loopback


@pytest.mark.parametrize("domain", ["r.example", "10.0.0.1:5000", "localhost.example", "[2001:db8::1]:5000"])
def test_everything_else_is_https_and_verified(domain: str) -> None:
    (source,) = sources(domain, Registry())
    assert source.bases == (f"https://{domain}",)
    assert not source.insecure


@pytest.mark.parametrize(
    ("domain", "entry", "insecure"),
    [
        ("r.example:5000", "r.example:5000", True),
        ("r.example:5001", "r.example:5000", False),
        ("r.example:5001", "r.example", True),
        ("10.1.2.3:5000", "10.0.0.0/8", True),
        ("11.1.2.3:5000", "10.0.0.0/8", False),
        ("[2001:db8::1]:5000", "2001:db8::/32", True),
        ("r.example", "10.0.0.0/8", False),
    ],
)
def test_insecure_registries_by_name_and_by_range(domain: str, entry: str, insecure: bool) -> None:
    (source,) = sources(domain, Registry(insecure=(entry,)))
    assert source.insecure is insecure


def test_a_name_is_insecure_when_it_resolves_into_a_range() -> None:
    config = Registry(insecure=("10.0.0.0/8",))
    assert sources("r.example", config, ["192.0.2.1", "10.9.9.9"])[0].insecure
    assert not sources("r.example", config, ["192.0.2.1"])[0].insecure


def test_mirrors_stand_before_the_default_registry_only() -> None:
    config = Registry(mirrors=("http://127.0.0.1:5000/", "https://m.example", "n.example"))
    found = sources("docker.io", config)
    assert [source.bases for source in found] == [
        ("http://127.0.0.1:5000",),
        ("https://m.example",),
        ("https://n.example",),
        ("https://registry-1.docker.io",),
    ]
    assert [source.mirror for source in found] == [True, True, True, False]
    assert [source.insecure for source in found] == [True, False, False, False]
    assert len(sources("r.example", config)) == 1


def test_only_allowed_registries() -> None:
    config = Registry(allowed=("r.example:5000", "s.example"))
    assert sources("r.example:5000", config)
    assert sources("s.example:1", config)
    for domain in ("r.example", "docker.io"):
        with pytest.raises(RegistryForbidden, match=r"unauthorized registry .*r\.example:5000, s\.example"):
            sources(domain, config)


def test_mirrors_serve_short_names_where_the_public_registry_is_not_allowed() -> None:
    config = Registry(allowed=("r.example",), mirrors=("https://m.example",))
    assert [source.domain for source in sources("docker.io", config)] == ["m.example"]


def test_host_of() -> None:
    assert host_of("[::1]:5000") == "::1"
    assert host_of("a:5000") == "a"
    assert host_of("a") == "a"
