"""The commands for networks: their costs, import of other libraries' and export."""

from pathlib import Path
from typing import Annotated

import typer

from launch.cli.console import AsJson, Checkpoint, Latents, TrustCode, Weights

app = typer.Typer()


@app.command()
def init(
    shards: Annotated[Path, typer.Argument(help="Shard folder.")],
    out: Annotated[Path | None, typer.Option("--out", help="File to write. Default: standard output.")] = None,
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="tokenizer.json for texts. Default: bytes.")] = "",
) -> None:
    """Write a commented configuration that is sized to what shards hold, and trains as it is.

    Examples:

    perceiver init data/pictures --out pictures.yaml

    perceiver init data/stories --tokenizer tokenizer.json --out stories.yaml
    """
    from data_shards.files.display import printable
    from launch.planning.starting_config import starting_config

    # Before the shards are read, which may take a while.
    if out is not None and (out.exists() or out.is_symlink()):
        raise ValueError(f"{out}: is there already, and is left as it is; choose another file for --out")
    text = starting_config(shards, tokenizer=tokenizer)
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        # x: a file that somebody made since is not overwritten either.
        with out.open("xb") as file:
            file.write(text.encode())
    except OSError as error:
        raise ValueError(f"{out}: cannot be written ({error.strerror}); choose another file for --out") from error
    typer.echo(printable(f"{out}: written; perceiver train {out} --run RUN"))


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="YAML file of a run, or of a network as in configs/paper.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as model.num_latents=256.")] = None,
    *,
    memory_gib: Annotated[float, typer.Option("--memory-gib", min=0, help="Memory of a device; 0 for none.")] = 0,
    peak_tflops: Annotated[
        float, typer.Option("--peak-tflops", min=0, help="Peak rate of the device, in 10^12 FLOP/s.")
    ] = 0,
    bf16: Annotated[bool, typer.Option("--bf16", help="Count activations with two bytes instead of four.")] = False,
    nodes: Annotated[int | None, typer.Option("--nodes", help="Plan the run on this number of nodes.")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", help="Devices per node, one rank each. Default: 8.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="H100 (the default), H200, A100 or CPU (one core).")
    ] = None,
    interconnect: Annotated[
        str | None,
        typer.Option("--interconnect", help="Rate of a node to other nodes: 400Gb (the default), 8x400Gb, 50GB/s."),
    ] = None,
    disk: Annotated[
        str | None, typer.Option("--disk", help="Rate of all ranks together to the shared disk. Default: 2GB/s.")
    ] = None,
    mtbf_hours: Annotated[
        float | None, typer.Option("--mtbf-hours", help="Mean hours between failures of one node. Default: 2000.")
    ] = None,
    restart_minutes: Annotated[
        float | None, typer.Option("--restart-minutes", help="Minutes from a failure to the next step. Default: 5.")
    ] = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Print parameters, operations by part, activation memory by policy and, for a device, micro-batch and samples/s.

    With --nodes: the parts of a step, communication by ZeRO stage, memory, saves, and the expected goodput.

    Examples:

    perceiver plan configs/paper/p1.yaml --memory-gib 139 --peak-tflops 400 --bf16

    perceiver plan configs/paper/p1.yaml --nodes 128 --gpus 8 --interconnect 400Gb --mtbf-hours 2000 --bf16
    """
    from configs.plugins import trust

    if trust_code:
        trust(config.parent)
    # None and not the defaults: a flag that was typed without --nodes is noticed.
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
                raise ValueError(f"{flag}: describes a cluster and needs --nodes")
        from launch.networks import network_files

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


@app.command("import")
def import_network(
    source: Annotated[Path, typer.Argument(help="Folder with config.json and weights, or DeepMind's npz.")],
    out: Annotated[Path, typer.Argument(help="Folder for the converted config.yaml and model.safetensors.")],
    as_json: AsJson = False,
) -> None:
    """Convert a Perceiver of Hugging Face, perceiver-io, perceiver-pytorch or DeepMind; the files say whose it is.

    Example: perceiver import vision-perceiver-fourier networks/fourier
    """
    from launch.networks import imports

    imports.import_network(source, out, as_json=as_json)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="Run folder, or a folder that `perceiver import` wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder for the exported files.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX instead of Hugging Face's files.")] = False,
    safetensors: Annotated[
        bool,
        typer.Option("--safetensors", help="Write config.yaml and model.safetensors, as `perceiver import` does."),
    ] = False,
    checkpoint: Checkpoint = "newest",
    weights: Weights = "",
    latents: Latents = 0,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Export a network as files that transformers loads, as ONNX, or as a folder that every command here takes.

    Example: perceiver export runs/digits exported --onnx
    """
    from configs.plugins import trust
    from launch.networks import network_files

    if trust_code:
        trust(source)
    network_files.export(
        source,
        out,
        onnx=onnx,
        safetensors=safetensors,
        as_json=as_json,
        which=checkpoint,
        weights=weights,
        latents=latents,
    )
