"""Faults in the contract's words."""

from __future__ import annotations

import pytest
from pyVmomi import vim, vmodl

from portlayer.hypervisor.base import ConcurrentAccess, HypervisorError, InvalidState, NoSuchVm, NotSupported
from portlayer.hypervisor.vsphere.faults import describe, translate


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (vim.fault.ConcurrentAccess(), ConcurrentAccess, "ConcurrentAccess"),
        (vmodl.fault.ManagedObjectNotFound(), NoSuchVm, "ManagedObjectNotFound"),
        (
            vim.fault.InvalidPowerState(existingState="poweredOn", requestedState="poweredOff"),
            InvalidState,
            "is poweredOn, the call needs poweredOff",
        ),
        (vmodl.fault.NotSupported(), NotSupported, "NotSupported"),
        (vim.fault.FileNotFound(file="[ds] gone.vmdk"), HypervisorError, r"\[ds\] gone.vmdk: No such file"),
        (vim.fault.FileLocked(file="[ds] a.vmdk"), HypervisorError, r"\[ds\] a.vmdk: locked by another VM"),
        (vim.fault.GenericVmConfigFault(reason="qemu says no"), HypervisorError, "qemu says no"),
        (vim.fault.NoPermission(privilegeId="Global.X"), HypervisorError, "Global.X"),
        (OSError(5, "broken"), HypervisorError, "broken"),
    ],
)
def test_a_fault_becomes_an_error_that_says_why(
    fault: Exception, kind: type[HypervisorError], words: str
) -> None:
    error = translate(fault, "VM ab: start")
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error
    assert str(error).startswith("VM ab: start: ")


def test_an_empty_message_leaves_the_class() -> None:
    assert describe(vim.fault.InvalidDeviceSpec(property="")) == "InvalidDeviceSpec"
