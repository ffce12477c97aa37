"""What people read of a leaderboard."""

from pipeline.models.table import leaderboard_summary, markdown


def model(name: str, accuracy: float, ranks: tuple[int, int], *failed: str) -> dict[str, object]:
    ends = {"": 0.0, "_low": -0.1, "_high": 0.05}
    figures = {
        f"{metric}{end}": accuracy + by
        for metric in ("reward_accuracy", "ranking_accuracy")
        for end, by in ends.items()
    }
    verdict = "failed" if failed else "passed"
    return {
        "name": name,
        "rank_low": ranks[0],
        "rank_high": ranks[1],
        "metrics": figures,
        "verdict": verdict,
        "failed_gates": list(failed),
    }


def held(first: str, second: str, difference: float, p: float, better: str | None, low: float | None = -0.02):
    high = None if low is None else 0.3
    return {
        "first": first,
        "second": second,
        "difference": difference,
        "low": low,
        "high": high,
        "holm_p": p,
        "better": better,
    }


BOARD = {
    "metric": "reward_accuracy",
    "n_pairs": 77,
    "n_prompts": 70,
    "reference": {
        "name": "tiny",
        "metrics": {"ranking_accuracy": 0.649, "ranking_accuracy_low": 0.538, "ranking_accuracy_high": 0.747},
    },
    "models": [model("a", 0.9, (1, 1)), model("b|c", 0.75, (2, 3), "drift"), model("d", 0.7, (2, 3))],
    "tests": [
        held("a", "b|c", 0.15, 0.0012, "a"),
        held("a", "d", 0.2, 0.0004, "a"),
        held("b|c", "d", 0.05, 0.51, None),
    ],
    "failed": [{"name": "e", "message": "It has another tokenizer.", "policy_id": None, "exit_code": 2}],
}


def test_a_terminal_shows_ranks_intervals_neighbours_and_failures():
    text = leaderboard_summary({"leaderboard": BOARD, "outputs": {"table": "work/leaderboard/1/table.md"}})
    assert text.split("\n")[:8] == [
        "Leaderboard: reward accuracy on 77 held-out pairs of 70 prompts",
        "  rank  model                reward accuracy   95 % interval  ranking accuracy   95 % interval  gates",
        "     1  a                              0.900  0.800 to 0.950             0.900  0.800 to 0.950  passed",
        "2 to 3  b|c                            0.750  0.650 to 0.800             0.750  0.650 to 0.800  FAILED: drift",
        "2 to 3  d                              0.700  0.600 to 0.750             0.700  0.600 to 0.750  passed",
        "        the reference, tiny                                              0.649  0.538 to 0.747",
        "  a > b|c (+0.150, -0.020 to +0.300, p = 0.0012)",
        "  b|c and d are not told apart (+0.050, -0.020 to +0.300, p = 0.51)",
    ]
    assert "All 3 tests together err in at most 5 % of cases" in text.replace("\n", " ")
    assert text.endswith("Not evaluated: e. It has another tokenizer.\ntable: work/leaderboard/1/table.md")


def test_markdown_keeps_names_in_their_cells():
    lines = markdown(BOARD).split("\n")
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 6 and {row.count("|") for row in rows} == {8}
    assert "| 2 to 3 | `b\\x7cc` | 0.750 | 0.650 to 0.800 |" in rows[3]
    assert "- `a` > `b\\x7cc` (+0.150, -0.020 to +0.300, p = 0.0012)" in lines


def test_without_a_failed_gate_or_a_reference_there_is_no_column_of_them():
    alone = {
        **BOARD,
        "models": [model("a", 0.9, (1, 1)), model("d", 0.7, (2, 2))],
        "reference": None,
        "failed": [],
        "metric": "ranking_accuracy",
        "tests": [held("a", "d", 0.2, 0.03, "a", None)],
    }
    text = leaderboard_summary({"leaderboard": alone, "outputs": {}})
    assert "gates" not in text and "reference" not in text and "reward" not in text
    assert "  a > d (+0.200, p = 0.03)" in text and "The one test errs in at most 5 % of cases" in text


def test_what_the_pairs_cannot_decide_is_said_though_nothing_failed():
    undecided = {**model("d", 0.7, (2, 3)), "verdict": "inconclusive"}
    text = leaderboard_summary({"leaderboard": {**BOARD, "models": [model("a", 0.9, (1, 1)), undecided],
                                                "tests": [held("a", "d", 0.2, 0.03, "a")]}, "outputs": {}})  # fmt: skip
    assert "gates" in text.split("\n")[1] and text.split("\n")[3].endswith("  inconclusive")
