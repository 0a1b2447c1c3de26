"""A plug-in's input may make tokens of its own; they are those that it says, and their weights follow from the seed."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from configs import plugins
from configs.run import load
from data_shards.loading.sample import prepare
from model.perceiver import Perceiver

READS = Path(__file__).parents[2] / "examples" / "plugins" / "reads.py"
RUN = """
plugins: [reads.py]
data: {inputs: {read: {modality: read, num_bases: 8}}}
model:
  inputs: {read: {}}
  outputs: {label: {kind: label, num_classes: 2}}
  num_latents: 4
  latent_width: 16
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
train: {steps: 4, global_batch: 8}
"""
FASTQ = b"@name\nACGTN\n+\nIIII!\n"


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No plug-in outlives its test."""
    yield
    plugins.use(())
    for name in [name for name in sys.modules if name.startswith("perceiver_plugins.")]:
        del sys.modules[name]


def run_of(folder: Path, change: tuple[str, str] = ("", "")) -> Path:
    text = READS.read_text()
    assert change[0] in text
    (folder / "reads.py").write_text(text.replace(*change))
    (folder / "run.yaml").write_text(RUN)
    return folder / "run.yaml"


def test_a_read_becomes_tokens_whose_weights_follow_from_the_seed_alone(tmp_path: Path) -> None:
    config = load(run_of(tmp_path))
    array = prepare({"read.fastq": FASTQ}, config.data, None).arrays["read"]
    np.testing.assert_array_equal(array[:5].T, [[1, 2, 3, 4, 0], [40, 40, 40, 40, 0]])
    state = torch.get_rng_state()
    first = Perceiver(config.model, seed=3)
    assert torch.equal(torch.get_rng_state(), state), "the process draws other numbers after a network was made"
    torch.rand(7)
    again, other = Perceiver(config.model, seed=3).state_dict(), Perceiver(config.model, seed=4).state_dict()
    name = "inputs.adapters.read.bases.weight"
    assert all(torch.equal(value, again[key]) for key, value in first.state_dict().items())
    assert not torch.equal(again[name], other[name])
    first({"read": torch.from_numpy(array)[None]}, {"read": torch.tensor([5])})["label"].sum().backward()
    assert first.get_parameter(name).grad is not None


@pytest.mark.parametrize(
    "change",
    [
        ("return self.width + 1", "return self.width"),
        ("return self.width + 1", "return self.width + 5"),
        ("return (self.num_bases,)", "return (self.num_bases // 2,)"),
        ("return (self.num_bases,)", "return (self.num_bases * 2,)"),
        ("dim=-1).to(dtype)", "dim=-1).to(dtype)[:, 1:]"),
        ("dim=-1).to(dtype)", "dim=-1).to(dtype).sum(dim=0)"),
    ],
    ids=["narrower", "wider", "a grid of fewer", "a grid of more", "one fewer", "no batch"],
)
def test_other_tokens_than_it_says_are_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    network = Perceiver(load(run_of(tmp_path, change)).model, seed=0)
    with pytest.raises(ValueError, match=r"input read: the adapter of ReadInput made tokens of shape .*, its grid and"):
        network({"read": torch.zeros(2, 8, 2, dtype=torch.uint8)})


def test_an_adapter_that_cannot_be_called_as_ours_are_is_refused_with_its_line(tmp_path: Path) -> None:
    change = ("def forward(self, array: Tensor, dtype: torch.dtype)", "def forward(self, array: Tensor)")
    config = load(run_of(tmp_path, change))
    with pytest.raises(ValueError, match=r"reads\.py:\d+: ReadInput.adapter returned .*forward takes \(array, dtype\)"):
        Perceiver(replace(config.model), seed=0)
