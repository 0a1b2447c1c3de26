"""A network's plan, and Hugging Face's files in and out, through the command."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from safetensors.torch import load_file
from typer.testing import CliRunner

from launch.cli import app
from launch.network_files import network_of

PAPER = Path(__file__).parents[2] / "configs" / "paper"


def called(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_plan_of_a_paper_names_its_cost_and_what_fits() -> None:
    device = ("--memory-gib", "139", "--peak-tflops", "400", "--bf16")
    found = json.loads(called("plan", str(PAPER / "p1.yaml"), *device, "--json"))
    assert found["parts"]["total"]["parameters"] == 44_912_254
    assert found["form"] == "separable"
    none, blocks = found["policies"]["none"], found["policies"]["blocks"]
    assert 0 < none["micro_batch"] < blocks["micro_batch"]
    assert none["samples_per_second"] > blocks["samples_per_second"]
    assert "cross_attends" in called("plan", str(PAPER / "p1.yaml"), "model.num_latents=256")


def test_half_a_device_is_refused() -> None:
    with pytest.raises(ValueError, match="both --memory-gib and --peak-tflops"):
        called("plan", str(PAPER / "p1.yaml"), "--memory-gib", "80")


def theirs_to(folder: Path) -> transformers.PerceiverForMaskedLM:
    """A small model of Hugging Face's, saved."""
    config = transformers.PerceiverConfig(
        num_latents=4, d_latents=16, d_model=24, num_self_attends_per_block=1, max_position_embeddings=8, vocab_size=20
    )
    theirs = transformers.PerceiverForMaskedLM(config).eval()
    theirs.save_pretrained(folder)
    return theirs


def test_hugging_faces_files_come_in_and_go_out_again(tmp_path: Path) -> None:
    theirs = theirs_to(tmp_path / "theirs")
    called("import-hf", str(tmp_path / "theirs"), str(tmp_path / "ours"))
    ids = torch.arange(8)[None]
    found = network_of(tmp_path / "ours")({"text": ids})["text"]
    torch.testing.assert_close(found, theirs(inputs=ids).logits, rtol=0, atol=2e-5)
    called("export", str(tmp_path / "ours"), str(tmp_path / "again"))
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "again" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # What went out is what transformers loads.
    loaded = transformers.PerceiverForMaskedLM.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(loaded(inputs=ids).logits, theirs(inputs=ids).logits)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's dependencies warn of each other
def test_another_runtime_runs_what_is_exported_as_onnx(tmp_path: Path) -> None:
    theirs_to(tmp_path / "theirs")
    called("import-hf", str(tmp_path / "theirs"), str(tmp_path / "ours"))
    ids = torch.arange(8)[None]
    found = network_of(tmp_path / "ours")({"text": ids})["text"]
    called("export", str(tmp_path / "ours"), str(tmp_path / "onnx"), "--onnx")
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "network.onnx")
    given = {"text": ids.repeat(3, 1).numpy(), "text_length": np.full(3, 8)}
    (answer,) = session.run(["text_answer"], given)
    torch.testing.assert_close(torch.from_numpy(answer), found.detach().expand(3, -1, -1), rtol=0, atol=1e-5)


def test_a_folder_that_is_there_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        called("import-hf", str(tmp_path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
