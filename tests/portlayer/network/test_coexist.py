from portlayer.network.coexist import plan_changes
from portlayer.network.ruleset import Bridge

VCH = "a" * 32
FRONT = Bridge(interface="mrfront", subnet4="10.0.0.0/24", gateway4="10.0.0.1")
MARK = ["-m", "comment", "--comment", f"mooring:{VCH}", "-j", "ACCEPT"]
OPEN = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n"
DOCKER = """\
-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j RETURN
"""
UFW = "-P INPUT DROP\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n"


def test_nothing_to_do_where_nothing_drops() -> None:
    assert plan_changes(OPEN, [FRONT], VCH, version=4) == []


def test_docker_s_chain_for_the_administrator_is_used() -> None:
    assert plan_changes(DOCKER, [FRONT], VCH, version=4) == [
        ["-I", "DOCKER-USER", "1", "-i", "mrfront", *MARK],
        ["-I", "DOCKER-USER", "1", "-o", "mrfront", *MARK],
    ]


def test_without_docker_the_chains_themselves_and_dns() -> None:
    changes = plan_changes(UFW, [FRONT], VCH, version=4)
    assert [change[:5] for change in changes] == [
        ["-I", "FORWARD", "1", "-i", "mrfront"],
        ["-I", "FORWARD", "1", "-o", "mrfront"],
        ["-I", "INPUT", "1", "-i", "mrfront"],
        ["-I", "INPUT", "1", "-i", "mrfront"],
    ]
    assert [change[6:10] for change in changes[2:]] == [
        ["udp", "-m", "udp", "--dport"],
        ["tcp", "-m", "tcp", "--dport"],
    ]


def test_a_family_without_addresses_needs_nothing() -> None:
    assert plan_changes(UFW, [FRONT], VCH, version=6) == []


def listed(changes: list[list[str]]) -> str:
    """As iptables -S would show what was inserted."""
    return "".join(f"-A {c[1]} {' '.join(c[3:])}\n" for c in changes)


def test_what_is_there_stays() -> None:
    present = DOCKER + listed(plan_changes(DOCKER, [FRONT], VCH, version=4))
    assert plan_changes(present, [FRONT], VCH, version=4) == []


def test_what_is_not_wanted_any_more_goes_after_the_new() -> None:
    present = DOCKER + listed(plan_changes(DOCKER, [FRONT], VCH, version=4))
    other = Bridge(interface="mrother", subnet4="10.0.1.0/24", gateway4="10.0.1.1")
    assert [
        (c[0], c[-7] if c[0] == "-D" else c[4]) for c in plan_changes(present, [other], VCH, version=4)
    ] == [
        ("-I", "mrother"),
        ("-I", "mrother"),
        ("-D", "mrfront"),
        ("-D", "mrfront"),
    ]


def test_rules_of_others_are_left_alone() -> None:
    other = listed(plan_changes(DOCKER, [FRONT], "b" * 32, version=4))
    strange = (
        f'-A DOCKER-USER -s 10.0.0.0/8 -m comment --comment "about mooring:{VCH} rules" -j DROP\n'
        f"-A DOCKER-USER -m comment --comment mooring:{VCH}1 -j DROP\n"
    )
    assert plan_changes(DOCKER + other + strange, [], VCH, version=4) == []
