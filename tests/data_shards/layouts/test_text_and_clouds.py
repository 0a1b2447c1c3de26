"""C4, Wikipedia, GLUE and ModelNet40: texts, sentences and clouds with their splits and classes."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data_shards.modalities.decoding import points
from data_shards.sources.catalogue import LAYOUTS

Build = Callable[..., Any]
Built = Any
Put = Callable[..., Path]


def texts(built: Built, split: str = "train") -> str:
    return "|".join(sample["txt"].decode() for sample in built.samples(split))


def c4(*lines: str) -> bytes:
    page = {"timestamp": "2019-04-25T12:57:54Z", "url": "https://example.org"}
    return gzip.compress("".join(json.dumps({"text": line, **page}) + "\n" for line in lines).encode())


def test_c4s_files_are_splits_by_their_names(build: Build, put: Put) -> None:
    put("en/c4-train.00000-of-01024.json.gz", c4("one page\nof two lines", "another"))
    put("en/c4-train.00001-of-01024.json.gz", c4("third"))
    put("en/c4-validation.00000-of-00008.json.gz", c4("held"))
    put("en/README.md")
    built = build("c4", "--num-bytes", 64)
    assert texts(built) == "one page\nof two lines\nanother\n|third\n"
    assert texts(built, "validation") == "held\n"
    assert "splits: train 2 files, validation 1 file" in built.told
    assert "skipped, no file of JSON lines: 1 .md" in built.told


WIKI = """<doc id="12" url="https://en.wikipedia.org/wiki?curid=12" title="Anarchism">
Anarchism

Anarchism is a text.
</doc>
<doc id="25" url="https://en.wikipedia.org/wiki?curid=25" title="Autism">
Autism

It is one too.
</doc>
"""


def test_wikipedias_documents_are_read_with_and_without_tags(build: Build, put: Put) -> None:
    put("AA/wiki_00", WIKI.encode())
    put("AA/wiki_01.gz", gzip.compress(WIKI.encode()))
    put("AB/wiki_00", b'{"id": "1", "revid": "2", "url": "u", "title": "T", "text": "json text"}\n')
    put("AB/log.txt", b"a log")
    built = build("wikipedia", "--num-bytes", 1024)
    plain = "Anarchism\n\nAnarchism is a text.\nAutism\n\nIt is one too.\n"
    assert texts(built) == f"{plain}|{plain}|json text\n"
    assert "skipped, no file wiki_NUMBER: 1 .txt" in built.told
    assert not list((built.folder / ".build").glob("text*"))


@pytest.mark.parametrize("name", [layout.name for layout in LAYOUTS])
def test_a_folder_that_is_not_there_is_refused(build: Build, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="gone: no such folder"):
        build(name, folder=tmp_path / "gone")


@pytest.mark.parametrize(
    ("name", "file", "sentence"),
    [
        ("c4", "a.txt", "no .json.gz file; expected c4-train.00000-of-01024.json.gz"),
        ("wikipedia", "a.txt", "no file wiki_NUMBER; name the folder that WikiExtractor wrote"),
        ("wikipedia", "AA/wiki_00", "wiki_00: expected <doc ...> or JSON lines, as WikiExtractor writes them"),
        ("glue", "a.txt", "no train.tsv here or in a folder of a task"),
        ("glue", "train.tsv", "has no name of a task; give it with --task, one of cola"),
        ("glue", "RTE/train.tsv", r"train.tsv: line 1: has no column label, sentence1, sentence2"),
    ],
)
def test_a_missing_piece_is_refused(build: Build, put: Put, name: str, file: str, sentence: str) -> None:
    put(file, b"some words\n")
    with pytest.raises(ValueError, match=sentence):
        build(name)


@pytest.mark.parametrize(
    ("columns", "is_refused"),
    [("sentence1\tsentence2\tsentence1\tlabel", True), ("note\tsentence1\tsentence2\tlabel\tnote", False)],
)
def test_a_column_that_is_needed_and_there_twice_is_refused(
    build: Build, put: Put, columns: str, is_refused: bool
) -> None:
    lines = (columns.replace("label", answer) for answer in ("label", "entailment", "not_entailment"))
    put("RTE/train.tsv", "\n".join(lines).encode())
    if is_refused:
        with pytest.raises(ValueError, match=r"train\.tsv: line 1: column 'sentence1' is there twice; leave one out"):
            build("glue")
    else:
        assert build("glue").counts == {"train": 2}


MNLI = "index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n"
GLUE = {
    "CoLA/train.tsv": 'gj04\t1\t\tOur friends won\'t "buy" this.\ngj04\t0\t*\tThem do.\n',
    "CoLA/dev.tsv": "gj04\t1\t\tThe sailors rode.\n",
    "CoLA/test.tsv": "index\tsentence\n0\tBill whistled.\n",
    "SST-2/train.tsv": "sentence\tlabel\nhide new secretions \t0\na charming film\t1\n",
    "SST-2/dev.tsv": "sentence\tlabel\nfine\t1\n",
    "MRPC/train.tsv": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tHe said\tHe told\n0\t3\t4\tA\tB\n",
    "QQP/train.tsv": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t1\t2\tHow?\tWhy?\t0\n2\t3\t4\tA?\tA ?\t1\n3\tcut\toff\n"
    ),
    "STS-B/train.tsv": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tg\tf\t2012\t1\tnone\tnone\tA plane\tAn air plane\t5.000\n"
    ),
    "MNLI/train.tsv": f"{MNLI}"
    + "".join(f"0\t1\t2\tg\tP{n}\tH{n}\t{n}\t{n}\n" for n in ("neutral", "entailment"))
    + "0\t1\t2\tg\tP\tH\tcontradiction\tcontradiction\n0\t1\t2\tg\tP\tH\t-\t-\n",
    "MNLI/dev_matched.tsv": f"{MNLI}0\t1\t2\tg\tP\tH\tneutral\tneutral\n",
    "MNLI/dev_mismatched.tsv": f"{MNLI}" + 2 * "0\t1\t2\tg\tP\tH\tneutral\tcontradiction\n",
    "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n0\tWhen?\tNow.\tentailment\n1\tWho?\tNo.\tnot_entailment\n",
    "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tnot_entailment\n1\tA\tB\tentailment\n",
    "WNLI/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA\tB\t1\n1\tA\tB\t0\n",
}
ALONE = {
    "CoLA": ({"train": 2, "dev": 1}, ["acceptable", "unacceptable"], 'Our friends won\'t "buy" this.'),
    "SST-2": ({"train": 2, "dev": 1}, ["negative", "positive"], "hide new secretions "),
    "MRPC": ({"train": 2}, ["equivalent", "not_equivalent"], "He said\nHe told"),
    "QQP": ({"train": 2}, ["not_duplicate", "duplicate"], "How?\nWhy?"),
    "MNLI": (
        {"train": 3, "dev": 1, "dev_mismatched": 2},
        ["neutral", "entailment", "contradiction"],
        "Pneutral\nHneutral",
    ),
    "QNLI": ({"train": 2}, ["entailment", "not_entailment"], "When?\nNow."),
    "RTE": ({"train": 2}, ["not_entailment", "entailment"], "A\nB"),
    "WNLI": ({"train": 2}, ["entailment", "not_entailment"], "A\nB"),
}


@pytest.fixture
def glue(put: Put) -> None:
    for name, data in GLUE.items():
        put(name, data.encode())


@pytest.mark.usefixtures("glue")
@pytest.mark.parametrize("task", ALONE)
def test_a_task_of_glue_alone_has_its_own_classes(build: Build, tmp_path: Path, task: str) -> None:
    counts, labels, text = ALONE[task]
    built = build("glue", folder=tmp_path / "raw" / task)
    assert built.counts == counts
    assert built.labels() == labels
    assert built.samples()[0]["txt"].decode() == text
    if "\n" in text:
        assert json.loads(built.samples()[0]["json"]) == dict(zip(("first", "second"), text.split("\n"), strict=True))


@pytest.mark.usefixtures("glue")
def test_similarity_is_a_number(build: Build, tmp_path: Path) -> None:
    built = build("glue", folder=tmp_path / "raw" / "STS-B")
    assert built.manifest.values == {"stsb": 1}
    assert json.loads(built.samples()[0]["json"])["values"] == {"stsb": [5.0]}


@pytest.mark.usefixtures("glue")
def test_all_tasks_of_glue_are_labels_by_name(build: Build) -> None:
    built = build("glue")
    assert built.counts == {"train": 18, "dev": 3, "dev_mismatched": 2}
    assert built.manifest.label_names == ()
    assert built.manifest.named_labels["mnli"] == ("entailment", "neutral", "contradiction")
    assert sorted(built.manifest.named_labels) == ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "wnli"]
    records = [json.loads(sample["json"]) for sample in built.samples()]
    assert sum("values" in record for record in records) == 1
    assert [r["named_labels"]["mnli"] for r in records if "mnli" in r.get("named_labels", {})] == [1, 0, 2]
    assert "1 of QQP/train.tsv without all cells" in built.told
    assert "1 of mnli without a known label" in built.told
    assert "skipped, no labelled file: 1 .tsv" in built.told


@pytest.mark.usefixtures("glue")
def test_a_task_can_be_named(build: Build, tmp_path: Path) -> None:
    (tmp_path / "raw" / "CoLA").rename(tmp_path / "elsewhere")
    assert build("glue", "--task", "cola", folder=tmp_path / "elsewhere").labels("dev") == ["acceptable"]


def test_modelnets_meshes_may_have_their_counts_behind_off(build: Build, put: Put) -> None:
    mesh = b"4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n"
    for name, head in (("airplane", b"OFF"), ("bathtub", b"OFF\n")):
        for number, split in enumerate(("train", "train", "test")):
            put(f"ModelNet40/{name}/{split}/{name}_{number:04d}.off", head + mesh)
    built = build("modelnet40", "--num-points", 50, folder=put("ModelNet40/README.txt").parent)
    assert built.counts == {"train": 4, "test": 2}
    assert built.labels("test") == ["airplane", "bathtub"]
    assert {points.points(sample["npy"]).shape for sample in built.samples()} == {(50, 3)}
    assert "splits: test 2 files in test, train 4 files in train" in built.told


def test_modelnets_hdf5_files_come_with_lists(build: Build, put: Put) -> None:
    clouds = np.random.default_rng(0).normal(size=(3, 2048, 3)).astype(np.float32)
    for name, part in (("ply_data_train0", slice(0, 2)), ("ply_data_test0", slice(2, 3))):
        with h5py.File(put(f"{name}.h5"), "w") as file:
            file["data"] = clouds[part]
            file["label"] = np.arange(3, dtype=np.uint8)[part, None] % 2
        put(f"{name.replace('0', '_0')}_id2file.json", b"[]")
    put("train_files.txt", b"data/modelnet40_ply_hdf5_2048/ply_data_train0.h5\n")
    put("shape_names.txt", b"airplane\nbathtub\n")
    built = build("modelnet40")
    assert built.counts == {"train": 2, "test": 1}
    assert built.labels() == ["airplane", "bathtub"]
    np.testing.assert_array_equal(points.points(built.samples("test")[0]["npy"]), clouds[2])
