"""bf16 and fp16 train, keep fp32 state, and all resume to the last bit, loss scale included."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import CLASSES, GLOBAL_BATCH, OPTIMIZER, engine, whole_batch

from model.config.attention import AttentionConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.points import PointsInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.engine.update import HostUpdate
from trainer.run_state import RunState

META = torch.device("meta")
STAGE_3 = [pytest.param(precision, 3, marks=pytest.mark.slow) for precision in ("bf16", "fp16")]


def train(trained: Engine, first: int, last: int) -> list[float]:
    return [float(trained.step(whole_batch(step)).loss) for step in range(first, last)]


def test_what_the_host_knows_of_an_update_is_told_on_the_device() -> None:
    deepspeed = SimpleNamespace(
        step=lambda: None, get_global_grad_norm=lambda: 2.5, optimizer=SimpleNamespace(overflow=True)
    )
    norm, is_finite = HostUpdate(deepspeed, META)()
    assert (norm.device, is_finite.device, is_finite.dtype) == (META, META, torch.bool)


@pytest.fixture
def fp16(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed asks whether the processor has fast fp16; slow is enough here."""
    engine(world).close()
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: True)


def scaler(trained: Engine) -> Any:  # noqa: ANN401  # DeepSpeed has no types
    return trained._deepspeed.optimizer.loss_scaler


@pytest.mark.usefixtures("fp16")
@pytest.mark.parametrize(
    ("precision", "stage"),
    [("fp32", 3), *[("bf16", stage) for stage in (0, 1, 2)], ("fp16", 1), ("fp16", 2), *STAGE_3],
)
def test_every_precision_resumes_to_the_last_bit(tmp_path: Path, world: World, precision: str, stage: int) -> None:
    fields = {"zero_stage": stage, "precision": precision, "micro_batch": 8}
    straight = engine(world, **fields)
    store = Store(tmp_path, CheckpointConfig(), world)
    if precision == "fp16":
        scaler(straight).cur_scale = 512.0
    train(straight, 0, 3)
    store.save(straight, RunState(step=3))
    losses = train(straight, 3, 6)
    store.wait()  # the next snapshot overwrites the memory that is being written
    weights, progress = straight.snapshot(), straight.progress()
    straight.close()
    resumed = engine(world, seed=5, **fields)
    assert store.load(resumed) is not None
    assert train(resumed, 3, 6) == losses
    for kind, tensors in resumed.snapshot().items():
        assert all(torch.equal(tensor, weights[kind][name]) for name, tensor in tensors.items())
        trained = [tensor for name, tensor in tensors.items() if name.endswith(("weight", "bias"))]
        assert {tensor.dtype for tensor in trained} == {torch.float32}
    assert resumed.progress() == progress
    if precision == "fp16":
        assert scaler(resumed).cur_scale == 512.0
    resumed.close()
    store.close()


@pytest.mark.usefixtures("fp16")
@pytest.mark.parametrize("stage", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_scale_that_is_too_high_is_lowered_without_blaming_the_batch(world: World, stage: int) -> None:
    trained = engine(world, zero_stage=stage, precision="fp16")
    scaler(trained).cur_scale = 2.0**40
    scaler(trained).cur_hysteresis = 1
    before = {name: tensor.clone() for name, tensor in trained.snapshot()["weight"].items()}
    report = trained.step(whole_batch(0))
    assert not math.isfinite(report.grad_norm)
    assert report.is_rescaled
    assert not report.is_skipped
    assert scaler(trained).cur_scale == 2.0**39
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.snapshot()["weight"].items())
    trained.close()


def test_bf16_is_near_fp32_but_not_the_same(world: World) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        trained = engine(world, precision=precision)
        losses[precision] = torch.tensor(train(trained, 0, 5))
        trained.close()
    difference = (losses["fp32"] - losses["bf16"]).abs().max()
    # bf16 keeps 3 digits.
    assert 0 < difference < 0.01


@pytest.mark.usefixtures("fp16")
@pytest.mark.parametrize("stage", [1, 2])
def test_norms_are_told_without_the_loss_scale(world: World, stage: int) -> None:
    norms = {}
    for precision in ("fp32", "fp16"):
        trained = engine(world, zero_stage=stage, precision=precision, log_every_steps=1)
        if precision == "fp16":
            scaler(trained).cur_scale = 512.0
        norms[precision] = trained.step(whole_batch(0)).group_norms
        trained.close()
    # fp16 keeps 3 digits.
    assert norms["fp16"] == pytest.approx(norms["fp32"], rel=0.02)


@pytest.mark.usefixtures("fp16")
@pytest.mark.parametrize("stage", [1, 2])
def test_a_batch_that_is_not_finite_is_blamed_in_fp16_too(world: World, stage: int) -> None:
    trained = engine(world, zero_stage=stage, precision="fp16")
    scaler(trained).cur_scale = 512.0
    batch = whole_batch(0)
    batch.arrays["points"].mul_(math.inf)
    assert trained.step(batch).is_skipped
    trained.close()


@pytest.mark.usefixtures("fp16")
@pytest.mark.parametrize("stage", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_gradient_that_is_not_finite_at_the_lowest_scale_is_the_fault_of_its_batch(world: World, stage: int) -> None:
    # A finite loss with a gradient that is not, as that of a root at 0: DeepSpeed would raise an error of its own.
    trained = engine(world, zero_stage=stage, precision="fp16")
    scaler(trained).cur_scale = scaler(trained).min_scale
    scaler(trained).cur_hysteresis = 1
    trained.network.module.last.weight.register_hook(lambda gradient: gradient * math.inf)
    for _ in range(2):
        report = trained.step(whole_batch(0))
        assert math.isfinite(report.loss)
        assert (report.is_skipped, report.is_rescaled) == (True, False)
    assert scaler(trained).cur_scale == scaler(trained).min_scale
    trained.close()


@pytest.mark.parametrize("stage", range(4))
def test_an_engine_that_has_trained_on_goes_back_to_the_last_bit(tmp_path: Path, world: World, stage: int) -> None:
    trained = engine(world, zero_stage=stage)
    store = Store(tmp_path, CheckpointConfig(asynchronous=False), world)
    train(trained, 0, 1)
    store.save(trained, RunState(step=1))
    losses = train(trained, 1, 4)
    assert store.load(trained) is not None
    assert train(trained, 1, 4) == losses
    store.close()
    trained.close()


def test_a_precision_that_the_device_lacks_is_refused_by_its_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(world).close()
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: False)
    with pytest.raises(ValueError, match=r"train.precision = fp16: cpu does not compute in it; take fp32 or bf16"):
        engine(world, precision="fp16", zero_stage=1)


def test_a_narrow_residual_stream_resumes_to_the_last_bit(tmp_path: Path, world: World) -> None:
    network = PerceiverConfig(
        inputs={"points": PointsInput(num_points=11, num_bands=2, max_frequency=4.0)},
        outputs={"label": LabelOutput(num_classes=5)},
        num_latents=4,
        latent_width=8,
        num_cross_attends=1,
        num_blocks=1,
        layers_per_block=2,
        self_attend=AttentionConfig(num_heads=2),
        residual_dtype="bf16",
    )

    def made(seed: int) -> Engine:
        settings = TrainConfig(global_batch=GLOBAL_BATCH, micro_batch=8, precision="bf16")
        return Engine(Perceiver(network, seed=seed), CLASSES, optimizer=OPTIMIZER, train=settings, world=world)

    straight, store = made(0), Store(tmp_path, CheckpointConfig(), world)
    train(straight, 0, 2)
    store.save(straight, RunState(step=2))
    losses = train(straight, 2, 4)
    store.wait()
    straight.close()
    resumed = made(5)
    assert store.load(resumed) is not None
    assert train(resumed, 2, 4) == losses
    resumed.close()
    store.close()
