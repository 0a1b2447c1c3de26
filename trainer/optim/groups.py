"""Parameter groups: which parameters are trained, from which step on, and with what rate and weight decay.

    pattern, of a name     optimizer.freeze          never, or from a step on
                           optimizer.rate_factors    the rate times a factor
                           optimizer.decay_factors   the weight decay times a factor
    depth in the network   optimizer.layer_decay     the rate times a power of it

Parameters that are treated alike are one group. One that is never trained is in none: it has no moments. One that is
trained later has them from the start, as zeros.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from model.depth import depths
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig
from trainer.patterns import Rule, last_match, rules

DECAYED, EXEMPT = "decayed", "exempt"


@dataclass(frozen=True)
class Treatment:
    """How a parameter is trained."""

    first_step: int | None
    """The steps that are done before the first that trains it; None if it is never trained."""
    rate_factor: float
    """What the learning rate is multiplied by."""
    decay_factor: float
    """What the weight decay is multiplied by."""
    is_exempt: bool
    """Whether it is a bias or belongs to a normalisation, which never decay."""

    def trained_at(self, step: int) -> tuple[bool, int]:
        """Return what its moments tell after so many steps: whether it has any, and since when they move."""
        return self.first_step is not None, min(self.first_step or 0, step)


@dataclass(frozen=True)
class _Named:
    parameter: nn.Parameter
    names: tuple[str, ...]
    is_exempt: bool


def treatments(network: nn.Module, config: OptimizerConfig) -> dict[str, Treatment]:
    """Return how each parameter is trained, by its first name; ValueError where a pattern matches none."""
    parameters = list(_named(network))
    if problems := list(_problems(network, parameters, config)):
        raise ValueError("\n".join(problems))
    depth_of = depths(network) if isinstance(network, Perceiver) else {}
    deepest = max(depth_of.values(), default=0)
    freeze, rates, decays = rules(config.freeze), rules(config.rate_factors), rules(config.decay_factors)
    return {
        each.names[0]: Treatment(
            first_step=_first_step(each, freeze),
            # A parameter without a depth keeps the whole rate, as the decoder does.
            rate_factor=_factor(each, rates) * config.layer_decay ** (deepest - depth_of.get(each.names[0], deepest)),
            decay_factor=_factor(each, decays),
            is_exempt=each.is_exempt,
        )
        for each in parameters
    }


def idle_rules(network: nn.Module, config: OptimizerConfig) -> Iterator[str]:
    """Yield a sentence for every pattern that matches parameters and decides of none how it is trained."""
    parameters = list(_named(network))
    frozen = rules(config.freeze)
    for key, among in _among(parameters).items():
        found = rules(getattr(config, key))
        for number, (text, rule) in enumerate(zip(getattr(config, key), found, strict=True)):
            decided = [
                each for each in among if rule.matches(each.names) and not last_match(found[number + 1 :], each.names)
            ]
            if not decided:
                yield f"optimizer.{key}: {text} has no effect: later patterns match all that it does; put it after them"
            elif key != "freeze" and all(_first_step(each, frozen) is None for each in decided):
                yield f"optimizer.{key}: {text} has no effect: optimizer.freeze keeps all that it matches as it is"


def freeze(network: nn.Module, config: OptimizerConfig) -> None:
    """Take the gradient from the parameters that are never trained."""
    how = treatments(network, config)
    for name, parameter in network.named_parameters():
        # Never switched on: a plug-in's network may have frozen a part of itself.
        parameter.requires_grad_(parameter.requires_grad and how[name].first_step is not None)


def parameter_groups(network: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Return the groups of the parameters that are trained: biases and normalisations do not decay.

    The papers decay everything else, learned positions and latents included.
    """
    how = treatments(network, config)
    members: dict[Treatment, list[nn.Parameter]] = {}
    for each in _named(network):
        members.setdefault(how[each.names[0]], []).append(each.parameter)
    # What is trained from the start comes first: the number of steps that were applied is read there.
    order = sorted((each for each in members if each.first_step is not None), key=_order)
    if not order:
        kind = type(getattr(network, "network", network)).__name__
        raise ValueError(f"model.network: {kind} has no parameters, and there is nothing to train; give it some")
    return [
        {
            "name": EXEMPT if each.is_exempt else DECAYED,
            "params": members[each],
            "weight_decay": 0.0 if each.is_exempt else config.weight_decay * each.decay_factor,
            "rate_factor": each.rate_factor,
            "first_step": each.first_step,
        }
        for each in order
    ]


def _order(treatment: Treatment) -> tuple[int, bool, float, float]:
    return treatment.first_step or 0, treatment.is_exempt, -treatment.rate_factor, -treatment.decay_factor


def _named(network: nn.Module) -> Iterator[_Named]:
    """Yield each parameter once, in the order of the modules, with all of its names."""
    names: dict[nn.Parameter, list[str]] = {}
    # With all names of tied weights: a pattern may be written for any of them.
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    # Tied weights belong to several modules, and must be updated once.
    seen: set[nn.Parameter] = set()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                is_exempt = (
                    # By the last word: PyTorch's own attention calls its bias in_proj_bias.
                    isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm) or f"_{name}".endswith("_bias")
                )
                yield _Named(parameter, tuple(names[parameter]), is_exempt)


def _first_step(each: _Named, freeze: Sequence[Rule]) -> int | None:
    rule = last_match(freeze, each.names)
    if not each.parameter.requires_grad or (rule and rule.number is None):
        return None
    return int(rule.number or 0) if rule else 0


def _factor(each: _Named, factors: Sequence[Rule]) -> float:
    rule = last_match(factors, each.names)
    return 1.0 if rule is None or rule.number is None else rule.number


def _problems(network: nn.Module, parameters: Sequence[_Named], config: OptimizerConfig) -> Iterator[str]:
    for key, among in _among(parameters).items():
        for rule in rules(getattr(config, key)):
            if not any(rule.matches(each.names) for each in among):
                every = [each.names[0] for each in parameters]
                yield f"optimizer.{key}: {_no_match(rule.pattern, every, key)}"
    if config.layer_decay != 1 and not isinstance(network, Perceiver):
        kind = type(network).__name__
        yield f"optimizer.layer_decay: needs the layers of a Perceiver, the network is {kind}; use rate_factors"
    found = rules(config.freeze)
    # The number of applied steps is read from what is trained from the start: something has to be.
    if found and not any(_first_step(each, found) == 0 for each in parameters):
        yield "optimizer.freeze: leaves no parameter that is trained at the first step; freeze fewer of them"


def _among(parameters: Sequence[_Named]) -> Mapping[str, Sequence[_Named]]:
    """Return of which parameters each key speaks."""
    decaying = [each for each in parameters if not each.is_exempt]
    return {"freeze": parameters, "rate_factors": parameters, "decay_factors": decaying}


def _no_match(pattern: str, names: Iterable[str], key: str) -> str:
    names = list(names)
    of_what = " that decays (biases and normalisations do not)" if key == "decay_factors" else ""
    # 0: always one name, since a distant one still shows how names of this network look.
    close = difflib.get_close_matches(pattern, names, n=1, cutoff=0.0)
    return (
        f"{pattern} matches no parameter of the network{of_what}; expected a pattern of names such as "
        f"{', '.join(dict.fromkeys((*close, names[0], names[-1])))}"
    )
