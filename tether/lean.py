"""Make imports cheap before there are any. Import this first, and only in the frozen program.

Two parts of the world cost PID 1 a third of a second under TCG and give it
nothing, so empty or small modules stand in for them:

* protobuf's pure-Python twin, text format and well-known types (with ``re``,
  ``datetime``, ``locale`` and ``pickle`` behind them), which the generated
  module drags in; the C core uses none of it for our messages;
* ``typing``, of which running code needs NamedTuple only; that one compiles a
  constructor for every class, ours makes a plain tuple.

Whoever did need what is not here would get an AttributeError in a system test.
"""

from __future__ import annotations

import sys
import time
from _collections import _tuplegetter  # type: ignore[import-not-found]  # what collections.namedtuple uses
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

__all__ = ["BEGAN", "install"]

BEGAN = time.clock_gettime_ns(time.CLOCK_BOOTTIME)  # when our first line ran

_UNUSED = (
    "google.protobuf.descriptor_database",
    "google.protobuf.internal.python_message",
    "google.protobuf.internal.well_known_types",
    "google.protobuf.text_encoding",
)


class _RecordType(type):
    """Turns annotations into fields, as typing.NamedTuple does."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _RecordType:
        fields = tuple(namespace.get("__annotations__", ()))
        namespace["_fields"] = fields
        namespace["_field_defaults"] = {field: namespace[field] for field in fields if field in namespace}
        for index, field in enumerate(fields):
            namespace[field] = _tuplegetter(index, "")
        namespace["__slots__"] = ()
        return super().__new__(cls, name, bases, namespace)


class Record(tuple[object, ...], metaclass=_RecordType):
    """The part of typing.NamedTuple that we use."""

    _fields: tuple[str, ...]
    _field_defaults: dict[str, object]

    def __new__(cls, *values: object, **named: object) -> Self:
        if named or len(values) != len(cls._fields):
            values = tuple(cls._complete(values, named))
        return tuple.__new__(cls, values)

    @classmethod
    def _complete(cls, values: tuple[object, ...], named: dict[str, object]) -> Iterator[object]:
        if len(values) > len(cls._fields) or set(named) - set(cls._fields[len(values) :]):
            raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}")
        yield from values
        for field in cls._fields[len(values) :]:
            if field not in named and field not in cls._field_defaults:
                raise TypeError(f"{cls.__name__} lacks {field}")
            yield named[field] if field in named else cls._field_defaults[field]

    def _replace(self, **changed: object) -> Self:
        return type(self)(**{**dict(zip(self._fields, self, strict=True)), **changed})

    def __repr__(self) -> str:
        words = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({words})"


def install() -> None:
    """Put the stand-ins where imports find them; real modules that are there already stay."""
    for name in _UNUSED:
        module = ModuleType(name)
        module.__dict__["WKTBASES"] = {}  # the one name that the C core looks up
        sys.modules.setdefault(name, module)
    typing = ModuleType("typing")
    typing.__dict__.update(
        Any=object,
        NamedTuple=Record,
        NoReturn=None,
        Protocol=object,
        Self=None,
        TYPE_CHECKING=False,
        TypeAlias=None,
        TypeVar=lambda name, **_: name,
    )
    sys.modules.setdefault("typing", typing)
