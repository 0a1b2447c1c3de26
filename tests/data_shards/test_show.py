import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tokenizers import Tokenizer, models, pre_tokenizers

from data_shards.building import adoption
from data_shards.building.builder import build_table
from data_shards.building.inspection import contact_sheet as show
from data_shards.building.inspection.contact_sheet import contact_sheet
from data_shards.building.inspection.spread_samples import spread
from data_shards.building.raw_sample import Literal, Row
from data_shards.format.annotations import OWN, Records
from data_shards.format.manifest import Manifest
from data_shards.modalities.decoding import audio, flow, image, points, video
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.modality import MAIN, Member
from data_shards.sources.digits import NAMES, Drawn


def build(folder: Path, number: int) -> None:
    rows = [
        Row(line, tuple(Drawn(line, 0, extension) for extension in ("mp4", "npy", "png", "txt", "wav")), label=line)
        for line in range(number)
    ]
    build_table(
        [*rows, Row(99, (Literal(b"costs $3", "txt"),))], folder, label_names=NAMES[:number], samples_per_shard=3
    )


def test_a_sheet_shows_every_modality_of_samples_of_all_shards(tmp_path: Path) -> None:
    build(tmp_path, 4)
    assert contact_sheet(tmp_path, tmp_path / "new" / "sheet.png", num_samples=9) == 5
    sheet = image.pixels((tmp_path / "new" / "sheet.png").read_bytes())
    # Five rows and six columns of cells; a cell with nothing in it is white.
    cells = [np.array_split(row, 6, axis=1) for row in np.array_split(sheet, 5, axis=0)]
    num_blank = sum(bool((cell == 255).all()) for row in cells for cell in row)
    assert num_blank == 0


def test_a_sheet_of_shards_that_are_gone_says_so(tmp_path: Path) -> None:
    build(tmp_path, 2)
    (tmp_path / "train" / "000000.tar").unlink()
    with pytest.raises(ValueError, match=r"000000.tar: cannot be read"):
        contact_sheet(tmp_path, tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="has no split 'test'"):
        contact_sheet(tmp_path, tmp_path / "sheet.png", split="test")
    build(tmp_path / "again", 2)
    with pytest.raises(ValueError, match="cannot be written"):
        contact_sheet(tmp_path / "again", tmp_path / "again" / "manifest.json" / "sheet.png")


def test_labels_are_those_that_training_takes_and_one_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, data in (
            ("a.txt", b"x"),
            ("a.json", b'{"tags": [0, 2], "weight": "1.2 kg"}'),
            ("b.txt", b"x"),
            ("b.cls", b"cat"),
        ):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    shards = adoption.index(tmp_path, records=Records(labels="tags"))
    assert contact_sheet(tmp_path, tmp_path / "sheet.png") == 2
    good, bad = ({"json": b'{"tags": [0, 2]}'}, {"cls": b"cat"})
    assert list(show._labels(good, shards)) == ["0", "2"]
    assert list(show._labels(bad, shards)) == [".cls: label is not a number from 0 to 1000000: 'cat'"]


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


def colours(number: int) -> np.ndarray:
    """Clips of `number` frames, each of one colour that says which it is."""
    return np.repeat(np.arange(number, dtype=np.uint8), 4 * 6 * 3).reshape(number, 4, 6, 3)


@pytest.mark.parametrize(("available", "shown"), [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3]), (10, [0, 3, 6, 9])])
def test_a_clip_is_shown_by_four_frames_from_first_to_last_two_by_two(
    axes: Axes, monkeypatch: pytest.MonkeyPatch, available: int, shown: list[int]
) -> None:
    monkeypatch.setattr(video, "video", lambda _, choose: colours(available)[choose(available)])
    VideoConfig.draw(axes, {MAIN: Member("", b"")})
    picture = np.asarray(axes.images[0].get_array())
    assert picture.shape == (10, 14, 3)
    for place in range(4):
        row, column = 5 * (place // 2), 7 * (place % 2)
        expected = shown[place] if place < len(shown) else 255
        assert (picture[row : row + 4, column : column + 6] == expected).all()
    assert (picture[[4, 9]] == 255).all()
    assert (picture[:, [6, 13]] == 255).all()
    assert not axes.axison


def test_a_sound_is_shown_as_its_spectrogram_over_seconds_and_kilohertz(
    axes: Axes, monkeypatch: pytest.MonkeyPatch
) -> None:
    tone = np.sin(2 * np.pi * 2_000 * np.arange(16_000) / 8_000).astype(np.float32)
    monkeypatch.setattr(audio, "audio", lambda _: (tone, 8_000))
    AudioConfig.draw(axes, {MAIN: Member("", b"")})
    (image,) = axes.images
    assert image.get_extent() == [0, 2, 0, 4]
    assert image.origin == "lower"
    decibels = np.asarray(image.get_array())
    # Half of the highest frequency; a window of 256 samples has 129 of them, and begins every 64.
    assert decibels.shape == (129, (16_000 - 256) // 64 + 1)
    assert (decibels.argmax(axis=0) == 64).all()
    # The power of a sine of this height in a Hann window: (256 / 4) squared.
    assert decibels.max() == pytest.approx(20 * np.log10(256 / 4), abs=0.2)
    assert image.get_clim()[0] == pytest.approx(decibels.max() - 60)


@pytest.mark.parametrize("num_samples", [1, 15, 127, 129])
def test_a_sound_of_any_length_is_shown(axes: Axes, monkeypatch: pytest.MonkeyPatch, num_samples: int) -> None:
    monkeypatch.setattr(audio, "audio", lambda _: (np.zeros(num_samples, np.float32), 1_000))
    AudioConfig.draw(axes, {MAIN: Member("", b"")})
    window = 16
    assert np.asarray(axes.images[0].get_array()).shape == (9, (max(window, num_samples) - window) // 4 + 1)
    assert axes.images[0].get_extent()[1] == max(window, num_samples) / 1_000
    # Silence: 1e-10 keeps the logarithm finite.
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), -100)


def test_a_cloud_is_shown_from_the_front_with_its_depth_as_colour(axes: Axes, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    monkeypatch.setattr(points, "cloud", lambda _: points.Cloud(cloud))
    PointsConfig.draw(axes, {MAIN: Member("", b"")})
    (dots,) = axes.collections
    np.testing.assert_array_equal(dots.get_offsets(), cloud[:, :2])
    np.testing.assert_array_equal(dots.get_array(), cloud[:, 2])
    assert axes.get_aspect() == 1


@pytest.mark.parametrize(("rows", "columns"), [(3, 40), (40, 80)])
def test_arrows_begin_at_pixels_and_say_where_these_go(
    axes: Axes, monkeypatch: pytest.MonkeyPatch, rows: int, columns: int
) -> None:
    down, right = np.mgrid[:rows, :columns]
    motion = np.stack([1000 * down + right, -down], axis=-1).astype(np.float32)
    frame = np.zeros((rows, columns, 3), np.uint8)
    monkeypatch.setattr(flow, "pair", lambda _: (frame, frame, motion))
    FlowConfig.draw(axes, {})
    (arrows,) = axes.collections
    places = np.asarray(arrows.XY).astype(int)
    assert len(places) == min(rows, 8) * min(columns, 8)
    for (column, row), right_by, down_by in zip(places, arrows.U, arrows.V, strict=True):
        assert (right_by, down_by) == (1000 * row + column, -row)
    # None at the border, and as far from one as from the other.
    assert places[:, 0].min() > 0
    assert abs(places[:, 0].min() - (columns - 1 - places[:, 0].max())) <= 1
    assert arrows.angles == "xy"


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_text_is_shown_with_its_end_or_with_a_sign_that_it_goes_on(axes: Axes) -> None:
    for length in (160, 161):
        TextConfig.draw(axes, {MAIN: Member("", b"x" * length)})
    assert words(axes) == ["x" * 160, "x" * 160 + " ..."]
    assert not axes.axison


def test_a_text_is_shown_in_the_tokens_that_a_run_reads(axes: Axes, tmp_path: Path) -> None:
    known = Tokenizer(models.WordLevel({"[PAD]": 0, "a": 1, "dog": 2, "jumps": 3}, unk_token="[PAD]"))
    known.pre_tokenizer = pre_tokenizers.Whitespace()
    known.save(str(tmp_path / "tokenizer.json"))
    for section in (TextConfig(), TextConfig(tokenizer=str(tmp_path / "tokenizer.json"), num_tokens=2)):
        show._draw_input(axes, section, {"txt": b"a dog jumps"})
    assert words(axes) == ["a dog jumps", "a|dog\n(3 tokens, 2 read)"]


def test_what_cannot_be_decoded_is_told_in_red_in_its_place(axes: Axes) -> None:
    show._draw_input(axes, ImageConfig(), {"png": b"no\x1bpicture"})
    show._draw_input(axes, AudioConfig(), {"png": b""})
    assert [text.get_color() for text in axes.texts] == ["red", "black"]
    assert words(axes)[0].startswith("not an image: it begins with")
    assert words(axes)[1] == "-"


def test_samples_are_at_equal_distances_over_all_shards(tmp_path: Path) -> None:
    rows = [Row(line, (Literal(b"%d" % line, "txt"),)) for line in range(10)]
    shards = build_table(rows, tmp_path, samples_per_shard=4).split("train").shards
    everything = [key for key, _ in spread(tmp_path, shards, 99)]
    assert sorted(everything) == [f"{line:08d}" for line in range(10)]
    assert [key for key, _ in spread(tmp_path, shards, 4)] == [everything[place] for place in (0, 3, 6, 9)]
    assert [key for key, _ in spread(tmp_path, shards, 1)] == everything[:1]


def test_a_label_has_its_name_and_one_without_a_name_its_number() -> None:
    contents = Manifest({}, ("cat", "dog"), {"kind": ("one",)}, records=OWN)
    members = {"cls": b"1", "json": b'{"labels": [1, 0, 2], "named_labels": {"kind": 0, "other": 4}}'}
    assert list(show._labels(members, contents)) == ["dog", "cat", "2", "kind: one", "other: 4"]
    assert list(show._labels({"txt": b"x"}, contents)) == []
