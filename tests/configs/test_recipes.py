"""Every recipe loads strictly, is in the table of docs/recipes.md, and costs what the table says."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from configs.run import RunConfig, load
from model.budget.flops import total, training_cost

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "configs" / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))


@dataclass(frozen=True)
class Printed:
    """A row of the table."""

    reads: str
    millions: str
    printed_millions: str
    billions: str
    printed_billions: str
    length: str


def table() -> dict[str, Printed]:
    lines = (ROOT / "docs" / "recipes.md").read_text().partition("\n## The table\n")[2].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| perceiver_")]
    return {row[0]: Printed(*row[2:8]) for row in rows}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    Tokenizer(WordLevel({"[PAD]": 0, "[MASK]": 1, "a": 2}, unk_token="[PAD]")).save(str(path))
    return path


def recipe(name: str, tokenizer: Path) -> RunConfig:
    path = RECIPES / f"{name}.yaml"
    tokens = "num_tokens" in path.read_text()
    return load(path, [f"data.inputs.text.tokenizer={tokenizer}"] if tokens else [])


def test_the_table_has_every_recipe_and_no_other() -> None:
    assert sorted(table()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_what_the_table_says_of_it(name: str, tokenizer: Path) -> None:
    config, row = recipe(name, tokenizer), table()[name]
    cost = total(training_cost(config.model))
    assert (row.millions, row.billions) == (f"{cost.parameters / 1e6:.2f}", f"{cost.flops / 1e9:.1f}")
    assert row.length == f"{config.train.steps} x {config.train.global_batch}"
    assert row.reads == ", ".join(dict.fromkeys(each.modality for each in config.data.ordered_inputs.values()))
    assert config.optimizer.name == "lamb"
    # Figures that contradict the dimensions which the same paper prints are marked.
    if row.printed_millions and "(a)" not in row.printed_millions:
        assert cost.parameters / 1e6 == pytest.approx(float(row.printed_millions), rel=0.005)
    if row.printed_billions and "(a)" not in row.printed_billions:
        assert cost.flops / 1e9 == pytest.approx(float(row.printed_billions), rel=0.005)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_is_typed_and_includes_its_network_and_its_training(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text()
    assert f"#   perceiver train configs/recipes/{name}.yaml data.shards=" in text
    network, training = re.findall(r"^include: \[paper/(\w+), recipes/training/(\w+)\]$", text, re.MULTILINE)[0]
    assert (ROOT / "configs" / "paper" / f"{network}.yaml").is_file()
    assert (RECIPES / "training" / f"{training}.yaml").is_file()
