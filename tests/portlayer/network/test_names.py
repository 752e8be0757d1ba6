from portlayer.network.names import Client, Directory, Member, Upstreams


def member(container: str, network: str = "n1", ipv4: str = "", **fields: object) -> Member:
    return Member(
        container=container * 64,
        name=f"name-{container}",
        network=network,
        network_name=f"{network}-name",
        ipv4=ipv4,
        **fields,  # type: ignore[arg-type]
    )


def client(*members: Member) -> Client:
    return Client(container=members[0].container, members=members)


def found(directory: Directory, asker: Client, name: str) -> list[str] | None:
    members = directory.lookup(asker, name)
    return None if members is None else [m.container[0] for m in members]


def test_by_name_short_id_alias_and_qualified_name() -> None:
    directory = Directory()
    a = client(member("a", ipv4="10.0.0.2", aliases=frozenset({"DB"})))
    directory.put(a)
    for name in ("name-a", "NAME-A", "aaaaaaaaaaaa", "db", "name-a.n1-name", "db.N1-name"):
        assert found(directory, a, name) == ["a"], name
    for name in ("a" * 64, "name-a.other", "unknown", ""):
        assert found(directory, a, name) is None, name


def test_only_shared_networks_are_visible() -> None:
    directory = Directory()
    a = client(member("a", "n1"))
    b = client(member("b", "n2"))
    c = client(member("c", "n1"), member("c", "n2"))
    for each in (a, b, c):
        directory.put(each)
    assert found(directory, a, "name-b") is None
    assert found(directory, b, "name-a") is None
    assert found(directory, c, "name-a") == ["a"] and found(directory, c, "name-b") == ["b"]


def test_the_first_network_that_knows_the_name_answers() -> None:
    directory = Directory()
    asker = client(member("c", "n2"), member("c", "n1"))
    directory.put(client(member("a", "n1", aliases=frozenset({"db"}))))
    directory.put(client(member("b", "n2", aliases=frozenset({"db"}))))
    directory.put(asker)
    assert found(directory, asker, "db") == ["b"]
    assert found(directory, asker, "db.n1-name") == ["a"]


def test_several_with_one_alias_are_rotated() -> None:
    directory = Directory()
    for name in "abc":
        directory.put(client(member(name, aliases=frozenset({"db"}))))
    asker = client(member("x"))
    directory.put(asker)
    answers = [tuple(found(directory, asker, "db") or ()) for _ in range(3)]
    assert {frozenset(answer) for answer in answers} == {frozenset("abc")}
    assert {answer[0] for answer in answers} == set("abc")


def test_links_are_seen_by_the_linking_container_only_and_come_first() -> None:
    directory = Directory()
    a, b = client(member("a")), client(member("b", aliases=frozenset({"db"})))
    linking = client(member("c", links=(("a" * 64, "DB"), ("f" * 64, "gone"))))
    for each in (a, b, linking):
        directory.put(each)
    assert found(directory, linking, "db") == ["a"]
    assert found(directory, linking, "gone") is None
    assert found(directory, a, "db") == ["b"]


def test_a_link_to_a_container_of_another_network_leads_nowhere() -> None:
    directory = Directory()
    directory.put(client(member("a", "n2")))
    linking = client(member("c", "n1", links=(("a" * 64, "db"),)))
    directory.put(linking)
    assert found(directory, linking, "db") is None


def test_a_client_is_known_by_network_and_source_address() -> None:
    directory = Directory()
    a = Client(
        container="a" * 64,
        members=(member("a", "n1", "10.0.0.2", ipv6="fd00::2"),),
        upstreams=Upstreams(servers=("192.0.2.53",)),
    )
    directory.put(a)
    assert directory.client("n1", "10.0.0.2") == a
    assert directory.client("n1", "FD00:0::2%mr1") == a
    for network, address in (("n2", "10.0.0.2"), ("n1", "10.0.0.3"), ("n1", "nonsense"), ("n1", "")):
        assert directory.client(network, address) is None


def test_reverse_names_only_of_shared_networks() -> None:
    directory = Directory()
    a, b = client(member("a", "n1", "10.0.0.2")), client(member("b", "n2", "10.0.1.2"))
    directory.put(a)
    directory.put(b)
    assert directory.reverse(a, "10.0.0.2") == "name-a.n1-name"
    assert directory.reverse(a, "10.0.1.2") is None


def test_renaming_and_dropping_leave_nothing() -> None:
    directory = Directory()
    asker = client(member("x"))
    directory.put(asker)
    directory.put(client(member("a", ipv4="10.0.0.2", aliases=frozenset({"old"}))))
    directory.put(client(member("a", ipv4="10.0.0.9", aliases=frozenset({"new"}))))
    assert found(directory, asker, "old") is None and found(directory, asker, "new") == ["a"]
    assert directory.client("n1", "10.0.0.2") is None
    directory.drop("a" * 64)
    directory.drop("a" * 64)
    assert found(directory, asker, "new") is None
    assert directory.client("n1", "10.0.0.9") is None
