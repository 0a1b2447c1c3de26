"""`perceiver data index` and `data verify` say on standard output, or as JSON, all that a user should know."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from configs.run import load
from data_shards.building.inspection.verification import Bad, Report
from data_shards.format.annotations import Records
from data_shards.format.manifest import Manifest
from launch.cli.data import app

Door = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, data in (("a.txt", b"x"), ("a.left.jpg", b"x"), ("a.json", b'{"tags": [1], "weight": 2}')):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return tmp_path


def test_what_is_passed_over_is_printed_or_in_the_json(folder: Path) -> None:
    told = CliRunner().invoke(app, ["index", str(folder)]).stdout
    assert "as data.inputs.NAME.members=left.jpg of a run: 1 .left.jpg" in told
    assert "1 record has 'weight', which is not taken; --weight-from weight takes it" in told
    found = CliRunner().invoke(app, ["index", str(folder), "--json", "--labels-from", "tags"]).stdout
    assert json.loads(found)["labels"] == ["0", "1"]
    assert json.loads(found)["notes"][0].endswith("as data.inputs.NAME.members=left.jpg of a run: 1 .left.jpg")


def test_an_index_folder_is_what_is_reported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out")
    told = CliRunner().invoke(app, ["index", str(folder), "--index-folder", str(out)]).stdout
    assert f"{out}/train: 1 sample in 1 shard" in " ".join(told.split())
    assert sorted(path.name for path in folder.iterdir()) == ["0.tar"]


IN, MANIFEST = Path("in"), Manifest({}, ("a",))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"records": None, "index_folder": None}),
        (["--index-folder", "out"], {"records": None, "index_folder": Path("out")}),
        (["--labels-from", "tags"], {"records": Records("tags", "", ""), "index_folder": None}),
        (["--named-labels-from", "more"], {"records": Records("", "more", ""), "index_folder": None}),
        (["--weight-from", "score"], {"records": Records("", "", "score"), "index_folder": None}),
        # An empty name is one that takes nothing, and not what was taken before.
        (["--weight-from", ""], {"records": Records(), "index_folder": None}),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_an_index_takes_the_fields_and_the_folder_that_were_named(
    door: Door, words: list[str], expected: dict[str, object], as_json: bool
) -> None:
    def index(progress: Callable[[int, int], None], tell: Callable[[str], None], **_: object) -> Manifest:
        progress(3, 7)
        tell("three are\x1b left")
        return MANIFEST

    calls = door("data_shards.building.adoption.index", index)
    result = CliRunner().invoke(app, ["index", "in", *words, *["--json"] * as_json], catch_exceptions=False)
    [given] = calls
    assert {name: value for name, value in given.items() if name not in ("progress", "tell")} == {
        "folder": IN,
        **expected,
    }
    assert "3/7" in result.stderr
    assert "index " in result.stderr
    assert "\x1b left" not in result.output
    if as_json:
        folder = str(expected["index_folder"] or "in")
        assert json.loads(result.stdout) == {
            "folder": folder,
            "splits": {},
            "labels": ["a"],
            "notes": ["three are\x1b left"],
        }
    else:
        assert result.stdout.startswith("three are")


BAD = Report(
    samples=9,
    left_out=2,
    bad=[Bad("a.tar", "x", "is\x1b no picture")],
    incomplete=[Bad("b.tar", "y", "has no sound")],
    shapes={"image": [[4, 4, 3], [8, 9, 3]], "text": [[7], [7]]},
    labels={"cat": 5, "d\x1bog": 4},
)


def test_what_is_bad_is_listed_counted_and_ends_with_status_1(door: Door) -> None:
    def verify(progress: Callable[[int, int], None], **_: object) -> Report:
        progress(3, 7)
        return BAD

    door("data_shards.building.inspection.verification.verify", verify)
    result = CliRunner().invoke(app, ["verify", "in"], catch_exceptions=False)
    assert result.exit_code == 1
    assert "3/7" in result.stderr
    assert "verify " in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("bad: a.tar x: is")
    assert lines[1] == "incomplete: b.tar y: has no sound"
    assert lines[2] == "9 samples, 1 bad, 1 incomplete, 2 left out by data.require"
    assert lines[3] == "shapes: image [4, 4, 3] to [8, 9, 3], text [7]"
    assert lines[4].startswith("labels: cat 5, d")
    assert len(lines) == 5
    assert "\x1b" not in result.stdout


def test_a_reason_that_many_samples_have_is_printed_for_twenty_and_the_rest_are_counted(door: Door) -> None:
    bad = [Bad("a.tar", f"k{number}", "is too large" if number % 2 else "is no picture") for number in range(45)]
    door("data_shards.building.inspection.verification.verify", Report(samples=99, bad=bad))
    lines = CliRunner().invoke(app, ["verify", "in"], catch_exceptions=False).stdout.splitlines()
    listed = [line for line in lines if line.startswith("bad: a.tar k")]
    assert listed == [f"bad: {each.shard} {each.key}: {each.reason}" for each in bad[:40]]
    more = "more, for the same reason (--json lists them)"
    assert lines[40:43] == [
        f"bad: 2 {more}: is too large",
        f"bad: 3 {more}: is no picture",
        "99 samples, 45 bad",
    ]


def test_shards_without_a_fault_end_with_status_0_and_no_word_of_faults(door: Door) -> None:
    door("data_shards.building.inspection.verification.verify", Report(samples=9))
    result = CliRunner().invoke(app, ["verify", "in"], catch_exceptions=False)
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "9 samples, 0 bad")
    assert "bad:" not in result.stdout


@pytest.mark.parametrize(("report", "is_well"), [(BAD, False), (Report(samples=9), True)])
def test_a_program_reads_all_that_was_found_and_whether_it_is_well(door: Door, report: Report, is_well: bool) -> None:
    door("data_shards.building.inspection.verification.verify", report)
    result = CliRunner().invoke(app, ["verify", "in", "--json"], catch_exceptions=False)
    assert result.exit_code == (0 if is_well else 1)
    assert json.loads(result.stdout) == {**asdict(report), "ok": is_well}


def test_verify_reads_as_the_configuration_does_and_in_as_many_processes(door: Door) -> None:
    calls = door("data_shards.building.inspection.verification.verify", Report())
    config = Path(__file__).parents[2] / "configs" / "digits.yaml"
    for words in ([], ["--config", str(config), "--jobs", "1"]):
        assert CliRunner().invoke(app, ["verify", "in", *words], catch_exceptions=False).exit_code == 0
    usual, asked = calls
    assert (usual["folder"], usual["config"], usual["num_jobs"]) == (IN, None, 2)
    assert (asked["config"], asked["num_jobs"]) == (load(config).data, 1)


def test_a_contact_sheet_is_drawn_of_what_was_asked_for_and_named(door: Door) -> None:
    calls = door("data_shards.building.inspection.contact_sheet.contact_sheet", 8)
    usual = CliRunner().invoke(app, ["show", "in"], catch_exceptions=False)
    asked = CliRunner().invoke(app, ["show", "in", "--out", "a\x1b.png", "--split", "val", "--samples", "1"])
    assert usual.stdout == "wrote contact_sheet.png\n"
    assert asked.stdout.startswith("wrote a")
    assert "\x1b" not in asked.stdout
    assert calls == [
        {"folder": IN, "out_png": Path("contact_sheet.png"), "split": "train", "num_samples": 8, "inputs": None},
        {"folder": IN, "out_png": Path("a\x1b.png"), "split": "val", "num_samples": 1, "inputs": None},
    ]
    assert CliRunner().invoke(app, ["show", "in", "--samples", "0"]).exit_code == 2
    assert CliRunner().invoke(app, ["verify", "in", "--jobs", "0"]).exit_code == 2


def test_help_says_what_there_is_and_what_it_is_for(explained: Callable[[typer.Typer], None]) -> None:
    assert app.info.help
    explained(app)
    told = CliRunner().invoke(app, ["build"]).stdout
    assert "image-folder" in told
    # The published layouts stand under a head of their own.
    assert told.index("image-folder") < told.index("Data sets in their published layout") < told.index("imagenet")


@pytest.mark.parametrize(
    ("command", "function", "is_needed"),
    [
        ("index", "data_shards.building.adoption.index", False),
        ("verify", "data_shards.building.inspection.verification.verify", True),
        ("show", "data_shards.building.inspection.contact_sheet.contact_sheet", True),
    ],
)
@pytest.mark.parametrize("more", [[], ["--trust-code"]])
def test_the_configuration_of_a_run_is_read_and_its_code_trusted_where_that_is_said(
    door: Door, command: str, function: str, is_needed: bool, more: list[str]
) -> None:
    config = Path(__file__).parents[2] / "configs" / "digits.yaml"
    calls = door(function, {"index": MANIFEST, "verify": Report(), "show": 8}[command])
    trusted = door("configs.plugins.trust", None)
    assert CliRunner().invoke(app, [command, "in", *more], catch_exceptions=False).exit_code == 0
    assert trusted == []
    words = [command, "in", "--config", str(config), *more]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert trusted == [{"run": config.parent}] * len(more)
    data = load(config).data
    read = {"verify": ("config", data), "show": ("inputs", data.ordered_inputs)}
    if is_needed:
        name, expected = read[command]
        assert [given[name] for given in calls] == [None, expected]


def test_values_are_taken_from_the_field_that_was_named(door: Door) -> None:
    calls = door("data_shards.building.adoption.index", MANIFEST)
    assert CliRunner().invoke(app, ["index", "in", "--values-from", "."], catch_exceptions=False).exit_code == 0
    assert [given["records"] for given in calls] == [Records("", "", "", ".")]
