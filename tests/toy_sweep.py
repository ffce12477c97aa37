"""The toy of docs/sweep.md: `python -m tests.toy_sweep FOLDER` makes its model, pairs and configuration."""

import sys
from pathlib import Path

from tests.tiny import example_rows, save_model, write_jsonl

CONFIG = """workdir: {folder}/results
reference: {{model: {folder}/model, dtype: float32}}
data:
  train: {folder}/prefs.jsonl
  dev_fraction: 0.25
  eval_fraction: 0.25
  max_length: 128
train: {{learning_rate: 3.0e-4, pairs_per_step: 8}}
sweep:
  objective: [sigmoid, ipo]
  beta: [0.05, 0.5]
  seed: [0, 1]
"""


def main(folder: Path) -> None:
    """A random Llama of two layers, and 400 pairs of which every third is labelled the wrong way round."""
    folder.mkdir()
    save_model(folder / "model")
    rows = example_rows(400)
    for row in rows[::3]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    write_jsonl(folder / "prefs.jsonl", rows)
    (folder / "pipeline.yaml").write_text(CONFIG.format(folder=folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
