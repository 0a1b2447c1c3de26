"""Kinds of inputs: what stands in for what is not there, what counts as absent, and what a person is shown."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from data_shards.modalities.encoding import flo, wav
from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.catalogue import MODALITIES, contents, held_by, inputs_of, usual_suffixes
from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.label import LabelConfig
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.modality import MAIN, Member, Modality
from data_shards.modalities.transform_config import LogMelConfig, MaskingConfig


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def drawn(kind: type[Modality] | Modality, content: bytes, **others: bytes) -> Axes:
    axes: Axes = Figure().subplots()
    members = {MAIN: Member("x", content)} | {role: Member(role, of) for role, of in others.items()}
    (kind.draw_as_read if isinstance(kind, Modality) else kind.draw)(axes, members)
    return axes


GAPS: dict[str, Any] = {"members": "v.npy", "shape": (4, 2), "nan": "keep", "coordinates": "p.npy", "num_axes": 1}


@pytest.mark.parametrize(
    ("changes", "cells", "shape"),
    [
        ({}, (7, 1), (7, 2)),
        ({}, (7,), (7, 2)),
        ({"shape": (4, 5, 3), "axes": ("a", "b", "channel")}, (7, 5, 2), (7, 5, 3)),
        ({"shape": (4, 3, 5), "axes": ("a", "channel", "b")}, (7, 5, 2), (7, 5, 3)),
        ({"shape": (4, 5), "axes": ("a", "b")}, (7, 5, 1), (7, 5)),
    ],
)
def test_values_that_nobody_knows_stand_at_the_places_that_are_given(
    changes: dict[str, Any], cells: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    found = ArrayConfig(**{**GAPS, **changes}).stand_in({"p.npy": npy(np.zeros(cells))})
    assert found is not None
    name, content = found
    array = np.load(io.BytesIO(content))
    assert (name, array.shape, array.dtype) == ("v.npy", shape, np.float32)
    assert np.isnan(array).all()


@pytest.mark.parametrize(
    ("changes", "members"),
    [
        ({"nan": "refuse"}, ["p.npy"]),
        ({"coordinates": "", "num_axes": 0}, ["p.npy"]),
        ({}, ["q.npy"]),
        ({}, []),
        ({"members": "*.npy"}, ["p.npy"]),
        ({"members": "a.npz/v"}, ["p.npy"]),
    ],
)
def test_nothing_stands_in_where_no_place_or_no_name_is_given(changes: dict[str, Any], members: list[str]) -> None:
    section = ArrayConfig(**{**GAPS, **changes})
    assert section.stand_in({name: npy(np.zeros((7, 1))) for name in members}) is None


def test_a_label_that_is_hidden_in_evaluation_may_be_any() -> None:
    assert LabelConfig().stand_in({}) == ("cls", b"0")
    assert LabelConfig(hide_in_evaluation=False).stand_in({}) is None
    assert LabelConfig(members="json.named_labels.kind").stand_in({}) is None
    assert ImageConfig().stand_in({}) is None


def test_what_says_nothing_is_absent() -> None:
    assert [LabelConfig.is_absent(content) for content in (b"-1", b" -1\n", b"0", b"1", b"")] == [
        *(True, True, False, False, False),
    ]
    assert [TextConfig.is_absent(content) for content in (b"", b"a", b" ")] == [True, False, False]


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (b"4", 4),
        (b" 03\n", 3),
        (b"5", None),
        (b"-1", None),
        (b"x", None),
        (b"", None),
        (b"0" * 20, 0),
        (b"0" * 21, None),
    ],
)
def test_a_label_is_a_number_below_that_of_the_classes(content: bytes, label: int | None) -> None:
    section = LabelConfig(num_classes=5, hide_in_evaluation=False)
    members = {MAIN: Member("cls", content)}
    if label is None:
        with pytest.raises(ValueError, match=r"label 5 is out of range: num_classes|label is not a number from 0 to"):
            section.prepare(members, None)
        return
    prepared = section.prepare(members, None)
    assert (prepared.array.tolist(), prepared.array.dtype, prepared.length) == (label, np.int64, 1)
    hidden = LabelConfig(num_classes=5, hide=1.0).prepare(members, np.random.default_rng(0))
    shown = LabelConfig(num_classes=5, hide=0.0).prepare(members, np.random.default_rng(0))
    evaluated = LabelConfig(num_classes=5, hide=0.0).prepare(members, None)
    assert [int(each.array) for each in (hidden, shown, evaluated)] == [-1, label, -1]


def test_labels_and_texts_are_written() -> None:
    assert drawn(LabelConfig, b"07").texts[0].get_text() == "7"
    assert drawn(TextConfig, b"x" * 160).texts[0].get_text() == "x" * 160
    assert drawn(TextConfig, b"x" * 161).texts[0].get_text() == f"{'x' * 160} ..."
    assert drawn(TextConfig(), b"abc").texts[0].get_text() == "abc"


def test_tokens_are_written_one_by_one_with_their_number(tokenizers: dict[str, Path]) -> None:
    section = TextConfig(tokenizer=str(tokenizers["unigram"]), num_tokens=4)
    text = "a cat and a dog sat on the mat"
    encoded = section.tokens.tokenizer.encode(text)
    number = len(encoded.ids)
    assert number > 4
    words = "|".join(section.words(np.array([each])) for each in encoded.ids[:4])
    assert drawn(section, text.encode()).texts[0].get_text() == f"{words}\n({number} tokens, 4 read)"
    whole = TextConfig(tokenizer=section.tokenizer, num_tokens=number)
    assert drawn(whole, text.encode()).texts[0].get_text().endswith(f"\n({number} tokens)")


def test_pictures_and_arrays_are_drawn_as_they_are() -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    np.testing.assert_array_equal(drawn(ImageConfig, png(values)).images[0].get_array(), values / 255)
    curve = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(drawn(ArrayConfig, npy(curve)).lines[0].get_ydata(), curve)


def test_a_clip_is_drawn_by_four_of_its_frames_two_by_two_with_a_line_between_them() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 32, "yuv420p"
        for number in range(7):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 10 + 30 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    shown = np.asarray(drawn(VideoConfig, file.getvalue()).images[0].get_array()).astype(int)
    assert shown.shape == (34, 66, 3)
    corners = [shown[row, column, 0] for row in (8, 25) for column in (16, 49)]
    np.testing.assert_allclose(corners, [10, 70, 130, 190], atol=4)
    for line in (shown[16], shown[33], shown[:, 32], shown[:, 65]):
        assert (line == 255).all()


def test_motion_is_drawn_by_arrows_that_lie_within_the_picture() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    moved = np.stack(np.meshgrid(np.arange(60.0), np.arange(40.0)), axis=-1).astype(np.float32)
    axes = drawn(FlowConfig, png(frame), second=png(frame), motion=flo(moved))
    np.testing.assert_array_equal(axes.images[0].get_array(), frame)
    (arrows,) = axes.collections
    places = np.stack([arrows.X, arrows.Y], axis=-1)
    # The motion of each pixel is its place.
    np.testing.assert_array_equal(np.stack([arrows.U, arrows.V], axis=-1), places)
    assert places.min() > 0
    assert (places < (59, 39)).all()
    assert len(np.unique(places[:, 0])) == len(np.unique(places[:, 1])) == 8
    assert arrows.angles == "xy"


@pytest.mark.parametrize(("num_samples", "window"), [(3, 16), (160, 20), (8_000, 256)])
def test_a_recording_is_drawn_as_the_decibels_of_its_frequencies(num_samples: int, window: int) -> None:
    rate = 8_000
    tone = np.sin(2 * np.pi * 1_000 * np.arange(num_samples) / rate).astype(np.float32)
    (image,) = drawn(AudioConfig, wav(tone, rate)).images
    values = np.asarray(image.get_array())
    length = max(num_samples, window)
    assert values.shape == (window // 2 + 1, (length - window) // max(1, window // 4) + 1)
    assert tuple(image.get_extent()) == (0, length / rate, 0, 4)
    assert image.get_clim()[0] == pytest.approx(values.max() - 60)
    if num_samples > 100:
        # The row of 1 kHz is the loudest.
        np.testing.assert_allclose(values.argmax(axis=0), 1_000 * window / rate, atol=1)
    assert image.origin == "lower"
    silent = np.asarray(drawn(AudioConfig, wav(np.zeros(160), rate)).images[0].get_array())
    np.testing.assert_allclose(silent, -100)


@pytest.mark.parametrize(
    ("suffix", "kind", "role"),
    [
        ("png", ImageConfig, MAIN),
        ("left.png", ImageConfig, MAIN),
        ("a.b.jpg", ImageConfig, MAIN),
        ("txt", TextConfig, MAIN),
        ("wav", AudioConfig, MAIN),
        ("mp4", VideoConfig, MAIN),
        # Of several kinds the first is meant by the suffix alone, the last by one with a name.
        ("npy", PointsConfig, MAIN),
        ("eeg.npy", ArrayConfig, MAIN),
        ("first.png", FlowConfig, MAIN),
        ("second.png", FlowConfig, "second"),
        ("motion.png", FlowConfig, "motion"),
        ("flo", FlowConfig, "motion"),
        ("left.flo", None, ""),
        # A number before the last dot is no name of a camera.
        ("5mm.png", None, ""),
        ("cls", None, ""),
        ("json", None, ""),
        ("x", None, ""),
        ("", None, ""),
    ],
)
def test_a_member_of_a_suffix_usually_holds_one_kind(suffix: str, kind: type[Modality] | None, role: str) -> None:
    assert held_by(suffix) == (None if kind is None else (kind, role))


def test_inputs_are_made_of_all_that_is_there() -> None:
    suffixes = ["txt", "png", "left.png", "right.cam.jpg", "eeg.npy", "cls", "5mm.png", "image.png", "second.png"]
    assert inputs_of(suffixes) == {
        "eeg": replace(ArrayConfig.lenient(), members="eeg.npy"),
        "image": ImageConfig(values="file"),
        # The name is that of an input already.
        "image_png": ImageConfig(values="file", members="image.png"),
        "left": ImageConfig(values="file", members="left.png"),
        "right_cam": ImageConfig(values="file", members="right.cam.jpg"),
        "text": TextConfig(),
    }
    assert list(inputs_of(suffixes)) == sorted(inputs_of(suffixes))
    assert inputs_of(["first.png", "npy"]) == {
        "flow": FlowConfig(height=1, width=1),
        "points": PointsConfig(num_dimensions=0),
        "array": ArrayConfig(),
    }
    assert inputs_of([]) == {}
    assert usual_suffixes("points") == ("npy", "npz", "ply", "off")
    assert LabelConfig not in contents()
    assert set(contents()) == set(MODALITIES) - {LabelConfig}


def test_a_prediction_hides_what_a_text_marks_and_else_what_an_evaluation_hides() -> None:
    assert TextConfig().of_prediction() == TextConfig()
    section = TextConfig(num_bytes=20, masking=MaskingConfig(probability=1.0))
    asked = section.of_prediction()
    assert asked == replace(section, masking=MaskingConfig(probability=1.0, by_mark=True))
    unmarked = {MAIN: Member("txt", b"ab cd")}
    for each in (section, asked):
        prepared = each.prepare(unmarked, None)
        assert each.hidden(prepared.array).tolist()[:6] == [True, True, False, True, True, False]
        assert prepared.target is not None
        assert prepared.target[:5].tolist() == [ord("a") + 6, ord("b") + 6, 0, ord("c") + 6, ord("d") + 6]
    marked = asked.prepare({MAIN: Member("txt", b"ab [MASK]")}, None)
    assert asked.hidden(marked.array).tolist()[:5] == [False, False, False, True, False]
    assert marked.target is not None
    assert not marked.target.any()
    plain = TextConfig(num_bytes=20).prepare(unmarked, None)
    assert plain.target is None
    assert not TextConfig().hidden(plain.array).any()


@pytest.mark.parametrize(
    ("section", "shape", "suffix"),
    [
        (ImageConfig(), (4, 5, 3), "png"),
        (ImageConfig(num_channels=2), (4, 5, 2), "npy"),
        (ImageConfig(values="unit"), (4, 5, 3), "npy"),
        (AudioConfig(), (9,), "wav"),
        (AudioConfig(log_mel=LogMelConfig()), (9, 40), "npy"),
        (VideoConfig(), (2, 4, 6, 3), "webp"),
        (ArrayConfig(shape=(2, 3)), (2, 3), "npy"),
    ],
)
def test_an_answer_is_a_file_of_its_kind_where_nothing_is_lost(
    section: Modality, shape: tuple[int, ...], suffix: str
) -> None:
    values = np.random.default_rng(0).random(shape, np.float32)
    found, content = section.file(values)
    assert found == suffix
    if suffix == "npy":
        np.testing.assert_array_equal(np.load(io.BytesIO(content)), values)


def test_sections_that_take_all_that_can_be_decoded() -> None:
    assert AudioConfig.lenient() == AudioConfig(resample="linear")
    assert ImageConfig.lenient() == ImageConfig(values="file")
    assert FlowConfig.lenient() == FlowConfig(height=1, width=1)
    assert TextConfig.lenient() == TextConfig()
