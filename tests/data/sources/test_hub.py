"""Data sets of the Hub, without the Hub: what is asked for, what comes back, and what is refused."""

import datasets
import pytest

from data.errors import DataError
from data.schema import SourceRow
from data.sources.hub import read_hub
from data.sources.source import Source, read_rows, source_digest

ROWS = [{"prompt": f"Why {i}?", "chosen": [{"role": "assistant", "content": "é"}], "rejected": "No."} for i in range(3)]


def test_hub_that_cannot_be_reached_is_named():
    source = Source(path="nobody/no-such-preferences", split="dev")
    with pytest.raises(
        DataError, match=r"The data set nobody/no-such-preferences\[dev\] cannot be loaded from the Hub"
    ):
        list(read_rows(source))


@pytest.fixture
def hub(monkeypatch):
    """Stands for the Hub: what `datasets.load_dataset` is asked for, and what it gives."""
    asked = []

    def give(rows, **how):
        answer = rows if isinstance(rows, datasets.Dataset) else datasets.Dataset.from_list(rows, **how)

        def load(path, **options):
            asked.append((path, options))
            return answer

        monkeypatch.setattr(datasets, "load_dataset", load)
        return asked

    return give


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        (Source(path="owner/name"), ("owner/name", {"split": "train", "revision": None})),
        (Source(path="owner/name", split="dev"), ("owner/name", {"split": "dev", "revision": None})),
        (Source(path="owner/name@v1.0"), ("owner/name", {"split": "train", "revision": "v1.0"})),
        (Source(path="owner/name@refs/pr/1"), ("owner/name", {"split": "train", "revision": "refs/pr/1"})),
    ],
    ids=lambda value: value.name if isinstance(value, Source) else "",
)
def test_rows_of_the_hub_come_in_order_with_their_place(hub, source, asked):
    calls = hub(ROWS * 200)
    expected = [SourceRow(i + 1, f"{source.name}:{i + 1}", row) for i, row in enumerate(ROWS * 200)]
    assert list(read_rows(source)) == expected
    source_digest(source)
    assert calls == [asked, asked]


def test_digest_of_a_hub_data_set_is_of_its_content(hub):
    source = Source(path="owner/name")
    hub(ROWS)
    known = source_digest(source)
    hub(ROWS)
    assert source_digest(source) == known
    hub(ROWS[:2])
    assert source_digest(source) != known


def test_split_that_the_hub_does_not_have_is_named_with_those_it_has(tmp_path, monkeypatch):
    load = datasets.load_dataset
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text('{"prompt": "Why?"}')
    monkeypatch.setattr(
        datasets, "load_dataset", lambda _, **options: load(str(tmp_path), cache_dir=str(tmp_path / "cache"), **options)
    )
    with pytest.raises(DataError, match=r"The data set owner/name\[dev\] cannot be loaded from the Hub: .*") as caught:
        list(read_rows(Source(path="owner/name", split="dev")))
    assert all(f"'{split}'" in str(caught.value) for split in ("train", "test"))


@pytest.mark.parametrize(
    ("feature", "kind"),
    [
        (datasets.Image(), "Image"),
        (datasets.List(datasets.Image()), "Image"),
        ({"of": datasets.Audio()}, "Audio"),
        ([datasets.Video()], "Video"),
    ],
    ids=["image", "list", "inside", "old list"],
)
def test_images_of_the_hub_are_refused(hub, feature, kind):
    features = datasets.Features({"prompt": datasets.Value("string"), "shown": feature})
    hub(datasets.Dataset.from_dict({"prompt": [], "shown": []}, features=features))
    with pytest.raises(
        DataError, match=rf"^The column shown of the data set owner/name is of the kind {kind}, and this tool "
    ):
        list(read_rows(Source(path="owner/name")))


def test_a_script_of_a_data_set_is_never_run(tmp_path, monkeypatch):
    """`datasets` finds what is asked for in the folder where it runs, as it would on the Hub."""
    (tmp_path / "owner/name").mkdir(parents=True)
    (tmp_path / "owner/name/name.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"cannot be loaded from the Hub: RuntimeError: Dataset scripts are no longer"):
        list(read_hub("owner/name", "owner/name", "train"))
    assert not (tmp_path / "was-run").exists()
