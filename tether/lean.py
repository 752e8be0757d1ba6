"""Make imports cheap before there are any. Import this first, and only in the frozen program.

Parts of the world that cost PID 1 half a second under TCG and give it nothing:
empty or small modules stand in for them.

* protobuf's Python half, which the generated module drags in to build its
  classes and, once built, never uses: the C core makes each class by itself when
  it is first asked for (and with it go threading, warnings, datetime, locale…);
* ``enum``, ``typing``, ``contextlib``, ``collections``: of each we use one or two
  names, and their own classes are slow to make;
* ``signal``, which turns the C module's constants into enumerations.

Whoever did need what is not here gets an AttributeError in a system test.
"""

from __future__ import annotations

import sys
import time
from _collections import (  # type: ignore[import-not-found]  # what collections takes them from
    _tuplegetter,
    deque,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any, Self

__all__ = ["BEGAN", "install"]

BEGAN = time.clock_gettime_ns(time.CLOCK_BOOTTIME)  # when our first line ran


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


class _EnumType(type):
    """Makes the constants of a class its instances; aliases, flags and the functional form are not there."""

    _members: dict[object, Any]

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _EnumType:
        values = {
            key: value
            for key, value in namespace.items()
            if key[0] != "_" and not hasattr(type(value), "__get__")
        }
        made = super().__new__(cls, name, bases, {k: v for k, v in namespace.items() if k not in values})
        made._members = {}
        for key, value in values.items():
            member = int.__new__(made, value) if issubclass(made, int) else object.__new__(made)
            member.__dict__.update(name=key, value=value)
            made._members[value] = member
            setattr(made, key, member)
        return made

    def __call__(cls, value: object) -> Any:
        try:
            return cls._members[value]
        except KeyError:
            raise ValueError(f"{value!r} is not a valid {cls.__name__}") from None

    def __iter__(cls) -> Iterator[Any]:
        return iter(cls._members.values())


class Enum(metaclass=_EnumType):
    """The part of enum.Enum that we use."""

    name: str
    value: Any

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self.value!r}>"


class IntEnum(int, Enum):
    """The part of enum.IntEnum that we use."""


class suppress:  # noqa: N801 - contextlib's name
    """contextlib.suppress."""

    def __init__(self, *exceptions: type[BaseException]) -> None:
        self._exceptions = exceptions

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, self._exceptions)


def _build_lazily(file: Any, module_name: str, module: dict[str, Any]) -> None:
    """In place of protobuf's builder: a message's class is made when it is first taken from its module."""
    from google._upb._message import MessageMeta
    from google.protobuf.message import Message

    def get(name: str) -> Any:
        try:
            descriptor = file.message_types_by_name[name]
        except KeyError:
            raise AttributeError(name) from None
        content = {"DESCRIPTOR": descriptor, "__module__": module_name}
        module[name] = made = MessageMeta(name, (Message,), content)
        return made

    module["__getattr__"] = get


def install() -> None:
    """Put the stand-ins where imports find them; real modules that are there already stay."""
    import _collections_abc

    # the C core makes one named tuple, for fields that no message of ours declares
    _stand_in("collections", deque=deque, abc=_collections_abc, namedtuple=lambda *_: tuple)
    sys.modules.setdefault("collections.abc", _collections_abc)
    _stand_in("contextlib", suppress=suppress)
    _stand_in("enum", Enum=Enum, IntEnum=IntEnum)
    _stand_in(
        "typing",
        Any=object,
        NamedTuple=Record,
        NoReturn=None,
        Protocol=object,
        Self=None,
        TYPE_CHECKING=False,
        TypeAlias=None,
        TypeVar=lambda name, **_: name,
    )
    import _signal  # type: ignore[import-not-found]

    sys.modules.setdefault("signal", _signal)
    _install_protobuf()


def _install_protobuf() -> None:
    _stand_in("google.protobuf.internal.well_known_types", WKTBASES={})
    _stand_in("google.protobuf.descriptor", _USE_C_DESCRIPTORS=True)
    _stand_in("google.protobuf.symbol_database", Default=lambda: None)
    _stand_in(
        "google.protobuf.runtime_version",
        Domain=_stand_in("google.protobuf.runtime_version.Domain", PUBLIC=0),
        ValidateProtobufRuntimeVersion=lambda *_: None,  # frozen together
    )
    _stand_in(
        "google.protobuf.internal.builder",
        BuildMessageAndEnumDescriptors=lambda *_: None,
        BuildTopDescriptorsAndMessages=_build_lazily,
    )

    def pool() -> Any:
        from google._upb import _message

        return _message.default_pool

    _stand_in("google.protobuf.descriptor_pool", Default=pool)


def _stand_in(name: str, **content: object) -> ModuleType:
    module = type(sys)(name)
    module.__dict__.update(content)
    return sys.modules.setdefault(name, module)
