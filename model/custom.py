"""A network of a user's own, served as the Perceiver is: same inputs, same answers, same weights from the same seed.

    batch  -->  checks of the inputs  -->  module.forward(inputs, ...)  -->  checks of the answers

What a module draws at random in training comes from PyTorch's global generator, which each step seeds: a resumed run
draws the same numbers with the same number of ranks and the same micro-batch. The running statistics of its batch norms
are averaged over the ranks after each step.
"""

import hashlib
import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from model.checks import check_inputs, check_state
from model.config.perceiver import PerceiverConfig
from model.modalities.adapters.conv_stem import Total
from model.modalities.input import COORDINATES
from model.network import AnyNetwork
from model.outputs.masked import MaskedOutput
from model.perceiver import Perceiver

_ASKED = ("lengths", "hidden", "points")
"""The arguments that a module is given where its signature names them."""


class CustomModule(AnyNetwork):
    """The module of a plug-in, between checks of what it takes and what it answers."""

    def __init__(self, config: PerceiverConfig, *, seed: int) -> None:
        super().__init__(config)
        self._seed = seed
        self._before: list[tuple[Tensor, Tensor]] = []
        self._held: list[nn.modules.batchnorm._NormBase] = []
        self._total: Total = Tensor.clone
        with torch.random.fork_rng(devices=[]):
            # PyTorch's modules draw their weights from the global generator.
            torch.default_generator.manual_seed(seed)
            self.network: nn.Module = config.network.module(config.ordered_inputs, config.answers())
        taken = inspect.signature(self.network.forward).parameters.values()
        takes_all = any(each.kind == each.VAR_KEYWORD for each in taken)
        self._asked = frozenset(_ASKED) if takes_all else frozenset(each.name for each in taken) & frozenset(_ASKED)
        if problems := list(self._problems()):
            raise ValueError("\n".join(problems))
        self._shapes = answer_shapes(config)

    def forward(
        self,
        inputs: dict[str, Tensor],
        lengths: dict[str, Tensor] | None = None,
        *,
        hidden: dict[str, Tensor] | None = None,
        points: dict[str, Tensor] | None = None,
        outputs: Collection[str] | None = None,
        chunk: int = 0,  # noqa: ARG002  # a module decodes as it likes
        num_latents: int = 0,  # noqa: ARG002  # of a Perceiver
        draws: Tensor | None = None,  # noqa: ARG002  # and draws what it drops from PyTorch's generator
    ) -> dict[str, Tensor]:
        """Return the answer of every output by its name; see Perceiver."""
        check_inputs(self.config, inputs, lengths)
        if lengths is None:
            lengths = {
                name: torch.full((inputs[name].shape[0],), each.shape[0] if each.shape else 1)
                for name, each in self.config.ordered_inputs.items()
            }
        given = {"lengths": lengths, "hidden": hidden or {}, "points": points or {}}
        some = next(iter(inputs.values()))
        with self._precision(some.device):
            answers = self.network(inputs, **{name: given[name] for name in self._asked})
        # Not len(), whose number an export to ONNX would take for that of every batch.
        self._check(answers, some.shape[0], points or {})
        if points and "points" not in self._asked:
            answers = answers | {name: _cells(answers[name], self._shapes[name], at) for name, at in points.items()}
        return {name: answers[name] for name in self._shapes if outputs is None or name in outputs}

    def begin(self, step: int, rank: int) -> None:
        """Seed what the module draws in a step of training."""
        # A digest and not a sum: rank 1 of a step would have the numbers of rank 0 of the next.
        words = f"{self._seed} {step} {rank}".encode()
        torch.manual_seed(int.from_bytes(hashlib.blake2b(words, digest_size=8).digest()))

    def observe(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor], total: Total) -> None:  # noqa: ARG002
        """Remember the running statistics, which a skipped step gets back; norms that are frozen keep theirs."""
        self._total = total
        # Only those that train: a module may keep some from it by itself.
        self._held = [
            norm
            for norm in self._norms()
            if norm.training and norm.weight is not None and not norm.weight.requires_grad
        ]
        for norm in self._held:
            norm.eval()
        self._before = [(statistic, statistic.clone()) for statistic in self._statistics()]

    def settle(self, *, is_kept: Tensor | bool) -> None:
        """Average the running statistics over the ranks, or bring back those of before."""
        for norm in self._held:
            norm.train()
        if not self._before:
            return
        device = self._before[0][0].device
        kept = torch.full((), is_kept, device=device) if isinstance(is_kept, bool) else is_kept
        num_ranks = self._total(torch.ones((), device=device))
        for statistic, before in self._before:
            average = self._total(statistic.float()) / num_ranks
            # Chosen on the device, which alone knows at this point whether the step counts: to ask it would wait for
            # it.
            statistic.copy_(torch.where(kept, average.to(statistic.dtype), before))
        self._before = []

    def _norms(self) -> Iterator[nn.modules.batchnorm._NormBase]:
        for module in self.network.modules():
            # Their common base class: instance norms may keep running statistics, too.
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
                yield module

    def _statistics(self) -> Iterator[Tensor]:
        """Yield the running statistics that move."""
        for norm in self._norms():
            if norm.training:
                yield from (each for each in (norm.running_mean, norm.running_var) if each is not None)

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        """Return autocast where the weights themselves are in half precision: the inputs are not."""
        dtype = next((parameter.dtype for parameter in self.network.parameters()), torch.float32)
        return torch.autocast(device.type, dtype=dtype) if dtype == torch.float16 else nullcontext()

    def _problems(self) -> Iterator[str]:
        """Yield what the module cannot do for this run."""
        inputs, answers = self.config.ordered_inputs, self.config.answers()
        forward = f"{type(self.network).__name__}.forward"
        views = [name for name, output in answers.items() if output.views()]
        if "lengths" not in self._asked and (len(inputs) > 1 or views):
            yield f"model.network: {forward} must take `lengths`, which say what inputs a sample lacks"
        masked = [name for name, output in answers.items() if isinstance(output, MaskedOutput)]
        if masked and "hidden" not in self._asked:
            yield f"model.network: {forward} must take `hidden`, the tokens that model.outputs.{masked[0]} hides"

    def _check(self, answers: object, num_samples: int | torch.SymInt, points: Mapping[str, Tensor]) -> None:
        """Raise ValueError where the module did not answer what the configuration asks for."""
        forward = f"model.network: {type(self.network).__name__}.forward"
        if not isinstance(answers, dict) or set(answers) != set(self._shapes):
            found = sorted(answers) if isinstance(answers, dict) else type(answers).__name__
            raise ValueError(f"{forward} returned {found}, expected a dict of {', '.join(self._shapes)}")
        for name, shape in self._shapes.items():
            if name in points and "points" in self._asked:
                continue
            answer, expected = answers[name], (num_samples, *shape)
            if not isinstance(answer, Tensor) or not answer.is_floating_point() or not _fits(answer.shape, expected):
                found = f"{answer.dtype} {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
                raise ValueError(f"{forward} answered {found} for {name}, expected floating point {expected}")
        # Of several answers one may hang on frozen parameters alone.
        learns = self.training and torch.is_grad_enabled() and any(each.requires_grad for each in self.parameters())
        if learns and not any(answers[name].requires_grad for name in self._shapes):
            raise ValueError(
                f"{forward} answered what no trained parameter takes part in, so that nothing is learned; leave out "
                "what detaches it"
            )


def new_network(config: PerceiverConfig, *, seed: int) -> AnyNetwork:
    """Return the network of a configuration, the Perceiver or the one of a plug-in, with the weights of a seed."""
    return Perceiver(config, seed=seed) if config.network is None else CustomModule(config, seed=seed)


def loaded_network(config: PerceiverConfig, state: Mapping[str, Tensor], *, seed: int) -> AnyNetwork:
    """Return the network with these weights; ValueError where they are those of another."""
    if config.network is None:
        # Shapes first: what a configuration says, which may be a slip, may need any memory.
        with torch.device("meta"):
            check_state({name: each.shape for name, each in Perceiver(config, seed=seed).state_dict().items()}, state)
    network = new_network(config, seed=seed)
    network.load_state_dict(state)
    return network


def answer_shapes(config: PerceiverConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of the answer of each output, without the samples: that of a Perceiver with these outputs."""
    # The least Perceiver, on no device: a shape follows from the outputs alone. Mask tokens, since an output may need
    # them.
    own = replace(config, network=None, mask_tokens=True, num_latents=1, num_cross_attends=1, num_blocks=0)
    with torch.device("meta"):
        network = Perceiver(own, seed=0)
        inputs = empty_batch(own, 2)
        answers = network(inputs)
    return {name: tuple(answer.shape[1:]) for name, answer in answers.items()}


def empty_batch(config: PerceiverConfig, num_samples: int) -> dict[str, Tensor]:
    """Return inputs of zeros, with the coordinates that belong to them."""
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, each in config.ordered_inputs.items():
        shapes[name] = (each.shape, each.dtype)
        if each.places is not None:
            shapes[f"{name}.{COORDINATES}"] = (each.places, "float32")
    for output in config.answers().values():
        if (at := output.asked_at()) and at not in shapes:
            shapes[at] = ((output.num_queries(config), int(getattr(output, "num_axes", 0))), "float32")
    return {
        name: torch.zeros(num_samples, *shape, dtype=getattr(torch, dtype)) for name, (shape, dtype) in shapes.items()
    }


def _fits(found: torch.Size, expected: tuple[int | torch.SymInt, ...]) -> bool:
    # Texts may be shorter than the longest, and frames larger than a tile.
    return len(found) == len(expected) and (found[0], found[-1]) == (expected[0], expected[-1])


def _cells(answer: Tensor, shape: tuple[int, ...], at: Tensor) -> Tensor:
    """Return some cells (B, N, channels) of a whole grid (B, *shape, channels)."""
    return answer.flatten(1, len(shape) - 1)[:, at]
