"""Which values a section takes, up to the last one, what is derived from them, and by which key others are refused."""

from typing import Any

import pytest

from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.label import LabelConfig
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.transform_config import (
    ClipsConfig,
    ColourConfig,
    CropConfig,
    EraseConfig,
    LogMelConfig,
    MaskingConfig,
    MixupConfig,
    RandAugmentConfig,
    ScaleConfig,
    SpecAugmentConfig,
)

NAN, INF = float("nan"), float("inf")
MEL, SPEC = LogMelConfig(), SpecAugmentConfig()
PLACED = {"shape": (4, 2), "coordinates": "place.npy", "num_axes": 1}

TAKEN: list[Any] = [
    *(CropConfig(min_area=0.01), CropConfig(min_area=1), CropConfig(0.5, 0.5), CropConfig(max_stretch=1, attempts=1)),
    *(RandAugmentConfig(num_layers=1, magnitude=0), RandAugmentConfig(magnitude=10)),
    *(ColourConfig(0, 0, 0, 0), ColourConfig(1, 1, 1, 0.5)),
    *(ScaleConfig(0, -3, -3, 0, 0), ScaleConfig(1, 3, 3, 1, 3), EraseConfig(0, 1, 1), EraseConfig(1, 9, 9)),
    *(SpecAugmentConfig(0, 0, 0, 0), LogMelConfig(1, 1e-9, 1e-9), MaskingConfig(0), MaskingConfig(1), ClipsConfig(1)),
    *(MixupConfig(1e-9, 1e-9, 0), MixupConfig(cutmix_probability=1)),
    *(ImageConfig(height=1, width=1, num_channels=1), ImageConfig(centre_crop=0.01), ImageConfig(fit="pad")),
    *(ImageConfig(to_grey=True, num_channels=1), ImageConfig(to_grey=True, num_channels=2)),
    ImageConfig(values="unit", value_range=(-1, 1)),
    ImageConfig(values="raw", num_channels=1, colour=ColourConfig(saturation=0)),
    VideoConfig(num_frames=1, height=1, width=1),
    *(VideoConfig(frame_step=1, place=0), VideoConfig(frame_step=1, place=1)),
    *(AudioConfig(sample_rate=1, num_samples=1, place=0), AudioConfig(place=1, num_channels=1, jitter_samples=0)),
    *(AudioConfig(sample_rate=8000, num_samples=200, log_mel=MEL, spec_augment=SPEC),),
    *(PointsConfig(num_points=1, num_dimensions=1), PointsConfig(scale_jitter=0.99, scale=0.99, jitter=5)),
    *(PointsConfig(features=("a", "b"), num_features=2, feature_divisors=(1, -2)), PointsConfig(rotate="z")),
    *(PointsConfig(num_dimensions=2, rotate="any"), PointsConfig(features=("nx", "ny", "nz", "a"), rotate="any")),
    *(PointsConfig(features=("a",), rotate="x"), PointsConfig(num_features=1, feature_divisors=(2,))),
    *(TextConfig(num_bytes=1), LabelConfig(num_classes=1, hide=0), LabelConfig(hide=1)),
    *(FlowConfig(height=1, width=1, test_height=1, test_width=1), FlowConfig(test_height=0)),
    *(FlowConfig(upside_down=1, reverse=1, colour=ColourConfig(), unequal_colour=1),),
    *(ArrayConfig(shape=(1,)), ArrayConfig(shape=(1, 2), axes=("channel", "a")), ArrayConfig(shape=(1,), nan="keep")),
    *(ArrayConfig(**PLACED), ArrayConfig(**PLACED, coordinates_min=(0,), coordinates_max=(1e-9,))),
]  # fmt: skip


@pytest.mark.parametrize("section", TAKEN, ids=str)
def test_what_can_be_is_taken_up_to_the_last_value(section: Any) -> None:  # noqa: ANN401 - any section
    assert list(section.problems()) == []


REFUSED: list[tuple[Any, dict[str, list[Any]]]] = [
    (CropConfig, {"min_area": [0, -0.1, 1.1, NAN], "max_stretch": [0.99, NAN], "attempts": [0]}),
    (RandAugmentConfig, {"num_layers": [0], "magnitude": [-0.1, 10.1]}),
    (ColourConfig, {key: [-0.01, 1.01, NAN] for key in ("brightness", "contrast", "saturation")}),
    (ColourConfig, {"hue": [-0.01, 0.51]}),
    (ScaleConfig, {key: [-0.1, 1.1] for key in ("probability", "stretch_probability")}),
    (ScaleConfig, {"min_power": [-3.1, 0.6], "max_stretch_power": [-0.1, 3.1]}),
    (EraseConfig, {"probability": [-0.1, 1.1], "min_side": [0, 101]}),
    (SpecAugmentConfig, {key: [-1] for key in ("num_time_masks", "max_time_frames", "num_bin_masks", "max_bins")}),
    (LogMelConfig, {"num_bins": [0], "window_seconds": [0, INF, NAN], "hop_seconds": [0, INF, NAN]}),
    (MaskingConfig, {"probability": [-0.1, 1.1]}),
    (ClipsConfig, {"num_test": [0]}),
    (MixupConfig, {"mixup_alpha": [0, INF, NAN], "cutmix_alpha": [0, INF], "cutmix_probability": [-0.1, 1.1]}),
    (ImageConfig, {"height": [0], "width": [0], "num_channels": [0], "shift_pixels": [-1], "centre_crop": [0, 1.01]}),
    (ImageConfig, {"values": ["file"], "to_grey": [True], "value_range": [(0, 1)]}),
    (VideoConfig, {"num_frames": [0], "height": [0], "width": [0], "frame_step": [-1], "centre_crop": [0, 1.01]}),
    (VideoConfig, {"place": [0, 0.5]}),
    (AudioConfig, {key: [0] for key in ("sample_rate", "num_samples", "num_channels")}),
    (AudioConfig, {"jitter_samples": [-1], "place": [-0.1, 1.1], "spec_augment": [SPEC]}),
    (PointsConfig, {"num_points": [0], "num_dimensions": [0], "num_features": [-1], "jitter": [-0.1]}),
    (PointsConfig, {"scale_jitter": [-0.1, 1, NAN], "scale": [-0.1, 1], "features": [("a", "b", "a")]}),
    (TextConfig, {"num_bytes": [0], "num_tokens": [3], "mask_token": ["x"], "pad_token": ["x"]}),
    (LabelConfig, {"num_classes": [0], "hide": [-0.1, 1.1]}),
    (FlowConfig, {"height": [0], "width": [0], "motion": [""], "unequal_colour": [0.5], "test_height": [1]}),
    (FlowConfig, {"test_width": [1], "upside_down": [-0.1, 1.1], "reverse": [-0.1, 1.1]}),
    (ArrayConfig, {"shape": [(), (0,), (3, 0)]}),
]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [(section, key, value) for section, fields in REFUSED for key, values in fields.items() for value in values],
)
def test_what_cannot_be_is_refused_by_its_key(section: Any, key: str, value: object) -> None:  # noqa: ANN401
    assert [found for found, _ in section(**{key: value}).problems()] == [key]


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        (CropConfig(0.6, 0.5), ["min_area"]),
        (CropConfig(max_area=1.1), ["min_area"]),
        (ScaleConfig(max_power=3.1), ["min_power"]),
        (ImageConfig(values="unit", value_range=(1, 1)), ["value_range"]),
        (ImageConfig(values="unit", value_range=(0, 1, 2)), ["value_range"]),
        (ImageConfig(values="unit", value_range=(0, INF)), ["value_range"]),
        (ImageConfig(values="unit", value_range=(-INF, 0)), ["value_range"]),
        (ImageConfig(num_channels=1, colour=ColourConfig(hue=0.1)), ["colour.saturation", "colour.hue"]),
        (ImageConfig(to_grey=True, num_channels=3), ["to_grey"]),
        (VideoConfig(crop=CropConfig(attempts=0), colour=ColourConfig(hue=1)), ["crop.attempts", "colour.hue"]),
        (AudioConfig(sample_rate=8000, num_samples=199, log_mel=MEL), ["num_samples"]),
        (AudioConfig(sample_rate=8000, num_samples=399, log_mel=LogMelConfig(hop_seconds=0.05)), ["num_samples"]),
        (PointsConfig(features=("a",), num_features=2), ["num_features"]),
        (PointsConfig(num_features=2, feature_divisors=(1,)), ["feature_divisors"]),
        (PointsConfig(num_features=1, feature_divisors=(0,)), ["feature_divisors"]),
        (PointsConfig(num_dimensions=2, rotate="y"), ["rotate"]),
        (PointsConfig(num_dimensions=4, rotate="y"), ["rotate"]),
        (PointsConfig(num_dimensions=1, rotate="any"), ["rotate"]),
        (PointsConfig(num_features=1, rotate="x"), ["rotate"]),
        (PointsConfig(features=("nx", "ny"), rotate="x"), ["rotate"]),
        (PointsConfig(features=("nx", "ny", "nz"), num_dimensions=4, rotate="any"), ["rotate"]),
        (ArrayConfig(shape=(2, 3), axes=("a",)), ["axes"]),
        (ArrayConfig(shape=(2, 3), axes=("a", "a")), ["axes"]),
        (ArrayConfig(shape=(2,), nan="keep", standardize=True), ["standardize"]),
        (ArrayConfig(shape=(2,), num_axes=1), ["num_axes"]),
        (ArrayConfig(shape=(2,), coordinates_min=(1,), coordinates_max=(2,)), ["coordinates_min", "coordinates_max"]),
        (ArrayConfig(**{**PLACED, "num_axes": 0}), ["num_axes"]),
        (ArrayConfig(**{**PLACED, "shape": (4,)}), ["coordinates"]),
        (ArrayConfig(**{**PLACED, "axes": ("channel", "a")}), ["coordinates"]),
        (ArrayConfig(**PLACED, coordinates_min=(0,)), ["coordinates_min"]),
        (ArrayConfig(**PLACED, coordinates_max=(0,)), ["coordinates_min"]),
        (ArrayConfig(**PLACED, coordinates_min=(1,), coordinates_max=(1,)), ["coordinates_min"]),
        (ArrayConfig(**PLACED, coordinates_min=(1,), coordinates_max=(INF,)), ["coordinates_min"]),
        (ArrayConfig(**PLACED, coordinates_min=(1, 2), coordinates_max=(2, 3)), ["coordinates_min"]),
    ],
)
def test_values_that_do_not_go_together_are_refused_by_one_key(section: Any, keys: list[str]) -> None:  # noqa: ANN401
    assert [found for found, _ in section.problems()] == keys


@pytest.mark.parametrize(
    ("section", "shape", "sizes"),
    [
        (AudioConfig(num_samples=9), (9,), {"num_samples": 9, "num_channels": 1}),
        (AudioConfig(num_samples=9, num_channels=2), (9, 2), {"num_samples": 9, "num_channels": 2}),
        (AudioConfig(num_samples=8079, log_mel=MEL), (100, 40), {"num_samples": 100, "num_channels": 40}),
        (AudioConfig(num_samples=160, num_channels=2, log_mel=MEL), (2, 80), {"num_samples": 2, "num_channels": 80}),
        (
            VideoConfig(num_frames=2, height=3, width=4),
            (2, 3, 4, 3),
            {"num_frames": 2, "height": 3, "width": 4, "num_channels": 3},
        ),
        (FlowConfig(height=3, width=4), (2, 3, 4, 3), {"height": 3, "width": 4, "num_channels": 3}),
        (PointsConfig(num_points=5), (5, 3), {"num_points": 5, "num_dimensions": 3, "num_features": 0}),
        (
            PointsConfig(num_points=5, num_dimensions=2, num_features=4),
            (5, 6),
            {"num_points": 5, "num_dimensions": 2, "num_features": 4},
        ),
        (
            PointsConfig(num_points=5, features=("a",)),
            (5, 4),
            {"num_points": 5, "num_dimensions": 3, "num_features": 1},
        ),
        (
            PointsConfig(num_points=5, num_dimensions=0),
            (5, 3),
            {"num_points": 5, "num_dimensions": 0, "num_features": 0},
        ),
        (TextConfig(num_bytes=5), (5,), {"max_tokens": 5, "vocabulary": 262}),
        (LabelConfig(num_classes=5), (), {"num_classes": 5}),
        (ArrayConfig(shape=(5, 2)), (5, 2), {"shape": (5, 2), "axes": (), "num_axes": 0}),
    ],
)
def test_the_shape_and_the_sizes_of_a_section(section: Any, shape: tuple[int, ...], sizes: dict[str, Any]) -> None:  # noqa: ANN401
    assert (section.shape, section.sizes) == (shape, sizes)


def test_what_is_said_of_a_sample_that_is_too_long() -> None:
    assert VideoConfig(num_frames=3).too_long == "longer than 3 frames"
    assert VideoConfig(num_frames=3, frame_step=1).too_long == "longer than 3 frames"
    assert VideoConfig(num_frames=3, frame_step=2).too_long == "longer than 3 frames at a step of 2"
    assert AudioConfig(sample_rate=8000, num_samples=12_000).too_long == "longer than 1.5 s"
    assert PointsConfig(num_points=3).too_long == "larger than 3 points"
    assert TextConfig(num_bytes=3).too_long == "longer than 3 bytes"
    assert ArrayConfig(shape=(3, 4)).too_long == "longer than 3"
    assert ArrayConfig(shape=(3, 4), axes=("time", "channel")).too_long == "longer than 3 along the axis time"


def test_what_has_a_time_and_what_is_read_of_all_of_it() -> None:
    assert [VideoConfig(frame_step=step).has_time for step in (0, 1, 2)] == [False, True, True]
    assert [VideoConfig(frame_step=step).subsamples for step in (0, 1, 2)] == [True, False, False]
    assert (AudioConfig().has_time, AudioConfig().subsamples) == (True, False)
    assert (TextConfig().has_time, PointsConfig().has_time) == (False, False)
    for section in (VideoConfig(frame_step=1), AudioConfig()):
        assert section.at(0.25).place == 0.25
        assert section.at(0.0).at(0.25).place == 0.0


@pytest.mark.parametrize(
    ("seconds", "rate", "window", "hop"),
    [(0.01, 8_000, 80, 80), (1e-9, 8_000, 2, 1), (2 / 8_000, 8_000, 2, 2), (3 / 8_000, 8_000, 3, 3)],
)
def test_windows_and_hops_are_whole_samples(seconds: float, rate: int, window: int, hop: int) -> None:
    section = LogMelConfig(window_seconds=seconds, hop_seconds=seconds)
    assert (section.window_samples(rate), section.hop_samples(rate)) == (window, hop)


def test_clips_lie_from_the_beginning_to_the_end() -> None:
    assert ClipsConfig().place(0) is None
    assert [ClipsConfig(2).place(number) for number in range(2)] == [0, 1]
    assert [ClipsConfig(5).place(number) for number in range(5)] == [0, 0.25, 0.5, 0.75, 1]


def test_an_evaluation_of_motion_may_be_larger() -> None:
    section = FlowConfig(height=3, width=4, test_height=5)
    assert section.of_evaluation().shape == (2, 5, 4, 3)
    assert FlowConfig(height=3, width=4, test_width=6).of_evaluation().shape == (2, 3, 6, 3)
    assert section.of_prediction().needs_motion is False
    assert section.needs_motion is True


@pytest.mark.parametrize(
    ("hide", "in_evaluation", "hides"), [(0, False, False), (0.1, False, True), (0, True, True), (1, True, True)]
)
def test_a_label_is_hidden_somewhere_or_nowhere(hide: float, in_evaluation: bool, hides: bool) -> None:
    assert LabelConfig(hide=hide, hide_in_evaluation=in_evaluation).hides is hides
