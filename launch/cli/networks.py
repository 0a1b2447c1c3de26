"""The commands of networks: what one needs, and Hugging Face's in and out."""

from pathlib import Path
from typing import Annotated

import typer

from launch.cli.console import AsJson, Checkpoint, TrustCode

app = typer.Typer()


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="YAML file of a run, or of a network as in configs/paper.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as model.num_latents=256.")] = None,
    *,
    memory_gib: Annotated[float, typer.Option("--memory-gib", min=0, help="Memory of a device; 0 for none.")] = 0,
    peak_tflops: Annotated[float, typer.Option("--peak-tflops", min=0, help="Its peak, in 10^12 FLOP/s.")] = 0,
    bf16: Annotated[bool, typer.Option("--bf16", help="Activations of two bytes instead of four.")] = False,
    nodes: Annotated[int | None, typer.Option("--nodes", help="Plan the run on so many nodes.")] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", help="Devices of a node, one rank each; 8 if not given.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="H100 (the default), H200, A100 or CPU (a core).")
    ] = None,
    interconnect: Annotated[
        str | None,
        typer.Option("--interconnect", help="What a node sends to others: 400Gb (the default), 8x400Gb, 50GB/s."),
    ] = None,
    disk: Annotated[
        str | None, typer.Option("--disk", help="What all ranks write to the shared disk; 2GB/s if not given.")
    ] = None,
    mtbf_hours: Annotated[
        float | None, typer.Option("--mtbf-hours", help="Hours between failures of one node; 2000 if not given.")
    ] = None,
    restart_minutes: Annotated[
        float | None, typer.Option("--restart-minutes", help="From a failure to the next step; 5 if not given.")
    ] = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Print parameters, operations by part, activation memory by policy and, for a device, micro-batch and samples/s.

    With --nodes: a step by parts, exchanges by ZeRO stage, memory, saves, and the goodput to expect of a run there.

    Examples:

    perceiver plan configs/paper/p1.yaml --memory-gib 139 --peak-tflops 400 --bf16

    perceiver plan configs/paper/p1.yaml --nodes 128 --gpus 8 --interconnect 400Gb --mtbf-hours 2000 --bf16
    """
    from configs.plugins import trust

    if trust_code:
        trust(config.parent)
    of_cluster = {
        "--gpus": gpus,
        "--device": device,
        "--interconnect": interconnect,
        "--disk": disk,
        "--mtbf-hours": mtbf_hours,
        "--restart-minutes": restart_minutes,
    }
    if nodes is None:
        for flag, told in of_cluster.items():
            if told is not None:
                raise ValueError(f"{flag}: is of a cluster, which needs --nodes")
        from launch.run import network_files

        network_files.plan(config, overrides or (), memory_gib, peak_tflops, bf16=bf16, as_json=as_json)
        return
    from launch.cli import cluster_report

    flags = cluster_report.Flags(
        nodes=nodes,
        gpus=8 if gpus is None else gpus,
        device="H100" if device is None else device,
        interconnect="400Gb" if interconnect is None else interconnect,
        disk="2GB/s" if disk is None else disk,
        mtbf_hours=2000 if mtbf_hours is None else mtbf_hours,
        restart_minutes=5 if restart_minutes is None else restart_minutes,
        memory_gib=memory_gib,
        peak_tflops=peak_tflops,
    )
    cluster_report.report(config, overrides or (), flags, bf16=bf16, as_json=as_json)


@app.command("import-hf")
def import_hf(
    folder: Annotated[Path, typer.Argument(help="Folder with config.json and model.safetensors.")],
    out: Annotated[Path, typer.Argument(help="Folder for config.yaml and model.safetensors of this product.")],
    as_json: AsJson = False,
) -> None:
    """Turn a Perceiver of Hugging Face's into a network of this product.

    Example: perceiver import-hf vision-perceiver-fourier networks/fourier
    """
    from launch.run import network_files

    network_files.import_hf(folder, out, as_json=as_json)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="Run folder, or what import-hf wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder for the exported files.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="As ONNX instead of as Hugging Face's files.")] = False,
    checkpoint: Checkpoint = "newest",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Write a network as files that transformers loads, or as ONNX.

    Example: perceiver export runs/digits exported --onnx
    """
    from configs.plugins import trust
    from launch.run import network_files

    if trust_code:
        trust(source)
    network_files.export(source, out, onnx=onnx, as_json=as_json, which=checkpoint)
