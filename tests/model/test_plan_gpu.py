"""The plan's activation memory against what a step holds on a GPU, in fp32 and under autocast to bf16.

Nothing is computed, so that networks have the sizes of the papers'. What lives is counted by its shapes.
"""

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from fake_gpu import step

from launch.networks.network_files import network_config
from model.attention.read_forms import Form
from model.budget.activation_memory import activation_bytes
from model.budget.flops import network_cost, total
from model.budget.plan import POLICIES
from model.config.attention import AttentionConfig, ResidualDtype
from model.config.grids import PositionsConfig
from model.config.perceiver import ActivationCheckpointing, PerceiverConfig
from model.modalities.audio import AudioInput
from model.modalities.image import ImageInput
from model.outputs.label import LabelOutput

PAPER = Path(__file__).parents[2] / "configs" / "paper"
# So many samples that weights, and their copies in half precision, are little beside them.
BATCH = 64
IMAGE = ImageInput(height=48, width=32, positions=PositionsConfig(num_bands=16))
CONFIG = PerceiverConfig(
    inputs={"image": IMAGE},
    outputs={"label": LabelOutput(num_classes=5)},
    num_latents=128,
    latent_width=256,
    num_cross_attends=3,
    num_blocks=3,
    layers_per_block=2,
    self_attend=AttentionConfig(num_heads=4),
)
INPUTS = {
    "pixels": {"image": IMAGE},
    "patches": {"image": ImageInput(height=96, width=96, patch=4, project_to=64, positions=IMAGE.positions)},
    "image and audio": {"image": IMAGE, "audio": AudioInput(num_samples=512, patch=1, positions=IMAGE.positions)},
}


def ratio(config: PerceiverConfig, *, bf16: bool) -> float:
    """What is planned over what is held."""
    # Copies of weights, which what is computed again makes again.
    are_kept = bf16 and config.activation_checkpointing in ("none", "selective")
    copies = 2 * total(network_cost(config)).parameters * are_kept
    planned = BATCH * activation_bytes(config, bytes_per_element=2 if bf16 else 4, device="cuda") + copies
    return planned / step(config, BATCH, bf16=bf16).peak


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("bf16", [True], ids=["bf16"])
def test_a_plain_read_is_planned_within_a_tenth(policy: ActivationCheckpointing, bf16: bool) -> None:
    config = dataclasses.replace(CONFIG, cross_attend_form="plain", activation_checkpointing=policy)
    assert ratio(config, bf16=bf16) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("policy", ["none", "layers"])
def test_a_narrow_residual_stream_is_planned_within_a_tenth(policy: ActivationCheckpointing) -> None:
    config = dataclasses.replace(
        CONFIG, cross_attend_form="separable", activation_checkpointing=policy, residual_dtype="bf16"
    )
    assert ratio(config, bf16=True) == pytest.approx(1, rel=0.1)


# Every form with every policy, and each of both in every precision; all of them together are seven times as many.
PRECISIONS = ((False, "fp32"), (True, "fp32"), (True, "bf16"))
FORMS = (
    ("separable", "pixels", POLICIES),
    ("absorbed", "pixels", ("none", "layers")),
    ("absorbed", "patches", ("blocks", "selective", "offload")),
    ("plain", "patches", ("none", "layers", "offload")),
    ("plain", "image and audio", ("blocks", "selective")),
)
CASES = [
    (form, inputs, policy, *PRECISIONS[(row + column) % 3])
    for row, (form, inputs, policies) in enumerate(FORMS)
    for column, policy in enumerate(POLICIES)
    if policy in policies
]
# The default of both, and each other policy of one of them.
PAPERS = (("p1", ("none", "layers", "offload")), ("i1", ("none", "blocks", "selective")))
PAPER_CASES = [
    (name, policy, *PRECISIONS[(row + column) % 3])
    for row, (name, policies) in enumerate(PAPERS)
    for column, policy in enumerate(POLICIES)
    if policy in policies
]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "inputs", "policy", "bf16", "residual_dtype"), CASES)
def test_every_form_is_planned_within_a_tenth(
    form: Form, inputs: str, policy: ActivationCheckpointing, bf16: bool, residual_dtype: ResidualDtype
) -> None:
    config = dataclasses.replace(
        CONFIG,
        inputs=INPUTS[inputs],
        cross_attend_form=form,
        activation_checkpointing=policy,
        residual_dtype=residual_dtype,
    )
    assert ratio(config, bf16=bf16) == pytest.approx(1, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("row", "policy", "bf16", "residual_dtype"), PAPER_CASES)
def test_rows_of_the_papers_are_planned_within_a_tenth(
    row: str, policy: ActivationCheckpointing, bf16: bool, residual_dtype: ResidualDtype
) -> None:
    overrides = [f"model.activation_checkpointing={policy}", f"model.residual_dtype={residual_dtype}"]
    config = network_config(PAPER / f"{row}.yaml", overrides)
    assert ratio(config, bf16=bf16) == pytest.approx(1, rel=0.1)
