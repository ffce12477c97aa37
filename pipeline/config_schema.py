"""The JSON schema of a configuration file (draft 2020-12), for editors: names, kinds, limits, choices and meanings.

What is wrong by it is refused by every job, too, bar texts that stand for numbers; what only the whole of a
configuration shows (a setting without effect) a job alone can say.
"""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pipeline.config import PipelineConfig
from stages.metrics.names import GENERATION_NAMES, LEAKAGE_NAMES, METRIC_NAMES
from stages.metrics.values import PAIR_VALUES
from stages.objectives.catalogue import OBJECTIVES

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_ANY_METRIC = {"anyOf": [{"enum": [*METRIC_NAMES, *LEAKAGE_NAMES, *GENERATION_NAMES]}, {"pattern": "/"}]}
_OF_PAIRS = {"enum": [*PAIR_VALUES]}
_LIMITS = {"min": _ANY_METRIC, "max": _ANY_METRIC, "max_drop": _OF_PAIRS, "max_rise": _OF_PAIRS, "seed_sd": _OF_PAIRS}
_OBJECTIVE = {
    "anyOf": [
        {"enum": [*OBJECTIVES]},
        {
            "type": "object",
            "propertyNames": {"enum": [*OBJECTIVES]},
            "additionalProperties": {"type": "number", "exclusiveMinimum": 0},
            "minProperties": 1,
        },
    ]
}


class _Schema(GenerateJsonSchema):
    """Pydantic's, for people: without titles, which repeat the names."""

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        """A name may be written as a number where it is taken for a text."""
        made = super().str_schema(schema)
        return {**made, "type": ["string", "number"]} if schema.get("coerce_numbers_to_str") else made

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False


def config_schema() -> dict[str, Any]:
    """Of the whole file."""
    made = PipelineConfig.model_json_schema(schema_generator=_Schema)
    sections = made["$defs"]
    for name, names in _LIMITS.items():
        sections["EvalConfig"]["properties"][name]["propertyNames"] = names
    train, sweep = sections["TrainConfig"]["properties"], sections["SweepConfig"]["properties"]
    train["metric_for_best_model"]["anyOf"] = [{"enum": [*METRIC_NAMES]}, {"type": "null"}]
    _replace(train["objective"], _OBJECTIVE)
    sweep["objective"]["items"] = _OBJECTIVE
    plain: dict[str, Any] = _plain(made)
    return {"$schema": _DRAFT, "title": "Configuration of offline-preference-pipeline", **plain}


def _replace(field: dict[str, Any], kind: dict[str, Any]) -> None:
    kept = {name: field[name] for name in ("description", "default") if name in field}
    field.clear()
    field.update(kind | kept)


def _plain(schema: Any) -> Any:
    """Without the titles of classes and what editors do not know; descriptions in one line."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {}
    for name, value in schema.items():
        if (name == "title" and isinstance(value, str)) or (name, value) == ("format", "path"):
            continue
        plain[name] = " ".join(value.split()) if name == "description" and isinstance(value, str) else _plain(value)
    return plain
