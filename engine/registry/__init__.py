"""The client's side of the OCI distribution API, and the words it speaks in.

``reference`` and ``digest`` are names; ``challenge``, ``manifest`` and ``decompress`` parse what a
registry sends and do no I/O; ``sources`` says which URLs stand for a registry; ``transport``,
``authorization`` and ``client`` talk. Everything a registry says is hostile: every document and
blob is capped in size and verified against its digest before it is parsed.
"""
