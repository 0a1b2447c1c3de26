"""A run may start from the weights of another; they are kept in its folder, and what was not taken is reported."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from configs.run import RunConfig, load
from data_shards.sources import table
from launch.lifecycle.run_folder import RunFolder
from launch.run import composition, fork, initial_weights, weight_sources
from launch.run.creation import open_run
from launch.run.weight_sources import Source
from model.perceiver import Perceiver
from model.transfer import Meaning, Transfer
from trainer.checkpoint.layout import read_weights
from trainer.checkpoint.tensor_file import TensorFile, write

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


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    rows = [{"text": f"{n} times", "label": n % 3} for n in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(tmp_path / "rows.jsonl", tmp_path / "shards")
    (tmp_path / "text.yaml").write_text(CONFIG)
    return load(tmp_path / "text.yaml", [f"data.shards={tmp_path}/shards"])


@pytest.fixture
def base(config: RunConfig, tmp_path: Path) -> RunFolder:
    """A run with checkpoints at the steps 1 and 2, the first one better."""
    folder = RunFolder(tmp_path / "base")
    open_run(config, folder)
    for step, score in ((1, 0.9), (2, 0.5)):
        save(folder.checkpoints_folder, step, Perceiver(config.model, seed=step).state_dict(), score=score)
    return folder


def from_base(tmp_path: Path, *overrides: str) -> RunConfig:
    return load(tmp_path / "text.yaml", [f"data.shards={tmp_path}/shards", *overrides])


@pytest.mark.parametrize(("which", "step"), [("", 2), ("@best", 1), ("@1", 1), ("@2", 2)])
def test_a_run_starts_from_the_checkpoint_that_was_named(
    config: RunConfig, base: RunFolder, tmp_path: Path, which: str, step: int
) -> None:
    wanted = from_base(tmp_path, f"initial_weights.source={base.path}{which}", "optimizer.learning_rate=0")
    new = RunFolder(tmp_path / "new")
    assert composition.main(wanted, new.path) == 0
    expected = Perceiver(config.model, seed=step).state_dict()
    found = read_weights(new.checkpoints_folder / "step_00000000")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    record = json.loads(new.initial_weights_record_path.read_text())
    assert (record["taken"], record["drawn"], record["unused"]) == (sorted(expected), {}, [])
    assert record["step"] == step
    lines = [json.loads(line) for line in new.metrics_path.read_text().splitlines()]
    told = f"starts from weights of {base.path}{which}"
    assert [line["step"] for line in lines if line.get("message") == told] == [0]


def test_the_second_start_has_them_although_the_source_is_gone(
    config: RunConfig, base: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, new = from_base(tmp_path, f"initial_weights.source={base.path}"), RunFolder(tmp_path / "new")
    open_run(wanted, new)
    base.path.rename(tmp_path / "elsewhere")
    assert composition.main(wanted, new.path) == 0
    found = read_weights(new.checkpoints_folder / "step_00000000")
    assert torch.equal(found[LATENTS], Perceiver(config.model, seed=2).state_dict()[LATENTS])
    monkeypatch.setattr(initial_weights, "take", lambda *_: pytest.fail("a run that goes on has its own weights"))
    assert composition.main(wanted, new.path) == 0


def test_what_is_not_taken_is_reported_before_anything_is_trained(
    base: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = ("model.num_latents=4", "model.inputs.text.embedding_width=6")
    open_run(from_base(tmp_path, f"initial_weights.source={base.path}", *changed), RunFolder(tmp_path / "new"))
    told = capsys.readouterr().err
    assert "initialised at random: " in told
    assert f"{LATENTS} ((2, 8) there, (4, 8) here)" in told


def test_a_file_of_tensors_is_a_source_too(config: RunConfig, tmp_path: Path) -> None:
    weights = {f"net.{name}": tensor for name, tensor in Perceiver(config.model, seed=7).state_dict().items()}
    write(tmp_path / "file.safetensors", weights)
    wanted = from_base(
        tmp_path, f"initial_weights.source={tmp_path}/file.safetensors", "initial_weights.rename=[net.=]"
    )
    new = RunFolder(tmp_path / "new")
    open_run(wanted, new)
    assert json.loads(new.initial_weights_record_path.read_text())["drawn"] == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "is no run, no folder with a model.safetensors, and no file"),
        ("text.yaml", "text.yaml"),
        ("base@7", r"@7: expected newest, best or one of the steps that are there: 1, 2"),
    ],
)
def test_a_source_that_is_none_is_refused_and_no_run_is_made(
    base: RunFolder, tmp_path: Path, source: str, message: str
) -> None:
    wanted, new = from_base(tmp_path, f"initial_weights.source={tmp_path}/{source}"), RunFolder(tmp_path / "new")
    with pytest.raises(ValueError, match=message):
        open_run(wanted, new)
    assert not new.path.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("a flipped bit", "initial_weights.safetensors: is not the file that this run was made with"),
        ("no weights", "initial_weights.safetensors: is gone"),
        ("no record", "initial_weights.json: cannot be read"),
        ("another record", "initial_weights.json: cannot be read .xxh3: is missing"),
    ],
)
def test_a_run_never_starts_from_random_weights_in_place_of_kept_ones(
    base: RunFolder, tmp_path: Path, damage: str, message: str
) -> None:
    wanted, new = from_base(tmp_path, f"initial_weights.source={base.path}"), RunFolder(tmp_path / "new")
    open_run(wanted, new)
    record = new.initial_weights_record_path
    if damage == "a flipped bit":
        content = bytearray(new.initial_weights_path.read_bytes())
        content[-1] ^= 1
        new.initial_weights_path.write_bytes(content)
    elif damage == "no weights":
        new.initial_weights_path.unlink()
    elif damage == "no record":
        record.unlink()
    else:
        fields = json.loads(record.read_text())
        del fields["xxh3"]
        record.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=message):
        composition.main(wanted, new.path)
    assert not any(new.checkpoints_folder.iterdir())


@pytest.mark.parametrize("step", [0, 2])
def test_a_fork_has_its_checkpoint_and_needs_the_source_no_more(base: RunFolder, tmp_path: Path, step: int) -> None:
    wanted, new = from_base(tmp_path, f"initial_weights.source={base.path}"), RunFolder(tmp_path / "new")
    assert composition.main(wanted, new.path) == 0
    base.path.rename(tmp_path / "elsewhere")
    forked = RunFolder(tmp_path / "forked")
    fork.fork(new.path, forked.path, ["train.steps=3"], str(step))
    assert composition.main(load(forked.config_path), forked.path) == 0
    first, last = (read_weights(run.checkpoints_folder / f"step_{step:08d}") for run in (new, forked))
    assert all(torch.equal(first[name], last[name]) for name in first)


@pytest.mark.parametrize(
    ("overrides", "which", "wanted", "found"),
    [
        (["ema.decay=0.5"], "", "ema", "ema"),
        (["ema.decay=0.5"], "", "", "trained"),
        (["ema.decay=0.5", "ema.evaluate=true"], "", "", "ema"),
        (["ema.decay=0.5", "ema.evaluate=true"], "@best", "trained", "trained"),
    ],
)
def test_a_run_starts_from_the_average_where_it_is_asked_for_or_evaluated(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    overrides: list[str], which: str, wanted: str, found: str,
) -> None:  # fmt: skip
    base = RunFolder(tmp_path / "averaged")
    open_run(from_base(tmp_path, *overrides), base)
    states = {kind: Perceiver(config.model, seed=seed).state_dict() for seed, kind in enumerate(("trained", "ema"))}
    # An average is kept as a sum: with a decay of 0.5 one update is half of it.
    average = {name: each / 2 for name, each in states["ema"].items()}
    save(base.checkpoints_folder, 1, states["trained"], score=0.5, average=average)
    chosen = [f"initial_weights.weights={wanted}"] if wanted else []
    new = RunFolder(tmp_path / "new")
    new.path.mkdir()
    initial_weights.keep(from_base(tmp_path, f"initial_weights.source={base.path}{which}", *chosen), new)
    kept = TensorFile(new.initial_weights_path).read_all()
    assert all(torch.equal(kept[name], each) for name, each in states[found].items())
    record = json.loads(new.initial_weights_record_path.read_text())
    assert (record["weights"], record["step"]) == (found, 1)
    assert (f"{base.path}{which}, step 1, ema weights;" in capsys.readouterr().err) == (found == "ema")


def test_an_average_that_is_not_there_is_refused_by_the_key(base: RunFolder, tmp_path: Path) -> None:
    new = RunFolder(tmp_path / "new")
    new.path.mkdir()
    wanted = from_base(tmp_path, f"initial_weights.source={base.path}", "initial_weights.weights=ema")
    sentence = r"holds no moving average of the weights; .* Take initial_weights.weights=trained, or a later checkpoint"
    with pytest.raises(ValueError, match=sentence):
        initial_weights.keep(wanted, new)
    write(tmp_path / "w.safetensors", {"encoder.latents.weight": torch.zeros(2, 8)})
    wanted = from_base(tmp_path, f"initial_weights.source={tmp_path}/w.safetensors", "initial_weights.weights=ema")
    with pytest.raises(
        ValueError, match=r"initial_weights.weights=ema: .* has the weights of one network alone; leave it"
    ):
        initial_weights.keep(wanted, new)


def test_of_each_tensor_it_is_kept_and_told_what_became_of_it(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {name: torch.ones(1) for name in ("b", "a", "c")}
    found = Transfer(weights, ("c",), {"d": "none there", "e": "(2,) there"}, tuple("12345678"))
    source = Source({}, step=5, weights="ema")
    monkeypatch.setattr(weight_sources, "read", lambda _: source)
    monkeypatch.setattr(weight_sources, "compared", lambda *_: (Meaning(), ["one note", "another"]))
    monkeypatch.setattr(initial_weights, "transfer", lambda *_: found)
    monkeypatch.chdir(tmp_path)
    wanted, new = from_base(tmp_path, f"initial_weights.source={tmp_path}/base"), RunFolder(tmp_path / "new")
    new.path.mkdir()
    initial_weights.keep(wanted, new)
    begins = "note: starts from 3 of 5 tensors of base"
    rest = [
        "  resized: c",
        "  initialised at random: d (none there), e ((2,) there)",
        "  not used: 1, 2, 3, 4, 5, 6, 7, 8",
        "  one note",
        "  another",
    ]
    first = f"{begins}, step 5, ema weights; initial_weights.json has the list"
    assert capsys.readouterr().err.splitlines() == [first, *rest]
    text = new.initial_weights_record_path.read_text()
    record = json.loads(text)
    assert text == json.dumps(record, indent=1) + "\n"
    assert (record["taken"], record["resized"], record["drawn"]) == (["a", "b"], ["c"], found.drawn)
    assert (record["step"], record["weights"], record["unused"]) == (5, "ema", list("12345678"))
    # Of a file that has no steps, and in place of those of before.
    source = Source({})
    found = Transfer(weights, (), {}, tuple("123456789"))
    initial_weights.keep(wanted, new)
    assert capsys.readouterr().err.splitlines() == [
        f"{begins.replace('of 5', 'of 3')}; initial_weights.json has the list",
        "  not used: 1, 2, 3, 4, 5, 6, 7, 8 and 1 more",
        "  one note",
        "  another",
    ]
    monkeypatch.setattr(initial_weights, "transfer", lambda *_: (_ for _ in ()).throw(ValueError("nothing fits")))
    with pytest.raises(ValueError, match=rf"^{tmp_path}/base: nothing fits"):
        initial_weights.keep(wanted, new)
    assert new.initial_weights_path.exists(), "what there was stays where another source is refused"
    initial_weights.keep(config, new)
    assert not new.initial_weights_path.exists()
    assert not new.initial_weights_record_path.exists()


def test_what_a_source_lacks_stays_as_it_was_drawn(config: RunConfig, tmp_path: Path) -> None:
    write(tmp_path / "w.safetensors", {LATENTS: torch.full((2, 8), 7.0)})
    new = RunFolder(tmp_path / "new")
    new.path.mkdir()
    initial_weights.keep(from_base(tmp_path, f"initial_weights.source={tmp_path}/w.safetensors"), new)
    network, drawn = (Perceiver(config.model, seed=3) for _ in range(2))
    initial_weights.take(network, new)
    expected = drawn.state_dict() | {LATENTS: torch.full((2, 8), 7.0)}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
