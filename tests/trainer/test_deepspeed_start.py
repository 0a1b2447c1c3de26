"""DeepSpeed is started with our timeout, our stage and our environment, and what it cannot do is told by our keys."""

import contextlib
import logging
import os
import warnings
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from trainer.config import TrainConfig
from trainer.distributed.world import World
from trainer.engine.deepspeed_start import _import_deepspeed, gathered, group_timeout, initialize, uncompiled
from trainer.standalone.deepspeed_state import _problem, is_deepspeed

CPU = World(0, 1, 0, torch.device("cpu"))


@pytest.mark.parametrize("before", [None, "0"])
def test_what_is_imported_uncompiled_leaves_the_environment_as_it_was(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", before or "")
    if before is None:
        monkeypatch.delenv("TORCHDYNAMO_DISABLE")
    with contextlib.suppress(KeyError), uncompiled():
        assert os.environ["TORCHDYNAMO_DISABLE"] == "1"
        raise KeyError
    assert os.environ.get("TORCHDYNAMO_DISABLE") == before


def test_groups_that_are_made_meanwhile_have_our_timeout_unless_they_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def new_group(*given: object, **options: object) -> None:
        made.append((given, options))

    monkeypatch.setattr(dist, "new_group", new_group)
    with contextlib.suppress(KeyError), group_timeout(7.0):
        dist.new_group([0], backend="gloo")
        dist.new_group(timeout=timedelta(seconds=3))
        raise KeyError
    assert dist.new_group is new_group
    assert made == [
        (([0],), {"timeout": timedelta(seconds=7), "backend": "gloo"}),
        ((), {"timeout": timedelta(seconds=3)}),
    ]


def started(
    monkeypatch: pytest.MonkeyPatch,
    network: nn.Module,
    *,
    stage: int = 1,
    error: str = "",
    **train: Any,  # noqa: ANN401
) -> tuple[Any, dict[str, Any]]:
    """Return the engine that a DeepSpeed in the place of the real one starts, at this stage, and what it was given."""
    scaler = SimpleNamespace(raise_error_at_min_scale=True)
    engine = SimpleNamespace(zero_optimization_stage=lambda: stage, optimizer=SimpleNamespace(loss_scaler=scaler))
    given: dict[str, Any] = {}

    def start(**parts: Any) -> tuple[Any, ...]:  # noqa: ANN401
        given.update(parts)
        # DeepSpeed warns of much that no user can change.
        warnings.warn("of no use", stacklevel=1)
        if error:
            raise ValueError(error)
        return engine, None, None, None

    monkeypatch.setattr("trainer.engine.deepspeed_start._import_deepspeed", lambda _: SimpleNamespace(initialize=start))
    inner = torch.optim.AdamW(network.parameters())
    assert initialize(network, inner, {"a": 1}, TrainConfig(**train), CPU) is engine
    assert given == {"model": network, "optimizer": inner, "config": {"a": 1}}
    return engine, given


def test_gradients_travel_in_bf16_where_they_are_told_to_and_fp16_goes_on_at_its_lowest_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = nn.Linear(2, 1)
    engine, _ = started(monkeypatch, network)
    assert engine.optimizer.loss_scaler.raise_error_at_min_scale
    assert not any(hasattr(parameter, "comm_dtype") for parameter in network.parameters())
    started(monkeypatch, network, gradient_dtype="bf16")
    assert [parameter.comm_dtype for parameter in network.parameters()] == [torch.bfloat16] * 2
    engine, _ = started(monkeypatch, network, precision="fp16")
    assert not engine.optimizer.loss_scaler.raise_error_at_min_scale


def test_a_stage_that_was_not_taken_and_a_precision_that_the_device_lacks_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(AssertionError, match="another stage"):
        started(monkeypatch, nn.Linear(2, 1), stage=0)
    with pytest.raises(ValueError, match=r"^train\.precision = fp16: cpu does not compute in it; take fp32 or bf16$"):
        started(monkeypatch, nn.Linear(2, 1), precision="fp16", error="Type fp16 is not supported on your device")
    with pytest.raises(ValueError, match=r"^something else$"):
        started(monkeypatch, nn.Linear(2, 1), error="something else")


@pytest.mark.parametrize("before", [None, "5"])
def test_on_a_cpu_deepspeed_is_told_its_rank_on_the_node_and_its_accelerator_unless_it_knows(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    from deepspeed.ops import __compatible_ops__

    for name in ("LOCAL_RANK", "DS_ACCELERATOR"):
        # Set first, so that what is set meanwhile is gone after the test.
        monkeypatch.setenv(name, before or "")
        if not before:
            monkeypatch.delenv(name)
    monkeypatch.setitem(__compatible_ops__, "deepspeed_shm_comm", True)
    _import_deepspeed(World(3, 4, 3, torch.device("cpu")))
    expected = (before, before) if before else ("3", "cpu")
    assert (os.environ["LOCAL_RANK"], os.environ["DS_ACCELERATOR"]) == expected
    assert __compatible_ops__["deepspeed_shm_comm"] is False


def test_deepspeed_writes_nothing_beside_what_is_printed() -> None:
    from deepspeed.utils import logger

    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        _import_deepspeed(CPU)
        assert not logger.isEnabledFor(logging.WARNING)
    finally:
        logger.setLevel(before)


def test_of_what_pytorch_warns_only_what_deepspeed_calls_is_left_out() -> None:
    def is_told(category: type[Warning], module: str) -> bool:
        try:
            warnings.warn_explicit("words", category, "file.py", 1, module=module)
        except Warning:
            return True
        return False

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _import_deepspeed(CPU)
        heard = {
            (category, module): is_told(category, module)
            for category in (FutureWarning, UserWarning)
            for module in ("torch.distributed.nn", "deepspeed.runtime", "torch.nn", "numpy")
        }
    left_out = {(FutureWarning, "torch.distributed.nn"), (FutureWarning, "deepspeed.runtime")}
    assert {key for key, told in heard.items() if not told} == left_out


def test_parameters_are_gathered_where_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def context(parameters: list[nn.Parameter], *, modifier_rank: int) -> contextlib.AbstractContextManager[None]:
        asked.append((parameters, modifier_rank))
        return contextlib.nullcontext()

    monkeypatch.setattr("deepspeed.zero.GatheredParameters", context)
    parameters = [nn.Parameter(torch.ones(1))]
    for of, stage in ((parameters, 2), ([], 3), (parameters, 3)):
        with gathered(of, stage):
            pass
    assert asked == [(parameters, 0)]


def fake(stage: int, *, offloads: str = "", deals: bool = False, layout: str = "", wraps: bool = True) -> Any:  # noqa: ANN401
    """Return an engine of this stage whose optimizer lays its parts out under this name."""
    wrapped = object()
    optimizer: Any = SimpleNamespace(**({"optimizer": wrapped} if wraps else {}), **({layout: []} if layout else {}))
    return SimpleNamespace(
        zero_optimization_stage=lambda: stage,
        optimizer=optimizer,
        zero_offload_optimizer=lambda: offloads == "optimizer",
        zero_offload_param=lambda: offloads == "param",
        zero_round_robin_gradients=lambda: deals,
    )


FLAT, EVEN = "single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (fake(0, wraps=False), ""),
        (fake(0), "at ZeRO 0 it wraps its optimizer in SimpleNamespace"),
        (fake(1, layout=FLAT), ""),
        (fake(2, layout=FLAT), ""),
        (fake(3, layout=EVEN), ""),
        (fake(1, layout=EVEN), "at ZeRO 1 it wraps"),
        (fake(2, layout=EVEN), "at ZeRO 2 it wraps"),
        (fake(3, layout=FLAT), "at ZeRO 3 it wraps"),
        (fake(1, layout=FLAT, deals=True), "zero_optimization.round_robin_gradients deals"),
        (fake(2, layout=FLAT, deals=True), "zero_optimization.round_robin_gradients deals"),
        # Nothing is dealt out at the other stages.
        (fake(0, wraps=False, deals=True), ""),
        (fake(3, layout=EVEN, deals=True), ""),
        (fake(3, layout=EVEN, offloads="optimizer"), "offloads its state"),
        (fake(3, layout=EVEN, offloads="param"), "offloads its state"),
    ],
)
def test_an_engine_whose_state_lies_elsewhere_is_refused(engine: Any, words: str) -> None:  # noqa: ANN401
    found = _problem(engine)
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_a_module_is_an_engine_by_both_of_its_methods() -> None:
    module = nn.Linear(1, 1)
    assert not is_deepspeed(module)
    module.zero_optimization_stage = 1
    assert not is_deepspeed(module)
    module.backward = 1
    assert is_deepspeed(module)
    del module.zero_optimization_stage
    assert not is_deepspeed(module)
