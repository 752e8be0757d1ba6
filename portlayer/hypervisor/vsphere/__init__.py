"""The vSphere back end: every VM is one of a vCenter or an ESXi host.

``session`` (one login, retry rules) and ``collector`` (one long poll that tells of
VMs and tasks in order) are all that talks to the server; ``calls`` are one VM's
changes over both. ``keys`` (what a VM carries), ``hardware`` (device specs),
``places`` (datastore paths) and ``faults`` are pure; ``inventory`` and ``networks``
find things by name; ``channels`` is where the hosts dial in. ``machine`` is one VM,
``hypervisor`` all of them.
"""

from portlayer.hypervisor.vsphere.hypervisor import VsphereHypervisor

__all__ = ["VsphereHypervisor"]
