"""YAML as people mean it: 5e-7 is a number, a key given twice is an error, and every value knows its line."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from data.errors import ConfigError, one_line

KeyPath = tuple[str | int, ...]


@dataclass
class Origins:
    """Where each key came from: `file.yaml:7`, `--set train.beta`, `PIPELINE_TRAIN__BETA`."""

    _by_path: dict[KeyPath, str] = field(default_factory=dict)

    def note(self, path: KeyPath, origin: str) -> None:
        """Remember where the key came from; the latest origin counts, for what stands below it, too."""
        for below in [known for known in self._by_path if known[: len(path)] == path]:
            del self._by_path[below]
        self._by_path[path] = origin

    def of(self, path: KeyPath) -> str:
        """Origin of the key, or of the nearest section around it; empty where nothing is known."""
        while path and path not in self._by_path:
            path = path[:-1]
        return self._by_path.get(path, "")

    def below(self, path: KeyPath) -> list[str]:
        """Origins of the parts of a value, each once."""
        inner = (origin for known, origin in self._by_path.items() if known[: len(path)] == path and known != path)
        return list(dict.fromkeys(inner))


class _Loader(yaml.SafeLoader):
    """PyYAML with the numbers of YAML 1.2: 5e-7 is a float; 12:30, 0123 and 2025-11-21 stay text."""


_NUMBERS = {
    "tag:yaml.org,2002:int": r"[-+]?(0|[1-9][0-9_]*)",
    "tag:yaml.org,2002:float": (
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (*_NUMBERS, "tag:yaml.org,2002:timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """PyYAML, which also quotes a text that `_Loader` would take for a number, such as a run called 12e5."""


for _class in (_Loader, _Dumper):
    for _tag, _pattern in _NUMBERS.items():
        _class.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})$"), list("-+0123456789."))


def dump_yaml(document: Any, **style: Any) -> str:
    """A document in the order of its keys, which `load_yaml` takes for the same; `style` is that of PyYAML."""
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **style))


def load_yaml(file: Path) -> tuple[dict[str, Any], Origins]:
    """The file's document, and the line of every key.

    Raises:
        ConfigError: it is absent, is not YAML, holds no mapping, or gives a key twice.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"There is no configuration file {file}. Give its path with --config.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {file} cannot be read: {one_line(error)}") from error
    document, node = _parse(text, str(file))
    if document is None:
        return {}, Origins()
    if not isinstance(document, dict):
        raise ConfigError(f"{file} holds no keys. It should look like the smallest configuration in the README.")
    origins = Origins()
    try:
        _note_lines(node, (), file, origins)
    except RecursionError:
        raise ConfigError(f"{file}: an anchor (&) stands inside itself. Write the value out.") from None
    return document, origins


def parse_scalar(text: str, origin: str) -> Any:
    """A value given on the command line or in the environment, read as YAML."""
    return _parse(text, origin)[0]


def _parse(text: str, where: str) -> tuple[Any, yaml.Node | None]:
    """The value that a text stands for, and its syntax tree."""
    try:
        return yaml.load(text, Loader=_Loader), yaml.compose(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark and "\n" in text else where
        raise ConfigError(f"{place}: not valid YAML: {getattr(error, 'problem', None) or one_line(error)}.") from error
    except (ValueError, TypeError, RecursionError) as error:  # a tag that does not fit its value, an anchor in itself
        raise ConfigError(f"{where}: not valid YAML: {one_line(error)}.") from error


def _note_lines(node: yaml.Node | None, path: KeyPath, file: Path, origins: Origins) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            origins.note((*path, index), f"{file}:{item.start_mark.line + 1}")
            _note_lines(item, (*path, index), file, origins)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            name = ".".join(map(str, (*path, key.value)))
            raise ConfigError(
                f"{file}:{line}: {name} is given twice, first in line {seen[key.value]}. Keep one of them."
            )
        seen[key.value] = line
        origins.note((*path, key.value), f"{file}:{line}")
        _note_lines(value, (*path, key.value), file, origins)
