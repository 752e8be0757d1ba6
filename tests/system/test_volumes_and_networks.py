"""The volume and network commands of the docker CLI against a real VCH, without what needs a running VM."""

from __future__ import annotations

import pytest

from tests.system.harness import Docker, Vch

pytestmark = pytest.mark.system


def fails(docker: Docker, *words: str) -> str:
    result = docker(*words, check=False)
    assert result.returncode != 0, f"docker {' '.join(words)} went through"
    return result.stderr


def test_volumes(docker: Docker, vch: Vch) -> None:
    assert docker.out("volume", "create", "--label", "k=v", "--opt", "Capacity=100MB", "one") == "one"
    assert docker.out("volume", "create", "one") == "one"
    assert docker.out("volume", "create", "--driver", "vsphere", "two") == "two"
    anonymous = docker.out("volume", "create")
    shown = docker.json("volume", "inspect", "one")[0]
    assert (shown["Driver"], shown["Scope"], shown["Labels"]) == ("local", "local", {"k": "v"})
    assert shown["Options"] == {"Capacity": "100MB"}
    assert shown["Status"]["VolumeStore"] == "default"
    assert 50_000_000 < shown["Status"]["Capacity"] <= 110_000_000
    for words, expected in (
        (["label=k"], ["one"]),
        (["name=tw"], ["two"]),
        (["driver=vsphere"], ["two"]),
        (["dangling=true", "name=one"], ["one"]),
        (["dangling=false"], []),
    ):
        filters = [part for word in words for part in ("--filter", word)]
        assert docker.out("volume", "ls", "--quiet", *filters).split() == expected, words
    assert "no such volume" in fails(docker, "volume", "inspect", "nosuch")
    assert "plugin" in fails(docker, "volume", "create", "--driver", "nosuch", "x1")
    assert "nosuch" in fails(docker, "volume", "create", "--opt", "nosuch=1", "x2")
    assert "only" in fails(docker, "volume", "create", "a b")
    docker("create", "--name", "user", "--volume", "two:/data", "busybox", "true")
    assert "volume is in use" in fails(docker, "volume", "rm", "two")
    assert docker.out("volume", "ls", "--quiet", "--filter", "dangling=false") == "two"
    pruned = docker.out("volume", "prune", "--force")
    assert anonymous in pruned
    assert "one" not in pruned.split()
    assert "one" in docker.out("volume", "prune", "--force", "--all").split()
    docker("rm", "user")
    docker("volume", "rm", "two")
    assert docker.out("volume", "ls", "--quiet") == ""


def test_networks(docker: Docker) -> None:
    made = docker.out(
        "network", "create", "--subnet", "10.77.0.0/16", "--gateway", "10.77.0.1", "--ip-range", "10.77.4.0/24",
        "--aux-address", "router=10.77.4.9", "--label", "k=v", "--internal", "--attachable",
        "--opt", "com.docker.network.driver.mtu=1400", "one",
    )  # fmt: skip
    docker("network", "create", "two")
    shown = docker.json("network", "inspect", made[:12])[0]
    assert (shown["Name"], shown["Driver"], shown["Internal"], shown["Attachable"]) == (
        "one",
        "bridge",
        True,
        True,
    )
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": "10.77.0.0/16",
            "IPRange": "10.77.4.0/24",
            "Gateway": "10.77.0.1",
            "AuxiliaryAddresses": {"router": "10.77.4.9"},
        }
    ]
    assert shown["Options"] == {"com.docker.network.driver.mtu": "1400"}
    for word, expected in (
        ("type=custom", {"one", "two"}),
        ("type=builtin", {"bridge", "none"}),
        ("label=k", {"one"}),
        ("name=tw", {"two"}),
        ("driver=null", {"none"}),
        ("dangling=true", {"one", "two"}),
        (f"id={made[:12]}", {"one"}),
    ):
        found = docker.out("network", "ls", "--filter", word, "--format", "{{.Name}}").split()
        assert set(found) == expected, word
    assert "already exists" in fails(docker, "network", "create", "one")
    assert "Pool overlaps with other one" in fails(
        docker, "network", "create", "--subnet", "10.77.1.0/24", "three"
    )
    assert "not found" in fails(docker, "network", "create", "--driver", "overlay", "three")
    assert "nosuch" in fails(docker, "network", "create", "--opt", "nosuch=1", "three")
    assert "predefined" in fails(docker, "network", "create", "bridge")
    assert "cannot be removed" in fails(docker, "network", "rm", "bridge")
    docker("create", "--name", "user", "busybox", "true")
    docker("network", "connect", "--ip", "10.77.4.5", "--alias", "a", "one", "user")
    networks = docker.json("inspect", "user")[0]["NetworkSettings"]["Networks"]
    assert set(networks) == {"bridge", "one"}
    assert networks["one"]["IPAMConfig"]["IPv4Address"] == "10.77.4.5"
    assert "already exists" in fails(docker, "network", "connect", "one", "user")
    docker("network", "disconnect", "one", "user")
    assert "is not connected" in fails(docker, "network", "disconnect", "one", "user")
    docker("rm", "user")
    assert set(docker.out("network", "prune", "--force").split()) >= {"one", "two"}
    assert set(docker.out("network", "ls", "--format", "{{.Name}}").split()) == {"bridge", "none"}
