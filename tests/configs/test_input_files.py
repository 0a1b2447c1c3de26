"""A file that an input reads, such as a tokenizer: where it is looked up, and what the network takes from it."""

import json
import shutil
from pathlib import Path

import pytest

from configs.files import ConfigError
from configs.run import RunConfig, difference, dump, load

CONFIG = """
data: {inputs: {words: {modality: text, tokenizer: own.json, num_tokens: 8, masking: {}}}}
model:
  inputs: {words: {embedding_width: 8}}
  outputs: {words: {kind: text}}
  num_latents: 4
  latent_width: 8
  self_attend: {num_heads: 2}
"""


@pytest.fixture
def path(tmp_path: Path, tokenizers: dict[str, Path]) -> Path:
    shutil.copy(tokenizers["unigram"], tmp_path / "own.json")
    (tmp_path / "run.yaml").write_text(CONFIG)
    return tmp_path / "run.yaml"


def vocabulary(path: Path) -> int:
    return len(json.loads(path.read_text())["model"]["vocab"])


def test_the_vocabulary_flows_to_the_network_and_is_written_once(path: Path, tokenizers: dict[str, Path]) -> None:
    config = load(path)
    assert config.data.inputs["words"].tokenizer == str(path.with_name("own.json"))
    assert config.model.inputs["words"].vocabulary == vocabulary(tokenizers["unigram"]) != 262
    assert config.model.inputs["words"].max_tokens == 8
    written = path.with_name("written.yaml")
    written.write_text(dump(config))
    assert load(written) == config
    other = load(written, [f"data.inputs.words.tokenizer={tokenizers['bytes']}"])
    assert other.model.inputs["words"].vocabulary == 302  # 300 and two special ones


def test_a_path_is_looked_up_beside_the_configuration_and_then_here(
    path: Path, tmp_path: Path, tokenizers: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copy(tokenizers["bytes"], "own.json")
    assert load(path).data.inputs["words"].tokenizer == str(tmp_path / "own.json")
    (tmp_path / "own.json").unlink()
    assert load(path).data.inputs["words"].tokenizer == str(tmp_path / "here" / "own.json")
    Path("own.json").unlink()
    with pytest.raises(ConfigError, match=r"data\.inputs\.words\.tokenizer = 'own\.json': own\.json: cannot be read"):
        load(path)


def test_an_included_configuration_means_the_file_beside_itself(path: Path, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "run.yaml").write_text("include: ../run.yaml\n")
    assert load(tmp_path / "below" / "run.yaml").model == load(path).model


def test_a_network_with_fewer_ids_than_the_tokenizer_is_refused_and_with_more_taken(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.inputs\.words\.vocabulary = 5: has ids below 5, but data\.inputs"):
        load(path, ["model.inputs.words.vocabulary=5"])
    assert load(path, ["model.inputs.words.vocabulary=64"]).model.inputs["words"].vocabulary == 64


def test_two_configurations_differ_by_the_content_of_their_files(path: Path, tokenizers: dict[str, Path]) -> None:
    one = load(path)
    shutil.copy(path.with_name("own.json"), path.with_name("same.json"))
    assert difference(one, load(path, ["data.inputs.words.tokenizer=same.json"])) == []
    other = difference(one, load(path, [f"data.inputs.words.tokenizer={tokenizers['bytes']}"]))
    assert [line.partition(":")[0] for line in other] == [
        "data.inputs.words.tokenizer",
        "model.inputs.words.vocabulary",
    ]


def test_a_configuration_of_bytes_names_no_file() -> None:
    assert "files/" not in dump(RunConfig(), as_kept=True)
