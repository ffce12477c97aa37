"""A folder is its files of known endings, or those of a split, and nothing is mixed in silence."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import DataError
from data.sources.source import Source, read_rows, source_digest


@pytest.fixture
def folder(tmp_path):
    """Makes a folder with these files, each with one row that tells its name."""

    def make(*names):
        for name in names:
            path = tmp_path / "prefs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            row = {"file": name}
            if name.endswith(".parquet"):
                pq.write_table(pa.Table.from_pylist([row]), path)
            elif name.endswith(".arrow"):
                table = pa.Table.from_pylist([row])
                with pa.ipc.new_stream(path, table.schema) as file:
                    file.write_table(table)
            else:
                path.write_text(json.dumps([row] if name.endswith(".json") else row))
        (tmp_path / "prefs").mkdir(exist_ok=True)
        return str(tmp_path / "prefs")

    return make


def names(path, split=None):
    return [row.content["file"] for row in read_rows(Source(path=path, split=split))]


def test_a_folder_is_read_file_by_file_in_the_order_of_their_paths(folder):
    path = folder("b.jsonl", "a/c.parquet", "a.json", "B/x.arrow")
    assert names(path) == ["B/x.arrow", "a.json", "a/c.parquet", "b.jsonl"]
    expected = [f"{path}/{name}:1" for name in ("B/x.arrow", "a.json", "a/c.parquet", "b.jsonl")]
    assert [row.location for row in read_rows(Source(path=path + "/"))] == expected


def test_what_is_no_data_in_a_folder_is_left_out(folder):
    others = [
        ".hidden.jsonl",
        "_old.jsonl",
        ".cache/x.jsonl",
        "_tmp/x.jsonl",
        "README.md",
        ".gitattributes",
        "notes.txt",
    ]
    others += ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "train/state.json", "cache-0af9.arrow"]
    assert names(folder("a.jsonl/rows.jsonl", *others)) == ["a.jsonl/rows.jsonl"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_folder_that_datasets_saved_is_read_by_split(tmp_path):
    rows = {split: [{"prompt": f"{split} {i}"} for i in range(3)] for split in ("train", "test")}
    saved = datasets.DatasetDict({split: datasets.Dataset.from_list(of) for split, of in rows.items()})
    saved.save_to_disk(tmp_path / "saved")
    found = list(read_rows(Source(path=str(tmp_path / "saved"), split="train")))
    assert [row.content for row in found] == rows["train"]
    assert found[0].location == f"{tmp_path}/saved/train/data-00000-of-00001.arrow:1"


@pytest.mark.parametrize("present", [[], ["notes.txt", "dataset_info.json"]], ids=["empty", "no data"])
@pytest.mark.parametrize("use", [lambda source: list(read_rows(source)), source_digest], ids=["read", "digest"])
def test_a_folder_without_data_is_named(folder, present, use):
    with pytest.raises(
        DataError, match=r"^The folder .*prefs holds no preference data: no file in it has a known ending"
    ):
        use(Source(path=folder(*present)))


OF_TRAIN = [
    "TRAIN-00000-of-00002.parquet",
    "Train.jsonl",
    "a/train/x.jsonl",
    "hh-train-00000-of-00002.parquet",
    "my_train.jsonl",
    "train-00000-of-00002.parquet",
]
OF_TRAIN += ["train.v2.jsonl", "train/data-00000-of-00001.arrow", "train0.jsonl"]
OF_OTHERS = [
    "constrained.jsonl",
    "retrain.jsonl",
    "test.jsonl",
    "train_prefs-00000-of-00001.parquet",
    "training.jsonl",
    "untrained/x.jsonl",
]


def test_a_split_of_a_folder_is_the_files_that_have_it_as_a_word_of_their_path(folder):
    path = folder(*OF_TRAIN, *OF_OTHERS)
    assert names(path, "train") == OF_TRAIN
    assert names(path, "train_prefs") == ["train_prefs-00000-of-00001.parquet"]


def test_a_number_at_the_end_of_a_split_is_whole(folder):
    path = folder("v1.jsonl", "v10.jsonl", "v1_b.jsonl")
    assert names(path, "v1") == ["v1.jsonl", "v1_b.jsonl"]


def test_the_path_of_the_folder_itself_is_of_no_split(folder, tmp_path):
    folder("x.jsonl", "test.jsonl")
    (tmp_path / "prefs").rename(tmp_path / "train")
    assert names(str(tmp_path / "train"), "test") == ["test.jsonl"]


def test_a_split_that_no_file_belongs_to_is_named_with_the_files(folder):
    path = folder(*(f"part{i:02}.jsonl" for i in range(12)))
    with pytest.raises(DataError) as caught:
        names(path, "dev")
    listed = ", ".join(f"part{i:02}.jsonl" for i in range(10))
    assert str(caught.value) == (
        f"No file of the folder {path} belongs to the split dev: the path of none has it as a word. There are: "
        f"{listed} and 2 more. Correct `split`, or remove it to read all of them."
    )


@pytest.mark.parametrize(
    "present",
    [
        ["train.jsonl", "test.jsonl"],
        ["a/train0.jsonl", "a/test0.jsonl", "extra.jsonl"],
        ["test/x.csv", "TRAIN/x.parquet"],
    ],
)
@pytest.mark.parametrize("use", [lambda source: list(read_rows(source)), source_digest], ids=["read", "digest"])
def test_splits_of_a_folder_are_not_mixed_in_silence(folder, present, use):
    path = folder(*present)
    with pytest.raises(DataError, match=r"belong to several splits \(train, test\): ") as caught:
        use(Source(path=path))
    assert all(name in str(caught.value) for name in present[:2])
    assert f"Say which to read, for instance `{{path: {path}, split: train}}`, or name the files as a list." in str(
        caught.value
    )


def test_files_of_one_split_need_no_word(folder):
    assert names(folder("more.jsonl", "train-1.jsonl", "train-2.jsonl")) == [
        "more.jsonl",
        "train-1.jsonl",
        "train-2.jsonl",
    ]


def test_damage_in_a_folder_names_the_file(folder, tmp_path):
    path = folder("a.jsonl", "b.parquet")
    (tmp_path / "prefs" / "b.parquet").write_bytes(b"torn" * 9)
    with pytest.raises(DataError, match=rf"^The preference data {path}/b\.parquet cannot be read: Parquet magic bytes"):
        names(path)


def test_digest_of_a_folder_is_of_its_files_and_their_names(folder, tmp_path):
    path = folder("train.jsonl", "sub/train.parquet", "README.md")
    known = source_digest(Source(path=path))
    folder(".hidden.jsonl", "notes.txt")
    (tmp_path / "prefs" / "README.md").write_text("changed")
    assert source_digest(Source(path=path)) == source_digest(Source(path=path + "/")) == known
    folder("train2.jsonl")
    more = source_digest(Source(path=path))
    (tmp_path / "prefs" / "train2.jsonl").write_text("{}")
    changed = source_digest(Source(path=path))
    (tmp_path / "prefs" / "train2.jsonl").rename(tmp_path / "prefs" / "train3.jsonl")
    assert len({known, more, changed, source_digest(Source(path=path))}) == 4


def test_digest_of_a_split_of_a_folder_is_of_its_files_alone(folder):
    train = Source(path=folder("train.jsonl"), split="train")
    known = source_digest(train)
    folder("test.jsonl")
    assert source_digest(train) == known
    asked = []
    source_digest(train, lambda path: asked.append(path.name) or "")
    assert asked == ["train.jsonl"]


def test_a_link_out_of_a_folder_is_not_followed(folder, tmp_path):
    path = folder("a.jsonl", "inner/b.jsonl")
    (tmp_path / "secret.jsonl").write_text('{"file": "secret"}')
    (tmp_path / "prefs/inside.jsonl").symlink_to("a.jsonl")
    assert names(path) == ["a.jsonl", "inner/b.jsonl", "a.jsonl"]
    (tmp_path / "prefs/inner/c.jsonl").symlink_to("../../secret.jsonl")
    for use in (names, lambda path: source_digest(Source(path=path))):
        with pytest.raises(DataError) as error:
            use(path)
        assert f"{path}/inner/c.jsonl is a link to {tmp_path / 'secret.jsonl'}, which lies outside of" in str(
            error.value
        )
        assert str(error.value).endswith("put the file there, or name it itself in `data.train` or `data.eval`.")


def test_a_snapshot_in_the_cache_of_the_hub_is_links_to_its_blobs(tmp_path):
    snapshot, blobs = tmp_path / "snapshots/0af9/data", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1234").write_text('{"file": "blob"}')
    (snapshot / "train.jsonl").symlink_to("../../../blobs/1234")
    assert names(str(snapshot)) == names(str(snapshot.parent)) == ["blob"]


def test_a_script_beside_the_data_is_never_run(folder, tmp_path):
    path = folder("a.jsonl")
    (tmp_path / "prefs/prefs.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')")
    assert names(path) == ["a.jsonl"]
    assert not (tmp_path / "was-run").exists()
