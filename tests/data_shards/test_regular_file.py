"""A pipe among a user's files is named, and nobody waits for it."""

import os
from pathlib import Path

import pytest

from data_shards.building import adoption
from data_shards.sources import image_folder, table, text


@pytest.mark.timeout(20)
@pytest.mark.parametrize("place", ["picture", "tar", "caption", "text", "table"])
def test_a_pipe_is_refused_by_name(tmp_path: Path, place: str) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "cat").mkdir(parents=True)
    names = {"picture": "cat/0.png", "tar": "0.tar", "caption": "0.txt", "text": "0.txt", "table": "0.csv"}
    os.mkfifo(folder / names[place])
    rows = folder / "rows.csv"
    rows.write_text("text,label\n0.txt,0\n")
    build = {
        "picture": lambda: image_folder.build(folder, out),
        "tar": lambda: adoption.index(folder),
        "caption": lambda: table.build(rows, out),
        "text": lambda: text.build({"train": folder}, out),
        "table": lambda: table.build(folder / names[place], out),
    }[place]
    with pytest.raises(ValueError, match=rf"{names[place]}.*is a pipe, no file; remove it|0.csv: no such file"):
        build()
