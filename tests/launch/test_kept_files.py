"""A run keeps the files of its inputs by their hash, and needs those of its user no more."""

import hashlib
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from configs.run import load
from launch.lifecycle.run_folder import RunFolder
from launch.run.creation import open_run
from launch.run.fork import fork

CONFIG = """
data: {inputs: {text: {modality: text, tokenizer: own.json, num_tokens: 8, masking: {}}}, eval_split: train}
model:
  inputs: {text: {embedding_width: 8}}
  outputs: {text: {kind: text}}
  num_latents: 4
  latent_width: 8
  self_attend: {num_heads: 2}
train: {steps: 20, global_batch: 16}
"""


@pytest.fixture
def config(tmp_path: Path, tokenizers: dict[str, Path], shards: Path) -> Path:
    shutil.copy(tokenizers["unigram"], tmp_path / "own.json")
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.replace("data: {", f"data: {{shards: {shards}, "))
    return path


@pytest.fixture
def run(tmp_path: Path, config: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    open_run(load(config), folder)
    return folder


def copies(folder: RunFolder) -> list[Path]:
    return sorted((folder.path / "files").iterdir())


def begin(folder: RunFolder) -> None:
    save(folder.checkpoints_folder, 5, {})


def test_the_copy_is_named_by_its_hash_and_the_run_reads_it_alone(
    run: RunFolder, config: Path, tmp_path: Path, tokenizers: dict[str, Path]
) -> None:
    content = tokenizers["unigram"].read_bytes()
    (copy,) = copies(run)
    assert (copy.name, copy.read_bytes()) == (f"{hashlib.sha256(content).hexdigest()}.json", content)
    assert f"tokenizer: files/{copy.name}\n" in run.config_path.read_text()
    (tmp_path / "own.json").unlink()
    begin(run)
    moved = RunFolder(run.path.rename(tmp_path / "moved"))
    kept = load(moved.config_path)
    assert kept.data.inputs["text"].tokenizer == str(copies(moved)[0])
    open_run(kept, moved)
    shutil.rmtree(next(moved.checkpoints_folder.iterdir()))
    assert fork(moved.path, tmp_path / "new", ["seed=3"]) == 0
    assert copies(RunFolder(tmp_path / "new"))[0].read_bytes() == content


def test_the_same_content_resumes_and_another_is_another_run(
    run: RunFolder, config: Path, tmp_path: Path, tokenizers: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    begin(run)
    (tmp_path / "own.json").rename(tmp_path / "renamed.json")
    open_run(load(config, ["data.inputs.text.tokenizer=renamed.json"]), run)
    assert capsys.readouterr().err == ""
    shutil.copy(tokenizers["bytes"], tmp_path / "own.json")
    with pytest.raises(ValueError, match=r"(?s)another configuration.*data\.inputs\.text\.tokenizer: 'files/"):
        open_run(load(config), run)
    assert copies(run)[0].read_bytes() == tokenizers["unigram"].read_bytes()


def test_a_run_that_has_not_begun_takes_another(
    run: RunFolder, config: Path, tmp_path: Path, tokenizers: dict[str, Path]
) -> None:
    shutil.copy(tokenizers["bytes"], tmp_path / "own.json")
    open_run(load(config), run)
    (copy,) = copies(run)
    assert copy.read_bytes() == tokenizers["bytes"].read_bytes()
    assert load(run.config_path).model.inputs["text"].vocabulary == 302


@pytest.mark.parametrize("fault", ["edited", "gone"])
def test_a_copy_that_is_not_what_it_was_is_refused_at_a_resume(run: RunFolder, fault: str) -> None:
    begin(run)
    (copy,) = copies(run)
    if fault == "gone":
        copy.unlink()
    else:
        copy.write_bytes(copy.read_bytes() + b"\n")
    words = "cannot be read" if fault == "gone" else "is not the file that the run was made with"
    with pytest.raises(ValueError, match=words):
        load(run.config_path)
