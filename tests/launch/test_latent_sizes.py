"""The sizes of a network with nested latents: which can be asked for, how each is timed, and what is told of them."""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer" / "scenarios"))
from tiny import whole_batch

from launch.lifecycle.run_folder import RunFolder
from launch.pictures import drawing
from launch.run.trained import latent_sizes
from launch.run.trained.latent_sizes import Size, chosen, cut, measured, report
from model.budget.flops import network_cost, total
from model.config.perceiver import PerceiverConfig
from model.modalities.array import ArrayInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.evaluation.evaluation import ALL, Evaluation, Value
from trainer.tasks.metric import Metric

NESTED = PerceiverConfig(
    inputs={"points": ArrayInput(shape=(11, 3))},
    outputs={"label": LabelOutput(num_classes=5)},
    num_latents=4,
    latent_width=8,
    nested_latents=(1, 4),
)
ACCURACY, ERROR = Metric("top_accuracy", "%", highest=1.0), Metric("error", "px", higher_is_better=False)


@pytest.mark.parametrize(
    ("config", "asked", "told"),
    [
        (NESTED, "3", "--latents 3: expected one of 1, 4, which it is trained for"),
        (replace(NESTED, nested_latents=()), "2", "--latents 2: this network is trained for all of its 4 latents only"),
        (replace(NESTED, nested_latents=()), "all", "--latents all: this network is trained for all of its 4 latents"),
        (replace(NESTED, network=object()), "1", "--latents 1: the network is a plug-in's"),
    ],
)
def test_a_size_that_a_network_has_not_is_refused(config: PerceiverConfig, asked: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        chosen(config, asked)


def test_the_sizes_are_those_that_are_asked_for() -> None:
    assert chosen(NESTED, "all") == (1, 4)
    assert chosen(NESTED, "4") == (4,)
    network = Perceiver(NESTED, seed=0)
    assert cut(network, 0) is network
    assert cut(network, 1).config.num_latents == 1


def found(first: float, second: float = 1.0) -> Evaluation:
    return Evaluation(5, (Value("label", ACCURACY, ALL, first), Value("label", ERROR, ALL, second)))


def test_each_size_is_measured_by_its_own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[object] = []

    def seconds(network: object, batch: object) -> float:
        timed.append((network, batch))
        return 6.4

    monkeypatch.setattr(latent_sizes, "_seconds", seconds)
    judged: list[Any] = []
    batch = whole_batch(0)

    def judge(network: object) -> Evaluation:
        judged.append(network)
        return found(0.5)

    sizes = measured(Perceiver(NESTED, seed=0), batch, judge, (4, 1))
    assert [network.config.num_latents for network in judged] == [4, 1]
    assert not any(network.training for network in judged)
    assert timed == [(network, batch) for network in judged]
    flops = [total(network_cost(network.config)).flops for network in judged]
    assert flops[0] > flops[1]
    # Sixteen samples.
    assert sizes == [Size(number, each / 1e9, 0.4, found(0.5)) for number, each in zip((4, 1), flops, strict=True)]


def test_the_best_of_three_passes_is_told_and_the_one_that_warms_up_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    waited: list[float] = []
    passes: Iterator[float] = iter([0.5, 5.0, 2.0, 3.0, 1.0])

    class Passes(nn.Module):
        def forward(self, arrays: dict[str, int], lengths: dict[str, int], *, chunk: int) -> None:
            nonlocal now
            assert (arrays, lengths, chunk) == ({"a": 1}, {"a": 2}, 16_384)
            assert not torch.is_grad_enabled()
            now += next(passes)

    monkeypatch.setattr("time.perf_counter", lambda: now)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: waited.append(now))
    on_gpu: Any = SimpleNamespace(
        arrays={"a": 1}, host_lengths={"a": 2}, weights=SimpleNamespace(is_cuda=True, device=torch.device("cuda", 1))
    )
    network: Any = Passes()
    assert latent_sizes._seconds(network, on_gpu) == 2.0
    # A GPU is waited for before and after each pass: the clock would measure the launches alone.
    assert waited == [100.0, 100.5, 100.5, 105.5, 105.5, 107.5, 107.5, 110.5]
    waited.clear()
    passes = iter([1.0] * 4)
    on_gpu.weights.is_cuda = False
    assert latent_sizes._seconds(network, on_gpu) == 1.0
    assert waited == []


def test_every_size_is_told_drawn_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(drawing, "quality_over_cost", lambda *words: drawn.append(words))
    monkeypatch.chdir(tmp_path)
    sizes = [Size(1, 0.25, 0.002, found(0.5, 7.0)), Size(64, 1234.5, 1.5, found(math.nan))]
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    report(folder, 8, "test", sizes, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "step 8, 5 test samples",
        "   latents      GFLOP  ms per sample  label: top accuracy",
        "         1     0.2500          2.000               50.00%",
        "        64  1234.5000       1500.000         not measured",
        "picture: run/pictures/latents.png",
    ]
    costs = {"GFLOP per sample": [0.25, 1234.5], "ms per sample": [2.0, 1500.0]}
    [(numbers, spent, (first, second), *labels)] = drawn
    assert (numbers, spent, first) == ([1, 64], costs, 0.5)
    assert math.isnan(second)
    assert labels == ["label", ACCURACY, folder.pictures_folder / "latents.png"]
    kept = folder.latents_path.read_text()
    assert json.loads(kept) == {"step": 8, "split": "test", "sizes": [size.as_json() for size in sizes]}
    assert json.loads(kept)["sizes"][0] == {"latents": 1, "gflop": 0.25, "seconds": 0.002} | found(0.5, 7.0).as_json()
    report(folder, 8, "test", sizes, as_json=True)
    assert capsys.readouterr().out == kept
    assert len(drawn) == 2
