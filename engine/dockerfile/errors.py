"""What is wrong with a Dockerfile, in the words Docker's users know."""

from __future__ import annotations

__all__ = ["DockerfileError"]


class DockerfileError(Exception):
    """The message says what and, where it is known, on which line."""

    def __init__(self, message: str, *, line: int = 0) -> None:
        super().__init__(f"dockerfile parse error on line {line}: {message}" if line else message)
