"""What `perceiver data build` tells a person, and a program."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from data_shards.format.manifest import Manifest, ShardEntry, Shards, Split
from launch.cli.build import app

Door = Callable[..., list[dict[str, Any]]]


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures each of two classes, and a file that is none."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "in" / name / f"{number}.png").write_bytes(file.getvalue())
    (tmp_path / "in" / "cat" / "note.md").touch()
    return tmp_path / "in"


def test_what_is_passed_over_and_that_nothing_is_evaluated_is_told(folder: Path, tmp_path: Path) -> None:
    told = run("image-folder", folder, tmp_path / "out")
    assert "skipped, no image file (png, jpg, jpeg, webp, bmp, tif, tiff): 1 .md\n" in told
    assert "no folder of a split: all 20 files are for training\n" in told
    assert "nothing can be evaluated; `perceiver data build SOURCE --help` says how" in told
    assert f"{tmp_path}/out/train: 20 samples in 1 shard" in told
    assert f"{tmp_path}/out: 2 classes: cat, dog\n" in told


def test_a_test_share_is_set_aside(folder: Path, tmp_path: Path) -> None:
    told = run("image-folder", folder, tmp_path / "out", "--test-share", "0.2")
    assert "set aside for the split test: 4 of 20 samples\n" in told
    assert "nothing can be evaluated" not in told
    assert f"{tmp_path}/out/test: 4 samples" in told


def test_a_program_reads_the_notes_in_the_json(folder: Path, tmp_path: Path) -> None:
    told = json.loads(run("image-folder", folder, tmp_path / "out", "--json"))
    assert told["splits"]["train"]["samples"] == 20
    assert any("1 .md" in note for note in told["notes"])


@pytest.mark.parametrize("source", ["table", "videos"])
def test_rows_without_a_label_are_counted(folder: Path, tmp_path: Path, source: str) -> None:
    (tmp_path / "table.csv").write_text("text,label\na,0\nb,\nc,nan\n")
    assert "label: 2 of 3 rows have none\n" in run(source, tmp_path / "table.csv", tmp_path / "out")


USUAL = {"seed": 0, "samples_per_shard": 1000, "max_bad": 0, "num_jobs": 2, "test_share": 0.0}
TOLD = {"seed": 5, "samples_per_shard": 1, "max_bad": 3, "num_jobs": 1, "test_share": 0.25}
FLAGS = ["--seed", "5", "--samples-per-shard", "1", "--max-bad", "3", "--jobs", "1", "--test-share", "0.25"]
OF_TEXT = {name: USUAL[name] for name in ("seed", "samples_per_shard", "num_jobs")}
OF_PAIRS = {name: USUAL[name] for name in ("seed", "num_jobs")}
IN, OUT = Path("in"), Path("out")


def split(num_samples: int, num_shards: int = 1) -> Split:
    shard = ShardEntry("x.tar", num_samples, 100, "0" * 64, "0" * 64, {})
    return Split(Shards.of([shard] * num_shards), (num_samples * num_shards,))


@pytest.mark.parametrize(
    ("source", "words", "expected"),
    [
        ("digits", ["digits", OUT], {"out": OUT} | OF_PAIRS),
        ("digits", ["digits", OUT, "--seed", "5", "--jobs", "1"], {"out": OUT, "seed": 5, "num_jobs": 1}),
        (
            "av_digits",
            ["av-digits", "--images", "a.zip", "--recordings", "b.zip", OUT],
            {"out": OUT, "images": Path("a.zip"), "recordings": Path("b.zip")} | OF_PAIRS,
        ),
        (
            "av_digits",
            ["av-digits", "--images", "a", "--recordings", "b", "--seed", "5", "--jobs", "1", OUT],
            {"out": OUT, "images": Path("a"), "recordings": Path("b"), "seed": 5, "num_jobs": 1},
        ),
        ("table", ["table", IN, OUT], {"table": IN, "out": OUT} | USUAL),
        ("table", ["table", IN, OUT, *FLAGS], {"table": IN, "out": OUT} | TOLD),
        ("image_folder", ["image-folder", IN, OUT], {"folder": IN, "out": OUT} | USUAL),
        ("image_folder", ["image-folder", IN, OUT, *FLAGS], {"folder": IN, "out": OUT} | TOLD),
        (
            "audio_folder",
            ["audio-folder", IN, OUT],
            {"folder": IN, "out": OUT, "segments": None, "classes": None} | USUAL,
        ),
        (
            "audio_folder",
            ["audio-folder", IN, OUT, "--train-csv", "a", "--test-csv", "b", "--classes", "c", *FLAGS],
            {"folder": IN, "out": OUT, "segments": {"train": Path("a"), "test": Path("b")}, "classes": Path("c")}
            | TOLD,
        ),
        (
            "audio_folder",
            ["audio-folder", IN, OUT, "--test-csv", "b"],
            {"folder": IN, "out": OUT, "segments": {"test": Path("b")}, "classes": None} | USUAL,
        ),
        ("point_clouds", ["point-clouds", IN, OUT], {"folder": IN, "out": OUT, "num_points": 2048} | USUAL),
        (
            "point_clouds",
            ["point-clouds", IN, OUT, "--num-points", "0", *FLAGS],
            {"folder": IN, "out": OUT, "num_points": 0} | TOLD,
        ),
        ("videos", ["videos", IN, OUT], {"source": IN, "out": OUT, "audio": True} | USUAL),
        ("videos", ["videos", IN, OUT, "--no-audio", *FLAGS], {"source": IN, "out": OUT, "audio": False} | TOLD),
        ("text", ["text", "--train", IN, OUT], {"files": {"train": IN}, "out": OUT, "num_bytes": 2048} | OF_TEXT),
        (
            "text",
            ["text", "--train", IN, "--test", "b", "--num-bytes", "4", "--samples-per-shard", "1", "--seed", "5",
             "--jobs", "1", OUT],
            {"files": {"train": IN, "test": Path("b")}, "out": OUT, "num_bytes": 4, "samples_per_shard": 1, "seed": 5,
             "num_jobs": 1},
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_json", [False, True])
def test_each_source_is_given_what_was_typed_and_tells_how_far_it_is(
    door: Door, source: str, words: list[str | Path], expected: dict[str, object], as_json: bool
) -> None:
    def build(*, options: dict[str, Any] | None = None, **given: Any) -> Manifest:  # noqa: ANN401  # of any source
        given |= options or {}
        given["progress"](3, 7)
        if "tell" in given:
            given["tell"]("three are\x1b left")
        return Manifest({"train": split(3), "test": split(2, 2)}, ("a", "b"))

    calls = door(f"data_shards.sources.{source}.build", build)
    result = CliRunner().invoke(app, [*map(str, words), *["--json"] * as_json], catch_exceptions=False)
    assert result.exit_code == 0
    [given] = calls
    given |= given.pop("options", {})
    told = "tell" in given
    assert {name: value for name, value in given.items() if name not in ("progress", "tell")} == expected
    assert "3/7" in result.stderr
    name = source.replace("_", "-") if source in ("digits", "av_digits") else "in"
    assert f"{name} " in result.stderr
    assert (result.stderr if as_json else result.stdout).count("three are") == told
    assert "\x1b left" not in result.output
    if as_json:
        found = json.loads(result.stdout)
        assert found == {
            "folder": "out",
            "splits": {
                "train": {"samples": 3, "shards": 1, "bytes": 100},
                "test": {"samples": 4, "shards": 2, "bytes": 200},
            },
            "labels": ["a", "b"],
            "notes": ["three are\x1b left"] * told,
        }
    else:
        lines = result.stdout.splitlines()[told:]
        assert lines == [
            "out/train: 3 samples in 1 shard, 100 bytes",
            "out/test: 4 samples in 2 shards, 200 bytes",
            "out: 2 classes: a, b",
        ]


@pytest.mark.parametrize(
    "words",
    [
        ["digits", OUT, "--jobs", "0"],
        ["table", IN, OUT, "--max-bad", "-1"],
        ["table", IN, OUT, "--samples-per-shard", "0"],
        ["point-clouds", IN, OUT, "--num-points", "-1"],
        ["text", "--train", IN, OUT, "--num-bytes", "3"],
        ["text", OUT],
        ["av-digits", "--images", "a", OUT],
        ["av-digits", "--recordings", "a", OUT],
    ],
)
def test_a_number_that_makes_no_sense_and_a_word_that_is_missing_are_refused(words: list[str | Path]) -> None:
    assert CliRunner().invoke(app, list(map(str, words))).exit_code == 2


def test_nothing_to_evaluate_is_said_of_the_split_train_alone(door: Door) -> None:
    for names, is_said in ((["train"], True), (["test"], False), (["train", "test"], False)):
        door("data_shards.sources.table.build", Manifest({name: split(1) for name in names}, ()))
        told = run("table", IN, OUT)
        assert ("nothing can be evaluated" in told) == is_said


@pytest.mark.parametrize("out", ["in", "in/shards", "in/cat", "in/../in/dog/deep", "link/shards"])
def test_shards_are_not_written_among_the_files_that_they_are_made_of(folder: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "link").symlink_to(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match=r"lies in .*in, whose files are read; choose a folder outside it"):
        run("image-folder", folder, tmp_path / out)
    assert sorted(folder.rglob("*")) == before


def test_a_table_may_lie_beside_its_shards(folder: Path) -> None:
    (folder / "a.csv").write_text("image,label\ncat/1.png,0\n")
    assert "1 sample " in run("table", folder / "a.csv", folder / "shards")


def test_help_says_what_there_is_and_what_it_is_for(explained: Callable[[typer.Typer], None]) -> None:
    assert app.info.help
    explained(app)


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_a_seed_is_any_number_of_63_bits(door: Door, seed: int) -> None:
    calls = door("data_shards.sources.table.build", Manifest({"train": split(1)}, ()))
    run("table", IN, OUT, "--seed", str(seed))
    assert [given["options"]["seed"] for given in calls] == [seed]
    outside = -1 if seed == 0 else seed + 1
    assert CliRunner().invoke(app, ["table", "in", "out", "--seed", str(outside)]).exit_code == 2
    assert len(calls) == 1


@pytest.mark.parametrize("more", [[], ["--trust-code"]])
def test_the_plug_ins_of_a_table_are_those_of_the_run_that_was_named(
    door: Door, tmp_path: Path, more: list[str]
) -> None:
    door("data_shards.sources.table.build", Manifest({"train": split(1)}, ()))
    loaded, trusted = door("configs.run.load", None), door("configs.plugins.trust", None)
    run("table", IN, OUT, *more)
    assert (loaded, trusted) == ([], [])
    run("table", IN, OUT, "--config", tmp_path / "a.yaml", *more)
    assert [given["path"] for given in loaded] == [tmp_path / "a.yaml"]
    assert trusted == [{"run": tmp_path}] * len(more)
