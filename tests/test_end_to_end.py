"""The three jobs on a tiny model, and what must hold between them."""


def test_run_leaves_what_the_contract_names(work):
    document = work.run("run")
    assert document["status"] == "done"
    run = work.root / "runs" / document["run"]
    for path in (
        work.root / "pairs" / "rejects.parquet",
        work.root / "reference.lock",
        run / "config.yaml",
        run / "metrics.jsonl",
        run / "policy" / "model.safetensors",
        run / "policy" / "tokenizer.json",
        run / "eval" / "metrics.json",
        run / "eval" / "pairs.parquet",
    ):
        assert path.is_file(), path
    assert (work.root / "latest").resolve() == run.resolve() == (work.root / "passed").resolve()
    assert list((work.root / "store").glob("*/reference.json"))
    assert list((work.root / "store").glob("*/parts/*.parquet"))
