"""`perceiver data index` and `data verify` say on standard output, or as JSON, all that a user should know."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch.data import app


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
    assert "members that are not read: 1 .left.jpg" in told
    assert "1 records have 'weight', which is not taken; --weight-from weight takes it" in told
    found = CliRunner().invoke(app, ["index", str(folder), "--json", "--labels-from", "tags"]).stdout
    assert json.loads(found)["labels"] == ["0", "1"]
    assert json.loads(found)["notes"][0].startswith("members that are not read: 1 .left.jpg")


def test_an_index_folder_is_what_is_reported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out")
    told = CliRunner().invoke(app, ["index", str(folder), "--index-folder", str(out)]).stdout
    assert f"{out}/train: 1 samples in 1 shards" in " ".join(told.split())
    assert sorted(path.name for path in folder.iterdir()) == ["0.tar"]
