"""The life of containers: specs, handles, life cycle, restart policy, recovery.

A container is a VM whose ``extra`` documents hold its spec, its intent and what
a restart must know (``record``). The state machine is in ``states``; ``create``,
``change``, ``start``, ``settle``, ``remove`` are its transactions; ``supervisor``
watches over each run; ``recovery`` rebuilds everything after a restart;
``manager`` is the one door. Neighbours are the protocols in ``rooms``.
"""
