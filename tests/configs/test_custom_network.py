"""A plug-in's network in a configuration: chosen by its kind, as strictly read as everything else."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import plugins
from configs.files import ConfigError
from configs.run import RunConfig, dump, load

EXAMPLES = Path(__file__).parents[2] / "examples" / "networks"
CONFIG = f"""
plugins: [{EXAMPLES}/vit.py, {EXAMPLES}/resnet.py]
data: {{inputs: {{image: {{modality: image, height: 8, width: 8}}}}, shards: shards}}
model:
  network: {{kind: vit, patch: 2}}
  inputs: {{image: {{}}}}
  outputs: {{label: {{kind: label, num_classes: 10}}}}
"""


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No plug-in outlives its test."""
    yield
    plugins.use(())
    for name in [name for name in sys.modules if name.startswith("perceiver_plugins.")]:
        del sys.modules[name]


def read(folder: Path, *overrides: str, content: str = CONFIG) -> RunConfig:
    (folder / "run.yaml").write_text(content)
    return load(folder / "run.yaml", overrides)


def test_its_kind_chooses_the_class_and_its_keys_are_the_fields(tmp_path: Path) -> None:
    network = read(tmp_path, "model.network.width=32").model.network
    assert (type(network).__name__, network.patch, network.width) == ("Vit", 2, 32)
    resnet = read(tmp_path, "model.network={}", "model.network.kind=resnet").model.network
    assert (type(resnet).__name__, resnet.num_stages) == ("Resnet", 3)


def test_null_takes_the_perceiver_again(tmp_path: Path) -> None:
    assert read(tmp_path, "model.network=null").model.network is None


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert read(tmp_path, content=dump(config)) == config
    none = read(tmp_path, "model.network=null")
    assert read(tmp_path, content=dump(none)) == none


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.network.kind=vot"], r"model\.network\.kind = 'vot': expected one of resnet, vit; did you mean vit\?"),
        (["model.network.path=3"], r"model\.network\.path = 3: unknown key; did you mean model\.network\.patch\?"),
        (["model.network.patch=two"], r"model\.network\.patch = 'two'"),
        (
            ["model.network=vit"],
            r"model\.network = 'vit': expected a section with keys of its own, model\.network\.kind=",
        ),
        (["plugins=[]"], r"model\.network: none of the plug-ins has such a class; name the file with one in plugins"),
        (["model.num_latents=8"], r"model\.num_latents = 8: is a key of the Perceiver, and model\.network is vit"),
        (["model.compile=true"], r"model\.compile = True: compiles the Perceiver's layers alone"),
    ],
)
def test_a_wrong_key_is_one_sentence(tmp_path: Path, overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as found:
        read(tmp_path, *overrides)
    assert len(found.value.problems) == 1


def test_a_class_without_its_module_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from dataclasses import dataclass\nfrom typing import Literal\nfrom perceiver_trainer import CustomNetwork\n\n"
        "@dataclass(frozen=True)\nclass Own(CustomNetwork):\n    kind: Literal['own'] = 'own'\n"
        "    def module(self, inputs):\n        return None\n"
    )
    with pytest.raises(ValueError, match=r"own\.py:8: Own\.module is called as module\(inputs, outputs\)"):
        read(tmp_path, "plugins=[own.py]")
