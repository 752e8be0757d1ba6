"""Judging what was read: every problem, each with a way out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from portlayer.hypervisor.vsphere.roles import CALLS, ROLES, Where
from portlayer.hypervisor.vsphere.validate import Facts, HostFacts, judge

HOST = HostFacts(
    name="esx1",
    connected=True,
    rules=frozenset({"vSPC"}),
    datastores=frozenset({"datastore-1"}),
    networks=frozenset({"pg-1"}),
    features=frozenset({"serialuri", "dvs"}),
)
GOOD = Facts(
    vcenter=True,
    api=(8, 0),
    skew=1.5,
    user="ops",
    hosts=(HOST,),
    cluster="C",
    drs=True,
    datastore=("nfs", "datastore-1"),
    bridge=("bridge", "pg-1", True),
)


def test_a_good_place_has_no_problem() -> None:
    assert judge(GOOD) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"api": (6, 0)}, "API version 6.0; 6.5 or newer"),
        ({"skew": -90.0}, "90 s behind"),
        ({"drs": False}, "DRS is off in cluster 'C'"),
        ({"hosts": ()}, "no host"),
        ({"bridge": ("bridge", "pg-1", False)}, "no distributed port group"),
        ({"bridge": ("other", "pg-2", True)}, "not on bridge network 'other'"),
        ({"datastore": ("vsan", "datastore-2")}, "no access to datastore 'vsan'"),
        ({"missing": {Where.POOL: ("Resource.AssignVMToPool",)}}, "ops lacks on the resource pool: Resource"),
        ({"problems": ("there is no datastore 'x': none exists",)}, "no datastore 'x'"),
        ({"hosts": (dataclasses.replace(HOST, connected=False),)}, "not connected"),
        ({"hosts": (dataclasses.replace(HOST, rules=frozenset()),)}, "firewall of host esx1"),
        ({"hosts": (dataclasses.replace(HOST, features=frozenset({"dvs"})),)}, "lacks feature 'serialuri'"),
    ],
)
def test_each_problem_is_told(change: dict[str, Any], words: str) -> None:
    problems = judge(dataclasses.replace(GOOD, **change))
    assert len(problems) == 1
    assert words in problems[0]


def test_all_problems_are_told_at_once() -> None:
    bad = dataclasses.replace(
        GOOD,
        api=(6, 0),
        drs=False,
        hosts=(dataclasses.replace(HOST, rules=frozenset(), features=frozenset()),),
    )
    assert len(judge(bad)) == 5


def test_what_could_not_be_read_is_no_problem() -> None:
    hosts = (dataclasses.replace(HOST, features=None, outgoing_blocked=False, rules=frozenset()),)
    assert judge(dataclasses.replace(GOOD, hosts=hosts, drs=None)) == []


def test_roles_hold_no_more_than_the_calls_need() -> None:
    wanted = {privilege for call in CALLS for privilege in call.privileges}
    assert {privilege for role in ROLES.values() for privilege in role} <= wanted
    assert not any(p.startswith("System.") for role in ROLES.values() for p in role)


def test_the_documentation_has_every_call_and_privilege() -> None:
    text = (Path(__file__).resolve().parents[4] / "docs" / "vsphere.md").read_text()
    for call in CALLS:
        row = f"| `{call.method}` | {call.purpose} | {call.where.value} | "
        assert row + (", ".join(f"`{p}`" for p in call.privileges) or "none") in text
