"""The keys of the configuration, as its classes declare them."""

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The class of a field that is a section, which may be left out; None: it is a value."""
    kind = _alone(field.annotation)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def item_of(field: FieldInfo) -> type[BaseModel] | None:
    """The class of what a list or mapping holds, such as a source of data; None: it holds no sections."""
    kind = _item(_alone(field.annotation))
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def section_at(root: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    """The class at this key, through the items of lists and mappings; None where there is a value or nothing."""
    kind: Any = root
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = None if field is None else _alone(field.annotation)
        else:
            kind = _alone(_item(kind))
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def field_at(root: type[BaseModel], path: Sequence[str | int]) -> FieldInfo | None:
    """The field of this key; None where no section has it."""
    section = section_at(root, path[:-1])
    return None if section is None or not path else section.model_fields.get(str(path[-1]))


def all_keys(root: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """Every key with a value, by its dotted name; a section that may be left out is one, too."""
    return dict(_keys(root, ""))


def _keys(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        inner = section_of(field)
        if inner is None or not isinstance(field.annotation, type):
            yield f"{prefix}{name}", field
        if inner is not None:
            yield from _keys(inner, f"{prefix}{name}.")


def _alone(kind: Any) -> Any:
    """A kind without the None, and the validators, that may stand beside it."""
    while hasattr(kind, "__metadata__"):
        kind = kind.__origin__
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        kinds = set(get_args(kind)) - {NoneType}
        return _alone(kinds.pop()) if len(kinds) == 1 else kind
    return kind


def _item(kind: Any) -> Any:
    """What a list, or a mapping by names, holds."""
    return _alone(get_args(kind)[-1]) if get_origin(kind) in (list, dict) else None
