"""`perceiver plan`, `import-hf` and `export`: the files around what model/ computes."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import typer
import yaml
from omegaconf import OmegaConf
from safetensors.torch import save_file

from configs.reader import read
from configs.run import load
from data_shards.display import printable
from data_shards.history import tell
from data_shards.json_file import read_object
from launch.folder import RunFolder, existing
from model.config import PerceiverConfig
from model.interop import from_hugging_face, to_hugging_face
from model.perceiver import Perceiver
from model.plan import Device, Plan
from model.plan import plan as planned
from trainer.checkpoint_choice import NEWEST, read_weights
from trainer.tensor_file import TensorFile
from trainer.world import World

GIB = 2**30


@dataclass(frozen=True)
class NetworkConfig:
    """A network alone."""

    model: PerceiverConfig = field(default_factory=PerceiverConfig)
    """The network."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) of every problem."""
        yield from ((f"model.{key}", sentence) for key, sentence in self.model.problems())


def plan(
    path: Path, overrides: Sequence[str], memory_gib: float, peak_tflops: float, *, bf16: bool, as_json: bool
) -> None:
    """Print what a network needs of a device."""
    if bool(memory_gib) != bool(peak_tflops):
        raise ValueError("a device needs both --memory-gib and --peak-tflops")
    device = Device(int(memory_gib * GIB), peak_tflops * 1e12) if memory_gib else None
    found = planned(network_config(path, overrides), device=device, bytes_per_element=2 if bf16 else 4)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    _print(found)


def import_hf(folder: Path, out: Path, *, as_json: bool) -> None:
    """Write the network of Hugging Face's files."""
    config_path, weights_path = folder / "config.json", folder / "model.safetensors"
    for path in (config_path, weights_path):
        if not path.is_file():
            raise ValueError(f"{path}: no such file; the folder needs config.json and model.safetensors")
    network = from_hugging_face(read_object(config_path), TensorFile(weights_path).read_all())
    with _new_folder(out) as beside:
        (beside / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(NetworkConfig(network.config))))
        save_file(network.state_dict(), beside / "model.safetensors")
    _tell(out, network, as_json=as_json)


def export(source: Path, out: Path, *, onnx: bool, as_json: bool, which: str = NEWEST) -> None:
    """Write a network as Hugging Face's files, or as ONNX."""
    network = network_of(source, which)
    if onnx:
        from model.onnx_export import onnx_program

        program = onnx_program(network)
        with _new_folder(out) as beside:
            program.save(beside / "network.onnx")
    else:
        config, state = to_hugging_face(network)
        with _new_folder(out) as beside:
            (beside / "config.json").write_text(json.dumps(config, indent=1))
            save_file(state, beside / "model.safetensors", metadata={"format": "pt"})
    _tell(out, network, as_json=as_json)


def network_config(path: Path, overrides: Sequence[str] = ()) -> PerceiverConfig:
    """Return the network of a YAML file: of a whole run, or of a file that holds `model` alone."""
    sections = yaml.safe_load(path.read_text()) if path.is_file() else None
    if isinstance(sections, dict) and sections.keys() <= {"model"}:
        return read(NetworkConfig, path, overrides).model
    return load(path, overrides).model


def network_of(source: Path, which: str = NEWEST) -> Perceiver:
    """Return the network of a run's checkpoint, or of what `import-hf` wrote."""
    weights_path = source / "model.safetensors"
    if weights_path.is_file():
        if which != NEWEST:
            raise ValueError(f"--checkpoint {which}: {source} has no checkpoints but one network; leave it out")
        config, weights = network_config(source / "config.yaml"), TensorFile(weights_path).read_all()
    else:
        folder = RunFolder(source.resolve())
        config = load(existing(folder).config_path).model
        found = read_weights(folder.checkpoints_folder, which, World(0, 1, 0, torch.device("cpu")))
        for sentence in found.passed_over:
            tell(f"passed over a damaged checkpoint: {sentence}")
        weights = found.tensors
    network = Perceiver(config, seed=0)
    network.load_state_dict(weights)
    return network.eval()


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out`, which takes its name when all its files are written."""
    if out.exists():
        raise ValueError(f"{out}: is there already; choose another folder or remove it")
    beside = out.with_name(f".{out.name}.beside")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        beside.replace(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _tell(out: Path, network: Perceiver, *, as_json: bool) -> None:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if as_json:
        files = sorted(path.name for path in out.iterdir())
        typer.echo(json.dumps({"folder": str(out), "files": files, "parameters": parameters}))
    else:
        typer.echo(f"{printable(str(out))}: {parameters:,} parameters")


def _print(found: Plan) -> None:
    typer.echo(f"{'part':14} {'parameters':>14} {'GFLOP forward':>14}")
    for name, cost in found.parts.items():
        typer.echo(f"{name:14} {cost.parameters:14,} {cost.flops / 1e9:14.2f}")
    typer.echo(f"\nlatents read the tokens in the {found.form} form\n")
    typer.echo(f"{'checkpointing':14} {'MiB a sample':>14} {'micro-batch':>14} {'samples/s':>14}")
    for policy, needs in found.policies.items():
        batch = "-" if needs.micro_batch is None else f"{needs.micro_batch}"
        speed = "-" if needs.samples_per_second is None else f"{needs.samples_per_second:.1f}"
        typer.echo(f"{policy:14} {needs.activation_bytes / 2**20:14.1f} {batch:>14} {speed:>14}")
