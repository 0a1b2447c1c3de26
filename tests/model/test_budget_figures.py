"""Exact figures of what small networks take. test_plan.py and test_step_cost.py hold the formulas against measurements.

Those leave a tenth for what no formula knows, in which a term may be wrong without being seen. Here every term decides
a digit of a sum. A figure changes only with the formula, and the formula with a measurement.
"""

from dataclasses import astuple, replace
from typing import Any

import pytest

from model.attention.read_forms import reading
from model.budget.activation_memory import activation_bytes
from model.budget.flops import gathering, mean_trained_flops, network_cost, shared_reads, total, training_flops
from model.budget.plan import POLICIES, Device, fastest_policy, plan
from model.budget.step_cost import step_work
from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.array import ArrayInput
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.autoregressive import AutoregressiveOutput
from model.outputs.embedding import EmbeddingOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput

BANDS = PositionsConfig(num_bands=3)
PIXELS, MANY_PIXELS = (ImageInput(height=side, width=side, positions=BANDS) for side in (6, 56))
# No two widths are equal, so that none can stand for another.
PLAIN = PerceiverConfig(
    inputs={"image": PIXELS},
    outputs={"label": LabelOutput(num_classes=5)},
    num_latents=8,
    latent_width=12,
    num_cross_attends=3,
    num_blocks=4,
    layers_per_block=2,
    share_cross_attends=True,
    cross_attend=AttentionConfig(qk_width=6, value_width=10, mlp_ratio=2),
    self_attend=AttentionConfig(num_heads=2, qk_width=4, value_width=14, mlp_ratio=3),
    decoder=DecoderConfig(AttentionConfig(num_heads=2, qk_width=8, value_width=18, mlp_ratio=3)),
    cross_attend_form="plain",
)
WORDS = TextInput(max_tokens=20, vocabulary=30, embedding_width=12)
PAIR = EmbeddingOutput(pair=("image", "sound"), pooling="query", query_width=6)
QUERIES: dict[str, Any] = {
    "outputs": {"image": GridOutput(positions=BANDS, train_queries=9), "label": LabelOutput(num_classes=5)}
}
ONLY_ATTENTION = replace(
    PLAIN.decoder, has_mlp=False, cross_attend=AttentionConfig(2, qk_width=8, value_width=18, qk_norm=True)
)
NORMS = {
    part: replace(getattr(PLAIN, part), qk_norm=True, qkv_bias=part == "self_attend", rotary=part == "self_attend")
    for part in ("cross_attend", "self_attend")
}
NETWORKS: dict[str, PerceiverConfig] = {
    "plain": PLAIN,
    "many tokens": replace(PLAIN, inputs={"image": MANY_PIXELS}),
    "absorbed": replace(PLAIN, cross_attend_form="absorbed"),
    "absorbed, learned": replace(
        PLAIN, cross_attend_form="absorbed", inputs={"image": replace(MANY_PIXELS, project_to=7)}
    ),
    "separable": replace(PLAIN, cross_attend_form="separable"),
    "by device": replace(PLAIN, cross_attend_form="auto"),
    "stem": replace(PLAIN, inputs={"image": ImageInput(height=40, width=48, conv_stem=True, positions=BANDS)}),
    "every second block": replace(PLAIN, recompute_every_blocks=2),
    "dropout": replace(PLAIN, dropout=0.1, residual_dtype="bf16"),
    "narrow": replace(PLAIN, residual_dtype="bf16"),
    "options": replace(PLAIN, norm="rms", mlp="geglu", drop_path=0.2, compile=False, **NORMS),
    "queries": replace(PLAIN, dropout=0.1, **QUERIES),
    "queries without MLP": replace(PLAIN, decoder=ONLY_ATTENTION, **QUERIES),
    "gated queries": replace(PLAIN, mlp="swiglu", **QUERIES),
    "passes": replace(
        PLAIN,
        inputs={"image": replace(PIXELS, project_to=9), "sound": ArrayInput(shape=(7, 3), positions=BANDS)},
        outputs={"pair": PAIR, "label": LabelOutput(num_classes=3)},
    ),
    "stream": replace(PLAIN, inputs={"text": WORDS}, outputs={"text": AutoregressiveOutput()}),
    "reads alone": replace(PLAIN, num_blocks=0, share_cross_attends="all"),
    # As small as its smallest size it would read in the absorbed form.
    "nested": replace(
        PLAIN,
        inputs={"image": replace(PIXELS, project_to=90)},
        num_latents=64,
        nested_latents=(2, 8, 64),
        cross_attend_form="auto",
    ),
}
WIDTHS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "cpu": {"bytes_per_element": 2},
    "cuda": {"bytes_per_element": 2, "device": "cuda"},
    "halves": {"bytes_per_element": 2, "stream_bytes": 2, "device": "cuda"},
}
MEMORY: dict[tuple[str, str], list[int]] = {
    ("plain", "fp32"): [60192, 22416, 18320, 45840, 18576],
    ("plain", "cuda"): [35544, 12360, 12504, 25800, 10440],
    ("plain", "halves"): [30096, 10632, 8616, 22920, 9096],
    ("many tokens", "fp32"): [1033216, 1022336, 1022720, 1030528, 830208],
    ("many tokens", "cuda"): [550144, 525568, 527104, 538624, 522880],
    ("absorbed", "fp32"): [62112, 16656, 13200, 51216, 16416],
    ("absorbed", "cuda"): [36504, 10056, 10200, 29064, 9360],
    ("absorbed, learned", "fp32"): [1113856, 1100288, 1100672, 1110400, 1362560],
    ("absorbed, learned", "cuda"): [690176, 682048, 682432, 687872, 812608],
    ("separable", "fp32"): [57936, 14928, 11472, 49488, 12240],
    ("separable", "cuda"): [35184, 9552, 8400, 30192, 7632],
    ("by device", "cpu"): [35184, 10704, 9360, 30192, 8016],
    ("by device", "cuda"): [35544, 12360, 12504, 25800, 10440],
    ("stem", "fp32"): [613440, 613440, 613440, 613440, 613440],
    ("stem", "cpu"): [356160, 356160, 356160, 356160, 356160],
    ("every second block", "fp32"): [60192, 33696, 18320, 49824, 31776],
    ("every second block", "cuda"): [35544, 21720, 12504, 28632, 19800],
    ("dropout", "fp32"): [65376, 25872, 21584, 49296, 22032],
    ("dropout", "cpu"): [36504, 14664, 12424, 26376, 12744],
    ("dropout", "cuda"): [36504, 14088, 12312, 26376, 12552],
    ("options", "fp32"): [98656, 31312, 23504, 63952, 25744],
    ("options", "cpu"): [54776, 17960, 14824, 34856, 14408],
    ("options", "cuda"): [49240, 15784, 13368, 33832, 13000],
    ("queries", "fp32"): [72820, 33316, 29028, 56740, 29476],
    ("queries", "cuda"): [45080, 20168, 19928, 33608, 18248],
    ("queries without MLP", "fp32"): [63896, 26120, 22024, 49544, 22280],
    ("queries without MLP", "cuda"): [37648, 14464, 14608, 27904, 12544],
    ("gated queries", "cuda"): [52676, 20276, 18116, 38324, 18356],
    ("passes", "fp32"): [200856, 69976, 69400, 154392, 49304],
    ("passes", "cuda"): [120114, 45842, 47538, 89778, 32818],
    ("stream", "fp32"): [57856, 21504, 17920, 45952, 18688],
    ("stream", "cuda"): [34976, 14240, 13088, 27680, 12320],
    ("reads alone", "fp32"): [17952, 15248, 15248, 17424, 16784],
    ("reads alone", "cuda"): [11352, 8280, 8280, 9288, 8008],
}
"""Bytes under each policy, in the order of POLICIES."""
WORK: dict[tuple[str, str, str], tuple[Any, float, float, float, float]] = {
    ("plain", "fp32", "cpu"): ("none", 663912.0, 412992.0, 235520.0, 237024.0),
    ("plain", "bf16", "cpu"): ("none", 663912.0, 412992.0, 235520.0, 248928.0),
    ("plain", "bf16", "cuda"): ("none", 663912.0, 1175040.0, 1024000.0, 159302.4),
    ("absorbed", "fp32", "cpu"): ("blocks", 885216.0, 513024.0, 314026.6667, 297600.0),
    ("separable", "fp32", "cpu"): ("none", 663912.0, 315648.0, 235520.0, 208512.0),
    ("by device", "bf16", "cuda"): ("none", 663912.0, 1175040.0, 1024000.0, 159302.4),
    ("options", "fp32", "cpu"): ("none", 871272.0, 412992.0, 235520.0, 778592.0),
    ("options", "bf16", "cuda"): ("none", 871272.0, 1175040.0, 1024000.0, 475168.0),
    ("narrow", "fp32", "cpu"): ("selective", 674977.2, 419875.2, 239445.3333, 240974.4),
    ("narrow", "bf16", "cpu"): ("none", 663912.0, 412992.0, 235520.0, 168672.0),
    ("narrow", "bf16", "cuda"): ("none", 663912.0, 1175040.0, 1024000.0, 127622.4),
    ("dropout", "fp32", "cuda"): ("none", 663912.0, 1175040.0, 1024000.0, 748128.0),
    ("queries", "fp32", "cpu"): ("none", 775548.0, 412992.0, 235520.0, 773832.0),
    ("queries", "bf16", "cuda"): ("none", 775548.0, 1175040.0, 1024000.0, 186014.4),
    ("passes", "fp32", "cpu"): ("layers", 3216320.0, 2687328.0, 1099093.3333, 1185856.0),
    ("nested", "fp32", "cpu"): ("none", 4465944.0, 1993140.0, 7599200.0, 1002888.0),
    ("reads alone", "bf16", "cpu"): ("offload", 147936.0, 472320.0, 0.0, 114816.0),
}
"""A policy, and under it the products, reads, softmax and moved bytes of a step."""

COSTS: dict[str, dict[str, tuple[int, int]]] = {
    "plain": {"inputs": (0, 0), "cross_attends": (2384, 123264), "blocks": (2948, 184320), "decoder": (65, 120)},
    "absorbed, learned": {
        "inputs": (28, 131712),
        "cross_attends": (2528, 8767488),
        "blocks": (2948, 184320),
        "decoder": (65, 120),
    },
    "stem": {
        "inputs": (9536, 9031680),
        "cross_attends": (4580, 1027584),
        "blocks": (2948, 184320),
        "decoder": (65, 120),
    },
    "options": {"inputs": (0, 0), "cross_attends": (2906, 137088), "blocks": (3844, 239616), "decoder": (65, 120)},
    "queries": {"inputs": (0, 0), "cross_attends": (2384, 123264), "blocks": (2948, 184320), "decoder": (2146, 133992)},
    "queries without MLP": {
        "inputs": (0, 0),
        "cross_attends": (2384, 123264),
        "blocks": (2948, 184320),
        "decoder": (894, 49320),
    },
    "gated queries": {
        "inputs": (0, 0),
        "cross_attends": (3008, 137088),
        "blocks": (3884, 239616),
        "decoder": (2776, 176328),
    },
    "passes": {
        "inputs": (57, 5832),
        "cross_attends": (2744, 544032),
        "blocks": (2948, 552960),
        "decoder": (2634, 18520),
    },
    "stream": {"inputs": (600, 0), "cross_attends": (2204, 75264), "blocks": (2864, 184320), "decoder": (54, 5760)},
    "reads alone": {"inputs": (0, 0), "cross_attends": (1192, 123264), "blocks": (96, 0), "decoder": (65, 120)},
    "nested": {
        "inputs": (360, 19440),
        "cross_attends": (5516, 875520),
        "blocks": (3620, 2506752),
        "decoder": (65, 120),
    },
}
"""Parameters and operations of a forward pass, part by part."""
TRAINING: dict[str, tuple[float, float, int, int]] = {
    "plain": (923112.0, 307704.0, 0, 19584),
    "absorbed, learned": (27250920.0, 9083640.0, 0, 2107392),
    "stem": (30731112.0, 10243704.0, 0, 299520),
    "options": (1130472.0, 376824.0, 0, 19584),
    "queries": (1034748.0, 344916.0, 0, 19584),
    "queries without MLP": (971244.0, 323748.0, 0, 19584),
    "gated queries": (1273860.0, 424620.0, 0, 19584),
    "passes": (4117696.0, 1121344.0, 753664, 111456),
    "stream": (796032.0, 265344.0, 0, 7680),
    "reads alone": (370152.0, 123384.0, 0, 39168),
    "nested": (5901912.0, 1967304.0, 0, 119808),
}
"""Operations of a sample: of its step, of its forward pass, of the passes before it, and those that are shared."""


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_of_this_table_are_possible(name: str) -> None:
    assert list(NETWORKS[name].problems()) == []


@pytest.mark.parametrize(("name", "widths"), MEMORY)
def test_the_activations_of_small_networks_take_so_many_bytes(name: str, widths: str) -> None:
    found = [activation_bytes(NETWORKS[name], policy, **WIDTHS[widths]) for policy in POLICIES]
    assert found == MEMORY[name, widths]


@pytest.mark.parametrize(("name", "precision", "kind"), WORK)
def test_a_step_of_small_networks_is_so_much_work(name: str, precision: Any, kind: Any) -> None:  # noqa: ANN401
    policy, *figures = WORK[name, precision, kind]
    work = step_work(replace(NETWORKS[name], activation_checkpointing=policy), precision, kind)
    # The figures are rounded to four places.
    assert astuple(work) == pytest.approx(figures, rel=1e-9)


@pytest.mark.parametrize("name", COSTS)
def test_the_parts_of_small_networks_cost_so_much(name: str) -> None:
    parts = network_cost(NETWORKS[name])
    assert {part: astuple(cost) for part, cost in parts.items()} == COSTS[name]


@pytest.mark.parametrize("name", TRAINING)
def test_training_small_networks_takes_so_many_operations(name: str) -> None:
    config = NETWORKS[name]
    found = training_flops(config), mean_trained_flops(config), gathering(config), shared_reads(config)
    assert found == TRAINING[name]


@pytest.mark.parametrize("beside", [0, 1, 2])
def test_a_device_holds_the_weights_their_gradients_and_what_stands_beside_them(beside: int) -> None:
    parameters = total(network_cost(PLAIN)).parameters
    activations = activation_bytes(PLAIN, bytes_per_element=2, stream_bytes=4)
    exact = 4 * (2 + beside) * parameters + 3 * activations
    for memory, samples in ((exact - 1, 2), (exact, 3), (exact + activations, 4)):
        found = plan(PLAIN, device=Device(memory, 1e9), bytes_per_element=2, stream_bytes=4, beside=beside)
        assert found.policies["none"].micro_batch == samples
        assert found.policies["none"].activation_bytes == activations
    assert found.form == "plain"
    assert set(found.policies) == set(POLICIES)
    assert found.parts["total"] == total(network_cost(PLAIN))
    assert [row.part for row in found.attention] == ["cross_attend", "self_attend"]
    assert found.reading == {kind: reading(PLAIN, kind) for kind in ("cpu", "cuda")}


def test_the_least_memory_of_halves_lets_a_policy_be_chosen() -> None:
    halves = {"bytes_per_element": 2, "stream_bytes": 2}
    for device in ("cpu", "cuda"):
        needed = activation_bytes(PLAIN, "layers", device=device, **halves)
        found = fastest_policy(PLAIN, micro_batch=5, memory_bytes=5 * needed, device=device, **halves)
        assert found == "layers"
