"""A transform, by `plugins: [noise.py]` and `data.inputs.image: {modality: noisy_image, height: 28, width: 28}`."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from perceiver_trainer import ImageConfig, ImageInput, Members, Prepared


@dataclass(frozen=True)
class NoisyImage(ImageConfig):
    """An image as any other, but for the noise."""

    modality: Literal["noisy_image"] = "noisy_image"
    noise: float = 10.0
    """Standard deviation of the noise, in steps of 256."""

    def prepare(self, found: Members, rng: np.random.Generator | None) -> Prepared:
        """Return the image; every random number comes from `rng`, which there is in training alone."""
        prepared = super().prepare(found, rng)
        if rng is None:
            return prepared
        noisy = prepared.array + rng.normal(0, self.noise, prepared.array.shape)
        return replace(prepared, array=noisy.round().clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class NoisyImageInput(ImageInput):
    """Its tokens: those of any image."""

    modality: Literal["noisy_image"] = "noisy_image"
