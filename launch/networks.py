"""The commands of networks: what one needs, and Hugging Face's in and out."""

from pathlib import Path
from typing import Annotated

import typer

from launch.console import AsJson, Checkpoint

app = typer.Typer()


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="YAML file of a run, or of a network as in configs/paper.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as model.num_latents=256.")] = None,
    *,
    memory_gib: Annotated[float, typer.Option("--memory-gib", min=0, help="Memory of a device; 0 for none.")] = 0,
    peak_tflops: Annotated[float, typer.Option("--peak-tflops", min=0, help="Its peak, in 10^12 FLOP/s.")] = 0,
    bf16: Annotated[bool, typer.Option("--bf16", help="Activations of two bytes instead of four.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print parameters, operations by part, activation memory by policy and, for a device, micro-batch and samples/s.

    Example: perceiver plan configs/paper/p1.yaml --memory-gib 139 --peak-tflops 400 --bf16
    """
    from launch import network_files

    network_files.plan(config, overrides or (), memory_gib, peak_tflops, bf16=bf16, as_json=as_json)


@app.command("import-hf")
def import_hf(
    folder: Annotated[Path, typer.Argument(help="Folder with config.json and model.safetensors.")],
    out: Annotated[Path, typer.Argument(help="Folder for config.yaml and model.safetensors of this product.")],
    as_json: AsJson = False,
) -> None:
    """Turn a Perceiver of Hugging Face's into a network of this product.

    Example: perceiver import-hf vision-perceiver-fourier networks/fourier
    """
    from launch import network_files

    network_files.import_hf(folder, out, as_json=as_json)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="Run folder, or what import-hf wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder for the exported files.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="As ONNX instead of as Hugging Face's files.")] = False,
    checkpoint: Checkpoint = "newest",
    as_json: AsJson = False,
) -> None:
    """Write a network as files that transformers loads, or as ONNX.

    Example: perceiver export runs/digits exported --onnx
    """
    from launch import network_files

    network_files.export(source, out, onnx=onnx, as_json=as_json, which=checkpoint)
