"""The encoder: alternating cross-attention to the tokens and self-attention of the latents, with shared weights.

    step      0      1      2      3      4      5      6    ...      schedule of the first paper's network
              read   block  read   block  read   block  read
    weights   r0     b0     r1     b0     r1     b0     r1            r0 its own, r1 of all further reads; one block

The first read has weights of its own: sharing them, too, made the paper's training unstable. That all blocks share
theirs follows from its 44.9 million parameters: with weights of its own for the first block there would be 82.7.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, repeat

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from model.attention.absorbed.token_sources import DenseTokens, GridTokens, SeparableTokens, TokenSource
from model.attention.alignment import aligned
from model.attention.layers import CrossAttend, SelfAttend, in_autocast
from model.attention.norms import normalised
from model.attention.read_forms import Form, FormByDevice
from model.attention.rotary import token_angles
from model.config.perceiver import PerceiverConfig
from model.modalities.byte_array import Tokens
from model.parameters import Table
from model.stream import StreamLatents
from model.training.compilation import is_compiled
from model.training.dropout import LayerDraws, layer_draws
from model.training.recomputation import Run, kept, run_block, run_cross_attend, run_layer, selective

Read = Callable[[int, Tensor, LayerDraws | None], Tensor]


class Block(nn.ModuleList):
    """Self-attention layers, each run by `run_layer`."""

    def __init__(self, config: PerceiverConfig) -> None:
        width, attention = config.latent_width, config.self_attend
        layers = range(config.layers_per_block)
        super().__init__(
            SelfAttend(
                width,
                attention,
                config.gelu,
                dropout=config.dropout,
                compile=config.compile,
                residual_dtype=config.residual_dtype,
                causal=bool(config.stream),
                norm=config.norm,
                mlp=config.mlp,
            )
            for _ in layers
        )
        self.run_layer = run_layer(config.activation_checkpointing)

    def forward(
        self, latents_BND: Float[Tensor, "B N D"], draws: Sequence[LayerDraws | None]
    ) -> Float[Tensor, "B N D"]:
        """Return the latents after all layers, each of which has its draws."""
        for layer, of_layer in zip(self, draws, strict=True):
            latents_BND = self.run_layer(layer, latents_BND, of_layer)
        return latents_BND


class Encoder(nn.Module):
    """The learned latents, the cross-attends and the blocks, in the order of the config's schedule."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self._form_on = FormByDevice(config)
        self.schedule = config.schedule()
        num_cross_attends = 1 + max(index for kind, index in self.schedule if kind == "cross_attend")
        # A network may consist of cross-attends alone.
        num_blocks = 1 + max((index for kind, index in self.schedule if kind == "block"), default=-1)
        self.latents = StreamLatents(config) if config.stream else Table(config.num_latents, config.latent_width, ())
        self.cross_attends = nn.ModuleList(
            CrossAttend(
                config.latent_width,
                config.token_width,
                config.cross_attend,
                config.gelu,
                dropout=config.dropout,
                compile=config.compile,
                residual_dtype=config.residual_dtype,
                norm=config.norm,
                mlp=config.mlp,
            )
            for _ in range(num_cross_attends)
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(num_blocks))
        policy = config.activation_checkpointing
        self.run_plain, self.run_absorbed = (run_cross_attend(policy, absorbed=absorbed) for absorbed in (False, True))
        self.run_block, self.recompute_every_blocks = run_block(policy), config.recompute_every_blocks
        self.compile_setting, self.residual_dtype = config.compile, config.residual_dtype
        self.num_layers, self.drop_path, self.norm = config.num_layers, config.drop_path, config.norm
        self.rotary = config.cross_attend.rotary
        self.grids = {name: modality.grid for name, modality in config.ordered_inputs.items()}

    @property
    def form(self) -> Form:
        """Return the form of the cross-attention on the device of the tokens."""
        return self._form_on(self.latents.weight.device)

    def forward(
        self,
        tokens: Tokens,
        hidden_BM: Bool[Tensor, "B M"] | None = None,
        draws_B2: Int[Tensor, "B 2"] | None = None,
        num_latents: int = 0,
    ) -> Float[Tensor, "B N D"]:
        """Return the latents after reading and thinking; of a stream some places before them may be hidden.

        `draws_B2` are the numbers that a training step draws from. `num_latents` takes the first ones only, 0 all.
        """
        if isinstance(self.latents, StreamLatents):
            latents_BND, tokens = self.latents(tokens, hidden_BM)
        else:
            # A batch of one: the first read's queries are the same for every sample, and are computed once.
            latents_BND = self.latents.weight[None, : num_latents or None]
        read = self._plain_read(tokens) if self.form == "plain" else self._absorbed_read(tokens)
        if self.residual_dtype == "bf16":
            latents_BND = in_autocast(latents_BND)
        run_block = self._run(self.run_block)
        num_blocks, draws = 0, self._draws(draws_B2)
        for kind, index in self.schedule:
            if kind == "block":
                # Counted over blocks, not over steps: cross-attends in between have their own policy.
                run = kept if num_blocks % self.recompute_every_blocks else run_block
                block = self.blocks[index]
                of_layers = tuple(islice(draws, len(block)))  # type: ignore[arg-type]  # a list of modules
                latents_BND, num_blocks = run(block, latents_BND, of_layers), num_blocks + 1
            else:
                latents_BND = read(index, latents_BND, next(draws))
        # Whatever the stream's precision was, the decoder's norms and sums begin in that of the weights.
        out: Tensor = latents_BND.to(self.latents.weight.dtype)
        return out

    def _draws(self, draws_B2: Tensor | None) -> Iterator[LayerDraws | None]:
        """The draws of each layer of the schedule, in its order: layers that share weights draw by themselves."""
        return (
            repeat(None) if draws_B2 is None else iter(layer_draws(draws_B2, self.num_layers, drop_path=self.drop_path))
        )

    def _plain_read(self, tokens: Tokens) -> Read:
        """What cross-attends that share their weights share is computed once: the norm, the keys and the values."""
        normalised_BMC, turns_MP = in_autocast(aligned(normalised(tokens.values, self.norm))), self._turns(tokens)
        # Only latents of a stream have places among the tokens.
        turns_bNP = None if turns_MP is None or tokens.latents_at is None else turns_MP[tokens.latents_at]
        # Of the first paper's eight reads seven share their weights: computing this once saves 11.6 % of the operations
        # of a forward pass.
        keys_values: dict[int, tuple[Tensor, Tensor]] = {}

        def read(index: int, latents_BND: Tensor, draws: LayerDraws | None) -> Tensor:
            layer = self._cross_attend(index)
            if index not in keys_values:
                keys_values[index] = layer.keys_values(normalised_BMC, turns_MP)
            asking = layer, latents_BND, *keys_values[index], tokens.valid, None, draws
            return self._run(self.run_plain)(*asking, turns_bNP)

        return read

    def _turns(self, tokens: Tokens) -> Float[Tensor, "M P"] | None:
        """The angles by which rotary positions turn the keys of the tokens."""
        if not self.rotary:
            return None
        # As many of each input as there are: a batch of texts may have fewer places than are configured.
        counts = {name: end - first for name, (first, end) in tokens.spans.items()}
        num_pairs, device = self._cross_attend(0).attention.num_pairs, tokens.values.device
        return token_angles(((self.grids[name], count) for name, count in counts.items()), num_pairs, device)

    def _absorbed_read(self, tokens: Tokens) -> Read:
        """All cross-attends read the same normalised tokens."""
        values: Tensor | None
        source: TokenSource
        if isinstance(tokens.parts, GridTokens):
            values, source = None, SeparableTokens(tokens.parts, self.norm)
        else:
            # An argument of their own beside the source, which holds them without a graph: so autograd asks for their
            # gradient.
            values = in_autocast(aligned(normalised(tokens.parts, self.norm)))
            source = DenseTokens(values)

        def read(index: int, latents_BND: Tensor, draws: LayerDraws | None) -> Tensor:
            layer = self._cross_attend(index).absorbed
            return self.run_absorbed(layer, latents_BND, source, values, tokens.valid, draws)

        return read

    def _run(self, run: Run) -> Run:
        """Return how a step is run: what is compiled keeps no more than `selective` does, without a policy."""
        compiled = is_compiled(self.compile_setting, self.latents.weight.device.type)
        return kept if compiled and run is selective else run

    def _cross_attend(self, index: int) -> CrossAttend:
        layer = self.cross_attends[index]
        assert isinstance(layer, CrossAttend)
        return layer
