"""The pages say what is there: links lead somewhere, examples are those that run, names can be imported."""

import io
import re
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import perceiver_trainer
from configs.network import network_config
from data_shards.modalities.modality import select
from model.budget.flops import network_cost, total
from model.config.attention import AttentionConfig
from model.config.perceiver import PerceiverConfig
from model.interop.huggingface_config import config_to_hugging_face
from model.modalities.array import ArrayInput
from model.perceiver import Perceiver

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
EXAMPLES = REPOSITORY / "examples"
PLUGINS = [*sorted((EXAMPLES / "plugins").glob("*.py")), EXAMPLES / "networks" / "resnet.py"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_index_leads_to_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    assert [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"({page.name})" not in index] == []


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_the_page_on_extending_shows_each_plugin_as_it_is_tested(path: Path) -> None:
    assert f"```python\n{path.read_text()}```\n" in (DOCS / "extending.md").read_text()


@pytest.mark.parametrize("page", ["library.md", "extending.md"])
def test_what_the_pages_import_is_there(page: str) -> None:
    imports = re.findall(r"^from perceiver_trainer import (.*)$", (DOCS / page).read_text(), re.MULTILINE)
    names = {name.strip() for line in imports for name in line.split(",")}
    assert names
    assert names <= set(perceiver_trainer.__all__)


def in_tables(section: str) -> dict[str, bool]:
    """The members that a table of docs/extending.md names, and whether a class must define them."""
    (text,) = re.findall(rf"^### {section}\n(.*?)^##", (DOCS / "extending.md").read_text(), re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`\w.*?) \| (.*?) \| ", text, re.MULTILINE)
    return {name: default == "demanded" for names, default in rows for name in re.findall(r"`(\w+)`", names)}


@pytest.mark.parametrize("name", ["Modality", "Input", "Output", "Task"])
def test_the_page_on_extending_has_every_member_of_a_class_and_which_of_them_are_demanded(name: str) -> None:
    base = getattr(perceiver_trainer, name)
    members = {each for each in {**vars(base), **base.__annotations__} if not each.startswith("_")}
    found = in_tables(name)
    assert set(found) == members | ({"kind"} if name == "Output" else set())
    # The name by which a configuration chooses the class is asked for when the file is read.
    assert {each for each, demanded in found.items() if demanded} - {"modality", "kind"} == base.__abstractmethods__


@pytest.mark.parametrize(
    ("section", "names"), [("Batch", ["Batch"]), ("Metric, Measurement and Result", ["Metric", "Result"])]
)
def test_the_page_on_extending_has_every_field_of_what_a_task_meets(section: str, names: list[str]) -> None:
    (text,) = re.findall(rf"^### {section}\n(.*?)^##", (DOCS / "extending.md").read_text(), re.MULTILINE | re.DOTALL)
    members = {field.name for name in names for field in fields(getattr(perceiver_trainer, name))}
    assert members <= set(re.findall(r"`(\w+)`", text))


def in_page(name: str, page: str = "extending.md") -> str:
    """The block of code of a page that defines or makes something."""
    (block,) = [
        block for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL) if name in block
    ]
    return str(block)


def test_the_modality_with_two_members_of_the_page_reads_both(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("marked")
    monkeypatch.setitem(sys.modules, "marked", module)
    exec((EXAMPLES / "plugins" / "eeg.py").read_text() + in_page("class MarkedEeg("), vars(module))
    section = module.MarkedEeg(num_samples=4, num_channels=2)
    members = {"eeg.npy": npy(np.ones((3, 2))), "mask.npy": npy(np.array([[1.0], [0.0], [1.0]]))}
    prepared = section.prepare(select(section, members), None)
    assert prepared.array.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]
    assert prepared.length == 3
    assert select(section, {"mask.npy": members["mask.npy"]}) == {}
    with pytest.raises(ValueError, match=r"has no mask\.npy"):
        section.prepare(select(section, {"eeg.npy": members["eeg.npy"]}), None)


def npy(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


def test_the_output_with_queries_of_its_own_of_the_page_answers_and_costs_what_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("series")
    monkeypatch.setitem(sys.modules, "series", module)
    exec(in_page("class SeriesOutput("), vars(module))
    config = PerceiverConfig(
        inputs={"values": ArrayInput(shape=(6, 2))},
        outputs={"series": module.SeriesOutput(length=5, width=8)},
        num_latents=4,
        latent_width=16,
        num_cross_attends=1,
        num_blocks=1,
        layers_per_block=1,
        self_attend=AttentionConfig(num_heads=2),
    )
    assert not [*config.problems()]
    network = Perceiver(config, seed=0)
    assert network({"values": torch.zeros(3, 6, 2)})["series"].shape == (3, 5)
    assert sum(weight.numel() for weight in network.parameters()) == total(network_cost(config)).parameters


def test_the_glossary_has_at_most_thirty_words_of_one_sentence_each() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \|$", (DOCS / "glossary.md").read_text(), re.MULTILINE)[1:]
    assert 10 < len(rows) <= 30
    assert len({word for word, _ in rows}) == len(rows)
    assert [meaning for _, meaning in rows if not re.fullmatch(r"[A-Z].*[^.]\.", meaning)] == []


# The page promises these networks to readers who need transformers, and a field of the network that is added later may
# end this for either.
@pytest.mark.parametrize("name", ["image", "text"])
def test_the_configurations_that_the_page_on_parity_exports_can_be_exported(name: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "parity.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if f"inputs: {{{name}: {{modality" in block]
    path = tmp_path / f"{name}.yaml"
    path.write_text(block)
    config = network_config(path)
    assert config_to_hugging_face(config)["num_latents"] == config.num_latents
    other = replace(config, num_cross_attends=2)
    with pytest.raises(ValueError, match="Perceiver"):
        config_to_hugging_face(other)
