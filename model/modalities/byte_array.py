"""How modalities become one array of tokens, and which of its tokens are valid.

    audio   (B,  1920, 401) | padding 303   ->
    label   (B,     1, 700) | padding   4   ->   (B, 52097, 704), in the order of the names
    video   (B, 50176, 243) | padding 461   ->

The figures are those of the second paper's Kinetics network: 704 is the widest, 700, and four more channels, so that
each modality has some of its own.

B samples, M tokens of all modalities, C channels of the joined tokens
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from model.attention.absorbed.token_sources import GridTokens
from model.attention.read_forms import FormByDevice
from model.config.perceiver import PerceiverConfig
from model.modalities.adapters.conv_stem import ConvStem, Total
from model.modalities.adapters.pixels import StemAdapter
from model.modalities.input import COORDINATES, Input
from model.parameters import ByName, Table
from model.positions import GridAdapter


@dataclass(frozen=True)
class Tokens:
    """The byte array of the paper, put together or, where it is read in the separable form, in its parts."""

    parts: Float[Tensor, "B M C"] | GridTokens
    """Tokens of all modalities, in the order of their names."""
    valid: Bool[Tensor, "B M"] | Bool[Tensor, "b N M"] | None
    """Which tokens are there, or of a stream which each latent sees; None means all."""
    spans: dict[str, tuple[int, int]]
    """First token of each modality, and the one after its last."""
    whole: frozenset[str] = frozenset()
    """The modalities that are known to lack no token in any sample."""
    latents_at: Int[Tensor, "_b N"] | None = None
    """The places of the latents in a stream; None where they have none."""

    @property
    def values(self) -> Float[Tensor, "B M C"]:
        """The tokens, put together."""
        return self.parts.whole() if isinstance(self.parts, GridTokens) else self.parts

    def valid_of(self, name: str) -> Bool[Tensor, "B m"] | None:
        """Return which tokens of a modality are there; None means all."""
        return None if self.valid is None or name in self.whole else self.valid[:, slice(*self.spans[name])]


def valid_tokens(config: Input, num_tokens: int, lengths_B: Int[Tensor, " B"]) -> Bool[Tensor, "B M"]:
    """Return which tokens of a modality hold at least one of the first `lengths` entries along its first axis."""
    starts: Tensor = _first_entry(config, torch.arange(num_tokens, device=lengths_B.device))
    return starts < lengths_B[:, None]


def hides_nothing(config: Input, num_tokens: int, lengths_B: Int[Tensor, " B"]) -> bool:
    """Return whether all tokens of all samples are valid, where it is known without waiting for a device.

    Attention without a mask is faster, and on a CPU equal to the bit. While a network is traced its lengths are not
    yet known.
    """
    if lengths_B.device.type != "cpu" or torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return False
    # The last token begins latest: if the shortest sample has it, all have all.
    return not lengths_B.numel() or bool(_first_entry(config, num_tokens - 1) < lengths_B.min())


def _first_entry(config: Input, token: Any) -> Any:  # noqa: ANN401  # a number or an array of them
    """The first entry, along its modality's first axis, that a token holds."""
    # Tokens lie row by row, and a length counts along the first axis: what matters of a token is its row.
    return token // (config.num_tokens // config.grid[0]) * config.entries_per_row


def check_tokens(name: str, config: Input, shape: torch.Size, array_shape: torch.Size) -> None:
    """Raise ValueError where an adapter makes other tokens than its input says: padding would bring any to one width.

    There may be fewer than the grid has of an array that is itself shorter, such as of a batch of short texts.
    """
    most = (array_shape[0], config.num_tokens, config.token_width)
    least = most[1] if tuple(array_shape[1:]) == config.shape else 0
    if len(shape) != 3 or shape[0] != most[0] or not least <= shape[1] <= most[1] or shape[2] != most[2]:
        raise ValueError(
            f"input {name}: the adapter of {type(config).__name__} made tokens of shape {tuple(shape)}, its grid and "
            f"widths say {most}, (samples, tokens, channels); correct the adapter, or grid and content_width"
        )


class Paddings(ByName):
    """Learned vectors that bring tokens or queries of several kinds to one width; they also tell the kinds apart."""

    def __init__(self, widths: dict[str, int], width: int) -> None:
        super().__init__({name: Table(1, width - own) for name, own in widths.items() if own < width})

    def forward(self, name: str, tokens: Float[Tensor, "B M c"]) -> Float[Tensor, "B M C"]:
        """Return the tokens with their kind's vector after their channels."""
        if name not in self:
            return tokens
        padding = self[name]
        assert isinstance(padding, Table)
        return torch.cat([tokens, padding.weight.expand(*tokens.shape[:2], -1)], dim=-1)


class Inputs(nn.Module):
    """The adapters, and the learned vectors that pad their tokens to a common width or take their place."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.modalities = config.ordered_inputs
        self._form_on = FormByDevice(config)
        self.adapters = ByName({name: modality.adapter() for name, modality in self.modalities.items()})
        widths = {name: modality.token_width for name, modality in self.modalities.items()}
        self.paddings = Paddings(widths, config.token_width)
        masks = self.modalities if config.mask_tokens else ()
        self.mask_tokens = ByName({name: Table(1, config.token_width) for name in masks})
        self.stemmed = [name for name, modality in self.modalities.items() if modality.has_stem]

    def observe(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor], dtype: torch.dtype, total: Total) -> None:
        """Take the statistics of a global batch that batch norms need; see Perceiver."""
        for name in self.stemmed:
            only = self.adapters[name]
            assert isinstance(only, StemAdapter)
            # Of a sample that lacks the modality there are zeros, which are no picture.
            only.observe(inputs[name], lengths[name] > 0, dtype, total)

    def settle(self, *, is_kept: Tensor | bool) -> None:
        """End a global batch; see Perceiver."""
        for name in self.stemmed:
            stem = self.adapters[name].stem
            assert isinstance(stem, ConvStem)
            stem.settle(is_kept=is_kept)

    def forward(
        self,
        inputs: dict[str, Tensor],
        lengths: dict[str, Tensor] | None,
        hidden: dict[str, Tensor] | None,
        dtype: torch.dtype,
    ) -> Tokens:
        """Return the tokens of all modalities.

        `lengths` counts the valid entries of each along its first axis, best on the host: then a mask is made only
        where it hides something. `hidden` (B, M of the modality) says which
        tokens give way to their modality's mask token.
        """
        parts, counts = self._parts(inputs, hidden, dtype)
        # As many as there are, not as are configured: a batch of texts may have fewer places.
        spans = dict(zip(self.modalities, pairwise(accumulate(counts, initial=0)), strict=True))
        if lengths is None:
            return Tokens(parts, None, spans)
        whole = frozenset(
            name
            for (name, modality), count in zip(self.modalities.items(), counts, strict=True)
            if hides_nothing(modality, count, lengths[name])
        )
        # No mask where nothing is hidden: with one, a GPU's flash attention is ruled out.
        return Tokens(parts, None if len(whole) == len(spans) else self._valid(counts, lengths, inputs), spans, whole)

    def _valid(self, counts: list[int], lengths: dict[str, Tensor], inputs: dict[str, Tensor]) -> Tensor:
        """Which tokens are valid, where the inputs are."""
        valid = [
            valid_tokens(modality, count, lengths[name].to(inputs[name].device, non_blocking=True))
            for (name, modality), count in zip(self.modalities.items(), counts, strict=True)
        ]
        return valid[0] if len(valid) == 1 else torch.cat(valid, dim=1)

    def _parts(
        self, inputs: dict[str, Tensor], hidden: dict[str, Tensor] | None, dtype: torch.dtype
    ) -> tuple[Tensor | GridTokens, list[int]]:
        """The tokens, and how many there are of each modality."""
        if self._form_on(next(iter(inputs.values())).device) == "separable":
            ((name, only),) = self.adapters.items()
            assert isinstance(only, GridAdapter)
            content_BMc = only.content(inputs[name], dtype)
            return GridTokens(content_BMc, only.positions.axis_tables), [content_BMc.shape[1]]
        values = [self._tokens(name, inputs, (hidden or {}).get(name), dtype) for name in self.modalities]
        joined_BMC = values[0] if len(values) == 1 else torch.cat(values, dim=1)
        return joined_BMC, [tokens.shape[1] for tokens in values]

    def _tokens(self, name: str, inputs: dict[str, Tensor], hidden_BM: Tensor | None, dtype: torch.dtype) -> Tensor:
        given = () if self.modalities[name].places is None else (inputs[f"{name}.{COORDINATES}"],)
        content_BMc: Tensor = self.adapters[name](inputs[name], dtype, *given)
        # While a network is traced a look at its sizes would fix them: the number of samples is to stay open.
        if not (torch.compiler.is_compiling() or torch.compiler.is_exporting()):
            check_tokens(name, self.modalities[name], content_BMc.shape, inputs[name].shape)
        tokens_BMC: Tensor = self.paddings(name, content_BMc)
        if hidden_BM is not None and name not in self.mask_tokens:
            raise ValueError(f"hidden.{name}: tokens can only be hidden with mask_tokens=true; it is false")
        if name in self.mask_tokens and (unknown_BM := self.modalities[name].unknown(inputs[name])) is not None:
            hidden_BM = unknown_BM if hidden_BM is None else hidden_BM | unknown_BM
        if hidden_BM is None:
            return tokens_BMC
        mask_token = self.mask_tokens[name]
        assert isinstance(mask_token, Table)
        # After the padding: the mask token has all channels of the joined tokens, as in the released code.
        return torch.where(hidden_BM[..., None], mask_token.weight, tokens_BMC)
