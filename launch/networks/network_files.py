"""`perceiver plan` and `export`: the files around what model/ computes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import typer

from configs.files import sections_of
from configs.network import network_config
from configs.run import RunConfig, load
from data_shards.files.display import printable
from data_shards.files.history import tell
from launch.lifecycle.run_folder import RunFolder, existing
from launch.networks import network_folder
from launch.networks.model_card import CARD, card
from launch.networks.new_folder import new_folder, refuse_taken
from launch.run.loaders import absolute
from launch.run.trained import class_names, latent_sizes, preprocessing
from launch.run.trained.network import RUN, config_of, is_import, refuse_choice, with_weights
from launch.run.trained.preprocessing import Surroundings
from model.budget.plan import Device, Plan
from model.budget.plan import plan as planned
from model.config.perceiver import PerceiverConfig
from model.interop.huggingface import to_hugging_face
from model.interop.huggingface_files import TOKENIZER, TOKENIZER_SETTINGS
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.network import AnyNetwork
from trainer.checkpoint import tensor_file
from trainer.checkpoint.choice import NEWEST, read_weights
from trainer.checkpoint.tensor_file import TensorFile
from trainer.config import OptimizerConfig
from trainer.distributed.world import World
from trainer.ema_config import EmaConfig
from trainer.optim.optimizers import num_beside

GIB = 2**30
_OF_PLUGIN = (
    "\na plug-in's network: parameters, products and activations (of fp32) were counted while it ran;\n"
    "what its element-wise work takes, and its kernels on a GPU, are not known\n"
)


def plan(
    path: Path, overrides: Sequence[str], memory_gib: float, peak_tflops: float, *, bf16: bool, as_json: bool
) -> None:
    """Print what a network needs of a device."""
    if bool(memory_gib) != bool(peak_tflops):
        raise ValueError("a device needs both --memory-gib and --peak-tflops")
    device = Device(int(memory_gib * GIB), peak_tflops * 1e12) if memory_gib else None
    # Moments and averages are counted with the weights: they decide what is left for activations.
    network, beside = _planned(path, overrides)
    found = planned(network, device=device, bytes_per_element=2 if bf16 else 4, beside=beside)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    _print(found)


def _planned(path: Path, overrides: Sequence[str]) -> tuple[PerceiverConfig, int]:
    """Return the network of a file, and how many numbers its run keeps beside each weight."""
    # A file with a network alone says nothing of an optimizer: the default one is counted.
    if sections_of(path) <= {"model"}:
        return network_config(path, overrides), num_beside(OptimizerConfig(), EmaConfig())
    run = load(path, overrides)
    return run.model, num_beside(run.optimizer, run.ema)


def export(
    source: Path,
    out: Path,
    *,
    onnx: bool,
    safetensors: bool,
    as_json: bool,
    which: str,
    weights: str,
    latents: int,
) -> None:
    """Write a network, or its part with so many latents, as Hugging Face's files, as ONNX or as a folder of ours."""
    refuse_taken(out)
    if onnx and safetensors:
        raise ValueError("--safetensors: is another format than --onnx; leave one of them out")
    network, around = latent_sizes.cut(network_of(source, which, weights), latents), _surroundings_of(source)
    if safetensors:
        run = _run_of(source)
        network_folder.refuse_plugins(run)
        with new_folder(out) as beside:
            network_folder.write(beside, network, around, run)
        notes = around.notes
    elif onnx:
        # Only for ONNX: its exporter takes seconds to import.
        from model.interop.onnx_export import onnx_program

        how = f"resize={around.resize}, fit={around.fit}, centre_crop={around.centre_crop:g}"
        picture = how if network.config.input_of(ImageInput) else ""
        program = onnx_program(network, classes=around.classes, picture=picture, pads=around.pads, with_latents=True)
        with new_folder(out) as beside:
            program.save(beside / "network.onnx")
        notes = around.notes
    else:
        config, state = to_hugging_face(network)
        files = around.hugging_face(network.config)
        with new_folder(out) as beside:
            preprocessing.write({"config.json": config | around.labels(), **files}, beside)
            # Older releases of transformers refuse weights without this entry.
            tensor_file.write(beside / "model.safetensors", state, {"format": "pt"})
            names = [path.name for path in beside.iterdir()]
            told = card(network, config["architectures"][0], names, around.classes, source)
            (beside / CARD).write_text(told, encoding="utf-8")
        notes = (*around.notes, *around.unwritten, *_notes_of_export(network.config, files))
    tell_written(out, network, notes, as_json=as_json)


def _run_of(source: Path) -> RunConfig | None:
    """Return the configuration of a run, or that from which the network of a folder comes; None where it has none."""
    if is_import(source):
        return config_of(source) if (source / RUN).is_file() else None
    return absolute(load(existing(RunFolder(source.resolve())).config_path))


def _surroundings_of(source: Path) -> Surroundings:
    config = _run_of(source)
    if config is None:
        return preprocessing.of_import(source)
    names, notes = class_names.of(source.resolve(), config)
    # A config.json has room for the classes of one label: the sample's own.
    return preprocessing.of_run(config, names.get("", ()), notes)


def _notes_of_export(config: PerceiverConfig, files: Mapping[str, object]) -> tuple[str, ...]:
    """Return a note on the inputs that transformers has no file for."""
    prepared = ImageInput | TextInput
    unprepared = [name for name, each in config.ordered_inputs.items() if not isinstance(each, prepared)]
    if config.input_of(TextInput) and not files.keys() & {TOKENIZER, TOKENIZER_SETTINGS}:
        unprepared.append("text")
    if not unprepared:
        return ()
    return (
        f"transformers has no preprocessor for {', '.join(unprepared)}: give it what docs/parity.md says under "
        '"What you must prepare yourself"',
    )


def network_of(source: Path, which: str = NEWEST, weights: str = "") -> AnyNetwork:
    """Return the network of a run's checkpoint, or of what `perceiver import` wrote.

    If `weights` does not say which of a run, those are taken that it evaluates.
    """
    weights_path = source / "model.safetensors"
    if weights_path.is_file():
        refuse_choice(source, which, weights)
        config, tensors = network_config(source / "config.yaml"), TensorFile(weights_path).read_all()
    else:
        folder = RunFolder(source.resolve())
        run = load(existing(folder).config_path)
        # An export is of one process, and needs no device: nothing but the weights is read.
        alone, weights = World(0, 1, 0, torch.device("cpu")), weights or run.ema.evaluated
        found = read_weights(folder.checkpoints_folder, which, alone, weights)
        for sentence in found.passed_over:
            tell(f"skipped a damaged checkpoint: {sentence}")
        config, tensors = run.model, found.tensors
    # Any seed: each weight that it draws is replaced, or the load is refused.
    return with_weights(config, tensors, source, seed=0).eval()


def tell_written(out: Path, network: AnyNetwork, notes: Sequence[str], *, as_json: bool) -> None:
    """Say what was written."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if as_json:
        files = sorted(path.name for path in out.iterdir())
        told = {"folder": str(out), "files": files, "parameters": parameters, "notes": list(notes)}
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{printable(str(out))}: {parameters:,} parameters")
        for note in notes:
            typer.echo(printable(f"note: {note}"))


def _print(found: Plan) -> None:
    typer.echo(f"{'part':14} {'parameters':>14} {'GFLOP forward':>14}")
    for name, cost in found.parts.items():
        typer.echo(f"{name:14} {cost.parameters:14,} {cost.flops / 1e9:14.2f}")
    if found.latents:
        typer.echo(f"\n{'latents':14} {'parameters':>14} {'GFLOP forward':>14} {'MiB a sample':>14}")
    for num_latents, size in found.latents.items():
        mib = size.activation_bytes / 2**20
        typer.echo(f"{num_latents:<14} {size.parameters:14,} {size.flops / 1e9:14.2f} {mib:14.1f}")
    typer.echo(f"\n{found.reading['cpu']}\non a GPU, {found.reading['cuda']}\n" if found.reading else _OF_PLUGIN)
    typer.echo(f"{'checkpointing':14} {'MiB a sample':>14} {'micro-batch':>14} {'samples/s':>14}")
    for policy, needs in found.policies.items():
        batch = "-" if needs.micro_batch is None else f"{needs.micro_batch}"
        speed = "-" if needs.samples_per_second is None else f"{needs.samples_per_second:.1f}"
        typer.echo(f"{policy:14} {needs.activation_bytes / 2**20:14.1f} {batch:>14} {speed:>14}")
    # Nobody knows which attentions the network of a plug-in has.
    if not found.attention:
        return
    typer.echo(f"\n{'GPU, bf16':14} {'heads':>14} {'channels':>14} {'kernel':>20} {'with a mask':>20}")
    for row in found.attention:
        channels, masked = "/".join(map(str, dict.fromkeys(row.widths))), row.masked_kernel or "none is given"
        typer.echo(f"{row.part:14} {row.num_heads:14} {channels:>14} {row.kernel:>20} {masked:>20}")
