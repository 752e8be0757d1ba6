"""Where containers come from and what they leave: layers, container disks, volumes, documents.

On disk, below the VCH's root:

    layers/base-<bytes>/disk.vmdk        the formatted, empty file system every chain starts with
    layers/<64 hex>/layer.json           one layer; with disk.vmdk, a child of its parent's disk,
                                         unless the layer is empty and shares it
    containers/<id>/disk.vmdk            a child of a layer's disk
    volumes/<store>/<name>/volume.json   with disk.vmdk, a disk of its own; its `data` directory is mounted
    kv/…                                 one file per document

A thing is made in a directory called ``.new-…``, synced, and renamed: it is
there completely or not at all. It is removed by renaming it to ``.new-…``
first. ``open()`` sweeps such names, and kills what a predecessor of ours that
was killed has left running.

Disks of layers never change once they have their name (mode 0440): a VMDK
child refuses a parent that was written to after the child was made.

Every error is a ``PortLayerError``. Whatever mounts runs in a child process:
see ``portlayer.offline``.
"""

from portlayer.storage.containers import ContainerDisks, OfflineRoot
from portlayer.storage.images import ImageStore, LayerInfo
from portlayer.storage.keyvalue import KeyValueStore
from portlayer.storage.volumes import VolumeInfo, VolumeStores

__all__ = [
    "ContainerDisks",
    "ImageStore",
    "KeyValueStore",
    "LayerInfo",
    "OfflineRoot",
    "VolumeInfo",
    "VolumeStores",
]
