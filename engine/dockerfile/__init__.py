"""The Dockerfile language: text in, instructions out. No I/O, nothing of Docker's state.

`source` makes logical lines of a file, `words` splits and expands them, `instructions` gives each
line its type, `settings` applies those that only change an image's configuration. The builder and
`--change` of commit and import speak it.
"""
