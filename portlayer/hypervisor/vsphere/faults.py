"""What vSphere's faults mean to us: pure.

The message of a fault may be empty, so its class and its details speak. A fault
says that a call was refused; :class:`Unanswered` that nobody knows what became of
it.
"""

from __future__ import annotations

from http.client import HTTPException

from pyVmomi import vim, vmodl

from portlayer.hypervisor.base import ConcurrentAccess, HypervisorError, InvalidState, NoSuchVm, NotSupported

__all__ = ["BUSY", "LOST", "Unanswered", "describe", "is_lost_session", "translate"]


class Unanswered(HypervisorError):
    """The connection ended after a change was asked for: it may have happened."""


LOST = (OSError, HTTPException)
"""No answer came."""

BUSY = (
    vim.fault.TaskInProgress,
    vim.fault.VAppTaskInProgress,
    vmodl.fault.HostCommunication,
    vim.fault.NetworkDisruptedAndConfigRolledBack,
    vim.fault.FailToLockFaultToleranceVMs,
)
"""Refusals that pass: the same call can be made again a moment later."""


def is_lost_session(error: BaseException) -> bool:
    return isinstance(error, vim.fault.NotAuthenticated)


def describe(fault: BaseException) -> str:
    """One line with what the fault knows, in the words of its class when it has no message."""
    words = [type(fault).__name__.rsplit(".", 1)[-1]]
    said = getattr(fault, "msg", "") if isinstance(fault, vmodl.MethodFault) else fault
    message = str(said or "").strip()
    if isinstance(fault, vim.fault.FileNotFound):
        words = [f"{fault.file}: No such file"]
        message = ""
    elif isinstance(fault, vim.fault.FileLocked):
        words = [f"{fault.file}: locked by another VM"]
    elif isinstance(fault, vim.fault.FileFault):
        words.append(str(fault.file))
    for attribute in ("reason", "property", "invalidProperty", "privilegeId", "name"):
        value = getattr(fault, attribute, None)
        if isinstance(value, str) and value and value not in message:
            words.append(value)
    if message and message not in words and not message.startswith("*types."):
        words.append(message)
    words += [describe(cause) for cause in _causes(fault)]
    return ": ".join(words)


def _causes(fault: BaseException) -> list[BaseException]:
    cause = getattr(fault, "faultCause", None)
    return [cause] if isinstance(cause, BaseException) else []


def translate(fault: BaseException, what: str) -> HypervisorError:
    """The base contract's error for a fault of a call made to do ``what``."""
    text = f"{what}: {describe(fault)}"
    kind: type[HypervisorError] = HypervisorError
    if isinstance(fault, HypervisorError):
        return fault
    if isinstance(fault, vim.fault.ConcurrentAccess):
        kind = ConcurrentAccess
    elif isinstance(fault, vmodl.fault.ManagedObjectNotFound):
        kind = NoSuchVm
    elif isinstance(fault, vim.fault.InvalidPowerState):
        text = f"{what}: the VM is {fault.existingState}, the call needs {fault.requestedState}"
        kind = InvalidState
    elif isinstance(fault, vim.fault.InvalidState):
        kind = InvalidState
    elif isinstance(fault, (vmodl.fault.NotSupported, vmodl.fault.MethodNotFound)):
        kind = NotSupported
    return kind(text)
