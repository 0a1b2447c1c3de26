"""Sample: one sample as arrays of fixed shape. Batch: samples packed into one flat buffer per input.

    slot               0       1       2, without sound   3, padding
    arrays["photo"]    pixels  pixels  pixels             0              uint8 (B, H, W, c)
    arrays["sound"]    waves   waves   0                  0              float32 (B, S)
    lengths["sound"]   S       S       0                  0
    weights            1       1       1                  0
    keys               k0      k1      k2                 ""

The section of an input says the shape and the type of its array; pixels stay bytes until they are on the device.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from data_shards.config import DataConfig
from data_shards.format.annotations import NO_LABEL
from data_shards.format.buffers import BufferPool
from data_shards.modalities.modality import COORDINATES


@dataclass(frozen=True)
class Sample:
    """One decoded sample."""

    arrays: dict[str, np.ndarray]
    """The fixed-shape array of each input that the sample has."""
    lengths: dict[str, int]
    """Valid entries along the first axis of each array; an input that is absent is left out or 0."""
    label: int = NO_LABEL
    weight: float = 1.0
    labels: tuple[int, ...] = ()
    """All labels, if a sample has several."""
    named_labels: dict[str, int] = field(default_factory=dict)
    """Further labels by name, of those that the config asks for."""
    targets: dict[str, np.ndarray] = field(default_factory=dict)
    """The targets other than labels; see Batch."""
    is_cut: dict[str, bool] = field(default_factory=dict)
    """By input, True where the sample has more entries than were read into its array."""


@dataclass(frozen=True)
class Batch:
    """B samples; a slot that only pads the batch has weight 0, no key, and length 0 in every input."""

    arrays: dict[str, Tensor]
    """(B, ...) for every input; zeros where a sample lacks it. NAME.coordinates has the coordinates of an
    input's cells, where a sample brings them."""
    lengths: dict[str, Tensor]
    """int64 (B,): valid entries along the first axis after B; 0 where the input is absent."""
    labels: Tensor
    """int64 (B,); -1 where there is none."""
    weights: Tensor
    """float32 (B,): the weight of each sample in the loss."""
    keys: tuple[str, ...]
    targets: dict[str, Tensor] = field(default_factory=dict)
    """"label": float32 (B, classes), where labels are several or mixed; by the name of an input, what its section has
    as a target, such as the true ids of what was hidden of a text, 0 elsewhere; by the name of each further label:
    int64 (B,), -1 where there is none; by that of each value: float32 (B, numbers), NaN where there is none. Only what
    the config asks for is there."""
    index: int = 0
    """Number of the global batch in its order: the key of draws that all its samples share."""
    first: int = 0
    """Place of the first sample in the global batch: with `index` the key of what each sample draws."""
    lengths_on_host: dict[str, Tensor] = field(default_factory=dict)
    """The lengths of a batch that is on a device, as they were on the host; empty for one that is on the host."""
    num_cut: Mapping[str, int] = field(default_factory=dict)
    """By input the samples of which it reads a part, for the counts of what is not read; of whole batches alone."""

    @property
    def host_lengths(self) -> dict[str, Tensor]:
        """The lengths on the host: reading them waits for no device, and they decide which kernels are called."""
        return self.lengths_on_host or self.lengths

    @property
    def num_samples(self) -> int:
        """Samples that are not padding."""
        return sum(key != "" for key in self.keys)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device; from pinned memory the copy does not block."""
        return replace(
            self,
            arrays={name: array.to(device, non_blocking=True) for name, array in self.arrays.items()},
            lengths={name: length.to(device, non_blocking=True) for name, length in self.lengths.items()},
            labels=self.labels.to(device, non_blocking=True),
            targets={name: target.to(device, non_blocking=True) for name, target in self.targets.items()},
            weights=self.weights.to(device, non_blocking=True),
            # Kept beside the copies: whether a mask hides anything is asked of the lengths, and on the device the
            # answer would make the host wait for all that is queued there.
            lengths_on_host={} if torch.device(device).type == "cpu" else self.host_lengths,
        )

    def beside(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the host on the device of the batch, without a wait for what is queued there."""
        # From memory that is not page-locked the host would wait for the copy.
        ready = tensor.pin_memory() if self.weights.is_cuda else tensor
        return ready.to(self.weights.device, non_blocking=True)

    def pinned(self) -> "Batch":
        """Return the batch in page-locked memory, all of it: a copy from any other makes the host wait."""
        return replace(
            self,
            arrays={name: _pinned(array) for name, array in self.arrays.items()},
            lengths={name: _pinned(length) for name, length in self.lengths.items()},
            labels=_pinned(self.labels),
            targets={name: _pinned(target) for name, target in self.targets.items()},
            weights=_pinned(self.weights),
        )

    def tensors(self) -> Iterator[Tensor]:
        """Yield what a copy to a device copies."""
        yield from self.arrays.values()
        yield from self.lengths.values()
        yield from self.targets.values()
        yield from (self.labels, self.weights)

    def micro_batches(self, num_parts: int) -> list["Batch"]:
        """Cut into equal consecutive parts, as views."""
        # Unequal parts would weigh their samples differently in a sum of means.
        if len(self.keys) % num_parts:
            raise ValueError(f"a batch of {len(self.keys)} samples cannot be cut into {num_parts} equal micro-batches")
        rows = len(self.keys) // num_parts
        # Slices are views: the parts of a pinned batch are pinned.
        cuts = [slice(start, start + rows) for start in range(0, len(self.keys), rows)]
        return [
            Batch(
                {name: array[cut] for name, array in self.arrays.items()},
                {name: length[cut] for name, length in self.lengths.items()},
                self.labels[cut],
                self.weights[cut],
                self.keys[cut],
                {name: target[cut] for name, target in self.targets.items()},
                self.index,
                self.first + cut.start,
                {name: length[cut] for name, length in self.lengths_on_host.items()},
            )
            for cut in cuts
        ]


def _pinned(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_pinned() else tensor.pin_memory()


def layout(config: DataConfig) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return shape and dtype of one sample in each array."""
    found = {}
    for name, section in config.ordered_inputs.items():
        found[name] = section.shape, getattr(torch, section.dtype)
        if section.places is not None:
            found[f"{name}.{COORDINATES}"] = section.places, torch.float32
    return found


def num_bytes(config: DataConfig, num_samples: int) -> int:
    """Return the bytes that the arrays of a batch take."""
    return num_samples * sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout(config).values())


def empty(
    config: DataConfig,
    num_samples: int,
    *,
    num_classes: int = 0,
    num_values: Mapping[str, int] = MappingProxyType({}),
    pool: BufferPool,
    pinned: bool,
) -> Batch:
    """Return a batch of padding, to be filled row by row; its arrays, from the pool or pinned, are not yet zeroed."""

    def array(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        # torch keeps pinned memory for the next batch by itself.
        if pinned:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        # The pool has bytes; torch reads them as what they hold without a copy.
        return torch.from_numpy(pool.take(math.prod(shape) * dtype.itemsize)).view(dtype).view(shape)

    targets = {
        name: torch.zeros((num_samples, *shape), dtype=dtype, pin_memory=pinned)
        for name, (shape, dtype) in _targets(config, num_classes).items()
    }
    for name in config.values:
        # NaN is the number that nobody knows: such a sample has no part in the loss.
        targets[name] = torch.full((num_samples, num_values[name]), torch.nan, pin_memory=pinned)
    return Batch(
        arrays={name: array((num_samples, *shape), dtype) for name, (shape, dtype) in layout(config).items()},
        lengths={name: torch.zeros(num_samples, dtype=torch.int64) for name in config.ordered_inputs},
        labels=torch.full((num_samples,), NO_LABEL, dtype=torch.int64),
        weights=torch.zeros(num_samples, dtype=torch.float32),
        keys=("",) * num_samples,
        targets=targets,
    )


def _targets(config: DataConfig, num_classes: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return shape and dtype of one sample's targets."""
    targets: dict[str, tuple[tuple[int, ...], torch.dtype]] = dict.fromkeys(config.labels, ((), torch.int64))
    if config.has_label_targets:
        targets["label"] = (num_classes,), torch.float32
    return targets | {name: (shape, getattr(torch, dtype)) for name, (shape, dtype) in config.target_arrays().items()}
