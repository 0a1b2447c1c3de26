"""`perceiver import`: a network of somebody else's, whose files say whose it is.

FILE.npz                                              DeepMind's released arrays
FOLDER  config.json of model_type perceiver           Hugging Face
        config.json of model_type perceiver-io-...    krasserm's perceiver-io
        config.json of a constructor's arguments      lucidrains' perceiver-pytorch
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_shards.files.quoting import cut
from data_shards.files.typed_json import read_object
from data_shards.modalities.decoding.numbers import MAGIC_PREFIX, npy_array, npz_archive, npz_entry
from launch.networks import network_folder
from launch.networks.network_files import tell_written
from launch.networks.new_folder import new_folder, refuse_taken
from launch.run.trained import preprocessing
from launch.run.trained.network import is_import
from launch.run.trained.preprocessing import Surroundings
from model.config.perceiver import PerceiverConfig
from model.interop.deepmind import from_deepmind
from model.interop.huggingface import from_hugging_face
from model.interop.huggingface_files import PREPROCESSOR
from model.interop.krasserm import from_krasserm
from model.interop.lucidrains import from_lucidrains
from model.interop.lucidrains_tensors import is_lucidrains
from model.modalities.image import ImageInput
from model.perceiver import Perceiver
from trainer.checkpoint.tensor_file import TensorFile

# Reading one runs code; torch's own are read without it, see _of_torch.
_PICKLES = (".pystate", ".pkl", ".pickle")
_MOST_TIMES, _SMALL_BYTES = 16, 1 << 26
"""What an npz may unpack to: so many times its size, and something beside it."""
_TORCH = (".bin", ".pt", ".pth", ".ckpt")
Found = tuple[Perceiver, Surroundings, tuple[str, ...]]
"""A network, the files around it, and notes."""


def import_network(source: Path, out: Path, *, as_json: bool) -> None:
    """Write a network of somebody else's as config.yaml and model.safetensors."""
    refuse_taken(out)
    # Whatever is wrong with the source is found before anything is written.
    network, around, notes = _from_file(source) if source.is_file() else _from_folder(source)
    with new_folder(out) as beside:
        network_folder.write(beside, network, around)
    tell_written(out, network, notes, as_json=as_json)


def _from_file(path: Path) -> Found:
    if path.suffix in _PICKLES:
        raise ValueError(
            f"{path}: is a pickle, and reading one executes whatever code is in it; where you trust it, write its "
            "arrays into an npz with DeepMind's libraries (docs/parity.md has the lines) and import that"
        )
    if path.suffix != ".npz":
        raise ValueError(f"{path}: expected a folder with config.json and the weights, or an npz of DeepMind's arrays")
    try:
        return from_deepmind(_arrays(path)), Surroundings(), ("class names are not in the file",)
    except (ValueError, OSError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _arrays(path: Path) -> Mapping[str, Tensor]:
    """Return the arrays of an npz by name; ValueError where it is none, or asks for much more memory than its size."""
    with npz_archive(path.read_bytes()) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _MOST_TIMES * path.stat().st_size + _SMALL_BYTES:
            raise ValueError(f"unpacks to {unpacked} bytes, more than any weights do; write it by numpy.savez")
        return {name.removesuffix(".npy"): _tensor(name, npz_entry(archive, name)) for name in archive.namelist()}


def _tensor(name: str, content: bytes) -> Tensor:
    if content[: len(MAGIC_PREFIX)] != MAGIC_PREFIX:
        raise ValueError(f"{cut(name)}: is no npy file; write the arrays by numpy.savez")
    try:
        return torch.from_numpy(npy_array(memoryview(content)).copy())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{cut(name)}: {error}") from error


def _from_folder(folder: Path) -> Found:
    config_path = folder / "config.json"
    if not config_path.is_file():
        if is_import(folder) and (folder / "config.yaml").is_file():
            raise ValueError(f"{folder}: every command takes this folder as it is; there is nothing to import")
        raise ValueError(f"{config_path}: no such file; the folder needs config.json and model.safetensors")
    config, weights = read_object(config_path), _weights(folder)
    whose = _hugging_face
    # By its tensors: perceiver-pytorch writes no configuration, so that config.json is a user's own.
    if is_lucidrains(weights):
        whose = _lucidrains
    elif str(config.get("model_type", "")).startswith("perceiver-"):
        whose = _krasserm
    try:
        return whose(folder, config, weights)
    except (ValueError, KeyError, TypeError) as error:
        # A KeyError prints only the name that was looked for, of a tensor or a key.
        words = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{folder}: config.json and the weights are not those of one model: {words}") from error


def _hugging_face(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Found:
    around = preprocessing.of_hugging_face(folder, config)
    network = from_hugging_face(config, weights, around.foreign.get(PREPROCESSOR))
    return network, around, _notes_of_padding(network.config)


def _krasserm(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Found:
    around = preprocessing.of_hugging_face(folder, config)
    network, notes = from_krasserm(config, weights, around.foreign.get(PREPROCESSOR))
    return network, _without_preprocessor(around), notes


def _lucidrains(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Found:
    around = preprocessing.of_hugging_face(folder, config)
    network, notes = from_lucidrains(config, weights, around.foreign.get(PREPROCESSOR))
    return network, _without_preprocessor(around), notes


def _without_preprocessor(around: Surroundings) -> Surroundings:
    """Return the files without a preprocessor's, which is of a class of their own that transformers does not know."""
    foreign = {name: content for name, content in around.foreign.items() if name != PREPROCESSOR}
    return replace(around, foreign=foreign)


def _notes_of_padding(config: PerceiverConfig) -> tuple[str, ...]:
    image = config.input_of(ImageInput)
    if image and image.conv_stem:
        return (
            "the convolution uses DeepMind's padding, Hugging Face's model another: outputs differ from those of "
            "transformers (docs/parity.md)",
        )
    return ()


def _weights(folder: Path) -> Mapping[str, Tensor]:
    """Return the tensors of the one file of weights in a folder."""
    path = folder / "model.safetensors"
    if not path.is_file():
        found = [each for each in sorted(folder.iterdir()) if each.suffix in (".safetensors", *_TORCH, *_PICKLES)]
        if len(found) != 1:
            names = ", ".join(each.name for each in found) or "none"
            raise ValueError(f"{folder}: expected model.safetensors, or one other file of weights, found {names}")
        (path,) = found
    if path.suffix == ".safetensors":
        return TensorFile(path).read_all()
    return _of_torch(path)


def _of_torch(path: Path) -> Mapping[str, Tensor]:
    """Return the tensors of a file that torch.save wrote; nothing in it is executed."""
    try:
        # On the CPU: weights that were saved from a GPU would ask for one.
        content = torch.load(path, map_location="cpu", weights_only=True)
    # It says something of this machine, not of the file.
    except MemoryError:
        raise
    # Of a damaged file PyTorch's reader raises whatever its first wrong byte leads to: struct.error, IndexError, ...
    except Exception as error:
        raise ValueError(
            f"{path}: is no file of tensors alone, and reading more of it would execute whatever code is in it; save "
            "model.state_dict() by safetensors.torch.save_file"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        # PyTorch Lightning's, whose module holds the network as `model`.
        content = {str(name).removeprefix("model."): each for name, each in content["state_dict"].items()}
    if not isinstance(content, dict) or not all(isinstance(each, Tensor) for each in content.values()):
        raise ValueError(f"{path}: expected a state dict, which has a tensor for each name; save model.state_dict()")
    return content
