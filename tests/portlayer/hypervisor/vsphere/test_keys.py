"""What a VM carries of us, and who can read it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portlayer.hypervisor.base import Disk, HypervisorError, Nic, VmConfig
from portlayer.hypervisor.vsphere import keys
from portlayer.hypervisor.vsphere.keys import Record, Seal

VCH = "c" * 32
SEAL = Seal(b"k" * 32)
CONFIG = VmConfig(
    id="ab" * 32,
    name="web",
    vcpus=2,
    memory_mib=256,
    disks=(
        Disk(id="root", path=Path("/ds/root.vmdk")),
        Disk(id="v", path=Path("/ds/v.vmdk"), read_only=True),
    ),
    nics=(Nic(id="mt1", mac="02:00:00:00:00:01", network="mr1", mtu=9000),),
    boot_config=b"PASSWORD=hunter2",
    extra={"container": b"TOKEN=hunter2", "intent": b""},
)
RECORD = Record(config=CONFIG, version=7)


def test_what_is_written_is_read() -> None:
    assert keys.decode(keys.encode(RECORD, VCH, SEAL), SEAL) == RECORD


@given(
    st.dictionaries(st.text("abcdefgh.-", min_size=1, max_size=9), st.binary(max_size=99)),
    st.binary(max_size=99),
)
def test_any_document_survives(extra: dict[str, bytes], boot: bytes) -> None:
    record = Record(config=dataclasses.replace(CONFIG, extra=extra, boot_config=boot), version=1)
    values = keys.encode(record, VCH, SEAL)
    assert keys.decode(values, SEAL) == record
    assert all(values.values()), "an empty value would delete its key"


def test_no_secret_is_in_the_clear_and_no_guest_sees_the_configuration() -> None:
    values = keys.encode(RECORD, VCH, SEAL)
    assert "hunter2" not in json.dumps(values)
    assert not any(key.startswith("guestinfo.") for key in values)


def test_another_vchs_key_opens_nothing() -> None:
    with pytest.raises(HypervisorError, match="not sealed by this VCH"):
        keys.decode(keys.encode(RECORD, VCH, SEAL), Seal(b"x" * 32))


def test_a_sealed_value_is_no_other_vms_and_no_other_keys() -> None:
    values = keys.encode(RECORD, VCH, SEAL)
    with pytest.raises(HypervisorError, match="not sealed"):
        keys.decode({**values, "mooring.extra.intent": values["mooring.extra.container"]}, SEAL)
    with pytest.raises(HypervisorError, match="not sealed"):
        keys.decode({**values, "mooring.id": "cd" * 32}, SEAL)


def test_a_change_writes_what_changed_and_deletes_what_is_gone() -> None:
    before = keys.encode(RECORD, VCH, SEAL)
    config = dataclasses.replace(CONFIG, extra={"container": b"TOKEN=hunter2"})
    after = keys.encode(Record(config=config, version=8), VCH, SEAL, unless=(RECORD, before))
    assert keys.changes(before, after) == {"mooring.version": "8", "mooring.extra.intent": ""}


def test_the_guest_is_shown_its_boot_configuration_at_the_start() -> None:
    values = keys.start_values(CONFIG, {"root": "0:0:0:0"})
    assert keys.unpack(values["guestinfo.mooring.boot"]) == CONFIG.boot_config
    assert values["guestinfo.mooring.disks"] == "root=0:0:0:0"
    assert values["guestinfo.mooring.run"] == values["guestinfo.mooring.goodbye"] == ""


def test_format_1_is_brought_up() -> None:
    values = keys.encode(RECORD, VCH, SEAL)
    document = json.loads(values["mooring.config"])
    del document["nics"][0]["mtu"]
    old = {**values, "mooring.format": "1", "mooring.config": json.dumps(document)}
    assert keys.decode(old, SEAL).config.nics[0].mtu == 1500
    assert keys.migrate(old)["mooring.format"] == "2"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mooring.format": "3"}, "format 3"),
        ({"mooring.format": "x"}, "no mooring.format"),
        ({"mooring.config": "{}"}, "cannot be read"),
        ({"mooring.config": "no json"}, "cannot be read"),
        ({"mooring.version": "many"}, "cannot be read"),
        ({"mooring.extra.intent": "!"}, "mooring.extra.intent"),
    ],
)
def test_damage_is_named(change: dict[str, str], words: str) -> None:
    with pytest.raises(HypervisorError, match=words):
        keys.decode({**keys.encode(RECORD, VCH, SEAL), **change}, SEAL)


def test_only_ours_is_relevant() -> None:
    assert keys.relevant({"mooring.a": "1", "guestinfo.mooring.b": "2", "guestinfo.ip": "3", "x": "4"}) == {
        "mooring.a": "1",
        "guestinfo.mooring.b": "2",
    }
