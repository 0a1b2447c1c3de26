"""What is wrong with the data's configuration is told by its key, up to the last value that is right."""

import math
from typing import Any

import pytest

from data_shards.config import DataConfig
from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.transform_config import (
    ClipsConfig,
    ColourConfig,
    CropConfig,
    LogMelConfig,
    MaskingConfig,
    MixupConfig,
    RandAugmentConfig,
    SpecAugmentConfig,
)
from data_shards.storage.config import DatasetConfig, RemoteConfig

Values = tuple[Any, ...]

# By section and key: the least and greatest values that are right, and their neighbours that are wrong.
BOUNDS: list[tuple[type, str, Values, Values]] = [
    *((ImageConfig, key, (1,), (0, -1)) for key in ("height", "width")),
    (ImageConfig, "shift_pixels", (0, 1), (-1,)),
    (ImageConfig, "centre_crop", (1e-9, 1), (0, 1.001)),
    *((AudioConfig, key, (1,), (0,)) for key in ("sample_rate", "num_samples")),
    (AudioConfig, "jitter_samples", (0,), (-1,)),
    *((FlowConfig, key, (1, 10), (0,)) for key in ("height", "width")),
    (FlowConfig, "test_height", (0, 368, 369), (367, -1)),
    (FlowConfig, "test_width", (0, 496, 497), (495, -1)),
    *((VideoConfig, key, (1,), (0,)) for key in ("num_frames", "height", "width")),
    (VideoConfig, "frame_step", (0, 1), (-1,)),
    (VideoConfig, "centre_crop", (1e-9, 1), (0, 1.001)),
    (PointsConfig, "num_points", (1,), (0,)),
    (PointsConfig, "scale_jitter", (0, 0.99), (-0.01, 1)),
    (PointsConfig, "num_dimensions", (1, 3), (0,)),
    (PointsConfig, "num_features", (0, 3), (-1,)),
    (PointsConfig, "scale", (0, 0.99), (-0.01, 1)),
    (PointsConfig, "jitter", (0, 3), (-0.01,)),
    (TextConfig, "num_bytes", (1,), (0,)),
    (CropConfig, "min_area", (1e-9, 1), (0, 1.1)),
    *((CropConfig, key, (1,), (0, 0.9)) for key in ("max_stretch", "attempts")),
    (RandAugmentConfig, "num_layers", (1,), (0,)),
    (RandAugmentConfig, "magnitude", (0, 10), (-0.1, 10.1)),
    *((ColourConfig, key, (0, 1), (-0.1, 1.1)) for key in ("brightness", "contrast", "saturation")),
    *(
        (SpecAugmentConfig, key, (0,), (-1,))
        for key in ("num_time_masks", "max_time_frames", "num_bin_masks", "max_bins")
    ),
    (LogMelConfig, "num_bins", (1,), (0,)),
    *((LogMelConfig, key, (1e-9, 1), (0, -1, math.inf)) for key in ("window_seconds", "hop_seconds")),
    (MaskingConfig, "probability", (0, 1), (-0.1, 1.1)),
    *((MixupConfig, key, (1e-9, 1), (0, math.inf)) for key in ("mixup_alpha", "cutmix_alpha")),
    (MixupConfig, "cutmix_probability", (0, 1), (-0.1, 1.1)),
    (RemoteConfig, "cache_mib", (1,), (0,)),
    (RemoteConfig, "fetch_ahead_batches", (0,), (-1,)),
    *((RemoteConfig, key, (0.001,), (0.0, 0.0009)) for key in ("timeout_seconds", "deadline_seconds")),
]


@pytest.mark.parametrize(("section", "key", "right", "wrong"), BOUNDS)
def test_a_value_is_refused_by_its_key_from_the_first_wrong_one_on(
    section: type[Any], key: str, right: Values, wrong: Values
) -> None:
    of_section = {"centre_crop": {"fit": "crop"}}.get(key, {})
    for value in right:
        assert list(section(**{key: value}, **of_section).problems()) == [], value
    for value in wrong:
        assert [name for name, _ in section(**{key: value}, **of_section).problems()] == [key], value


def test_not_a_number_is_no_value() -> None:
    assert [key for key, _ in RandAugmentConfig(magnitude=math.nan).problems()] == ["magnitude"]
    assert [key for key, _ in ColourConfig(contrast=math.nan).problems()] == ["contrast"]


def test_what_a_part_lacks_is_told_by_its_whole_key() -> None:
    data = DataConfig(
        inputs={
            "image": ImageConfig(crop=CropConfig(attempts=0), randaugment=RandAugmentConfig(num_layers=0)),
            "audio": AudioConfig(log_mel=LogMelConfig(num_bins=0), spec_augment=SpecAugmentConfig(max_bins=-1)),
            "video": VideoConfig(crop=CropConfig(attempts=0), colour=ColourConfig(contrast=2)),
            "text": TextConfig(masking=MaskingConfig(2)),
        },
        datasets={"a": DatasetConfig()},
        remote=RemoteConfig(cache_mib=0),
    )
    assert {key for key, _ in data.problems()} == {
        "inputs.image.crop.attempts",
        "inputs.image.randaugment.num_layers",
        "inputs.audio.log_mel.num_bins",
        "inputs.audio.spec_augment.max_bins",
        "inputs.video.crop.attempts",
        "inputs.video.colour.contrast",
        "inputs.text.masking.probability",
        "datasets.a.shards",
        "remote.cache_mib",
    }


def test_options_that_need_another_one_name_it() -> None:
    assert [key for key, _ in CropConfig(min_area=0.6, max_area=0.5).problems()] == ["min_area"]
    assert list(CropConfig(min_area=0.5, max_area=0.5).problems()) == []
    assert [key for key, _ in CropConfig(max_area=1.5).problems()] == ["min_area"]
    for section in (ImageConfig, VideoConfig):
        assert [key for key, _ in section(fit="pad", centre_crop=0.9).problems()] == ["centre_crop"]
        assert list(section(fit="pad").problems()) == []
    assert [key for key, _ in AudioConfig(spec_augment=SpecAugmentConfig()).problems()] == ["spec_augment"]


@pytest.mark.parametrize(("window", "hop"), [(0.05, 0.01), (0.01, 0.05)])
def test_a_recording_holds_at_least_a_window_and_a_hop(window: float, hop: float) -> None:
    spectrogram = LogMelConfig(window_seconds=window, hop_seconds=hop)
    assert list(AudioConfig(sample_rate=1000, num_samples=50, log_mel=spectrogram).problems()) == []
    assert [key for key, _ in AudioConfig(sample_rate=1000, num_samples=49, log_mel=spectrogram).problems()] == [
        "num_samples"
    ]
    assert AudioConfig(sample_rate=1000, num_samples=50, log_mel=spectrogram).shape == (50 // round(1000 * hop), 40)


def test_a_window_has_two_samples_and_a_hop_one_at_the_least() -> None:
    shortest = LogMelConfig(window_seconds=1e-6, hop_seconds=1e-6)
    assert (shortest.window_samples(8000), shortest.hop_samples(8000)) == (2, 1)
    assert (LogMelConfig().window_samples(8000), LogMelConfig().hop_samples(8000)) == (200, 80)


@pytest.mark.parametrize(
    ("weight", "wrong"), [(1.0, False), (1e-9, False), (0.0, True), (-1.0, True), (math.inf, True), (math.nan, True)]
)
def test_a_dataset_has_shards_and_a_weight(weight: float, wrong: bool) -> None:
    assert [key for key, _ in DatasetConfig("folder", weight).problems()] == ["weight"] * wrong
    assert [key for key, _ in DatasetConfig("", weight).problems()] == ["shards", *["weight"] * wrong]


def problems(**fields: Any) -> list[str]:  # noqa: ANN401 - of any key
    return [key for key, _ in DataConfig(**{"inputs": {"text": TextConfig()}, **fields}).problems()]


def test_a_run_has_a_modality_and_what_is_named_is_one_of_its_own() -> None:
    assert problems() == []
    assert problems(inputs={}) == ["inputs"]
    assert problems(modality_dropout={"text": 0.0}) == problems(modality_dropout={"text": 1.0}) == []
    assert problems(modality_dropout={"text": 1.1}) == problems(modality_dropout={"text": -0.1})
    assert problems(modality_dropout={"text": 1.1, "image": 0.5}) == ["modality_dropout.text", "modality_dropout.image"]
    assert problems(require=("text",)) == []
    assert problems(require=("text", "image")) == ["require"]


@pytest.mark.parametrize("key", ["lanes", "window", "num_threads", "prefetch_batches", "prefetch_mib"])
def test_what_a_loader_needs_one_of_is_at_least_one(key: str) -> None:
    assert problems(**{key: 1}) == []
    assert problems(**{key: 0}) == [key]


def test_the_limits_of_a_loader_have_bounds() -> None:
    assert problems(prefetch_batches=10_000) == problems(remote=RemoteConfig(fetch_ahead_batches=10_000)) == []
    assert problems(prefetch_batches=10_001) == ["prefetch_batches"]
    assert problems(remote=RemoteConfig(fetch_ahead_batches=10_001)) == ["remote.fetch_ahead_batches"]
    assert problems(num_processes=0) == problems(max_bad_rate=0.0) == problems(max_bad_rate=1.0) == []
    assert problems(num_processes=-1) == ["num_processes"]
    assert problems(max_bad_rate=-0.1) == problems(max_bad_rate=1.1) == ["max_bad_rate"]


def test_mixing_is_for_images_alone_and_for_their_label_alone() -> None:
    mixup, photo = MixupConfig(), {"photo": ImageConfig()}
    assert problems(inputs=photo, mixup=mixup) == []
    assert problems(mixup=mixup) == ["mixup"]
    assert problems(inputs={**photo, "text": TextConfig()}, mixup=mixup) == ["mixup"]
    assert problems(inputs={**photo, "other": ImageConfig()}, mixup=mixup) == ["mixup"]
    assert problems(inputs=photo, mixup=mixup, labels=("writer",)) == ["labels"]
    assert problems(inputs=photo, mixup=MixupConfig(cutmix_alpha=0)) == ["mixup.cutmix_alpha"]
    assert problems(labels=("writer",)) == []


def test_a_label_is_a_vector_where_there_are_several_or_mixed_ones() -> None:
    assert not DataConfig().has_label_targets
    assert DataConfig(multi_label=True).has_label_targets
    assert DataConfig(mixup=MixupConfig()).has_label_targets


def test_only_the_modalities_that_are_named_stay() -> None:
    data = DataConfig(inputs={"text": TextConfig(), "image": ImageConfig(), "points": PointsConfig()})
    assert list(data.ordered_inputs) == ["image", "points", "text"]
    assert list(data.only({"text", "image", "audio"}).ordered_inputs) == ["image", "text"]
    assert data.only(()).inputs == {}


def test_evaluation_of_motion_reads_what_it_names_and_else_what_training_reads() -> None:
    assert FlowConfig(height=10, width=20).of_evaluation() == FlowConfig(height=10, width=20)
    assert FlowConfig(height=10, width=20, test_height=30).of_evaluation().shape == (2, 30, 20, 3)
    assert FlowConfig(height=10, width=20, test_width=40).of_evaluation().shape == (2, 10, 40, 3)


def test_names_of_labels_values_and_inputs_are_told_apart() -> None:
    assert problems(labels=("a", "b"), values=("c",)) == []
    assert problems(labels=("a", "a")) == ["labels"]
    assert problems(values=("a", "b", "b")) == ["values"]
    assert problems(labels=("text",)) == problems(labels=("label",)) == ["labels"]
    assert problems(values=("text",)) == problems(values=("label",)) == ["values"]
    # A value may not have the name of a label, and is what is told.
    assert problems(labels=("a",), values=("a",)) == ["values"]
    assert problems(inputs={"all": TextConfig()}) == ["inputs.all"]
    assert problems(inputs={"label": TextConfig()}) == []
    assert problems(inputs={"label": FlowConfig()}) == ["inputs.label"]


def test_clips_are_of_what_has_a_time() -> None:
    assert problems(clips=ClipsConfig(), inputs={"sound": AudioConfig(), "photo": ImageConfig()}) == []
    assert problems(clips=ClipsConfig(), inputs={"clip": VideoConfig(frame_step=1)}) == []
    assert problems(clips=ClipsConfig(), inputs={"clip": VideoConfig()}) == ["clips"]
    assert problems(clips=ClipsConfig(num_test=0), inputs={"sound": AudioConfig()}) == ["clips.num_test"]
    assert (DataConfig().num_clips, DataConfig(clips=ClipsConfig(num_test=3)).num_clips) == (1, 3)


def test_what_a_network_can_be_asked_is_told_with_the_key_that_makes_it() -> None:
    inputs = {
        "words": TextConfig(num_bytes=9, masking=MaskingConfig()),
        "pair": FlowConfig(height=3, width=4),
        "field": ArrayConfig(shape=(5, 2), coordinates="place.npy", num_axes=1),
        "plain": TextConfig(),
    }
    data = DataConfig(inputs=inputs, labels=("kind",), values=("size", "age"), require=("words", "pair"))
    assert data.targets() == {
        ("label", ""): "",
        ("named label", "kind"): "labels",
        ("value", "size"): "values",
        ("value", "age"): "values",
        ("input", "field"): "",
        ("input", "field.coordinates"): "",
        ("input", "pair"): "",
        ("motion", "pair"): "inputs.pair",
        ("input", "plain"): "",
        ("input", "words"): "",
        ("hidden words", "words"): "inputs.words.masking",
    }
    assert data.target_arrays() == {"pair": ((3, 4, 2), "float32"), "words": ((9,), "int16")}
    assert data.required_members == (("pair", inputs["pair"].patterns), ("words", ("txt",)))
    assert DataConfig(multi_label=True).targets() == {("labels", ""): "multi_label"}
    assert DataConfig(mixup=MixupConfig()).targets() == {("label", ""): "mixup"}
    assert DataConfig(mixup=MixupConfig(), multi_label=True).targets() == {("labels", ""): "multi_label"}


def test_evaluation_reads_every_input_as_it_asks_for() -> None:
    data = DataConfig(inputs={"pair": FlowConfig(height=3, width=4, test_height=9), "text": TextConfig()})
    assert data.of_evaluation().inputs == {"pair": FlowConfig(height=9, width=4, test_height=9), "text": TextConfig()}
