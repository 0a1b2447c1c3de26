"""What a source of weights is: rows keep the classes and ids that they stand for, and its plug-ins stay its own."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
sys.path.insert(0, str(Path(__file__).parent))
from checkpoints import save
from test_initial_weights import CONFIG

from configs import plugins
from configs.run import load
from data_shards.sources import table
from launch.cli.console import configuration
from launch.lifecycle.run_folder import RunFolder
from launch.run import weight_sources
from launch.run.creation import open_run
from launch.run.trained import class_names
from launch.run.trained.network import config_of
from launch.run.weight_sources import Source, compared
from model.config.initial_weights import InitialWeightsConfig
from model.outputs.label import LabelOutput
from model.outputs.text import TextOutput
from model.perceiver import Perceiver
from model.transfer import Meaning
from trainer.checkpoint.names import MANIFEST
from trainer.checkpoint.tensor_file import TensorFile, write
from trainer.tasks.kinds.catalogue import BY_KIND

HEAD = "decoder.means.label.logits.weight"


@pytest.fixture
def no_plugins() -> Iterator[None]:
    yield
    plugins.use(())


def words(tmp_path: Path, name: str, classes: str) -> Path:
    """Shards of texts with the class of each by its name."""
    rows = [{"text": f"{n} times", "label": classes.split()[n % 3]} for n in range(24)]
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(tmp_path / f"{name}.jsonl", tmp_path / name)
    return tmp_path / name


@pytest.fixture
def named(tmp_path: Path) -> RunFolder:
    """A run with a checkpoint, whose classes are ant, bee and cat."""
    (tmp_path / "text.yaml").write_text(CONFIG)
    config = load(tmp_path / "text.yaml", [f"data.shards={words(tmp_path, 'named', 'ant bee cat')}"])
    folder = RunFolder(tmp_path / "base")
    open_run(config, folder)
    state = Perceiver(config.model, seed=1).state_dict()
    state[HEAD] = torch.arange(24.0).view(3, 8)
    save(folder.checkpoints_folder, 1, state)
    return folder


def started(tmp_path: Path, base: RunFolder, *overrides: str) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Return what a run that starts from another keeps of it, and its record."""
    new = RunFolder(tmp_path / "new")
    open_run(load(tmp_path / "text.yaml", [f"initial_weights.source={base.path}", *overrides]), new)
    return read_all(new.initial_weights_path), json.loads(new.initial_weights_record_path.read_text())


def read_all(path: Path) -> dict[str, torch.Tensor]:
    return dict(TensorFile(path).read_all())


def test_another_source_that_is_refused_leaves_a_run_what_it_has(named: RunFolder, tmp_path: Path) -> None:
    started(tmp_path, named, f"data.shards={tmp_path}/named")
    new = RunFolder(tmp_path / "new")
    before = new.initial_weights_path.read_bytes()
    other = load(tmp_path / "text.yaml", [f"data.shards={tmp_path}/named", "initial_weights.source=nowhere"])
    with pytest.raises(ValueError, match="is no run"):
        open_run(other, new)
    started(tmp_path, named, f"data.shards={tmp_path}/named")
    assert new.initial_weights_path.read_bytes() == before


def test_the_rows_of_a_head_follow_the_names_of_its_classes(
    named: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Names are sorted in a build, so that another order comes from another writer of the manifest.
    shards = words(tmp_path, "turned", "ant bee cat")
    manifest = shards / "manifest.json"
    manifest.write_text(manifest.read_text().replace("ant", "owl").replace("cat", "ant").replace("owl", "cat"))
    kept, _ = started(tmp_path, named, f"data.shards={shards}")
    assert torch.equal(kept[HEAD], torch.arange(24.0).view(3, 8).flip(0))
    assert "classes of label: are in another order; its rows follow their names" in capsys.readouterr().err


def test_a_head_of_other_classes_is_drawn_anew(named: RunFolder, tmp_path: Path) -> None:
    kept, record = started(tmp_path, named, f"data.shards={words(tmp_path, 'others', 'ant bee dog')}")
    assert HEAD not in kept
    drawn = record["drawn"]
    assert isinstance(drawn, dict)
    assert drawn[HEAD] == "class 2 is 'cat' there, 'dog' here"


def test_what_fits_by_its_shapes_alone_is_told(
    named: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started(tmp_path, named, f"data.shards={tmp_path}/named", "model.self_attend.num_heads=4", "model.num_latents=2")
    told = capsys.readouterr().err
    assert "was learned with another model.self_attend.num_heads: 2 -> 4\n" in told


def test_the_width_of_a_query_is_the_same_by_its_number_and_as_that_of_the_latents(tmp_path: Path) -> None:
    (tmp_path / "text.yaml").write_text(CONFIG)
    pooled, width = "model.outputs.label.pooling=query", "model.outputs.label.query_width"
    by_default = load(tmp_path / "text.yaml", [pooled])
    by_number = load(tmp_path / "text.yaml", [pooled, f"{width}={by_default.model.latent_width}"])
    assert by_default.model != by_number.model
    assert compared(Source({}, network=by_default.model), by_number, [])[1] == []
    # Another width is another shape: transfer() tells of every tensor that is drawn for it.
    wider = Perceiver(load(tmp_path / "text.yaml", [pooled, f"{width}=24"]).model, seed=0).state_dict()
    same = Perceiver(by_number.model, seed=0).state_dict()
    assert any(wider[name].shape != tensor.shape for name, tensor in same.items())


IMAGES = """
data: {inputs: {image: {modality: image, height: 8, width: 8}}}
model: {inputs: {image: {}}, outputs: {label: {kind: label, num_classes: 3}}}
"""


def test_fourier_positions_of_other_frequencies_are_told_with_the_key_that_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "images.yaml").write_text(IMAGES)
    small, large = (load(tmp_path / "images.yaml", words) for words in ((), ["data.inputs.image.height=16"]))
    source = Source({}, network=small.model, run=small)
    _, notes = compared(source, large, [])
    key = "model.inputs.image.positions.max_resolution"
    assert notes == [f"was learned with positions of other frequencies: {key} is [16, 8] here; {key}=[8, 8] keeps them"]
    kept = load(tmp_path / "images.yaml", ["data.inputs.image.height=16", f"{key}=[8, 8]"])
    assert compared(source, kept, [])[1] == []


def test_an_embedding_of_another_tokenizers_ids_is_drawn_anew(
    named: RunFolder, tmp_path: Path, tokenizers: dict[str, Path]
) -> None:
    first, other = tmp_path / "one.json", tmp_path / "other.json"
    first.write_bytes(tokenizers["unigram"].read_bytes())
    other.write_text(tokenizers["unigram"].read_text() + "\n")
    (tmp_path / "text.yaml").write_text(CONFIG.replace("num_bytes: 12", f"num_tokens: 12, tokenizer: {first}"))
    config = load(tmp_path / "text.yaml", [f"data.shards={tmp_path}/named"])
    base = RunFolder(tmp_path / "with_tokenizer")
    open_run(config, base)
    save(base.checkpoints_folder, 1, Perceiver(config.model, seed=1).state_dict())
    kept, record = started(tmp_path, base, f"data.shards={tmp_path}/named", f"data.inputs.text.tokenizer={other}")
    embedding = "inputs.adapters.text.embedding.weight"
    assert embedding not in kept
    assert HEAD in kept
    drawn = record["drawn"]
    assert isinstance(drawn, dict)
    assert drawn[embedding] == "its ids are those of another tokenizer"
    with pytest.raises(ValueError, match=r"data\.inputs\.text\.tokenizer: is another than the run's"):
        config_of(base.path, [f"data.inputs.text.tokenizer={other}"])
    assert config_of(base.path, [f"data.inputs.text.tokenizer={first}"]).data.inputs["text"].tokenizer == str(first)


MINE = (
    "from dataclasses import dataclass\nfrom typing import Literal\n"
    "from model.outputs.label import LabelOutput\nfrom trainer.tasks.kinds.label import LabelTask\n"
    "@dataclass(frozen=True, kw_only=True)\nclass Mine(LabelOutput):\n    kind: Literal['mine'] = 'mine'\n"
    "@dataclass(frozen=True)\nclass MyTask(LabelTask):\n    kind = 'mine'\n"
)
OF_MINE = ("plugins=[mine.py]", "model.outputs.label.kind=mine")


def test_a_source_changes_none_of_the_plug_ins_of_a_run(named: RunFolder, tmp_path: Path, no_plugins: None) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    started(tmp_path, named, *OF_MINE, f"data.shards={tmp_path}/named")
    assert "mine" in BY_KIND


def test_a_source_with_plug_ins_is_read_where_its_code_is_trusted(
    named: RunFolder, tmp_path: Path, no_plugins: None
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    config = load(tmp_path / "text.yaml", [*OF_MINE, f"data.shards={tmp_path}/named"])
    base = RunFolder(tmp_path / "with_plug_in")
    open_run(config, base)
    save(base.checkpoints_folder, 1, Perceiver(config.model, seed=1).state_dict())
    plugins._trusted.clear()
    asked = [f"initial_weights.source={base.path}@1", f"data.shards={tmp_path}/named"]
    untrusted = configuration(tmp_path / "text.yaml", asked, tiny=False, trust_code=False)
    with pytest.raises(ValueError, match=r"whose code would be executed here: .* say --trust-code"):
        open_run(untrusted, RunFolder(tmp_path / "new"))
    trusted = configuration(tmp_path / "text.yaml", asked, tiny=False, trust_code=True)
    open_run(trusted, RunFolder(tmp_path / "new"))
    assert "mine" not in BY_KIND, "they are those of the source alone"


def test_a_folder_of_weights_without_our_configuration_names_the_import(named: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text("{}")
    write(tmp_path / "theirs" / "model.safetensors", {"a": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"has a model.safetensors and no config.yaml; .* `perceiver import"):
        started(tmp_path, RunFolder(tmp_path / "theirs"), f"data.shards={tmp_path}/named")


@pytest.mark.parametrize("names", ['{"label": 3}', '{"label": "abc"}', '{"label": [1, 2, 3]}', "[]"])
def test_a_damaged_copy_of_the_class_names_is_noted_and_numbers_stand_for_them(named: RunFolder, names: str) -> None:
    named.class_names_path.write_text(names)
    found, (note,) = class_names.of(named.path, load(named.config_path))
    assert found == {}
    assert "class names are not known, their numbers stand for them: " in note
    assert str(named.class_names_path) in note


def test_the_rows_of_every_head_keep_the_classes_that_they_stand_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.yaml").write_text(CONFIG)
    config = load(tmp_path / "text.yaml")
    labels = {
        name: LabelOutput(num_classes=3, target=name)
        for name in ("even", "few", "numbers", "same", "turned", "unknown")
    }
    config = replace(config, model=replace(config.model, outputs={"again": TextOutput(target="text"), **labels}))
    there = {
        "even": ("a", "b", "c"),
        "few": ("a", "b"),
        "numbers": ("0", "1", "2"),
        "same": ("a", "b", "c"),
        "turned": ("a", "b", "c"),
    }
    here = {
        "even": ("a", "x", "y"),
        "few": ("a", "x", "y"),
        "numbers": ("a", "b", "c"),
        "same": ("a", "b", "c"),
        "turned": ("c", "a", "b"),
        "unknown": ("a", "b", "c"),
    }
    monkeypatch.setattr(weight_sources, "_classes", lambda _: here)
    own = [
        f"decoder.means.{name}.{part}" for name in labels for part in ("logits.weight", "logits.bias", "norm.weight")
    ]
    meaning, notes = compared(Source({}, network=config.model, classes=there), config, [*own, "logits.weight"])
    heads = {name: [f"decoder.means.{name}.logits.{part}" for part in ("weight", "bias")] for name in labels}
    assert meaning.rows == {head: [2, 0, 1] for head in heads["turned"]}
    assert meaning.foreign == dict.fromkeys(heads["even"], "class 1 is 'b' there, 'x' here")
    assert notes == ["classes of turned: are in another order; its rows follow their names"]


def test_of_an_import_the_network_is_compared_and_of_a_file_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.yaml").write_text(CONFIG)
    config = load(tmp_path / "text.yaml")
    folder = tmp_path / "imported"
    folder.mkdir()
    (folder / "config.yaml").write_text(
        "model: {num_latents: 2, latent_width: 8, num_cross_attends: 1, num_blocks: 1, layers_per_block: 1, "
        "self_attend: {num_heads: 4}, outputs: {label: {kind: label, num_classes: 3}}, "
        "inputs: {text: {modality: text, max_tokens: 12, embedding_width: 8}}}"
    )
    write(folder / "model.safetensors", {"a": torch.zeros(2)})
    source = weight_sources.read(InitialWeightsConfig(source=str(folder)))
    assert (list(source.tensors), source.step, source.weights) == (["a"], None, "trained")
    _, notes = compared(source, config, [])
    assert notes == ["fits by its shapes, but was learned with another model.self_attend.num_heads: 4 -> 2"]
    file = weight_sources.read(InitialWeightsConfig(source=str(folder / "model.safetensors")))
    assert (list(file.tensors), file.network, file.grids) == (["a"], None, {})
    assert compared(file, config, ["a"]) == (Meaning(), [])


def test_a_damaged_newest_checkpoint_of_a_source_is_skipped_and_told(
    named: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (save(named.checkpoints_folder, 2, {}) / MANIFEST).write_text("{")
    assert weight_sources.read(InitialWeightsConfig(source=str(named.path))).step == 1
    assert capsys.readouterr().err.startswith("note: skipped a damaged checkpoint: ")


def test_an_at_sign_names_a_checkpoint_where_there_is_no_such_path(tmp_path: Path) -> None:
    there = tmp_path / "run@best"
    there.mkdir()
    for source, parts in {
        str(there): (there, "newest"),
        f"{there}@600": (there, "600"),
        "nowhere": (Path("nowhere"), "newest"),
        "nowhere@best": (Path("nowhere"), "best"),
    }.items():
        assert weight_sources._parts(source) == parts


def test_only_what_both_have_is_another_in_one_of_them() -> None:
    for change, is_one_sided in {"a: None -> 1": True, "a: 1 -> None": True, "a: 1 -> 2": False}.items():
        assert weight_sources._is_one_sided(change) == is_one_sided


def test_the_ids_of_a_tokenizer_are_those_of_its_embedding_and_of_the_answers_about_it(tmp_path: Path) -> None:
    (tmp_path / "text.yaml").write_text(CONFIG)
    config = load(tmp_path / "text.yaml")
    outputs = {"words": TextOutput(target="text"), "label": LabelOutput(num_classes=3)}
    config = replace(config, model=replace(config.model, outputs=outputs))
    ids = ["inputs.adapters.text.embedding.weight", "decoder.heads.words.bias"]
    own = [*ids, "inputs.adapters.other.embedding.weight", "decoder.heads.label.bias", "inputs.adapters.text.norm"]
    keys = ["model.gelu", "model.inputs.text.positions", "data.inputs.text.tokenizer"]
    found = list(weight_sources._of_other_ids(config, keys, own))
    assert found == [(name, "its ids are those of another tokenizer") for name in ids]
    assert list(weight_sources._of_other_ids(config, keys[:2], own)) == []
