"""The defaults of the data's configuration."""

import dataclasses
from typing import Any

from data_shards.config import DataConfig
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
from data_shards.storage.config import DatasetConfig, RemoteConfig


def test_what_a_config_leaves_out_keeps_its_meaning() -> None:
    """A run's file names what it changes: another default would be other data."""
    remote = {
        "cache_folder": "",
        "cache_mib": 65_536,
        "timeout_seconds": 30.0,
        "deadline_seconds": 900.0,
        "fetch_ahead_batches": 64,
    }
    expected: dict[Any, dict[str, Any]] = {
        CropConfig: {"min_area": 0.08, "max_area": 1.0, "max_stretch": 4 / 3, "attempts": 10},
        RandAugmentConfig: {"num_layers": 4, "magnitude": 5.0},
        ColourConfig: {**dict.fromkeys(("brightness", "contrast", "saturation"), 0.4), "hue": 0.0},
        ScaleConfig: {
            "probability": 0.8,
            "min_power": -0.2,
            "max_power": 0.5,
            "stretch_probability": 0.8,
            "max_stretch_power": 0.2,
        },
        EraseConfig: {"probability": 0.5, "min_side": 50, "max_side": 100},
        SpecAugmentConfig: {"num_time_masks": 2, "max_time_frames": 20, "num_bin_masks": 2, "max_bins": 8},
        LogMelConfig: {"num_bins": 40, "window_seconds": 0.025, "hop_seconds": 0.01},
        MaskingConfig: {"probability": 0.15, "by_mark": False},
        ClipsConfig: {"num_test": 1},
        MixupConfig: {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "cutmix_probability": 0.5},
        RemoteConfig: remote,
        DatasetConfig: {"shards": "", "weight": 1.0, "inputs": ()},
        DataConfig: {
            "inputs": {},
            "shards": "",
            "eval_split": "",
            "modality_dropout": {},
            "require": (),
            "multi_label": False,
            "labels": (),
            "values": (),
            "mixup": None,
            "clips": None,
            "datasets": {},
            "remote": remote,
            "max_bad_rate": 0.001,
            "lanes": 8,
            "window": 1024,
            "num_threads": 2,
            "num_processes": 0,
            "prefetch_batches": 4,
            "prefetch_mib": 1024,
        },
    }
    assert {config: dataclasses.asdict(config()) for config in expected} == expected
