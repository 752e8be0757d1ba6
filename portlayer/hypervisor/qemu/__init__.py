"""The embedded back end: every VM is a QEMU process that outlives us.

``vms/<id>/config.json`` is the truth about a VM that is off, the QEMU process
about one that runs. A VM runs exactly as long as somebody holds the lock file in
its run directory, and QEMU inherits that lock: no poll and no guess tells us
after our own death what is still there.

``commandline`` and ``devices`` are pure; ``store`` (durable files), ``runtime``
(files of one run), ``process``, ``monitor`` (QMP), ``tap`` and ``cgroup`` each
own one resource; ``machine`` is one VM, ``hypervisor`` all of them.
"""

from portlayer.hypervisor.qemu.hypervisor import QemuHypervisor

__all__ = ["QemuHypervisor"]
