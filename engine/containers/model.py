"""The base of the wire's models: Go's reading of JSON, made strict where Go is.

Keys match whatever their case, ``null`` is the zero value, integers are 64 bits
wide, strings hold no NUL. A key nobody knows is refused when it carries
something: an option must not vanish silently.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = ["Int", "Text", "Texts", "WireModel", "Words"]

MAX_TEXT = 1 << 20


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Int = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_no_nul)]
Texts = list[Text]
Words = Annotated[list[Text], BeforeValidator(_listed)]  # Docker takes "cmd" for ["cmd"]


class WireModel(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _as_go_reads(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        names = _wire_names(cls)
        known: dict[str, Any] = {}
        for key, item in value.items():
            if item is None:
                continue
            name = names.get(str(key).lower())
            if name is not None:
                known[name] = item
            elif item not in ("", 0, False, [], {}):
                known[str(key)] = item  # "forbid" refuses it by name
        return known

    def shown(self) -> dict[str, Any]:
        """As JSON, whole."""
        return self.model_dump(by_alias=True)

    def kept(self) -> dict[str, Any]:
        """As JSON, without what is at its default."""
        return self.model_dump(exclude_defaults=True, by_alias=True)


_names: dict[type[BaseModel], dict[str, str]] = {}


def _wire_names(kind: type[BaseModel]) -> dict[str, str]:
    if kind not in _names:
        _names[kind] = {
            (info.alias or name).lower(): info.alias or name for name, info in kind.model_fields.items()
        }
    return _names[kind]
