"""Perceiver: encoder, latents and decoder in one module.

    inputs  -- adapters -->  tokens (B, M, C)
                                |                   |
    latents (N, D)  ----->  cross-attend, block, cross-attend, block, ...  (B, N, D)
                                                                              |
    queries (O, E)  ------------------------------------------------->  cross-attend  (B, O, E)  -- heads -->  answers

Only the cross-attends meet the tokens and the queries, so depth costs N x N and not M x M. Answers that average the
latents have no queries.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from model.checks import check_inputs
from model.config.perceiver import PerceiverConfig
from model.decoder import Decoder
from model.encoder import Encoder
from model.modalities.adapters.conv_stem import Total
from model.modalities.adapters.values import TextAdapter
from model.modalities.byte_array import Inputs
from model.network import AnyNetwork
from model.parameters import draw_parameters

_LATENTS = "encoder.latents.weight"


class Perceiver(AnyNetwork):
    """A Perceiver or a Perceiver IO whose weights are a pure function of its config and seed."""

    def __init__(self, config: PerceiverConfig, *, seed: int) -> None:
        super().__init__(config)
        assert config.network is None, "a network of a user's own was to be made as a Perceiver"
        with torch.random.fork_rng(devices=[]):
            # A plug-in's modules draw from the global generator, as those of PyTorch do; nothing else in the process
            # is to move them, nor they anything else.
            torch.default_generator.manual_seed(seed)
            self.inputs = Inputs(config)
            self.encoder = Encoder(config)
            self.decoder = Decoder(config, self._embedding)
        # Last: one generator goes through all modules in their order, so every one must be there.
        draw_parameters(self, seed)

    def forward(
        self,
        inputs: dict[str, Tensor],
        lengths: dict[str, Tensor] | None = None,
        *,
        hidden: dict[str, Tensor] | None = None,
        points: dict[str, Tensor] | None = None,
        outputs: Collection[str] | None = None,
        chunk: int = 0,
        draws: Tensor | None = None,
        num_latents: int = 0,
    ) -> dict[str, Tensor]:
        """Return the answer of every output by its name.

        Of kind label and labels: logits (B, classes); value: (B, values); text: logits (B, L, vocabulary); flow:
        (B, H, W, 2) pixels; grid: values (B, *shape, channels); points: values (B, N, channels); embedding:
        (B, channels); autoregressive: logits of what the stream has at the places of the latents, its last ones,
        (B, N, vocabulary) or (B, N, channels, levels).

        `inputs` holds every modality of the config, as the loader delivers it; `lengths` how many entries along each
        modality's first axis are valid, 0 where a sample lacks it, and may be left out if all are there. Lengths that
        stay on the host, wherever the inputs are, cost attention a mask only where they hide something. `hidden` says
        which tokens of a modality give way to its mask token, or are not read where the network is autoregressive.
        `points` asks for some cells of a grid only (training); `outputs` asks for some outputs only. `chunk` decodes
        that many queries at a time (large outputs at test), the latents being encoded once. `draws`, int64 (B, 2), are
        two numbers of 32 bits for each sample, from which dropout and stochastic depth draw in training. `num_latents`
        lets the first latents alone take part; 0 takes all.
        Raises ValueError for inputs that are not what the config declares.
        """
        check_inputs(self.config, inputs, lengths)
        draws = self._checked(draws)
        if not 0 <= num_latents <= self.config.num_latents:
            raise ValueError(f"num_latents: expected 0 to {self.config.num_latents}, got {num_latents}")
        stream, dtype = self.config.stream, self.encoder.latents.weight.dtype
        # No other token takes the place of one that a stream hides: it is not read.
        unread = (hidden or {}).get(stream)
        tokens = self.inputs(inputs, lengths, None if stream else hidden, dtype)
        latents = self.encoder(tokens, unread, draws, num_latents)
        answers: dict[str, Tensor] = self.decoder(
            latents, tokens, inputs, points=points, outputs=outputs, chunk=chunk, draws_B2=draws
        )
        return answers

    def _checked(self, draws: Tensor | None) -> Tensor | None:
        """Return the draws of a training that needs some, None otherwise."""
        if not (self.training and self.config.draws):
            return None
        if draws is None:
            raise ValueError(
                "draws: expected two numbers for each sample, from which in training "
                f"model.dropout={self.config.dropout} and model.drop_path={self.config.drop_path} draw, got none; "
                "pass them, or call eval() first"
            )
        return draws

    def latents(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor] | None = None) -> Tensor:
        """Return the latents (B, N, D) after reading the inputs, which are as in `forward`."""
        check_inputs(self.config, inputs, lengths)
        found: Tensor = self.encoder(self.inputs(inputs, lengths, None, self.encoder.latents.weight.dtype))
        return found

    def observe(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor], total: Total) -> None:
        """Take the statistics of a global batch, of which these are this rank's samples. Collective.

        Batch norms then use them for every micro-batch until `settle`. `total` sums a tensor over all ranks. Without
        this, a batch norm in training takes the statistics of each batch that it is given, as PyTorch's does.
        """
        self.inputs.observe(inputs, lengths, self.encoder.latents.weight.dtype, total)

    def settle(self, *, is_kept: Tensor | bool) -> None:
        """End a global batch; its statistics enter the running ones, which evaluation uses, where it `is_kept`."""
        self.inputs.settle(is_kept=is_kept)

    def cut(self, num_latents: int) -> "Perceiver":
        """Return the network that has only the first latents, with copies of the weights."""
        small = Perceiver(self.config.with_latents(num_latents), seed=0)
        weights = self.state_dict()
        small.load_state_dict(weights | {_LATENTS: weights[_LATENTS][:num_latents]})
        return small.to(self.encoder.latents.weight).train(self.training)

    def _embedding(self, name: str) -> Tensor:
        text = self.inputs.adapters[name]
        assert isinstance(text, TextAdapter)
        return text.embedding.weight
