"""What `pipeline inspect` found, as lines for people."""

from typing import Any


def inspected(document: dict[str, Any]) -> str:
    """The rows and pairs, and how many more there are."""
    lines = _of_run(document) if "recorded" in document else []
    lines += [f"{each['location']}: {each['reason']} ({each['detail']})" for each in document["rejected"]]
    for each in document["shown"]:
        lines += _of_pair(each)
    n = len(document["rejected"]) + len(document["shown"])
    return "\n".join([*lines, f"{n} shown of {document['found']} found"])


def _of_pair(each: dict[str, Any]) -> list[str]:
    name = f"{each['location']} ({each['split']}, key {each['key'][:12]})"
    visit = [_of_visit(each["visit"])] if "visit" in each else []
    if "prompt" not in each:
        return [f"{name}: no longer among the prepared pairs, so its text is not shown", *visit]
    cut = f", {each['truncated']} cut off" if each["truncated"] else ""
    tokens = (
        f"{name}: {each['n_prompt']} tokens of prompt, {each['n_chosen']} scored of chosen, {each['n_rejected']} of "
        f"rejected{cut}"
    )
    return [tokens, *visit, *(f"  {part:<9}{each[part]}" for part in ("prompt", "chosen", "rejected"))]


def _of_visit(visit: dict[str, Any]) -> str:
    """Several visits of a pair are told by their excess and the last of them."""
    many = f"excess {_number(visit['excess'], '+')} over {visit['visits']} visits; " if "visits" in visit else ""
    excess = "" if many else f" (excess {_number(visit['excess'], '+')})"
    margin = "" if visit["margin"] is None else f", margin {_number(visit['margin'], '+')}"
    loss, weight = _number(visit["loss"]), _number(visit["weight"])
    return f"  {many}step {visit['step']}: loss {loss}{excess}{margin}, weight {weight}"


def _of_run(document: dict[str, Any]) -> list[str]:
    recorded, step = document["recorded"], document.get("step")
    lines = [f"run {document['run']}: {recorded['visits']:,} visits, steps {recorded['first']} to {recorded['last']}"]
    if step is not None:
        lines.append(
            f"step {step['step']}: {step['pairs']} pairs, loss {_number(step['loss'])} on average, from "
            f"{_number(step['least'])} to {_number(step['most'])}"
        )
    return lines


def _number(value: float | None, sign: str = "") -> str:
    return "not finite" if value is None else f"{value:{sign}.4g}"
