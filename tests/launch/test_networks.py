"""Every option of `perceiver plan`, `import` and `export` reaches what the command does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from launch.cli import networks
from launch.cli.cluster_report import Flags
from launch.cli.main import app

Door = Callable[..., list[dict[str, Any]]]
HERE, THERE = Path("here"), Path("there")
USUAL = Flags(128, 8, "H100", "400Gb", "2GB/s", 2000.0, 5.0, 0.0, 0.0)
NONE = Flags(128, 0, "", "", "", 0.0, 0.0, 139.0, 400.0)


@pytest.mark.parametrize(
    ("words", "function", "expected"),
    [
        (
            ["plan", "here"],
            "launch.networks.network_files.plan",
            {"path": HERE, "overrides": (), "memory_gib": 0, "peak_tflops": 0, "bf16": False, "as_json": False},
        ),
        (
            ["plan", "here", "a=1", "--memory-gib", "0.5", "--peak-tflops", "400", "--bf16", "--json"],
            "launch.networks.network_files.plan",
            {"path": HERE, "overrides": ["a=1"], "memory_gib": 0.5, "peak_tflops": 400, "bf16": True, "as_json": True},
        ),
        (
            ["plan", "here", "--nodes", "128"],
            "launch.cli.cluster_report.report",
            {"path": HERE, "overrides": (), "flags": USUAL, "bf16": False, "as_json": False},
        ),
        (
            ["plan", "here", "a=1", "--nodes", "128", "--gpus", "0", "--device", "", "--interconnect", "", "--disk", "",
             "--mtbf-hours", "0", "--restart-minutes", "0", "--memory-gib", "139", "--peak-tflops", "400", "--bf16",
             "--json"],
            "launch.cli.cluster_report.report",
            {"path": HERE, "overrides": ["a=1"], "flags": NONE, "bf16": True, "as_json": True},
        ),
        (["import", "here", "there"], "launch.networks.imports.import_network",
         {"source": HERE, "out": THERE, "as_json": False}),
        (["import", "here", "there", "--json"], "launch.networks.imports.import_network",
         {"source": HERE, "out": THERE, "as_json": True}),
        (["export", "here", "there"], "launch.networks.network_files.export",
         {"source": HERE, "out": THERE, "onnx": False, "safetensors": False, "as_json": False, "which": "newest",
          "weights": "", "latents": 0}),
        (["export", "here", "there", "--onnx", "--checkpoint", "best", "--latents", "8", "--json"],
         "launch.networks.network_files.export",
         {"source": HERE, "out": THERE, "onnx": True, "safetensors": False, "as_json": True, "which": "best",
          "weights": "", "latents": 8}),
        (["export", "here", "there", "--weights", "ema"], "launch.networks.network_files.export",
         {"source": HERE, "out": THERE, "onnx": False, "safetensors": False, "as_json": False, "which": "newest",
          "weights": "ema", "latents": 0}),
        (["export", "here", "there", "--safetensors"], "launch.networks.network_files.export",
         {"source": HERE, "out": THERE, "onnx": False, "safetensors": True, "as_json": False, "which": "newest",
          "weights": "", "latents": 0}),
    ],
)  # fmt: skip
def test_what_is_typed_is_what_is_done(door: Door, words: list[str], function: str, expected: dict[str, Any]) -> None:
    calls = door(function, None)
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert calls == [expected]


@pytest.mark.parametrize(
    "flag", ["--gpus", "--device", "--interconnect", "--disk", "--mtbf-hours", "--restart-minutes"]
)
def test_a_flag_of_a_cluster_without_one_is_refused_by_its_name(flag: str) -> None:
    with pytest.raises(ValueError, match=f"^{flag}: describes a cluster and needs --nodes"):
        CliRunner().invoke(app, ["plan", "here", flag, "1"], catch_exceptions=False)


@pytest.mark.parametrize("flag", ["--memory-gib", "--peak-tflops"])
def test_a_device_has_no_less_than_nothing(flag: str) -> None:
    assert CliRunner().invoke(app, ["plan", "here", flag, "-1"]).exit_code == 2


@pytest.mark.parametrize(
    ("words", "function", "folder"),
    [
        (["plan", "some/run.yaml"], "launch.networks.network_files.plan", Path("some")),
        (["plan", "some/run.yaml", "--nodes", "2"], "launch.cli.cluster_report.report", Path("some")),
        (["export", "here", "there"], "launch.networks.network_files.export", HERE),
    ],
)
@pytest.mark.parametrize("more", [[], ["--trust-code"]])
def test_code_is_trusted_only_where_that_is_said(
    door: Door, words: list[str], function: str, folder: Path, more: list[str]
) -> None:
    trusted = door("configs.plugins.trust", None)
    door(function, None)
    assert CliRunner().invoke(app, [*words, *more], catch_exceptions=False).exit_code == 0
    assert trusted == [{"run": folder}] * len(more)


@pytest.mark.parametrize("tokenizer", ["", "own.json"])
def test_a_configuration_goes_to_the_terminal_or_into_a_file_to_the_last_byte(
    door: Door, tmp_path: Path, tokenizer: str
) -> None:
    text = "seed: 0 # \u00e9t\u00e9\n"
    calls = door("launch.planning.starting_config.starting_config", text)
    words, out = ["init", "here", *(["--tokenizer", tokenizer] if tokenizer else [])], tmp_path / "a.yaml"
    assert CliRunner().invoke(app, words, catch_exceptions=False).stdout == text
    told = CliRunner().invoke(app, [*words, "--out", str(out)], catch_exceptions=False).stdout
    assert told == f"{out}: written; perceiver train {out} --run RUN\n"
    assert out.read_bytes() == text.encode()
    assert calls == [{"folder": HERE, "run": "runs/first", "tokenizer": tokenizer}] * 2


def test_help_says_what_there_is(explained: Callable[[typer.Typer], None]) -> None:
    explained(networks.app)
