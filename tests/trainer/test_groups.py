"""Patterns and depth decide how each parameter is trained; a pattern that says nothing of any is refused."""

from typing import Any

import pytest
import torch
from torch import nn

from model.config.attention import AttentionConfig
from model.config.perceiver import PerceiverConfig
from model.depth import depths
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.label import LabelOutput
from model.outputs.text import TextOutput
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig, TrainConfig, joint_problems
from trainer.optim.groups import freeze, idle_rules, parameter_groups, treatments


def perceiver(**fields: object) -> Perceiver:
    """A network of the first paper's kind: reads with weights of their own and shared ones, one shared block."""
    given = {
        "inputs": {"image": ImageInput(height=4, width=4)},
        "outputs": {"label": LabelOutput(num_classes=3, pooling="query", query_width=8)},
        "num_latents": 2,
        "latent_width": 8,
        "num_cross_attends": 3,
        "num_blocks": 3,
        "layers_per_block": 2,
        "self_attend": AttentionConfig(num_heads=2),
        **fields,
    }
    with torch.device("meta"):
        return Perceiver(PerceiverConfig(**given), seed=0)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2)
        self.again = self.last


def test_the_last_pattern_that_matches_counts() -> None:
    config = OptimizerConfig(
        weight_decay=0.1,
        freeze=("first.*", "first.bias=7", "*.bias=5", "last.*=0"),
        rate_factors=("*=2", "last.*=0.5"),
        decay_factors=("first.*=3",),
    )
    found = treatments(Small(), config)
    assert {name: each.first_step for name, each in found.items()} == {
        "first.weight": None,
        "first.bias": 5,
        "norm.weight": 0,
        "norm.bias": 5,
        "last.weight": 0,
        "last.bias": 0,
    }
    assert [found[name].rate_factor for name in ("first.weight", "last.bias")] == [2.0, 0.5]
    assert [found[name].decay_factor for name in ("first.weight", "last.weight")] == [3.0, 1.0]


def test_tied_weights_are_known_by_each_of_their_names() -> None:
    assert treatments(Small(), OptimizerConfig(freeze=("again.*",)))["last.weight"].first_step is None


def test_what_is_never_trained_is_in_no_group_and_what_joins_later_is_in_one_of_its_own() -> None:
    network = Small()
    config = OptimizerConfig(weight_decay=0.1, freeze=("last.*", "first.*=4"), decay_factors=("first.*=2",))
    freeze(network, config)
    names = {parameter: name for name, parameter in network.named_parameters()}
    found = [
        (group["name"], [names[p] for p in group["params"]], group["first_step"], group["weight_decay"])
        for group in parameter_groups(network, config)
    ]
    assert found == [
        ("exempt", ["norm.weight", "norm.bias"], 0, 0.0),
        ("decayed", ["first.weight"], 4, 0.2),
        ("exempt", ["first.bias"], 4, 0.0),
    ]
    assert not network.last.weight.requires_grad
    assert network.first.weight.requires_grad


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"freeze": ("encoder.*",)}, r"optimizer.freeze: encoder.\* matches no parameter .* such as .*first.weight"),
        ({"freeze": ("first.weigth=3",)}, r"first.weigth matches no parameter .* such as first.weight, last.bias"),
        ({"rate_factors": ("lst.*=2",)}, r"optimizer.rate_factors: lst.\* matches no parameter"),
        ({"decay_factors": ("*.bias=2",), "weight_decay": 1.0}, r"that decays \(biases and normalisations do not\)"),
        ({"freeze": ("*",)}, r"optimizer.freeze: leaves no parameter that is trained at the first step"),
        ({"freeze": ("*=2",)}, r"optimizer.freeze: leaves no parameter that is trained at the first step"),
        ({"layer_decay": 0.5}, r"optimizer.layer_decay: needs the layers of a Perceiver, the network is Small"),
    ],
)
def test_what_says_nothing_or_leaves_nothing_is_refused(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        treatments(Small(), OptimizerConfig(**fields))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"freeze": ("first.bias=7", "first.*")},
            ["optimizer.freeze: first.bias=7 has no effect: later patterns match "],
        ),
        ({"freeze": ("first.*", "first.bias=7")}, []),
        ({"rate_factors": ("first.*=2", "*=3")}, ["optimizer.rate_factors: first.*=2 has no effect: later patterns "]),
        (
            {"freeze": ("first.*",), "rate_factors": ("first.*=2",)},
            ["optimizer.rate_factors: first.*=2 has no effect: optimizer.freeze "],
        ),
        ({"freeze": ("first.*=7",), "rate_factors": ("first.*=2", "first.weight=1")}, []),
        (
            {"decay_factors": ("*=2", "*.weight=3"), "weight_decay": 1.0},
            ["optimizer.decay_factors: *=2 has no effect: "],
        ),
    ],
)
def test_a_pattern_that_decides_nothing_is_told(fields: dict[str, Any], told: list[str]) -> None:
    found = list(idle_rules(Small(), OptimizerConfig(**fields)))
    assert len(found) == len(told)
    assert all(sentence.startswith(start) for sentence, start in zip(found, told, strict=True))


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"freeze": ("encoder.*=soon", "encoder.*=-1", "=3", "", "encoder.*=1.5")}, ["freeze"] * 5),
        ({"rate_factors": ("encoder.*", "encoder.*=much", "=2", "e=-1", "e=nan", "e=inf")}, ["rate_factors"] * 6),
        ({"decay_factors": ("encoder.*=2",)}, ["decay_factors"]),
        ({"layer_decay": 0.0}, ["layer_decay"]),
        ({"layer_decay": 1.5}, ["layer_decay"]),
        ({"freeze": ("encoder.*", "a=0", "b=12"), "rate_factors": ("a=0", "b=1e-3")}, []),
    ],
)
def test_what_is_no_rule_is_refused_by_its_key(fields: dict[str, object], keys: list[str]) -> None:
    assert [key for key, _ in OptimizerConfig(**fields).problems()] == keys


def test_a_step_that_the_run_does_not_reach_is_refused() -> None:
    config, train = OptimizerConfig(freeze=("encoder.*=10",)), TrainConfig(steps=10)
    [(key, sentence)] = joint_problems(config, train)
    assert (key, "write encoder.* to freeze" in sentence) == ("optimizer.freeze", True)
    assert not list(joint_problems(config, TrainConfig(steps=11)))


def test_depth_rises_in_the_order_of_a_forward_pass_and_shared_weights_have_that_of_their_first_use() -> None:
    found = depths(perceiver())
    of = {
        "encoder.latents.weight": 0,
        "encoder.cross_attends.0.": 1,
        "encoder.blocks.0.0.": 2,
        "encoder.blocks.0.1.": 3,
        # The second and the third read share theirs.
        "encoder.cross_attends.1.": 4,
        "decoder.": 5,
    }
    for prefix, depth in of.items():
        assert {at for name, at in found.items() if name.startswith(prefix)} == (
            {depth} if depth is not None else set()
        )
    assert not [name for name in found if not name.startswith(tuple(of))]


def test_an_embedding_that_an_answer_uses_again_is_an_inputs() -> None:
    text = {"text": TextInput(max_tokens=4, embedding_width=8)}
    found = depths(perceiver(inputs=text, outputs={"text": TextOutput(target="text")}))
    assert {at for name, at in found.items() if name.startswith("inputs.")} == {0}
    assert max(found.values()) == {at for name, at in found.items() if name.startswith("decoder.")}.pop() == 5


def test_the_rate_falls_by_the_same_factor_for_each_layer_below_the_decoder() -> None:
    config = OptimizerConfig(layer_decay=0.5, rate_factors=("decoder.*=3", "encoder.latents.*=8"))
    found = treatments(perceiver(), config)
    factors = {each: found[each].rate_factor for each in found}
    assert factors["encoder.latents.weight"] == 8 * 0.5**5
    assert {factor for name, factor in factors.items() if name.startswith("encoder.cross_attends.1.")} == {0.5}
    assert {factor for name, factor in factors.items() if name.startswith("decoder.")} == {3.0}


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        ("first.*", "last.*=0", False),
        ("first.*=500", "first.*=300", False),
        ("first.*=500", "first.*", False),
        # Nothing of it had happened yet, or all of it was the same.
        ("first.*=800", "first.*=900", True),
        ("first.*=300", "*=0,first.*=300", True),
    ],
)
def test_moments_tell_of_a_step_that_lies_behind_and_of_none_that_is_to_come(
    before: str, after: str, is_same: bool
) -> None:
    found = [treatments(Small(), OptimizerConfig(freeze=tuple(rules.split(",")))) for rules in (before, after)]
    told = [{name: each.trained_at(400) for name, each in how.items()} for how in found]
    assert (told[0] == told[1]) is is_same


def test_a_network_without_parameters_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="Identity has no parameters, and there is nothing to train"):
        parameter_groups(nn.Identity(), OptimizerConfig())


def test_what_is_treated_alike_is_one_group_and_groups_have_an_order() -> None:
    network = Small()
    config = OptimizerConfig(
        weight_decay=0.5,
        freeze=("norm.bias=4", "last.*=9"),
        rate_factors=("first.*=0.25", "first.bias=2"),
        decay_factors=("last.weight=0.5",),
    )
    names = {parameter: name for name, parameter in network.named_parameters()}
    found = [
        ([names[p] for p in group.pop("params")], tuple(group.values())) for group in parameter_groups(network, config)
    ]
    # What is trained from the start first, what decays before what does not, and of these the highest rate.
    assert found == [
        (["first.weight"], ("decayed", 0.5, 0.25, 0)),
        (["first.bias"], ("exempt", 0.0, 2.0, 0)),
        (["norm.weight"], ("exempt", 0.0, 1.0, 0)),
        (["norm.bias"], ("exempt", 0.0, 1.0, 4)),
        (["last.weight"], ("decayed", 0.25, 1.0, 9)),
        (["last.bias"], ("exempt", 0.0, 1.0, 9)),
    ]
    [decayed, *_] = parameter_groups(network, OptimizerConfig())
    assert decayed.keys() == {"name", "params", "weight_decay", "rate_factor", "first_step"}


def test_biases_of_any_name_and_all_kinds_of_normalisations_do_not_decay() -> None:
    network = nn.ModuleDict(
        {
            "rms": nn.RMSNorm(2),
            "group": nn.GroupNorm(1, 2),
            "attend": nn.MultiheadAttention(2, 1),
            "conv": nn.Conv1d(2, 2, 1),
            "batch": nn.BatchNorm1d(2, affine=False),
        }
    )
    network.register_parameter("bias_of_all", nn.Parameter(torch.ones(1)))
    found = treatments(network, OptimizerConfig())
    assert sorted(name for name, each in found.items() if not each.is_exempt) == [
        "attend.in_proj_weight",
        "attend.out_proj.weight",
        "bias_of_all",
        "conv.weight",
    ]


def test_what_a_network_has_frozen_itself_stays_frozen_and_is_in_no_group() -> None:
    network = Small()
    network.first.requires_grad_(requires_grad=False)
    freeze(network, OptimizerConfig(freeze=("last.bias", "first.bias=3")))
    assert [name for name, p in network.named_parameters() if p.requires_grad] == [
        "norm.weight",
        "norm.bias",
        "last.weight",
    ]
    found = treatments(network, OptimizerConfig(freeze=("first.bias=3",)))
    assert found["first.bias"].first_step is None
    of = {name: treatment.trained_at(2) for name, treatment in found.items()}
    assert (of["first.bias"], of["norm.bias"]) == ((False, 0), (True, 0))


def test_a_network_in_a_wrapper_is_refused_by_its_own_name() -> None:
    wrapped = nn.Module()
    wrapped.network = nn.Identity()
    with pytest.raises(ValueError, match="Identity has no parameters"):
        parameter_groups(wrapped, OptimizerConfig())


def test_what_is_trained_from_the_start_comes_before_what_is_frozen_for_a_single_step() -> None:
    # The number of steps that were applied is read from the first group.
    found = parameter_groups(nn.Linear(2, 1), OptimizerConfig(freeze=("weight=1",)))
    assert [(group["name"], group["first_step"]) for group in found] == [("exempt", 0), ("decayed", 1)]
