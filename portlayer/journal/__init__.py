"""Reading the journals of container VMs.

The guest appends framed records to a host file (docs/architecture.md,
"Journal"); the hypervisor rotates it. This package only reads: forwards from
any position across rotations (``reader``), woken by the kernel instead of
polling (``watcher``), backwards for ``tail`` (``tail``), shaped as Docker shows
logs (``shape``), and the last words of a run (``verdict``). The bytes come from
a guest: every length is capped and nothing here trusts what a record says about
anything but its own container.
"""
