"""The service that owns VMs, disks, networks and channels."""
