"""The commands on data know the files of a plug-in's modality: those of no other program are built, adopted, shown."""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from typer.testing import CliRunner

from configs import plugins
from launch.cli.main import app

PLUGIN = """
import io
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from perceiver_trainer import AudioInput, Modality, Prepared


@dataclass(frozen=True)
class Wave(Modality):
    modality: Literal["wave"] = "wave"
    num_samples: int = 8
    usual: ClassVar[tuple[str, ...]] = ("edf",)

    @property
    def shape(self):
        return (self.num_samples,)

    @property
    def sizes(self):
        return {"num_samples": self.num_samples, "num_channels": 1}

    def prepare(self, found, rng):
        return Prepared(found[""].decoded(decoded)[: self.num_samples], self.num_samples)

    @staticmethod
    def decoded_shape(role, content):
        return decoded(content).shape

    @staticmethod
    def draw(axes, found):
        axes.plot(found[""].decoded(decoded))


@dataclass(frozen=True)
class WaveInput(AudioInput):
    modality: Literal["wave"] = "wave"


def decoded(content):
    if len(content) % 4:
        raise ValueError(f"{len(content)} bytes are no numbers of four")
    return np.frombuffer(content, np.float32)
"""
CONFIG = """
plugins: [wave.py]
data: {inputs: {eeg: {modality: wave, members: "*edf"}}, lanes: 1, window: 4}
model:
  inputs: {eeg: {patch: 4, positions: {num_bands: 2}}}
  outputs: {label: {kind: label, num_classes: 2}}
"""


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No plug-in outlives its test."""
    yield
    plugins.use(())
    for name in [name for name in sys.modules if name.startswith("perceiver_plugins.")]:
        del sys.modules[name]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "wave.py").write_text(PLUGIN)
    (tmp_path / "run.yaml").write_text(CONFIG)
    return tmp_path / "run.yaml"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = []
    for number in range(4):
        (tmp_path / f"{number}.edf").write_bytes(np.sin(np.arange(10, dtype=np.float32) + number).tobytes())
        rows.append({"member.head": f"{number}.edf", "label": number % 2})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "rows.jsonl"


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(4):
            content = np.sin(np.arange(10, dtype=np.float32) + number).tobytes()
            for suffix, data in (("edf", content), ("cls", str(number % 2).encode())):
                header = tarfile.TarInfo(f"{number}.{suffix}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    return tmp_path / "tars"


def perceiver(*words: object) -> str:
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_table_names_files_that_a_plugin_alone_can_read(table: Path, config: Path, tmp_path: Path) -> None:
    words = ("data", "build", "table", table, tmp_path / "shards", "--jobs", "1")
    with pytest.raises(ValueError, match=r"line 1: '0\.edf' is not a kind of file that is read"):
        perceiver(*words)
    assert "4 samples in 1 shard" in perceiver(*words, "--config", config)


def test_a_file_that_a_plugin_refuses_is_a_bad_row(table: Path, config: Path, tmp_path: Path) -> None:
    (tmp_path / "1.edf").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"line 2: .*1\.edf: 5 bytes are no numbers of four"):
        perceiver("data", "build", "table", table, tmp_path / "shards", "--jobs", "1", "--config", config)


def test_tars_of_files_that_a_plugin_alone_can_read_are_adopted(tars: Path, config: Path) -> None:
    with pytest.raises(ValueError, match=r"000000\.tar: .*edf"):
        perceiver("data", "index", tars)
    told = perceiver("data", "index", tars, "--config", config)
    assert "4 samples in 1 shard" in told
    assert "not read" not in told


def test_a_sheet_has_the_inputs_of_a_run_as_its_plugins_draw_them(tars: Path, config: Path, tmp_path: Path) -> None:
    perceiver("data", "index", tars, "--config", config)
    perceiver("data", "show", tars, "--samples", "2", "--out", tmp_path / "sheet.png", "--config", config)
    sheet = matplotlib.image.imread(tmp_path / "sheet.png")[..., :3]
    # Two rows and two columns; the curves are in the colour of a first line.
    assert sheet.shape[0] > sheet.shape[1]
    assert (np.abs(sheet - matplotlib.colors.to_rgb("C0")).sum(axis=-1) < 0.1).sum() > 100


@pytest.mark.slow
def test_processes_that_build_and_verify_know_the_plugin_too(table: Path, config: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    jobs = ("--jobs", "2", "--config", config)
    perceiver("data", "build", "table", table, shards, "--samples-per-shard", "2", *jobs)
    assert "4 samples, 0 bad\nshapes: eeg [10]" in perceiver("data", "verify", shards, *jobs)


@pytest.mark.parametrize("method", ["decoded_shape", "draw"])
def test_a_mistake_in_a_plugin_is_told_with_its_line_and_makes_no_sample_bad(
    table: Path, config: Path, tmp_path: Path, method: str
) -> None:
    inner = {"decoded_shape": "decoded(content).shape", "draw": 'axes.plot(found[""].decoded(decoded))'}[method]
    broken = PLUGIN.replace(inner, f"None.no_such # {method}")
    (tmp_path / "wave.py").write_text(broken)
    line = 1 + broken[: broken.index("None.no_such")].count("\n")
    words: tuple[object, ...] = ("data", "build", "table", table, tmp_path / "shards")
    words += ("--jobs", "1", "--max-bad", "4", "--config", config)
    if method == "draw":
        perceiver(*words)
        words = ("data", "show", tmp_path / "shards", "--out", tmp_path / "sheet.png", "--config", config)
    with pytest.raises(Exception, match="no_such") as told:
        perceiver(*words)
    assert f"{tmp_path}/wave.py:{line}: in {method}, AttributeError: " in plugins.plugin_files.fault_in(told.value)
