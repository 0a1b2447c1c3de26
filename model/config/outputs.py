"""The outputs of a network, one dataclass a kind of task, and the decoder that their queries share."""

from dataclasses import dataclass, field
from math import inf, prod
from typing import Literal

from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig, Problems, not_negative, positive


@dataclass(frozen=True)
class LabelOutput:
    """A class, or several that do not exclude each other."""

    num_classes: int = 1_000
    """Classes."""
    pooling: Literal["mean", "query"] = "mean"
    """Whether the latents are averaged (the first paper) or one learned query reads them (Perceiver IO)."""
    query_width: int = 0
    """Channels of the query; 0 means those of a latent vector."""
    hidden_layer: bool = False
    """Whether a layer of the query's width with a tanh comes before the logits, as for GLUE."""
    multi_label: bool = False
    """Whether a sample may have several classes: a sigmoid a class instead of one softmax."""
    loss_weight: float = 1.0
    """Weight of this task's loss."""

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from positive(num_classes=self.num_classes)
        yield from not_negative(query_width=self.query_width, loss_weight=self.loss_weight)
        for name in ("query_width", "hidden_layer"):
            if self.pooling == "mean" and getattr(self, name):
                yield name, f"has no meaning with pooling=mean, got {getattr(self, name)}; set pooling=query"


@dataclass(frozen=True)
class TextOutput:
    """The byte or token at every place of the text that is read; weights are tied to the input's embedding."""

    loss_weight: float = 1.0
    """Weight of this task's loss."""

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from not_negative(loss_weight=self.loss_weight)


@dataclass(frozen=True)
class FlowOutput:
    """The motion of every pixel from the first frame to the second; the input's tokens are the queries."""

    rescale: float = 100.0
    """What the decoded values are divided by."""
    loss_weight: float = 1.0
    """Weight of this task's loss."""

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        if not 0 < self.rescale < inf:
            yield "rescale", f"must be positive, got {self.rescale}"
        yield from not_negative(loss_weight=self.loss_weight)


@dataclass(frozen=True)
class GridOutput:
    """Values on a grid, asked for by Fourier features: a picture, a clip or a recording to be drawn again."""

    shape: tuple[int, ...] = (16, 224, 224)
    """Queries along each axis."""
    num_channels: int = 3
    """Values that each query is answered with, such as the samples of an audio patch."""
    positions: PositionsConfig = field(default_factory=lambda: PositionsConfig(num_bands=32))
    """The queries; kind "fourier" computes them, kind "learned" has one learned row a query."""
    train_queries: int = 0
    """Queries that training asks, drawn anew for every batch; 0 asks all, as evaluation does."""
    loss_weight: float = 1.0
    """Weight of this task's loss."""

    @property
    def num_queries(self) -> int:
        """Queries of one sample."""
        return prod(self.shape)

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        if not self.shape or min(self.shape) < 1:
            yield "shape", f"needs at least one axis and no empty one, got {tuple(self.shape)}"
            return
        yield from positive(num_channels=self.num_channels)
        yield from not_negative(loss_weight=self.loss_weight)
        if not 0 <= self.train_queries <= self.num_queries:
            yield "train_queries", f"must be from 0 to the {self.num_queries} that there are, got {self.train_queries}"
        if self.positions.kind == "none":
            yield "positions.kind", "must be fourier or learned, got none: queries would all be alike"
        yield from ((f"positions.{key}", sentence) for key, sentence in self.positions.problems(self.shape))


AnyOutput = LabelOutput | TextOutput | FlowOutput | GridOutput


@dataclass(frozen=True)
class DecoderConfig:
    """The one cross-attend in which all queries read the latents."""

    cross_attend: AttentionConfig = field(default_factory=AttentionConfig)
    """Attention from the queries to the latents; width 0 means the latents'."""
    query_residual: bool = False
    """Whether what is read is added to the query (ImageNet) or takes its place (language, flow, autoencoding)."""
    min_padding: int = 2
    """Learned channels that the widest query gets when several outputs are joined."""
    output_width: int = 0
    """Channels of a linear layer between the cross-attend and every output's own; 0 leaves it out."""

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem but the attention's, which only the network can know."""
        yield from not_negative(min_padding=self.min_padding, output_width=self.output_width)


@dataclass(frozen=True)
class OutputsConfig:
    """The tasks that a network answers: those that are set, each answered under its name."""

    label: LabelOutput | None = None
    """Classification."""
    labels: dict[str, LabelOutput] = field(default_factory=dict)
    """More classifications, by name: several tasks at once, each with a query of its own."""
    text: TextOutput | None = None
    """Masked language modelling."""
    flow: FlowOutput | None = None
    """Optical flow."""
    audio: GridOutput | None = None
    """Autoencoding of audio, a patch a query."""
    image: GridOutput | None = None
    """Autoencoding of an image."""
    video: GridOutput | None = None
    """Autoencoding of a clip."""

    def chosen(self) -> dict[str, AnyOutput]:
        """Return the outputs that are set, sorted by name."""
        single = {name: value for name, value in vars(self).items() if value is not None and name != "labels"}
        return dict(sorted((single | dict(self.labels)).items()))

    def grids(self) -> dict[str, GridOutput]:
        """Return the modalities that are drawn again."""
        return {name: output for name, output in self.chosen().items() if isinstance(output, GridOutput)}

    def problems(self) -> Problems:
        """Yield (key, sentence) of every output's problems."""
        if not self.chosen():
            yield "label", "no output is set; set at least one, such as outputs.label.num_classes=10"
        for name, output in self.chosen().items():
            prefix = f"labels.{name}" if name in self.labels else name
            yield from ((f"{prefix}.{key}", sentence) for key, sentence in output.problems())
        for name in sorted(name for name in self.labels if not name or "." in name):
            yield "labels", f"has an output of the name {name!r}; take one that is not empty and has no full stop"
        for name in sorted(set(self.labels) & (set(vars(self)) - {"labels"})):
            yield f"labels.{name}", "is also the name of an output; choose another"
