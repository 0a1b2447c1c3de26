"""A modality: windows of EEG, by `plugins: [eeg.py]`, `data.inputs.eeg: {modality: eeg}` and `model.inputs.eeg: {}`."""

import io
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from matplotlib.axes import Axes

from perceiver_trainer import AudioInput, Members, Modality, Prepared


@dataclass(frozen=True)
class Eeg(Modality):
    """Members KEY.eeg.npy, (samples, channels), as windows of num_samples; each channel has mean 0 and variance 1."""

    modality: Literal["eeg"] = "eeg"
    num_samples: int = 256
    num_channels: int = 8
    usual: ClassVar[tuple[str, ...]] = ("eeg.npy",)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_samples, self.num_channels)

    @property
    def sizes(self) -> dict[str, int]:
        return {"num_samples": self.num_samples, "num_channels": self.num_channels}

    def prepare(self, found: Members, rng: np.random.Generator | None) -> Prepared:
        """Return a window: anywhere in the recording in training, its beginning otherwise."""
        recording = found[""].decoded(_decoded)
        if recording.shape[1:] != self.shape[1:]:
            raise ValueError(f"has shape {recording.shape}, expected (samples, {self.num_channels})")
        start = 0 if rng is None else int(rng.integers(max(len(recording) - self.num_samples, 0) + 1))
        window, array = recording[start : start + self.num_samples], np.zeros(self.shape, np.float32)
        array[: len(window)] = (window - window.mean(axis=0)) / (window.std(axis=0) + 1e-6)
        return Prepared(array, len(window), is_cut=len(recording) > len(window))

    @staticmethod
    def decoded_shape(role: str, content: bytes | memoryview) -> tuple[int, ...]:
        return _decoded(content).shape

    @staticmethod
    def draw(axes: Axes, found: Members) -> None:
        axes.plot(found[""].decoded(_decoded), linewidth=0.5)


@dataclass(frozen=True)
class EegInput(AudioInput):
    """Its tokens: patches along time, as those of sound with several channels; sizes come from the data."""

    modality: Literal["eeg"] = "eeg"


def _decoded(content: bytes | memoryview) -> np.ndarray:
    return np.load(io.BytesIO(content), allow_pickle=False).astype(np.float32)
