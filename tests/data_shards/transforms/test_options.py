"""No option is ignored: each changes what training reads; and what only training draws leaves evaluation alone."""

import io
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from data_shards.modalities.decoding.flow import MAGIC
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.modality import Modality, select
from data_shards.modalities.transform_config import (
    ColourConfig,
    CropConfig,
    EraseConfig,
    LogMelConfig,
    MaskingConfig,
    RandAugmentConfig,
    ScaleConfig,
    SpecAugmentConfig,
)
from data_shards.modalities.transforms import audio, flow, image, points, text, video
from data_shards.modalities.transforms.masking import mask_words
from data_shards.sources.digits import Drawn

Fitted = list[bytes]
SEEDS = range(12)


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return file.getvalue()


def flo(motion: np.ndarray) -> bytes:
    return MAGIC + np.array(motion.shape[1::-1], "<i4").tobytes() + motion.astype("<f4").tobytes()


def npy(cloud: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, cloud)
    return file.getvalue()


def video_of(colours: np.ndarray) -> bytes:
    """A clip of coloured squares, 8 pixels wide each."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = (8 * side for side in colours.shape[1:3])
        stream.pix_fmt = "yuv420p"
        for frame in colours.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


RNG = np.random.default_rng(0)
PICTURE = encoded(RNG.integers(0, 256, (30, 50, 3), np.uint8))
PAIR = {
    "first.png": encoded(RNG.integers(0, 256, (12, 20, 3), np.uint8)),
    "second.png": encoded(RNG.integers(0, 256, (12, 20, 3), np.uint8)),
    "flo": flo(RNG.normal(size=(12, 20, 2))),
}
RECORDING, CLIP = Drawn(0, 0, "wav").read(), video_of(RNG.integers(0, 256, (8, 3, 6, 3)))
CLOUD = npy(RNG.normal(2, 1, (300, 3)).astype(np.float32))
WORDS = b"the quick brown fox jumps over the lazy dog and runs away " * 3


def masked_text(data: bytes, config: TextConfig, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    ids, length = text.fit(data, config, rng)
    assert config.masking
    return mask_words(ids, length, config.masking, rng)


BASE: dict[str, tuple[Any, Callable[..., Any], Any]] = {
    "image": (
        ImageConfig(height=16, width=16, crop=CropConfig(0.3, 0.9), randaugment=RandAugmentConfig(2)),
        image.fit,
        PICTURE,
    ),
    "picture": (ImageConfig(height=16, width=16), image.fit, PICTURE),
    "audio": (
        AudioConfig(
            sample_rate=8_000, num_samples=2_000, log_mel=LogMelConfig(), spec_augment=SpecAugmentConfig(1, 9, 1, 5)
        ),
        audio.fit,
        RECORDING,
    ),
    "wave": (AudioConfig(sample_rate=6_000, num_samples=1_000), audio.fit, RECORDING),
    "video": (
        VideoConfig(num_frames=4, height=16, width=16, crop=CropConfig(0.3, 0.9), colour=ColourConfig()),
        video.fit,
        CLIP,
    ),
    "clip": (VideoConfig(num_frames=4, height=16, width=12), video.fit, CLIP),
    "points": (PointsConfig(num_points=64), points.fit, CLOUD),
    "text": (TextConfig(num_bytes=64, masking=MaskingConfig(0.5)), masked_text, WORDS),
    "flow": (FlowConfig(height=5, width=7), flow.fit, select(FlowConfig(), PAIR)),
    "pair": (
        FlowConfig(
            height=5,
            width=7,
            scale=ScaleConfig(probability=0.5),
            colour=ColourConfig(hue=0.1),
            unequal_colour=0.5,
            erase=EraseConfig(0.5, 2, 3),
        ),
        flow.fit,
        select(FlowConfig(), PAIR),
    ),
}
OTHER: dict[str, dict[str, Any]] = {
    "image": {
        "crop.min_area": 0.6,
        "crop.max_area": 0.5,
        "crop.max_stretch": 3.0,
        "crop.attempts": 1,
        "randaugment.num_layers": 3,
        "randaugment.magnitude": 9.0,
    },
    "picture": {
        "height": 9,
        "width": 9,
        "resize": "nearest",
        "fit": "stretch",
        "centre_crop": 0.6,
        "crop": CropConfig(),
        "flip": True,
        "colour": ColourConfig(),
        "randaugment": RandAugmentConfig(),
        "shift_pixels": 3,
    },
    "audio": {
        "log_mel.num_bins": 30,
        "log_mel.window_seconds": 0.05,
        "log_mel.hop_seconds": 0.02,
        "spec_augment.num_time_masks": 3,
        "spec_augment.max_time_frames": 2,
        "spec_augment.num_bin_masks": 4,
        "spec_augment.max_bins": 1,
        "spec_augment": None,
    },
    "wave": {
        "sample_rate": 8_000,
        "num_samples": 900,
        "num_channels": 2,
        "resample": "linear",
        "jitter_samples": 40,
        "log_mel": LogMelConfig(),
    },
    "video": {
        "crop.min_area": 0.6,
        "crop.max_area": 0.5,
        "crop.max_stretch": 3.0,
        "crop.attempts": 1,
        "colour.brightness": 0.1,
        "colour.contrast": 0.1,
        "colour.saturation": 0.1,
    },
    "clip": {
        "num_frames": 3,
        "height": 9,
        "width": 9,
        "frame_step": 1,
        "resize": "nearest",
        "fit": "stretch",
        "centre_crop": 0.6,
        "crop": CropConfig(),
        "flip": True,
        "colour": ColourConfig(),
    },
    "points": {
        "num_points": 50,
        "num_dimensions": 2,
        "normalize": "centre",
        "scale_jitter": 0.1,
        "rotate": "y",
        "scale": 0.1,
        "jitter": 0.1,
        "permute": True,
    },
    "text": {"num_bytes": 50, "masking.probability": 0.1},
    "flow": {
        "height": 4,
        "width": 6,
        "flip": True,
        "upside_down": 0.5,
        "reverse": 1.0,
        "scale": ScaleConfig(),
        "colour": ColourConfig(),
        "erase": EraseConfig(0.5, 2, 3),
    },
    "pair": {
        "scale.probability": 0.9,
        "scale.min_power": 0.1,
        "scale.max_power": 1.0,
        "scale.stretch_probability": 0.1,
        "scale.max_stretch_power": 0.7,
        "colour.hue": 0.3,
        "unequal_colour": 0.0,
        "erase.probability": 0.9,
        "erase.min_side": 3,
        "erase.max_side": 5,
    },
}
OF_TRAINING = (
    "crop",
    "flip",
    "randaugment",
    "shift_pixels",
    "spec_augment",
    "jitter_samples",
    "colour",
    "scale_jitter",
    "rotate",
    "scale",
    "jitter",
    "permute",
    "upside_down",
    "reverse",
    "unequal_colour",
    "erase",
)
ELSEWHERE = {"FlowConfig.test_height", "FlowConfig.test_width", "AudioConfig.spec_augment"}
"""Of evaluation, or tested with the spectrogram."""
ELSEWHERE |= {"AudioConfig.place", "VideoConfig.place"}
"""Of longer samples: tests/data_shards/test_clips.py."""
ELSEWHERE |= {f"PointsConfig.{key}" for key in ("features", "num_features", "feature_divisors")}
"""Of clouds with features: tests/data_shards/test_point_features.py."""
ELSEWHERE |= {f"ImageConfig.{key}" for key in ("num_channels", "to_grey", "values", "value_range", "nan")}
"""Of other files than this one: tests/data_shards/test_image_channels.py."""
ELSEWHERE |= {f"TextConfig.{key}" for key in ("tokenizer", "num_tokens", "pad_token", "mask_token")}
"""Of texts with a tokenizer: tests/data_shards/test_tokenizer.py."""
ELSEWHERE |= {"MaskingConfig.by_mark", "FlowConfig.needs_motion"}
"""Of texts to be answered: tests/launch/test_predict.py."""
WHICH_MEMBERS = {"modality", "members", "second", "motion"}
CASES = [(name, option) for name, options in OTHER.items() for option in options]


def changed(config: Modality, option: str, value: object) -> Modality:
    part, _, key = option.partition(".")
    return replace(config, **{part: replace(getattr(config, part), **{key: value}) if key else value})


def fitted(name: str, config: Modality, *, training: bool) -> Fitted:
    _, fit, data = BASE[name]
    generators = [np.random.default_rng(seed) for seed in SEEDS] if training else [None]
    return [b"".join(np.ascontiguousarray(part).tobytes() for part in fit(data, config, rng)) for rng in generators]


@pytest.mark.parametrize(("name", "option"), CASES)
def test_every_option_changes_what_training_reads(name: str, option: str) -> None:
    config = BASE[name][0]
    other = changed(config, option, OTHER[name][option])
    assert not list(other.problems())
    assert fitted(name, other, training=True) != fitted(name, config, training=True)


@pytest.mark.parametrize(("name", "option"), [case for case in CASES if case[1].split(".")[0] in OF_TRAINING])
def test_what_training_draws_leaves_evaluation_alone(name: str, option: str) -> None:
    config = BASE[name][0]
    assert fitted(name, changed(config, option, OTHER[name][option]), training=False) == fitted(
        name, config, training=False
    )


def test_every_option_is_among_them() -> None:
    tried = {f"{type(BASE[name][0]).__name__}.{option.split('.')[0]}" for name, option in CASES}
    for name, option in CASES:
        part, _, key = option.partition(".")
        if key:
            tried.add(f"{type(getattr(BASE[name][0], part)).__name__}.{key}")
    sections = {type(config) for config, _, _ in BASE.values()}
    parts = {CropConfig, RandAugmentConfig, ColourConfig, SpecAugmentConfig, LogMelConfig, MaskingConfig}
    parts |= {ScaleConfig, EraseConfig}
    there = {f"{section.__name__}.{field.name}" for section in sections | parts for field in fields(section)}
    there = {option for option in there if option.rpartition(".")[2] not in WHICH_MEMBERS}
    assert tried | ELSEWHERE == there


@pytest.mark.parametrize("name", ["clip", "picture"])
def test_a_mirrored_clip_is_mirrored_in_all_its_frames(name: str) -> None:
    config, fit, data = BASE[name]
    mirrored = replace(config, flip=True)
    if name == "clip":
        config, mirrored = replace(config, frame_step=3), replace(mirrored, frame_step=3)
    plain, *_ = fit(data, config, None)
    outcomes = set()
    for seed in SEEDS:
        found, *_ = fit(data, mirrored, np.random.default_rng(seed))
        outcomes.add(np.array_equal(found, plain[..., ::-1, :]))
        if name == "picture":
            assert np.array_equal(found, plain) or np.array_equal(found, plain[..., ::-1, :])
    assert outcomes == {True, False}


def test_what_pads_a_short_clip_has_no_colour() -> None:
    config = VideoConfig(num_frames=10, height=16, width=16, colour=ColourConfig(1.0, 1.0, 1.0), flip=True)
    for seed in SEEDS:
        clip, length, *_ = video.fit(CLIP, config, np.random.default_rng(seed))
        assert length == 8
        assert not clip[8:].any()
        assert clip[:8].any()


def test_a_mesh_gives_other_points_in_training() -> None:
    mesh = b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
    drawn = {points.fit(mesh, PointsConfig(num_points=9), np.random.default_rng(seed))[0].tobytes() for seed in SEEDS}
    assert len(drawn) == len(SEEDS)
    usual = {points.fit(mesh, PointsConfig(num_points=9), None)[0].tobytes() for _ in range(2)}
    assert len(usual) == 1


UNKNOWN = [(1e9, 0), (0, 1e9), (-1e9, 0), (0, -1.7e9), (np.nan, 0), (0, np.nan), (np.inf, 1), (1, -np.inf)]


@pytest.mark.parametrize("vector", UNKNOWN)
def test_unknown_motion_stays_unknown_where_it_is(vector: tuple[float, float]) -> None:
    motion = np.full((12, 20, 2), 3.0, np.float32)
    motion[4, 6] = vector
    _, found = flow.fit(select(FlowConfig(), {**PAIR, "flo": flo(motion)}), FlowConfig(height=12, width=20), None)
    places = np.argwhere(np.isnan(found))
    np.testing.assert_array_equal(places, [[4, 6, 0], [4, 6, 1]])
    assert (found[~np.isnan(found)] == 3).all()
    mirrored = set()
    for seed in SEEDS:
        _, found = flow.fit(
            select(FlowConfig(), {**PAIR, "flo": flo(motion)}),
            FlowConfig(height=12, width=20, flip=True),
            np.random.default_rng(seed),
        )
        mirrored |= {tuple(place) for place in np.argwhere(np.isnan(found))}
    assert mirrored == {(4, 6, 0), (4, 6, 1), (4, 13, 0), (4, 13, 1)}


def test_large_motion_below_the_formats_unknown_is_known() -> None:
    motion = np.full((12, 20, 2), 9.9e8, np.float32)
    _, found = flow.fit(select(FlowConfig(), {**PAIR, "flo": flo(motion)}), FlowConfig(height=12, width=20), None)
    np.testing.assert_array_equal(found, motion)


def test_training_draws_the_frame_of_each_part() -> None:
    every, *_ = video.fit(CLIP, VideoConfig(num_frames=8, height=16, width=16), None)
    seen = {
        seed: video.fit(CLIP, VideoConfig(num_frames=4, height=16, width=16), np.random.default_rng(seed))[0]
        for seed in SEEDS
    }
    for part in range(4):
        drawn = {
            number for frames in seen.values() for number in range(8) if np.array_equal(frames[part], every[number])
        }
        assert drawn == {2 * part, 2 * part + 1}
