"""What a start of a run on a GPU says about how its tokens are read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import model.attention.read_forms
from launch.lifecycle.run_folder import RunFolder
from launch.networks.network_files import plan
from launch.run.read_form import reading_of_this_start
from model.attention.absorbed import grid_support
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.outputs.label import LabelOutput

NETWORK = PerceiverConfig(
    inputs={"image": ImageInput(height=224, width=224)}, outputs={"label": LabelOutput(num_classes=3)}
)
GPU, CPU = torch.device("cuda"), torch.device("cpu")


def start(folder: RunFolder, device: torch.device = GPU) -> list[str]:
    """The sentences of a start, which are written down as the run does."""
    sentences = list(reading_of_this_start(NETWORK, folder, device))
    with folder.metrics_path.open("a") as file:
        file.writelines(json.dumps({"step": 0, "kind": "event", "message": each}) + "\n" for each in sentences)
    return sentences


def test_each_start_on_a_gpu_says_by_what_it_reads_and_one_on_a_cpu_says_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert start(folder, CPU) == []
    (sentence,) = start(folder)
    assert sentence.startswith("latents read the tokens in the separable form, by the kernel of Triton")
    assert start(folder) == [sentence]
    # Who reads by a network of their own knows how.
    assert list(reading_of_this_start(replace(NETWORK, network=object()), folder, GPU)) == []


def test_a_plan_says_how_a_gpu_would_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).parents[2] / "configs" / "paper" / "p1.yaml"
    monkeypatch.setattr(model.attention.read_forms, "triton_version", lambda: "3.6.0")
    plan(path, [], 0, 0, bf16=False, as_json=False)
    assert (
        "on a GPU, latents read the tokens in the separable form, by the kernel of Triton 3.6.0"
        in capsys.readouterr().out
    )
    monkeypatch.setattr(grid_support, "triton_version", lambda: "2.1.0")
    monkeypatch.setattr(grid_support, "missing", grid_support.missing.__wrapped__)
    plan(path, ["model.cross_attend_form=separable"], 0, 0, bf16=False, as_json=False)
    assert "tile by tile: Triton 2.1.0 is older than 3.5" in capsys.readouterr().out


def test_a_start_that_reads_by_another_kernel_than_the_last_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    monkeypatch.setattr(model.attention.read_forms, "triton_version", lambda: "3.6.0")
    start(folder)
    monkeypatch.setattr(model.attention.read_forms, "triton_version", lambda: "3.7.1")
    now, told = start(folder)
    assert now.endswith("3.7.1")
    assert told.startswith(
        "before this start latents read the tokens in the separable form, by the kernel of Triton 3.6"
    )
    assert "to the last bit" in told
    assert start(folder) == [now]
