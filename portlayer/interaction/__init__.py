"""Talking with a container: attach, exec, logs, files.

Output of the main process is read from the journal, never from the channel, so
no reader can slow a container down; input, execs and files of a running
container go over its channel. Log driver ``none``: attach works as always, logs
cannot be read, and the journal is kept small (16 MiB, nothing rotated kept).
"""
