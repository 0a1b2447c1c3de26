"""A run says which parameters it trains and how; rules that fit none are refused before there is a folder."""

import json
from pathlib import Path

import pytest
import torch

from configs.run import RunConfig, load
from data_shards.sources import table
from launch.lifecycle.run_folder import RunFolder
from launch.run import composition, trained_parameters
from launch.run.creation import open_run
from trainer.checkpoint.layout import read_weights

CONFIG = """
data:
  inputs: {text: {modality: text, num_bytes: 12}}
  lanes: 2
model:
  inputs: {text: {max_tokens: 12, embedding_width: 8}}
  outputs: {label: {kind: label, num_classes: 3}}
  num_latents: 2
  latent_width: 8
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
train: {steps: 2, global_batch: 8, log_every_steps: 1}
"""
LATENTS = "encoder.latents.weight"


def configured(folder: Path, *overrides: str) -> RunConfig:
    rows = [{"text": f"{n} times", "label": n % 3} for n in range(24)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(folder / "rows.jsonl", folder / "shards")
    (folder / "text.yaml").write_text(CONFIG)
    return load(folder / "text.yaml", [f"data.shards={folder}/shards", *overrides])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optimizer.freeze=[encodr.*]", r"optimizer.freeze: encodr.\* matches no parameter of the network; expected"),
        ("optimizer.rate_factors=[head.*=2]", r"optimizer.rate_factors: head.\* matches no parameter"),
        ("optimizer.freeze=['*=1']", "leaves no parameter that is trained at the first step"),
    ],
)
def test_rules_that_fit_no_parameter_are_refused_and_no_run_is_made(
    tmp_path: Path, override: str, sentence: str
) -> None:
    new = RunFolder(tmp_path / "new")
    with pytest.raises(ValueError, match=sentence):
        open_run(configured(tmp_path, override), new)
    assert not new.path.exists()


def test_a_run_says_what_it_freezes_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    rules = [
        "optimizer.freeze=[encoder.*,encoder.latents.*=1]",
        "optimizer.rate_factors=[decoder.*=2]",
        "ema.decay=0.5",
        "train.zero_stage=3",
    ]
    folder = RunFolder(tmp_path / "new")
    assert composition.main(configured(tmp_path, *rules, "optimizer.layer_decay=0.5"), folder.path) == 0
    first, last = (read_weights(folder.checkpoints_folder / f"step_{step:08d}") for step in (0, 2))
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert LATENTS in moved
    assert {name for name in first if name.startswith("encoder.")} - moved == {
        name for name in first if name.startswith("encoder.") and name != LATENTS
    }
    records = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
    told = [record["message"] for record in records if record["kind"] == "event"]
    frozen = [sentence for sentence in told if sentence.startswith("freezes")]
    assert len(frozen) == 2
    # Two latents of eight channels, also where ZeRO 3 has cut them.
    assert "until step 1: 1 of" in frozen[1]
    assert "tensors, 16 of " in frozen[1]
    assert f"({LATENTS})" in frozen[1]
    assert "for the whole run: " in frozen[0]
    assert "and " in frozen[0]
    # The embedding and the latents are 3 layers below the decoder.
    assert [sentence.partition(":")[0] for sentence in told if "learning rate x" in sentence] == [
        "learning rate x 0.125",
        "learning rate x 2",
    ]


HEAD = "(decoder.means.label.logits.weight, decoder.means.label.logits.bias)"
WIDE = [
    f"encoder.cross_attends.0.mlp.{part}" for part in ("widen.weight", "widen.bias", "narrow.weight", "narrow.bias")
]
MORE = f"({LATENTS}, {', '.join(WIDE[:3])} and 1 more)"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([], []),
        (["optimizer.weight_decay=0.1"], []),
        (["optimizer.freeze=[decoder.*=1]"], [f"freezes until step 1: 2 of 39 tensors, 27 of 3,179 parameters {HEAD}"]),
        (
            ["optimizer.freeze=[encoder.*,decoder.*=2,encoder.latents.*=1]"],
            ["freezes for the whole run: 3", "freezes until step 1: 1 of 39", "freezes until step 2: 2 of 39"],
        ),
        # What is frozen for the whole run has no rate.
        (
            ["optimizer.rate_factors=[decoder.*=2]", "optimizer.freeze=[encoder.*]"],
            ["freezes for the whole run: 35", f"learning rate x 2: 2 of 39 tensors, 27 of 3,179 parameters {HEAD}"],
        ),
        # All four have their names, and of five the last has not.
        (
            ["optimizer.rate_factors=[encoder.cross*.mlp*=2]"],
            [f"learning rate x 2: 4 of 39 tensors, 144 of 3,179 parameters ({', '.join(WIDE)})"],
        ),
        (
            ["optimizer.rate_factors=[encoder.cross*.mlp*=2,encoder.latents*=2]"],
            [f"learning rate x 2: 5 of 39 tensors, 160 of 3,179 parameters {MORE}"],
        ),
        # A bias does not decay.
        (
            ["optimizer.weight_decay=0.1", "optimizer.decay_factors=[decoder.*=0.5]"],
            ["weight decay x 0.5: 1 of 39 tensors, 24 of 3,179 parameters (decoder.means.label.logits.weight)"],
        ),
        (
            ["optimizer.weight_decay=0.1", "optimizer.decay_factors=[decoder.*=8,encoder.cross*.mlp*=3]"],
            ["weight decay x 3: 2 of 39 tensors", "weight decay x 8: 1 of 39 tensors"],
        ),
        (["optimizer.layer_decay=0.5"], [f"learning rate x {factor}: " for factor in ("0.125", "0.25", "0.5")]),
    ],
)
def test_each_rule_is_said_on_its_own_and_none_where_there_is_none(
    tmp_path: Path, rules: list[str], said: list[str]
) -> None:
    (tmp_path / "text.yaml").write_text(CONFIG)
    config = load(tmp_path / "text.yaml", ["train.steps=3", *rules])
    trained_parameters.check(config)
    found = list(trained_parameters.sentences(config))
    assert len(found) == len(said)
    assert all(sentence.startswith(beginning) for sentence, beginning in zip(found, said, strict=True)), found


def test_a_network_is_not_made_for_rules_that_there_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, shapes = list[RunConfig](), trained_parameters._shapes

    def noted(config: RunConfig) -> torch.nn.Module:
        made.append(config)
        return shapes(config)

    monkeypatch.setattr(trained_parameters, "_shapes", noted)
    (tmp_path / "text.yaml").write_text(CONFIG)
    for rules, times in (([], 0), (["optimizer.layer_decay=0.5"], 2), (["optimizer.freeze=[decoder.*=1]"], 2)):
        config = load(tmp_path / "text.yaml", rules)
        trained_parameters.check(config)
        list(trained_parameters.sentences(config))
        assert made == [config] * times
        made.clear()
