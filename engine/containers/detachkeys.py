"""Detach keys: the notation ("ctrl-p,ctrl-q") and finding the sequence in a terminal's input. No I/O.

Invariant: bytes that turn out not to be the sequence are passed on in order,
none is lost or doubled; bytes of a started sequence are held back.
"""

from __future__ import annotations

from engine.http import BadRequest

__all__ = ["DEFAULT", "DetachScanner", "parse_detach_keys"]

DEFAULT = b"\x10\x11"  # ctrl-p, ctrl-q
MAX_KEYS = 32

_CONTROL = {chr(code): code - ord("a") + 1 for code in range(ord("a"), ord("z") + 1)} | {
    "@": 0,
    "[": 27,
    "\\": 28,
    "]": 29,
    "^": 30,
    "_": 31,
}


def parse_detach_keys(text: str) -> bytes:
    """ "" is the default. One character, or ``ctrl-`` and a letter or one of ``@ [ \\ ] ^ _``."""
    if not text:
        return DEFAULT
    keys = bytearray()
    for key in text.split(","):
        lowered = key.lower()
        if lowered.startswith("ctrl-") and lowered[5:] in _CONTROL:
            keys.append(_CONTROL[lowered[5:]])
        elif len(key) == 1 and key.isascii():
            keys.append(ord(key))
        else:
            raise BadRequest(f"Invalid detach keys ({text}) provided")
    if len(keys) > MAX_KEYS:
        raise BadRequest(f"Invalid detach keys ({text}) provided")
    return bytes(keys)


class DetachScanner:
    """Feed it input; it says what to pass on and whether the user detached."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Bytes to pass on, and True when the sequence is complete (the rest is dropped)."""
        if not self._keys:
            return data, False
        data = self._held + data
        self._held = b""
        found = data.find(self._keys)
        if found >= 0:
            return data[:found], True
        for length in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:length]):
                self._held = data[-length:]
                return data[:-length], False
        return data, False

    def finish(self) -> bytes:
        """What is still held back when the input ends."""
        held, self._held = self._held, b""
        return held
