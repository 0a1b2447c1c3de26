"""A trained network with the data that it reads: of a run, or of a folder that `perceiver import` wrote.

config.yaml, checkpoints/                    a run            its own data; the step and weights that are asked for
config.yaml, model.safetensors               an import        data as its files say, or as of the released networks
config.yaml, model.safetensors, run.yaml     a run's export   the data of that run
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from configs.network import network_config
from configs.reader import read
from configs.resume import other_meaning
from configs.run import RunConfig, difference, load
from data_shards.files.quoting import cut
from data_shards.modalities.kinds.text import BYTE_VOCABULARY, USUAL_TOKENS
from launch.lifecycle.run_folder import RunFolder, existing
from launch.run.loaders import absolute, inputs_read
from launch.run.trained import latent_sizes, preprocessing
from model.config.perceiver import PerceiverConfig
from model.custom import loaded_network
from model.interop.huggingface_files import TOKENIZER, TOKENIZER_SETTINGS, byte_tokenizer
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.network import AnyNetwork
from model.outputs.grid import CellsOutput
from model.outputs.text import TextOutput
from model.transfer import other_frequencies
from trainer.checkpoint.choice import NEWEST, read_weights, refuse_absent
from trainer.checkpoint.tensor_file import TensorFile
from trainer.distributed.world import World
from trainer.ema_config import TRAINED

WEIGHTS = "model.safetensors"
"""The weights in a folder that `perceiver import` wrote."""
RUN = "run.yaml"
"""The configuration of a run in the folder of a network that was exported from it."""
# Of the words of a text, as the released language model was trained (second paper, appendix F.3).
_MASKED_PART = 0.15


@dataclass(frozen=True)
class Trained:
    """A network with the weights of a checkpoint."""

    folder: RunFolder
    """The folder of the run, or of the imported network."""
    config: RunConfig
    network: AnyNetwork
    """In evaluation mode, on the device of this process."""
    device: torch.device
    step: int
    """The step after which the weights were saved; 0 of an imported network."""
    weights: str
    """Names the weights of that step: trained, or ema for their moving average."""
    weights_hash: str
    """XXH3-64 of the weights, hexadecimal."""
    notes: tuple[str, ...]
    """Sentences on newer checkpoints that could not be read."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs of the data that an answer needs: what is read, and the places at which values are asked."""
        asked = {output.asked_at().partition(".")[0] for output in self.config.model.answers().values()}
        read_ = {*inputs_read(self.config), *asked}
        return tuple(name for name in self.config.data.ordered_inputs if name in read_)


def is_import(path: Path) -> bool:
    """Return whether a folder is one that `perceiver import` wrote."""
    return (path / WEIGHTS).is_file() and not (path / "checkpoints").is_dir()


def config_of(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration of a run or an imported network, with other values of what is read and in which parts.

    Its Fourier positions keep their frequencies where an input is read in another size. ValueError for a key that would
    make it another network.
    """
    for override in overrides:
        key = override.partition("=")[0]
        if "=" not in override or not (key.startswith("data.") or key == "train.global_batch"):
            raise ValueError(
                f"{cut(override)}: only what is read can be another than the run's: data.KEY=VALUE, such as "
                "data.shards=OTHER, or train.global_batch=N"
            )
    config = _own_config(path, overrides)
    # An imported network says its sizes itself, so that others are refused; without these keys it may lack a tokenizer.
    if not overrides or (is_import(path) and not (path / RUN).is_file()):
        return absolute(config)
    own = _own_config(path)
    if not is_import(path):
        _refuse_other_ids(own, config)
    kept = [f"{key}={list(before)}" for key, (before, _) in other_frequencies(own.model, config.model).items()]
    return absolute(_own_config(path, [*overrides, *kept]))


def _own_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    # A run has checkpoints, and a file of that name in any other folder may be somebody's configuration.
    exported = all((path / name).is_file() for name in (RUN, "config.yaml")) and not (path / "checkpoints").is_dir()
    if exported and not is_import(path):
        raise ValueError(f"{path / WEIGHTS}: no such file, but {RUN} is there; copy the exported folder again")
    return (
        _config_of_import(path, overrides)
        if is_import(path)
        else load(existing(RunFolder(path.resolve())).config_path, overrides)
    )


def _refuse_other_ids(own: RunConfig, config: RunConfig) -> None:
    """Raise ValueError for a tokenizer whose ids are others than those that the network has learned."""
    others = [key for key in other_meaning(difference(own, config)) if key.startswith("data.")]
    if others:
        raise ValueError(f"{others[0]}: is another than the run's, whose ids the network has learned; leave it out")


def trained(path: Path, config: RunConfig, which: str, world: World, weights: str = "", latents: int = 0) -> Trained:
    """Return the network of a run's checkpoint, or of an imported folder; ValueError for none. Collective.

    If `weights` does not say which of a run, those are taken that it evaluates. `latents` takes the first ones only, a
    number that the network is trained for; 0 takes all.
    """
    folder = RunFolder(path.resolve())
    notes: tuple[str, ...] = ()
    if is_import(path):
        refuse_choice(path, which, weights)
        weights, step, tensors = TRAINED, 0, TensorFile(path / WEIGHTS).read_all()
    else:
        weights = weights or config.ema.evaluated
        found = read_weights(folder.checkpoints_folder, which, world, weights)
        step, tensors = found.step, found.tensors
        notes = tuple(f"skipped a damaged checkpoint: {sentence}" for sentence in found.passed_over)
    network = with_weights(config.model, tensors, path, seed=config.seed)
    network = latent_sizes.cut(network, latents).to(world.device).eval()
    # Of the part that answers: with another number of latents a command that resumes would mix two networks.
    key = _hash(network.state_dict() if latents else tensors)
    config = replace(config, model=network.config) if latents else config
    return Trained(folder, config, network, world.device, step, weights, key, notes)


def with_weights(config: PerceiverConfig, tensors: Mapping[str, Tensor], path: Path, *, seed: int) -> AnyNetwork:
    """Return the network with the weights of a run or an imported folder; ValueError for those of another one."""
    try:
        return loaded_network(config, tensors, seed=seed)
    except ValueError as error:
        where = path / WEIGHTS if is_import(path) else RunFolder(path).checkpoints_folder
        raise ValueError(f"{where}: not the weights of the network that {path} describes: {error}") from error


def check_weights(path: Path, config: RunConfig, which: str, weights: str) -> None:
    """Raise ValueError where `trained` would find no such weights, as far as that is known without reading them."""
    if is_import(path):
        refuse_choice(path, which, weights)
        return
    refuse_absent(RunFolder(path.resolve()).checkpoints_folder, which, weights or config.ema.evaluated)


def refuse_choice(path: Path, which: str, weights: str) -> None:
    """Raise ValueError for a choice of one of several networks, where a folder has one."""
    if which != NEWEST:
        raise ValueError(f"--checkpoint {which}: {path} has no checkpoints but one network; leave it out")
    if weights:
        raise ValueError(f"--weights {weights}: {path} has the weights of one network alone; leave it out")


def _hash(tensors: Mapping[str, Tensor]) -> str:
    found = xxhash.xxh3_64()
    # By name, since the order in a file is the writer's.
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _config_of_import(path: Path, overrides: Sequence[str]) -> RunConfig:
    """Return a configuration that feeds an imported network as its authors, or its run, did."""
    if (path / RUN).is_file():
        return read(RunConfig, path / RUN, overrides)
    network = network_config(path / "config.yaml")
    around = preprocessing.of_import(path)
    data = [
        # In quotes: [MASK] would be a list.
        f"data.inputs.{name}.{key}={json.dumps(value) if isinstance(value, str) else value}"
        for name, each in network.ordered_inputs.items()
        for key, value in {"modality": each.modality, **_section(path, name, network, around, overrides)}.items()
    ]
    # Of an imported network nobody knows its batch; no answer depends on it.
    return read(RunConfig, path / "config.yaml", ["train.global_batch=8", *data, *_truths(network), *overrides])


def _truths(network: PerceiverConfig) -> Iterator[str]:
    """Yield the inputs of the data that answers are compared with and the network does not read, as keys and values.

    An import has them where a network was asked by queries of which no file says what they mean. No answer needs them.
    """
    for output in network.answers().values():
        if isinstance(output, CellsOutput) and network.input_named(output.target) is None:
            where = f"data.inputs.{output.target}"
            yield f"{where}.modality=array"
            yield f"{where}.members=[{output.target}.npy]"
            yield f"{where}.shape={[*output.shape, output.num_channels]}"


def _section(
    path: Path, name: str, network: PerceiverConfig, around: preprocessing.Surroundings, overrides: Sequence[str]
) -> dict[str, object]:
    each = network.ordered_inputs[name]
    kept = {
        "image": ("height", "width"),
        "flow": ("height", "width"),
        "video": ("num_frames", "height", "width"),
        "audio": ("num_samples",),
        "label": ("num_classes",),
        "array": ("shape", "axes"),
    }
    found: dict[str, object] = {key: getattr(each, key) for key in kept.get(each.modality, ())}
    # As a key on the command line has it.
    found = {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
    if isinstance(each, ImageInput):
        values = "bytes" if each.dtype == "uint8" else "unit"
        found |= {"num_channels": each.channels, "values": values, "fit": around.fit}
        found |= {"resize": around.resize, "centre_crop": around.centre_crop}
    if isinstance(each, TextInput):
        if any(override.startswith(f"data.inputs.{name}.tokenizer=") for override in overrides):
            found["num_tokens"] = each.max_tokens
        else:
            found |= _text_section(path, name, each, around)
        if any(isinstance(of, TextOutput) and of.target == name for of in network.answers().values()):
            found["masking.probability"] = _MASKED_PART
    return found


def _text_section(path: Path, name: str, text: TextInput, around: preprocessing.Surroundings) -> dict[str, object]:
    """Return how the ids of an imported network are made; ValueError where no file says it."""
    own, settings = (around.foreign.get(file) for file in (TOKENIZER, TOKENIZER_SETTINGS))
    if own is not None and own != byte_tokenizer(text)[TOKENIZER]:
        special = {key: _token_of(settings or {}, key) for key in USUAL_TOKENS}
        named = {key: token for key, token in special.items() if token}
        return {"tokenizer": str((path / TOKENIZER).resolve()), "num_tokens": text.max_tokens, **named}
    if text.vocabulary != BYTE_VOCABULARY:
        raise ValueError(
            f"{path}: input {name} reads {text.vocabulary} ids, and bytes have {BYTE_VOCABULARY}; put the {TOKENIZER} "
            "of the network into the folder, or give it to eval by data.inputs."
            f"{name}.tokenizer=FILE"
        )
    return {"num_bytes": text.max_tokens}


def _token_of(settings: Mapping[str, object], key: str) -> str:
    """Return a special token as Hugging Face's settings name it; empty where they do not."""
    found = settings.get(key)
    token = found.get("content") if isinstance(found, dict) else found
    return token if isinstance(token, str) else ""
