"""Disks opened on the host while no VM has them.

Everything that mounts happens in a child process of its own
(``__main__``, one per operation or session): a private mount namespace, a
qemu-storage-daemon that shows the VMDK as a file (``export``), a loop device
on that file (``loops``) and the mount (``session``). The parent's side of the
pipe is in ``portlayer.storage.worker``; both speak ``frames``.

Why it cannot leak. The mount exists in the child's namespace only, the loop
device detaches itself with its last user, the daemon dies with its parent, and
all temporary files are on a tmpfs of that namespace. However the child ends,
the kernel cleans up; and it ends when the parent does, because its standard
input does. The daemon lives in a namespace beside the child's, which sees its
exports but not the file systems on them: a FUSE server that is the last one in
a namespace with a mount that needs it can never finish dying.

Why it cannot lose data. The order of taking down is: ``syncfs`` (its errors
count), unmount in the only namespace that has the mount, wait until the loop
device is free, look whether the superblock says "cleanly unmounted", stop the
daemon, check its exit code, ``fsync`` the disk. Loop devices are buffered:
direct I/O over a FUSE export corrupts silently.

Invariant: the child imports the standard library, :mod:`archive` and this
package, nothing else: its start is part of every ``docker cp``.
"""
