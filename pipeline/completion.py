"""What a shell may put behind `--set`: keys of the configuration, and the values that a key may have."""

from typing import Any, get_args


def assignments(incomplete: str) -> list[tuple[str, str]]:
    """`key=` for every key that begins so, each with what it is for; for the only one also `key=value`."""
    from pipeline.config import PipelineConfig  # slow, and wanted only when somebody presses the key
    from pipeline.keys import all_keys
    from pipeline.suggestions import meaning

    begun, equals, _ = incomplete.partition("=")
    keys = all_keys(PipelineConfig)
    found = [key for key in keys if (key == begun if equals else key.startswith(begun))]
    offered = [(f"{key}=", _plain(meaning(key, PipelineConfig))) for key in found]
    if len(found) == 1:  # with two of them a shell puts no space behind the equals sign
        (key,) = found
        offered += [(f"{key}={value}", "") for value in _values(keys[key])]
    return [(text, about) for text, about in offered if text.startswith(incomplete)]


def _values(field: Any) -> list[str]:
    """The choices of a key, or its default."""
    choices = [value for value in _choices(field.annotation) if isinstance(value, str)]
    if field.annotation is bool:
        choices = ["true", "false"]
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return choices or ([f"{default}"] if isinstance(default, str | int | float) else [])


def _choices(kind: Any) -> list[Any]:
    """What stands in a Literal, also in one of several kinds."""
    inner = get_args(kind)
    return [each for kind in inner for each in ([kind] if isinstance(kind, str) else _choices(kind))]


def _plain(text: str) -> str:
    """Without what the shell's list would take for markup."""
    return text.replace("[", "(").replace("]", ")")
