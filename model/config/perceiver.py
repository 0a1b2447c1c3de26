"""The configuration of a Perceiver. Standard library only, so that configs load without torch.

    num_cross_attends=3, num_blocks=6, arrangement=interleaved      c0 b0 b0  c1 b0 b0  c1 b0 b0
                                       arrangement=at_start         c0 c1 c1  b0 b0 b0 b0 b0 b0
                                       arrangement=first_blocks     c0 b0  c1 b0  c1 b0  b0 b0 b0

A letter is a step, a cross-attend or a block, and its number the module: steps of one number share their weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

from model.config import options
from model.config.attention import AttentionConfig, MlpKind, NormKind, ResidualDtype
from model.config.custom_network import NETWORKS
from model.config.decoder import DecoderConfig
from model.config.grids import Problems, not_negative, positive
from model.config.options import Arrangement
from model.modalities.catalogue import BY_NAME
from model.modalities.input import Input
from model.outputs.kinds import KINDS
from model.outputs.output import Network, Output

ActivationCheckpointing = Literal["none", "blocks", "layers", "selective", "offload"]
AnInput = TypeVar("AnInput", bound=Input)
Step = tuple[Literal["cross_attend", "block"], int]


@dataclass(frozen=True)
class PerceiverConfig(Network):
    """A Perceiver (any number of cross-attends, mean pooling) or a Perceiver IO (one, and query decoders)."""

    inputs: dict[str, Any] = field(default_factory=dict, metadata={"chosen_by": "modality", "among": BY_NAME})
    """The inputs, under names of your choice; a run takes modality and sizes from the input of that name in data."""
    outputs: dict[str, Any] = field(default_factory=dict, metadata={"chosen_by": "kind", "among": KINDS})
    """The outputs, under names of your choice; `kind` says what each output is (docs/tasks.md)."""
    network: Any = field(default=None, metadata={"chosen_by": "kind", "among": NETWORKS})
    """A plug-in's network in place of the Perceiver, {kind: ..., and its own keys} (docs/extending.md). It has the same
    inputs and outputs; all other keys of this section are the Perceiver's."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """The decoder, in which queries attend to the latents. Outputs that pool the latents do not use it."""
    min_padding: int = 4
    """Learned channels that the widest modality gets when several are joined; narrower ones are padded to its width."""
    mask_tokens: bool = False
    """Whether each modality has a learned token that can take the place of any of its tokens."""
    # Sizes by default are those of the first paper's ImageNet network (section 4.1, tables 6 and 7).
    num_latents: int = 512
    """Number of latent vectors."""
    nested_latents: tuple[int, ...] = ()
    """Sizes of the latent array that one network is trained for, such as [32, 64, 128]; the last is num_latents. All
    latents take part in half of the steps, in each other one as many of the first as it draws. Empty trains all."""
    latent_width: int = 1_024
    """Channels of a latent vector."""
    num_cross_attends: int = 8
    """Number of cross-attends to the inputs."""
    num_blocks: int = 8
    """Blocks of self-attention layers over the latents; 0 means cross-attends only."""
    layers_per_block: int = 6
    """Self-attention layers of a block."""
    arrangement: Arrangement = "interleaved"
    """Whether cross-attends are spread evenly between the blocks, all come before them, or one before each of the
    first blocks, as in krasserm's perceiver-io."""
    share_cross_attends: Literal["all", True, False] = True
    """Whether the cross-attends from the second on have the same weights, and the first its own; or all the same."""
    share_blocks: Literal["after_first", True, False] = True
    """Whether all blocks have the same weights, layer by layer; or those from the second on, and the first its own."""
    cross_attend: AttentionConfig = field(default_factory=AttentionConfig)
    """Attention from the latents to the inputs."""
    self_attend: AttentionConfig = field(default_factory=lambda: AttentionConfig(num_heads=8))
    """Attention between the latents."""
    gelu: Literal["tanh", "erf"] = "tanh"
    """The MLPs' activation: DeepMind's tanh approximation, or the exact one of Hugging Face."""
    norm: NormKind = "layer"
    """The norm before each attention and each MLP: LayerNorm, or RMSNorm, which has no mean and no offset."""
    mlp: MlpKind = "gelu"
    """The MLPs: two linear layers around a GELU, or gated by a third as GEGLU or SwiGLU, of the same hidden width."""
    dropout: float = 0.0
    """Fraction of the values that each attention and each MLP adds which training sets to 0; the others are scaled up.
    Attention weights are not dropped."""
    drop_path: float = 0.0
    """Stochastic depth: probability with which training skips an attention or MLP of the encoder's last layer, drawn
    for each sample; it rises linearly from 0 in the first cross-attend."""
    cross_attend_form: Literal["auto", "plain", "absorbed", "separable"] = "auto"
    """The form of the cross-attention to the inputs. All forms give the same numbers; auto selects the cheapest."""
    activation_checkpointing: ActivationCheckpointing = "none"
    """What the backward pass computes again instead of keeping: nothing; all of every block and cross-attend; the same
    layer by layer; all but matrix products; or as blocks, with what is kept in the host's memory."""
    recompute_every_blocks: int = 1
    """Recompute only every n-th block; 1 recomputes all."""
    residual_dtype: ResidualDtype = "fp32"
    """Precision of the latents between the encoder's layers under train.precision=bf16. bf16 halves their memory and
    traffic, and rounds each sum to 8 bits."""
    compile: Literal["auto", True, False] = "auto"
    """Whether the layers of the encoder go through torch.compile; auto compiles them on a GPU."""

    @property
    def token_width(self) -> int:
        """Channels of the joined tokens: a single modality's own, or the widest plus the padding."""
        widths = [modality.token_width for modality in self.ordered_inputs.values()]
        # One modality needs nothing to tell it from others.
        return widths[0] if len(widths) == 1 else max(widths) + self.min_padding

    @property
    def num_tokens(self) -> int:
        """Tokens of one sample, all modalities joined."""
        return sum(modality.num_tokens for modality in self.ordered_inputs.values())

    @property
    def num_layers(self) -> int:
        """Layers of the encoder that a sample passes: its cross-attends and those of its blocks."""
        return self.num_cross_attends + self.num_blocks * self.layers_per_block

    @property
    def latent_sizes(self) -> tuple[int, ...]:
        """The numbers of latents with which the network answers."""
        return self.nested_latents or (self.num_latents,)

    @property
    def latent_shares(self) -> dict[int, float]:
        """The part of the training's steps in which so many latents take part: in half of them all do."""
        *smaller, largest = self.latent_sizes
        # Of equal shares the largest network would be the worst one: its last latents learned least often.
        return dict.fromkeys(smaller, 0.5 / max(len(smaller), 1)) | {largest: 0.5 if smaller else 1.0}

    def with_latents(self, num_latents: int) -> "PerceiverConfig":
        """Return the configuration of the network that has only the first latents of this one."""
        return replace(self, num_latents=num_latents, nested_latents=())

    @property
    def draws(self) -> bool:
        """Whether the network draws random numbers in training."""
        return bool(self.dropout or self.drop_path)

    def schedule(self) -> tuple[Step, ...]:
        """Return the encoder's steps in order; the number is that of the module, which shared steps have in common."""
        at_block = options.read_places(self.arrangement, self.num_cross_attends, self.num_blocks)
        steps: list[Step] = []
        # At least one turn: a network of cross-attends alone has no blocks, and reads all the same.
        for block in range(max(self.num_blocks, 1)):
            for index in (index for index, place in enumerate(at_block) if place == block):
                # By default not 0 again: a first cross-attend that shares its weights made the first paper's training
                # unstable.
                last = {"all": 0, True: 1, False: index}[self.share_cross_attends]
                steps.append(("cross_attend", min(index, last)))
            if block < self.num_blocks:
                steps.append(("block", min(block, {True: 0, "after_first": 1, False: block}[self.share_blocks])))
        return tuple(steps)

    @cached_property
    def ordered_inputs(self) -> dict[str, Input]:
        """The inputs in the order of their names, in which their tokens are joined."""
        # Sorted: the order of keys in a file must not decide where a token lies, on which trained weights depend.
        return dict(sorted(self.inputs.items()))

    def input_named(self, name: str) -> Input | None:
        """Return an input; None where none has that name."""
        return self.ordered_inputs.get(name)

    def input_of(self, kind: type[AnInput]) -> AnInput | None:
        """Return the first input of a modality; None where there is none."""
        return next((each for each in self.ordered_inputs.values() if isinstance(each, kind)), None)

    def answers(self) -> dict[str, Output]:
        """Return the outputs sorted by name, with what their names and the inputs decide filled in."""
        return {name: output.named(name, self) for name, output in sorted(self.outputs.items())}

    @property
    def decoder_width(self) -> int:
        """Channels of the queries as the decoder takes them: one output's own, or the widest plus the padding."""
        widths = [width for output in self.answers().values() if (width := output.own_width(self))]
        return max(widths, default=0) + (self.decoder.min_padding if len(widths) > 1 else 0)

    @cached_property
    def stream(self) -> str:
        """The input whose last places are the latents; empty where they are learned."""
        return next((name for output in self.answers().values() if (name := output.continues())), "")

    def passes(self) -> list[dict[str, Output]]:
        """Return the outputs of each pass that a sample takes through the network.

        One pass has all that read the inputs together; each input that is read alone has a pass of its own.
        """
        answers = self.answers()
        # An output that compares two inputs must see each without the other.
        together = {name: output for name, output in answers.items() if not output.views()}
        views = dict.fromkeys(view for output in answers.values() for view in output.views())
        alone = [{name: output for name, output in answers.items() if view in output.views()} for view in views]
        return [*([together] if together or not alone else []), *alone]

    @property
    def tokens_learn(self) -> bool:
        """True where the tokens depend on parameters, so that the backward pass must reach them."""
        modalities = list(self.ordered_inputs.values())
        # Several inputs are padded to one width with learned vectors, and mask tokens are learned, too.
        if len(modalities) > 1 or self.mask_tokens:
            return True
        return modalities[0].learns

    def absorbed_problem(self) -> str | None:
        """Return why keys and values must be projected from the tokens, if they must."""
        if self.stream:
            return f"cannot hide the places after each latent of inputs.{self.stream}; use auto"
        if self.cross_attend.num_heads != 1:
            return f"needs cross_attend.num_heads=1, got {self.cross_attend.num_heads}; use auto"
        if self.cross_attend.needs_keys:
            return "makes no keys that cross_attend.qk_norm or cross_attend.rotary could change; use auto"
        return None

    def separable_problem(self) -> str | None:
        """Return why tokens must be put together, if they must."""
        if problem := self.absorbed_problem():
            return problem
        modalities = list(self.ordered_inputs.values())
        if len(modalities) != 1 or not modalities[0].is_separable:
            return "needs one input on a grid of two axes or more, such as an image, and nothing beside it; use auto"
        positions = modalities[0].token_positions
        if positions is None or positions.kind != "fourier":
            return f"needs Fourier positions, got {positions.kind if positions else 'none'}; use auto"
        if self.tokens_learn:
            return "needs tokens without parameters: no projection, convolution or mask tokens; use auto"
        return None

    def _form_problem(self) -> str | None:
        """Why the form that is asked for is impossible, if it is."""
        problems = {"absorbed": self.absorbed_problem, "separable": self.separable_problem}
        return problems[self.cross_attend_form]() if self.cross_attend_form in problems else None

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) of every problem, keys relative to this dataclass."""
        if not self.inputs:
            yield (
                "inputs",
                "no input is set; set at least one, such as inputs.photo={modality: image, height: 28, width: 28}",
            )
            return
        parts = [*self._part_problems()]
        # What follows from the parts is known only where they are right.
        yield from parts or (self._joint_problems() if self.network is None else self._beside_problems())

    def _part_problems(self) -> Problems:
        for name, modality in self.ordered_inputs.items():
            yield from ((f"inputs.{name}.{key}", sentence) for key, sentence in modality.problems())
        yield from ((f"decoder.{key}", sentence) for key, sentence in self.decoder.problems())
        if not self.outputs:
            yield "outputs", "no output is set; set at least one, such as outputs.digit={kind: label, num_classes: 10}"
        for name in sorted(name for name in self.outputs if not name or "." in name):
            yield "outputs", f"has an answer of the name {name!r}; take one that is not empty and has no full stop"
        for name, output in sorted(self.outputs.items()):
            yield from ((f"outputs.{name}.{key}", sentence) for key, sentence in output.problems())
        names = ("num_latents", "latent_width", "num_cross_attends", "layers_per_block", "recompute_every_blocks")
        yield from positive(**{name: getattr(self, name) for name in names})
        yield from not_negative(num_blocks=self.num_blocks, min_padding=self.min_padding)
        yield from options.drop_problems(self.dropout, self.drop_path, self.num_layers)
        yield from options.nested_problems(self.nested_latents, self.num_latents, self.stream)
        # Before anything asks for the schedule, which lists every step.
        yield from options.schedule_problems(
            self.arrangement, self.num_cross_attends, self.num_blocks, self.layers_per_block
        )

    def _beside_problems(self) -> Problems:
        """Yield what the network of a plug-in has no use for."""
        yield from ((f"network.{key}", sentence) for key, sentence in self.network.problems())
        # All else would be read by nobody, and a key without effect is taken for one with.
        common = ("inputs", "outputs", "network", "compile")
        default = PerceiverConfig()
        for name in (each.name for each in fields(self) if each.name not in common):
            if getattr(self, name) != getattr(default, name):
                yield name, f"is a key of the Perceiver, and model.network is {self.network.kind}; leave it out"
        if self.compile is True:
            yield "compile", "compiles the Perceiver's layers alone; call torch.compile in the plug-in, or leave it out"
        for name, output in self.answers().items():
            # As if tokens could be hidden: whether a plug-in's network can hide some is its own affair.
            for key, sentence in output.network_problems(replace(self, network=None, mask_tokens=True)):
                yield f"outputs.{name}.{key}".rstrip("."), sentence

    def _joint_problems(self) -> Problems:
        parts = {
            "cross_attend": (self.cross_attend, self.token_width, "of a token"),
            "self_attend": (self.self_attend, self.latent_width, "of a latent vector"),
            "decoder.cross_attend": (self.decoder.cross_attend, self.latent_width, "of a latent vector"),
        }
        for part, (attention, width, of) in parts.items():
            # Where all outputs pool the latents there is no decoder to have problems.
            if part.startswith("decoder") and not self.decoder_width:
                continue
            yield from ((f"{part}.{key}", sentence) for key, sentence in attention.problems(width, of))
        yield from self._output_problems()
        axes = {name: len(each.grid) if each.has_axes else 0 for name, each in self.ordered_inputs.items()}
        attentions = {part: (attention, width) for part, (attention, width, _) in parts.items()}
        yield from options.rotary_problems(attentions, axes)
        if sentence := self._form_problem():
            yield "cross_attend_form", sentence

    def _output_problems(self) -> Problems:
        """Yield what of the answers this network cannot give."""
        for name, output in self.answers().items():
            for key, sentence in output.network_problems(self):
                yield f"outputs.{name}.{key}".rstrip("."), sentence
            if output.continues() and (len(self.outputs) > 1 or len(self.inputs) > 1):
                sentence = "makes latents of the places of its input, and must be the only output of the only input"
                yield f"outputs.{name}", f"{sentence}; take the others out"
        if self.decoder.output_width and not self.decoder_width:
            sentence = "has no meaning where no output is read by queries; leave it out, or set pooling=query of one"
            yield "decoder.output_width", sentence
