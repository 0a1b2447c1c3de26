"""Imported networks answer new files: texts by the tokenizer that came with them, and never by another."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import perceiver_pytorch
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))
from test_predict import predicted

from configs.network import NetworkConfig, network_config
from data_shards.sources import table
from launch.answers.loaded_run import load_run
from launch.networks import imports
from launch.run.trained import evaluation
from model.perceiver import Perceiver

NETWORK = """
model:
  inputs: {text: {modality: text, max_tokens: 8, vocabulary: VOCABULARY, embedding_width: 16}}
  outputs: {text: {kind: text, target: text}}
  decoder: {min_padding: 0}
  num_latents: 4
  latent_width: 16
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
"""


def imported(folder: Path, vocabulary: int) -> Path:
    """Make the folder of a network that fills in words, as an import does."""
    folder.mkdir()
    (folder / "network.yaml").write_text(NETWORK.replace("VOCABULARY", str(vocabulary)))
    config = network_config(folder / "network.yaml")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(NetworkConfig(config))))
    (folder / "network.yaml").unlink()
    weights = Perceiver(config, seed=0).state_dict()
    save_file({name: of + 0.1 * torch.randn(of.shape) for name, of in weights.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("the lazy dog")
    return tmp_path / "a.txt"


@pytest.mark.parametrize("kind", ["bytes", "unigram"])
def test_a_text_is_read_by_the_tokenizer_that_was_imported(
    tokenizers: dict[str, Path], tmp_path: Path, text: Path, kind: str
) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizers[kind]))
    folder = imported(tmp_path / "net", tokenizer.get_vocab_size())
    shutil.copy(tokenizers[kind], folder / "tokenizer.json")
    mask = "[MASK]" if kind == "bytes" else "<mask>"
    (folder / "tokenizer_config.json").write_text(json.dumps({"mask_token": {"content": mask}}))
    (row,) = predicted(folder, text, out=tmp_path / "out.jsonl")
    section = load_run(folder).config.data.inputs["text"]
    assert (section.num_tokens, section.mask_token) == (8, mask)
    assert mask in row["text_shown"]
    assert set(row["text_shown"].replace(mask, "").split()) < {"the", "lazy", "dog"}


def test_a_network_of_other_ids_without_a_tokenizer_is_refused_and_one_of_bytes_needs_none(
    tokenizers: dict[str, Path], tmp_path: Path, text: Path
) -> None:
    for vocabulary in (40, 300):
        folder = imported(tmp_path / str(vocabulary), vocabulary)
        with pytest.raises(ValueError, match=rf"input text reads {vocabulary} ids, .*; put the tokenizer.json") as told:
            predicted(folder, text, out=tmp_path / "out.jsonl")
        assert "config.yaml" not in str(told.value)
    (row,) = predicted(imported(tmp_path / "bytes", 262), text, out=tmp_path / "bytes.jsonl")
    assert "_" in row["text_shown"]


def test_an_evaluation_takes_the_tokenizer_that_it_is_given(
    tokenizers: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = imported(tmp_path / "net", Tokenizer.from_file(str(tokenizers["unigram"])).get_vocab_size())
    rows = [{"text": "the lazy dog", "split": split} for split in ("train", "test", "test")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(tmp_path / "rows.jsonl", tmp_path / "shards")
    tokenizer = [f"data.inputs.text.tokenizer={tokenizers['unigram']}", "data.inputs.text.mask_token=<mask>"]
    assert evaluation.main(folder, [f"data.shards={tmp_path}/shards", *tokenizer], as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 2


def test_a_network_that_several_queries_ask_answers_each_of_them(tmp_path: Path) -> None:
    given = {"dim": 6, "queries_dim": 8, "logits_dim": 5, "depth": 1, "num_latents": 3, "latent_dim": 8,
             "latent_heads": 2, "latent_dim_head": 4, "cross_dim_head": 4}  # fmt: skip
    theirs = perceiver_pytorch.PerceiverIO(**given).eval()
    queries = torch.randn(4, 8)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({**given, "input_shape": [7]}))
    torch.save(theirs.state_dict() | {"queries": queries}, tmp_path / "theirs" / "weights.pt")
    imports.import_network(tmp_path / "theirs", tmp_path / "ours", as_json=True)
    values = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    np.save(tmp_path / "0.npy", values)
    (row,) = predicted(tmp_path / "ours", tmp_path / "0.npy", out=tmp_path / "out.jsonl")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(values)[None], queries=queries)[0]
    np.testing.assert_allclose(np.load(tmp_path / row["values"]), expected, rtol=0, atol=1e-5)
    (found,) = load_run(tmp_path / "ours").predict([tmp_path / "0.npy"])
    assert found["values"].shape == (4, 5)
