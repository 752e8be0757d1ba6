"""Containers: Docker's Config and HostConfig in, ``ContainerSpec`` out, and everything done with them.

Pure rooms (no I/O): :mod:`config`, :mod:`hostconfig` (the wire's models),
:mod:`validation`, :mod:`imageconfig` (merge), :mod:`capabilities`, :mod:`ports`,
:mod:`mounts`, :mod:`networking`, :mod:`resources`, :mod:`translation`,
:mod:`document` (what we keep with the VM), :mod:`status`, :mod:`detachkeys`,
:mod:`multiplex`. The others are endpoints, one verb or a few per module.
"""
