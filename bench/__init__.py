"""Performance series: Mooring beside Debian's dockerd + runc, on one machine, in one run."""
