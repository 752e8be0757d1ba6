"""Lines of output to a syslog server: the formats Docker has (``message``) and the ways there (``sink``).

A leaf: it knows neither containers nor journals. ``portlayer.execution.forward``
reads the journal and sends what it holds.
"""
