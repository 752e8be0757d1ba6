"""VMware's words over a line, and the boot configuration that comes with them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from portlayer.hypervisor.vsphere.keys import pack
from tether import bootconfig, guestinfo
from tether.bootconfig import ConfigError, located, read_boot_config
from tether.guestinfo import Guestinfo, GuestinfoError
from tether.tether_pb2 import BootConfig, DiskAddress, Mount

Host = Callable[[dict[str, str]], None]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Starts a host that answers with the given values, for each opener of the port anew."""
    threads: list[threading.Thread] = []

    def answer(ours: socket.socket, values: dict[str, str]) -> None:
        with ours, ours.makefile("rw") as line:
            for request in line:
                verb, key, *rest = request.rstrip("\n").split(" ", 2)
                line.write("! shutdown\n")  # may come at any time
                if verb == "info-set":
                    values[key] = rest[0]
                    line.write("1 \n")
                else:
                    line.write(f"1 {values[key]}\n" if key in values else "0 No value found\n")
                line.flush()

    def begin(values: dict[str, str]) -> None:
        def find() -> Guestinfo:
            ours, theirs = socket.socketpair()
            threads.append(threading.Thread(target=answer, args=(ours, values)))
            threads[-1].start()
            theirs.setblocking(False)
            return Guestinfo(theirs.detach())

        monkeypatch.setattr(Guestinfo, "find", find)

    yield begin
    for thread in threads:
        thread.join(10)


def test_values_are_asked_for_and_set(host: Host) -> None:
    values = {"guestinfo.a": "x y z"}
    host(values)
    with Guestinfo.find() or pytest.fail() as line:
        assert line.get("guestinfo.a") == "x y z"
        assert line.get("guestinfo.b") is None
        line.set("guestinfo.b", "new")
    assert values["guestinfo.b"] == "new"


def test_a_host_that_hangs_up_is_named() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with Guestinfo(theirs.detach()) as line:
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(GuestinfoError, match="hung up"):
            line.get("guestinfo.a")
    ours.close()


def test_a_host_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guestinfo, "_SECONDS", 0)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, Guestinfo(theirs.detach()) as line, pytest.raises(GuestinfoError, match="has not answered"):
        line.get("guestinfo.a")


def test_the_boot_configuration_comes_with_where_its_disks_are(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootconfig, "FW_CFG", "/nowhere")
    config = BootConfig(
        version=1,
        id="x",
        root=DiskAddress(serial="root"),
        mounts=[Mount(disk=DiskAddress(serial="v"), destination="/v")],
    )
    table = "root=0:0:0:0 v=0:0:1:0"
    host({guestinfo.BOOT: pack(config.SerializeToString()), guestinfo.DISKS: table})
    read = read_boot_config()
    assert (read.id, read.root.scsi, read.root.serial) == ("x", "0:0:0:0", "")
    assert read.mounts[0].disk.scsi == "0:0:1:0"


@pytest.mark.parametrize("shown", ["!", "bm8gZ3ppcA=="])
def test_damage_is_named(host: Host, monkeypatch: pytest.MonkeyPatch, shown: str) -> None:
    monkeypatch.setattr(bootconfig, "FW_CFG", "/nowhere")
    host({guestinfo.BOOT: shown})
    with pytest.raises(ConfigError, match="damaged"):
        read_boot_config()


def test_without_any_source_both_are_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootconfig, "FW_CFG", "/nowhere")
    host({})
    with pytest.raises(ConfigError, match=r"/nowhere and guestinfo\.mooring\.boot"):
        read_boot_config()


def test_a_disk_that_the_table_does_not_know_keeps_its_serial() -> None:
    assert located(BootConfig(root=DiskAddress(serial="root")), {"other": "0:0:0:0"}).root.serial == "root"
