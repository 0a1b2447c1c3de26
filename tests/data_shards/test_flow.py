"""Pairs of frames and their motion, from files to batches: cut and mirrored together."""

import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_shards.building.inspection.contact_sheet import contact_sheet
from data_shards.building.inspection.verification import verify
from data_shards.config import DataConfig
from data_shards.loading.sample import prepare
from data_shards.loading.streams import eval_loader, train_loader
from data_shards.modalities.decoding import flow as decoder
from data_shards.modalities.decoding.image import pixels
from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.sources import table

ROWS, COLUMNS = 12, 20


def flo(motion: np.ndarray) -> bytes:
    """As the format's description has it: number by number."""
    height, width, _ = motion.shape
    values = [value for row in motion.tolist() for pixel in row for value in pixel]
    return b"PIEH" + struct.pack("<ii", width, height) + struct.pack(f"<{len(values)}f", *values)


def ppm(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PPM")
    return file.getvalue()


def grid() -> np.ndarray:
    """Each pixel's row and column."""
    return np.stack(np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij"), axis=-1)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Pairs that say where a pixel was: red its row, green its column, blue its frame; so does the motion."""
    lines = ["first,second,flow,split"]
    for number in range(8):
        frames = [np.dstack([grid(), np.full((ROWS, COLUMNS), place)]).astype(np.uint8) for place in (1, 2)]
        for name, frame in zip("ab", frames, strict=True):
            (tmp_path / f"{number}{name}.ppm").write_bytes(ppm(frame))
        # To the right by the column + 1, down by the row.
        (tmp_path / f"{number}.flo").write_bytes(flo(grid()[..., ::-1] + np.array([1, 0])))
        lines.append(f"{number}a.ppm,{number}b.ppm,{number}.flo,{'test' if number > 5 else 'train'}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "table.csv"


@pytest.fixture
def shards(pairs: Path) -> Path:
    table.build(pairs, pairs.parent / "shards")
    return pairs.parent / "shards"


def config(shards: Path, flow: FlowConfig) -> DataConfig:
    return DataConfig(shards=str(shards), inputs={"flow": flow}, lanes=2, window=4)


def test_motion_is_read_and_the_unknown_is_not_a_number() -> None:
    motion = np.array([[[0.5, -2.0], [1e9, 0.0], [3.0, 1.7e9]]], np.float32)
    found = decoder.motion(flo(motion))
    np.testing.assert_array_equal(found, [[[0.5, -2.0], [np.nan, np.nan], [np.nan, np.nan]]])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not a .flo file"),
        (b"PNG!" + bytes(20), "not a .flo file"),
        (flo(np.zeros((2, 3, 2)))[:-1], r"corrupt motion \(59 bytes, 60 for 3 x 2 pixels\)"),
        (b"PIEH" + struct.pack("<ii", 1 << 16, 1 << 16), "claims the motion of 65536 x 65536 pixels"),
        (b"PIEH" + struct.pack("<ii", -3, -2) + bytes(48), "claims the motion of -3 x -2 pixels"),
    ],
)
def test_bad_motion_is_refused_in_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        decoder.motion(data)


def test_training_cuts_frames_and_motion_together_anywhere(shards: Path) -> None:
    places = set()
    with train_loader(config(shards, FlowConfig(height=5, width=7)), seed=0, global_batch=6) as loader:
        batches = [loader(index) for index in range(4)]
    for batch in batches:
        assert batch.arrays["flow"].dtype == torch.uint8
        assert batch.lengths["flow"].tolist() == [2] * 6
        for frames, motion in zip(batch.arrays["flow"].int(), batch.targets["flow"], strict=True):
            assert (frames[..., 2].unique(dim=1) == torch.tensor([1, 2])[:, None, None]).all()
            assert torch.equal(motion, torch.stack([frames[0, ..., 1] + 1, frames[0, ..., 0]], dim=-1).float())
            assert torch.equal(frames[0, ..., :2], frames[1, ..., :2])
            top, left = frames[0, 0, 0, :2].tolist()
            assert torch.equal(frames[0, ..., :2], torch.from_numpy(grid())[top : top + 5, left : left + 7])
            places.add((top, left))
    assert len(places) > 8


def test_a_mirrored_pair_moves_the_other_way(shards: Path) -> None:
    mirrored = []
    with train_loader(
        config(shards, FlowConfig(height=ROWS, width=COLUMNS, flip=True)), seed=0, global_batch=6
    ) as loader:
        batches = [loader(index) for index in range(4)]
    for batch in batches:
        for frames, motion in zip(batch.arrays["flow"].float(), batch.targets["flow"], strict=True):
            mirrored.append(bool(frames[0, 0, 0, 1] > 0))
            sign = -1 if mirrored[-1] else 1
            assert torch.equal(motion, torch.stack([sign * (frames[0, ..., 1] + 1), frames[0, ..., 0]], dim=-1))
    assert 4 < sum(mirrored) < 20


def test_evaluation_cuts_larger_frames_about_the_centre(shards: Path) -> None:
    loader, _ = eval_loader(
        config(shards, FlowConfig(height=5, width=7, test_height=8, test_width=10)), "test", global_batch=2
    )
    with loader:
        batch = loader(0)
    assert batch.arrays["flow"].shape == (2, 2, 8, 10, 3)
    assert torch.equal(batch.arrays["flow"][0, 0, ..., :2].int(), torch.from_numpy(grid())[2:10, 5:15].int())
    assert torch.equal(batch.targets["flow"][0, ..., 1], batch.arrays["flow"][0, 0, ..., 0].float())


def test_frames_that_are_too_small_are_bad_samples(shards: Path) -> None:
    with (
        train_loader(config(shards, FlowConfig(height=ROWS + 1, width=7)), seed=0, global_batch=6) as loader,
        pytest.raises(ValueError, match=r": \d+: frames of 12 x 20 pixels are smaller than the 13 x 7"),
    ):
        loader(0)


def test_a_bad_member_of_a_pair_is_named_once() -> None:
    members = {"first.ppm": ppm(np.zeros((2, 3, 3), np.uint8)), "second.ppm": ppm(np.zeros((2, 3, 3), np.uint8))}
    flow = DataConfig(inputs={"flow": FlowConfig(height=2, width=3)})
    with pytest.raises(ValueError, match=r"^a pair of frames is without its motion$"):
        prepare(members, flow)
    with pytest.raises(ValueError, match=r"^\.flo: not a \.flo file"):
        prepare({**members, "flo": b"PNG!"}, flow)


def test_pairs_are_verified_and_shown(shards: Path) -> None:
    report = verify(shards)
    assert report.ok
    frames, motion = [[ROWS, COLUMNS, 3]] * 2, [[ROWS, COLUMNS, 2]] * 2
    assert report.shapes == {"flow": frames, "flow.second": frames, "flow.motion": motion}
    assert contact_sheet(shards, shards / "sheet.png", num_samples=2) == 2
    sheet = pixels((shards / "sheet.png").read_bytes()).astype(int)
    # Arrows.
    assert ((sheet[..., 0] > 200) & (sheet[..., 1:].max(axis=-1) < 60)).sum() > 50


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("3b.ppm", b"P6", r"line 5: .*3b\.ppm: .*Reached EOF"),
        ("3.flo", b"PIEH", r"line 5: .*3\.flo: not a \.flo file"),
        ("3.flo", flo(np.zeros((2, 3, 2))), "line 5: .*must be of one size, got 12 x 20, 12 x 20, 2 x 3"),
    ],
)
def test_a_build_refuses_pairs_that_are_none(pairs: Path, name: str, content: bytes, sentence: str) -> None:
    (pairs.parent / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        table.build(pairs, pairs.parent / "shards")


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("first,second\na.png,b.png\n", "line 2: has first and second; a pair of frames needs first, second and flow"),
        ("first,second,flow\na.png,b.txt,c.flo\n", r"line 2: 'b\.txt' is not a kind of second file that is read"),
        ("first,second,flow\na.png,b.png,c.jpg\n", r"line 2: 'c\.jpg' is not a kind of flow file that is read"),
    ],
)
def test_a_table_names_both_frames_and_their_motion(tmp_path: Path, lines: str, sentence: str) -> None:
    (tmp_path / "table.csv").write_text(lines)
    with pytest.raises(ValueError, match=sentence):
        table.read(tmp_path / "table.csv")


def test_what_evaluation_cuts_is_no_smaller_than_what_the_network_reads() -> None:
    problems = dict(FlowConfig(height=8, width=8, test_height=7, test_width=8).problems())
    assert problems == {"test_height": "must be at least 8, as in training, or 0, got 7"}
    assert replace(FlowConfig(height=8, width=9), test_height=16).of_evaluation().shape == (2, 16, 9, 3)
