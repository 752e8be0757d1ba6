"""Load protobuf's C core without its Python twin. Import this first.

The generated module drags in the pure-Python implementation, text format and
well-known types, with ``re``, ``datetime``, ``locale`` and ``pickle`` behind
them. The C core (upb) uses none of it for our messages, and it is half of all
import time. Empty modules stand in; whoever did need one of them would get an
AttributeError, in a test.
"""

from __future__ import annotations

import sys
import time
from types import ModuleType

__all__ = ["BEGAN"]

BEGAN = time.clock_gettime_ns(time.CLOCK_BOOTTIME)  # when our first line ran

_UNUSED = (
    "google.protobuf.descriptor_database",
    "google.protobuf.internal.python_message",
    "google.protobuf.internal.well_known_types",
    "google.protobuf.text_encoding",
)


def _stand_in() -> None:
    for name in _UNUSED:
        module = ModuleType(name)
        module.__dict__["WKTBASES"] = {}  # the one name that the C core looks up
        sys.modules.setdefault(name, module)


_stand_in()
