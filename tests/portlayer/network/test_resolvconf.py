import os
from pathlib import Path

from portlayer.network.resolvconf import HostResolver, ResolvConf, parse_resolv_conf


def test_parsing() -> None:
    text = """
    # comment
    nameserver 192.0.2.1 # why
    nameserver fe80::1%eth0
    nameserver nonsense
    ; nameserver 192.0.2.9
    domain old.example
    search a.example b.example
    options ndots:2 rotate
    options timeout:1
    sortlist 10.0.0.0
    nameserver
    """
    assert parse_resolv_conf(text) == ResolvConf(
        servers=("192.0.2.1", "fe80::1%eth0"),
        search=("a.example", "b.example"),
        options=("ndots:2", "rotate", "timeout:1"),
    )


def test_counts_are_bounded() -> None:
    found = parse_resolv_conf("nameserver 192.0.2.1\n" * 9 + "search " + "a " * 99 + "\noptions " + "b " * 99)
    assert (len(found.servers), len(found.search), len(found.options)) == (3, 6, 16)


def test_a_changed_file_is_read_again_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    resolver = HostResolver(path)
    assert resolver.read() == ResolvConf()
    path.write_text("nameserver 192.0.2.1\n")
    assert resolver.read().servers == ("192.0.2.1",)
    path.write_text("nameserver 192.0.2.2\n")
    os.utime(path, ns=(1, 1))
    assert resolver.read().servers == ("192.0.2.2",)
    path.unlink()
    assert resolver.read() == ResolvConf()
