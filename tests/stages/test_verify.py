"""`pipeline verify`: it finds whatever is not as it was stored, and changes nothing."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.store.reference_store import ReferenceStore
from data.store.storage import LocalStorage
from tests.tiny import save_model


def parts(work, folder="parts"):
    return sorted((work.root / "store").glob(f"*/{folder}/*.parquet"))


def rewrite(work, folder, change, keep=False):
    """One part changed, under a name that fits."""
    path = parts(work, folder)[0]
    table = pq.read_table(path)
    stack = {
        k.decode(): v.decode()
        for k, v in table.schema.metadata.items()
        if k not in (b"reference_id", b"schema_version")
    }
    store = ReferenceStore(LocalStorage(work.root / "store"), path.parts[-3])
    store.replace(folder, [] if keep else [path.name], change(table.replace_schema_metadata(None)), stack)


def with_column(name, change):
    def apply(table):
        at = table.schema.get_field_index(name)
        values = [change(value) if row == 1 else value for row, value in enumerate(table[name].to_pylist())]
        return table.set_column(at, name, pa.array(values, table.schema.field(name).type))

    return apply


def test_a_sound_store_is_found_sound(work):
    work.run("precompute-ref")
    work.run("precompute-ref", "reference.dtype=bfloat16")
    document = work.run("verify")
    assert {each["name"] for each in document["references"]} == {"tiny-float32", "tiny-bfloat16"}
    for each in document["references"]:
        assert (each["parts"], each["pairs"], each["responses_with_tokens"], each["problems"]) == (5, 40, 80, [])


def test_an_empty_store_is_sound(work):
    assert work.run("verify")["references"] == []


@pytest.mark.parametrize("folder", ["parts", "tokens"])
def test_a_flipped_bit_is_found_and_stays_where_it_is(work, folder):
    work.run("precompute-ref")
    part = parts(work, folder)[2]
    content = bytearray(part.read_bytes())
    content[-1] ^= 4
    part.write_bytes(content)
    message = work.run("verify", expect=4)["message"]
    assert message.startswith(f"The part {part} is damaged") and message.count("damaged") == 1
    assert part.read_bytes() == content


@pytest.mark.parametrize("name", ["ref_chosen_logps", "ref_rejected_shared_logps", "n_chosen"])
def test_a_value_edited_together_with_its_digest_is_found_by_the_tokens(work, name):
    work.run("precompute-ref")
    rewrite(work, "parts", with_column(name, lambda value: value - 1))
    message = work.run("verify", expect=4)["message"]
    assert message.startswith("1 pairs have sums that are not those of their tokens: ")


def test_a_shared_sum_below_the_whole_is_no_sum_of_log_probs(work):
    work.run("precompute-ref")
    rewrite(work, "parts", with_column("ref_chosen_logps", lambda value: value / 1e6))
    assert "1 pairs have values that are no sums of log-probs: " in work.run("verify", expect=4)["message"]


def test_two_values_for_one_pair_are_listed(work):
    work.run("precompute-ref")
    rewrite(work, "parts", with_column("ref_chosen_logps", lambda value: value - 1), keep=True)
    message = work.run("verify", expect=4)["message"]
    assert "1 pairs are stored more than once with different values" in message


def test_scoring_again_agrees_and_says_what_it_would_have_found(work):
    work.run("precompute-ref")
    found = work.run("verify", arguments={"rescore": 20})["rescored"]
    assert found["pairs"] == 20 and found["max_abs"] == 0
    assert found["detectable_share"] == pytest.approx(1 - 0.05 ** (1 / 20))


def test_scoring_again_finds_rows_that_another_model_made(work):
    """Sums and tokens of another model, under names that fit: only the model can tell."""
    save_model(work.folder / "other", seed=5)
    identity = work.run("precompute-ref", f"reference.model={work.folder / 'other'}")["reference_id"]
    own = work.run("precompute-ref")["reference_id"]
    source, target = (ReferenceStore(LocalStorage(work.root / "store"), each) for each in (identity, own))
    for folder in ("parts", "tokens"):
        for name, _ in list(target.checked_parts(folder)):
            (work.root / "store" / own / folder / name).unlink()
        for _, part in list(source.checked_parts(folder)):
            target.replace(folder, [], part.table, part.stack)
    assert work.run("verify")["exit_code"] == 0
    message = work.run("verify", arguments={"rescore": 8}, expect=4)["message"]
    assert (
        message.startswith("Of 8 pairs scored again, the sums are up to") and "expected: at most 0.001 nats" in message
    )


def test_what_a_person_sees(work):
    work.run("precompute-ref")
    done = work.command("verify", "--config", str(work.config), "--rescore", "4")
    assert "tiny-float32" in done.stdout and "40 pairs in 5 parts, tokens of 80 responses: sound" in done.stdout
    assert "4 pairs scored again: at most 0 nats apart" in done.stdout
    part = parts(work)[0]
    part.write_bytes(b"")
    done = work.command("verify", "--config", str(work.config))
    assert done.returncode == 4 and "NOT SOUND" in done.stdout and f"The part {part} is damaged" in done.stderr
