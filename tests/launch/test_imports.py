"""`perceiver import` knows whose network it is by its files, reads nothing that could run code, and names the fault."""

import errno
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import perceiver_pytorch
import pytest
import torch
import transformers
from safetensors.torch import save_file, save_model
from torch import Tensor
from typer.testing import CliRunner

from configs.run import RunConfig
from launch.cli.main import app
from launch.lifecycle.run_folder import RunFolder
from launch.networks import imports
from launch.networks.model_card import card
from launch.networks.network_files import network_of
from launch.run import initial_weights
from launch.run.trained.network import config_of
from model.config.initial_weights import InitialWeightsConfig
from model.interop.huggingface_config import config_from_hugging_face
from model.perceiver import Perceiver

ENCODER: dict[str, Any] = {
    "num_cross_attention_heads": 1, "num_cross_attention_qk_channels": None, "num_cross_attention_v_channels": None,
    "num_cross_attention_layers": 1, "first_cross_attention_layer_shared": False, "cross_attention_widening_factor": 1,
    "num_self_attention_heads": 2, "num_self_attention_qk_channels": None, "num_self_attention_v_channels": None,
    "num_self_attention_layers_per_block": 1, "num_self_attention_blocks": 1,
    "first_self_attention_block_shared": True, "self_attention_widening_factor": 1,
    "image_shape": [4, 4, 1], "num_frequency_bands": 2,
}  # fmt: skip
DECODER: dict[str, Any] = {
    "num_cross_attention_heads": 1, "num_cross_attention_qk_channels": None, "num_cross_attention_v_channels": None,
    "cross_attention_widening_factor": 1, "cross_attention_residual": True, "num_output_queries": 1,
    "num_output_query_channels": 8, "num_classes": 2,
}  # fmt: skip
CONFIG = {
    "model_type": "perceiver-io-image-classifier",
    "model_config": {"encoder": ENCODER, "decoder": DECODER, "num_latents": 3, "num_latent_channels": 8},
    "id2label": {"0": "cat", "1": "dog"},
}


def called(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def layer(name: str, asks: int, read: int, width: int, *, own: bool = False) -> dict[str, tuple[int, ...]]:
    """The shapes of one layer of perceiver-io, all of whose parts are the latents' or the tokens' size."""
    attention, mlp = f"{name}.0.module", f"{name}.1.module"
    norms = {"norm": asks} if own else {"q_norm": asks, "kv_norm": read}
    linear = {
        f"{attention}.attention.q_proj": (width, asks), f"{attention}.attention.k_proj": (width, read),
        f"{attention}.attention.v_proj": (width, read), f"{attention}.attention.o_proj": (asks, width),
        f"{mlp}.1": (asks, asks), f"{mlp}.3": (asks, asks),
    }  # fmt: skip
    found: dict[str, tuple[int, ...]] = {f"{attention}.{norm}.weight": (size,) for norm, size in norms.items()}
    found |= {f"{attention}.{norm}.bias": (size,) for norm, size in norms.items()}
    found |= {f"{mlp}.0.weight": (asks,), f"{mlp}.0.bias": (asks,)}
    found |= {f"{of}.weight": size for of, size in linear.items()}
    return found | {f"{of}.bias": size[:1] for of, size in linear.items()}


def weights() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "0.latent_provider._query": (3, 8), "1.output_query_provider._query": (1, 8),
        "1.output_adapter.linear.weight": (2, 8), "1.output_adapter.linear.bias": (2,),
        "0.input_adapter.position_encoding.position_encoding": (16, 10),
        **layer("0.cross_attn_1", 8, 11, 11), **layer("0.self_attn_1.0", 8, 8, 8, own=True),
        **layer("1.cross_attn", 8, 8, 8),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "last.ckpt"])
def test_perceiver_ios_files_become_a_network_with_its_class_names(theirs: Path, tmp_path: Path, name: str) -> None:
    if name.endswith("safetensors"):
        save_file({f"backend_model.{key}": each for key, each in weights().items()}, theirs / name)
    elif name.endswith("bin"):
        torch.save(weights(), theirs / name)
    else:
        torch.save({"state_dict": {f"model.{key}": each for key, each in weights().items()}}, theirs / name)
    called("import", theirs, tmp_path / "ours")
    network = network_of(tmp_path / "ours")
    assert network.config.inputs["image"].shape == (4, 4, 1)
    assert torch.equal(network.state_dict()["encoder.latents.weight"], weights()["0.latent_provider._query"])
    assert json.loads((tmp_path / "ours" / "classes.json").read_text()) == {"classes": ["cat", "dog"]}


def test_an_imported_network_is_trained_on_by_initial_weights(theirs: Path, tmp_path: Path) -> None:
    save_file(weights(), theirs / "model.safetensors")
    called("import", theirs, tmp_path / "ours")
    model = network_of(tmp_path / "ours").config
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    config = RunConfig(model=model, initial_weights=InitialWeightsConfig(source=str(tmp_path / "ours")))
    initial_weights.keep(config, run)
    record = json.loads(run.initial_weights_record_path.read_text())
    assert (record["drawn"], record["unused"], len(record["resized"])) == ({}, [], 0)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.pt"])
def test_perceiver_pytorchs_files_become_a_network_that_is_trained_on(tmp_path: Path, name: str) -> None:
    sizes = {"num_latents": 3, "latent_dim": 8, "latent_heads": 2, "latent_dim_head": 4, "num_classes": 2}
    bands = {"num_freq_bands": 2, "max_freq": 10.0, "depth": 3, "weight_tie_layers": True}
    theirs = perceiver_pytorch.Perceiver(**sizes, **bands).eval()
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**sizes, **bands, "input_shape": [4, 6]}))
    if name.endswith("safetensors"):
        save_model(theirs, folder / name)  # which writes shared tensors once
    else:
        torch.save(theirs.state_dict(), folder / name)
    told = called("import", folder, tmp_path / "ours")
    assert "note: no preprocessor_config.json: pixels are taken to be scaled to [0, 1]" in told
    network = network_of(tmp_path / "ours")
    pixels = torch.randint(256, (2, 4, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network({"image": pixels})["label"], theirs(pixels / 255), rtol=0, atol=1e-5)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    source = InitialWeightsConfig(source=str(tmp_path / "ours"))
    initial_weights.keep(RunConfig(model=network.config, initial_weights=source), run)
    record = json.loads(run.initial_weights_record_path.read_text())
    assert (record["drawn"], record["unused"], len(record["resized"])) == ({}, [], 0)
    with pytest.raises(ValueError, match=r"Perceiver.* cannot express this network: .*mlp is geglu"):
        called("export", tmp_path / "ours", tmp_path / "out")


def test_an_array_of_perceiver_pytorch_is_read_as_its_network_takes_it(tmp_path: Path) -> None:
    given = {"num_freq_bands": 2, "max_freq": 4, "depth": 1, "num_latents": 3, "latent_dim": 8, "num_classes": 2,
             "input_axis": 3, "input_channels": 2}  # fmt: skip
    theirs = perceiver_pytorch.Perceiver(**given).eval()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({**given, "input_shape": [2, 3, 4]}))
    torch.save(theirs.state_dict(), tmp_path / "theirs" / "weights.pt")
    called("import", tmp_path / "theirs", tmp_path / "ours")
    config = config_of(tmp_path / "ours")
    assert config.data.ordered_inputs["array"].shape == config.model.ordered_inputs["array"].shape == (2, 3, 4, 2)


class Code:
    """A pickle of it would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "it ran"))


@pytest.mark.parametrize("name", ["language.pystate", "weights.pkl"])
def test_a_pickle_is_refused_unread(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Code(tmp_path / "trace")))
    with pytest.raises(ValueError, match=rf"{name}: is a pickle, and reading one executes .*npz"):
        called("import", tmp_path / name, tmp_path / "ours")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pkl"])
def test_weights_with_code_in_them_are_refused_and_run_nothing(theirs: Path, tmp_path: Path, name: str) -> None:
    torch.save({"weight": Code(tmp_path / "trace")}, theirs / name)
    with pytest.raises(ValueError, match=rf"{name}: is no file of tensors alone, .* execute"):
        called("import", theirs, tmp_path / "ours")
    assert not (tmp_path / "trace").exists()


def test_an_npz_of_deepminds_arrays_is_read_and_one_with_objects_is_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(ValueError, match=r"other\.npz: is none of DeepMind's .*got a"):
        called("import", tmp_path / "other.npz", tmp_path / "ours")
    np.savez(tmp_path / "objects.npz", a=np.array([Code(tmp_path / "trace")], dtype=object))
    with pytest.raises(ValueError, match=r"objects\.npz: a\.npy: \.npy file holds Python objects"):
        called("import", tmp_path / "objects.npz", tmp_path / "ours")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as file:
        file.writestr("a.txt", "no array")
    with pytest.raises(ValueError, match=r"text\.npz: a\.txt: is no npy file; write the arrays by numpy\.savez"):
        called("import", tmp_path / "text.npz", tmp_path / "ours")
    (tmp_path / "cut.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"cut\.npz: "):
        called("import", tmp_path / "cut.npz", tmp_path / "ours")
    assert not (tmp_path / "trace").exists()


def npz(path: Path, shape: str, data: bytes, *, packed: bool = False) -> None:
    """Write an npz of one array whose header claims a shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        file.writestr("embed/embeddings.npy", content)


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(99999999999999999999,)", "(-5,)", "(1000,)", "(1,"])
def test_an_npz_that_lies_about_its_arrays_asks_for_no_memory(tmp_path: Path, shape: str) -> None:
    npz(tmp_path / "lies.npz", shape, bytes(64))
    with pytest.raises(ValueError, match=r"lies\.npz: embed/embeddings\.npy: "):
        called("import", tmp_path / "lies.npz", tmp_path / "ours")


def test_an_npz_may_unpack_to_a_few_times_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "_SMALL_BYTES", 0)
    np.savez_compressed(tmp_path / "other.npz", a=np.tile(np.random.default_rng(0).random(64), 4))
    with pytest.raises(ValueError, match=r"other\.npz: is none of DeepMind's"):
        called("import", tmp_path / "other.npz", tmp_path / "ours")


def test_an_npz_that_unpacks_to_much_more_than_its_size_is_not_unpacked(tmp_path: Path) -> None:
    npz(tmp_path / "bomb.npz", f"({25 << 20},)", bytes(100 << 20), packed=True)
    with pytest.raises(ValueError, match=r"bomb\.npz: unpacks to \d+ bytes, more than any weights do"):
        called("import", tmp_path / "bomb.npz", tmp_path / "ours")


@pytest.mark.parametrize(
    ("at", "value"), [((6, 8), 1), ((8, 10), 99), (None, 0)], ids=["encrypted", "packing", "empty"]
)
def test_a_damaged_npz_is_one_sentence(tmp_path: Path, at: tuple[int, int] | None, value: int) -> None:
    npz(tmp_path / "damaged.npz", "(2,)", bytes(8))
    content = bytearray((tmp_path / "damaged.npz").read_bytes() if at else b"")
    if at:
        for magic, place in zip((b"PK\x03\x04", b"PK\x01\x02"), at, strict=True):
            content[content.find(magic) + place] |= value
    (tmp_path / "damaged.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.npz: (corrupt \.npz file|\.npz file is packed in another way)"):
        called("import", tmp_path / "damaged.npz", tmp_path / "ours")


@pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x02.", b"PK\x03\x04junk", b"\x80\x02]q\x00."])
def test_a_damaged_file_of_weights_is_one_sentence(theirs: Path, tmp_path: Path, content: bytes) -> None:
    (theirs / "weights.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pt: is no file of tensors alone"):
        called("import", theirs, tmp_path / "ours")


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": torch.zeros(1), "b": 3}, {"state_dict": 3}, {}])
def test_what_is_no_state_dict_is_refused(theirs: Path, tmp_path: Path, content: object) -> None:
    torch.save(content, theirs / "weights.pt")
    expected = r"weights\.pt: expected a state dict" if content else "theirs: config.json and the weights are not"
    with pytest.raises(ValueError, match=expected):
        called("import", theirs, tmp_path / "ours")


def test_weights_are_read_onto_the_cpu_without_code_and_a_full_memory_is_not_the_files_fault(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []

    def full(_path: Path, **options: object) -> None:
        asked.append(options)
        raise MemoryError

    (theirs / "weights.pt").touch()
    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(MemoryError):
        called("import", theirs, tmp_path / "ours")
    assert asked == [{"map_location": "cpu", "weights_only": True}]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((3, 8), torch.nan), "_query: holds NaN or infinity"),
        (torch.ones(3, 8, dtype=torch.int8), r"_query: expected torch\.float32, got torch\.int8"),
    ],
)
def test_weights_that_are_no_numbers_are_refused_by_name(
    theirs: Path, tmp_path: Path, value: Tensor, message: str
) -> None:
    save_file(weights() | {"0.latent_provider._query": value}, theirs / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        called("import", theirs, tmp_path / "ours")


@pytest.mark.parametrize("names", [5, ["a"], {"x": "cat"}])
def test_class_names_that_are_none_are_refused(theirs: Path, tmp_path: Path, names: object) -> None:
    save_file(weights(), theirs / "model.safetensors")
    (theirs / "config.json").write_text(json.dumps({**CONFIG, "id2label": names}))
    with pytest.raises(ValueError, match="id2label: expected names by the numbers of their classes"):
        called("import", theirs, tmp_path / "ours")


def test_a_configuration_that_asks_for_more_than_the_weights_takes_no_memory(theirs: Path, tmp_path: Path) -> None:
    save_file(weights(), theirs / "model.safetensors")
    called("import", theirs, tmp_path / "ours")
    path = tmp_path / "ours" / "config.yaml"
    path.write_text(path.read_text().replace("num_latents: 3", "num_latents: 1000000000000"))
    with pytest.raises(ValueError, match=r"encoder\.latents\.weight: expected \(1000000000000, 8\), got \(3, 8\)"):
        network_of(tmp_path / "ours")


def test_a_full_disk_is_told_as_such_and_leaves_nothing(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save_file(weights(), theirs / "model.safetensors")
    monkeypatch.setattr(os, "fsync", full)
    # What the command line makes a sentence of; safetensors' own writer raises an error of its own.
    with pytest.raises(OSError, match="No space left on device"):
        called("import", theirs, tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_a_folder_that_every_command_takes_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    for name in ("config.yaml", "model.safetensors"):
        (tmp_path / "ours" / name).touch()
    with pytest.raises(ValueError, match=r"ours: every command takes this folder as it is; there is nothing to import"):
        called("import", tmp_path / "ours", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    (tmp_path / "ours" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"config\.json: no such file; the folder needs config\.json and"):
        called("import", tmp_path / "ours", tmp_path / "again")


def test_any_other_file_and_several_weights_are_refused_by_name(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json: expected a folder with .*, or an npz"):
        called("import", theirs / "config.json", tmp_path / "ours")
    for name in ("a.bin", "b.pt"):
        torch.save({}, theirs / name)
    with pytest.raises(ValueError, match=r"theirs: expected model\.safetensors, or one other .* found a\.bin, b\.pt"):
        called("import", theirs, tmp_path / "ours")


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"num_latents": None}, "(?!lacks)"),
        ({"encoder": 3}, "(?!lacks)"),
        ({"decoder": {}}, "lacks 'num_"),
        ({"num_latents": 2**40}, "(?!lacks)"),
    ],
)
def test_a_config_that_lies_is_refused_with_the_folders_name(
    theirs: Path, tmp_path: Path, lie: dict[str, Any], words: str
) -> None:
    save_file(weights(), theirs / "model.safetensors")
    sizes = {**CONFIG["model_config"], **lie}  # type: ignore[dict-item]
    (theirs / "config.json").write_text(json.dumps({**CONFIG, "model_config": sizes}))
    with pytest.raises(ValueError, match=rf"theirs: config\.json and the weights are not those of one model: {words}"):
        called("import", theirs, tmp_path / "ours")


def test_an_export_has_a_model_card_that_says_how_it_is_loaded(tmp_path: Path) -> None:
    config = transformers.PerceiverConfig(
        num_latents=4, d_latents=16, d_model=261, num_self_attends_per_block=1, num_cross_attention_heads=1,
        id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    transformers.PerceiverForImageClassificationFourier(config).save_pretrained(tmp_path / "theirs")
    called("import", tmp_path / "theirs", tmp_path / "pets")
    called("export", tmp_path / "pets", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    head, _, body = card.removeprefix("---\n").partition("---\n")
    assert "pipeline_tag: image-classification" in head
    assert body.startswith("\n# pets\n")
    assert "AutoImageProcessor, AutoModelForImageClassification" in body
    assert "It tells 2 classes apart" in body


def test_the_card_of_a_run_has_the_figures_of_its_evaluation(tmp_path: Path) -> None:
    config = config_from_hugging_face(
        {"architectures": ["PerceiverForMaskedLM"], "num_latents": 4, "d_latents": 16, "d_model": 24,
         "num_self_attends_per_block": 1, "max_position_embeddings": 8, "vocab_size": 262}
    )  # fmt: skip
    network, source = Perceiver(config, seed=0), tmp_path / "words"
    source.mkdir()
    count = sum(parameter.numel() for parameter in network.parameters())
    (name,), (text,) = network.config.ordered_inputs.keys(), network.config.ordered_inputs.values()
    head = f"""\
tags: [perceiver]
---

# words

A {{kind}} with {count:,} parameters, exported by perceiver-trainer.

| input | values |
|---|---|
| {name} | {text.meaning(name)} |

"""
    found = card(network, "PerceiverForMaskedLM", ["tokenizer.json"], (), source)
    assert (
        found
        == "---\nlibrary_name: transformers\npipeline_tag: fill-mask\n"
        + head.format(kind="PerceiverForMaskedLM")
        + """\
```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

model = AutoModelForMaskedLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```
"""
    )
    metrics = {"text": {"masked_accuracy": {"all": 0.123456}, "bits": {"all": None}}}
    record = {"samples": 3, "step": 8, "split": "test", "metrics": metrics}
    (source / "evaluation.json").write_text(json.dumps(record))
    assert (
        card(network, "Other", [], (), source)
        == "---\nlibrary_name: transformers\n"
        + head.format(kind="Other")
        + """\
```python
from transformers import Other

model = Other.from_pretrained("FOLDER")
```

Evaluated after step 8 on 3 samples of the split test:

| output | metric | value |
|---|---|---|
| text | masked accuracy | 0.1235 |
| text | bits | not measured |
"""
    )
