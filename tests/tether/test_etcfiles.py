"""Lines of /etc/hosts and /etc/resolv.conf."""

from __future__ import annotations

from tether.etcfiles import hosts_text, resolver_text
from tether.tether_pb2 import HostEntry, Resolver


def test_hosts_begin_with_the_local_lines_and_keep_the_order() -> None:
    text = hosts_text(
        [
            HostEntry(address="10.0.0.2", names=["box", "box.lan"]),
            HostEntry(address="10.0.0.2", names=["alias"]),
        ]
    )
    assert text.splitlines()[0] == "127.0.0.1\tlocalhost"
    assert text.splitlines()[-2:] == ["10.0.0.2\tbox box.lan", "10.0.0.2\talias"]
    assert text.endswith("\n")


def test_a_resolver_has_servers_search_and_options() -> None:
    resolver = Resolver(servers=["10.0.0.1", "fd00::1"], search=["a.test", "b.test"], options=["ndots:2"])
    assert resolver_text(resolver) == (
        "nameserver 10.0.0.1\nnameserver fd00::1\nsearch a.test b.test\noptions ndots:2\n"
    )
    assert resolver_text(Resolver()) == ""


def test_no_word_can_begin_a_line_of_its_own() -> None:
    assert resolver_text(Resolver(servers=["1.1.1.1\nnameserver 6.6.6.6"])).count("\n") == 1
    text = hosts_text([HostEntry(address="1.1.1.1", names=["a\n6.6.6.6 bank"])])
    assert "\n6.6.6.6" not in text
