"""YAML of others ends in one sentence, whatever it is, and takes no more time or memory than its size says."""

from pathlib import Path

import pytest
import yaml

from configs.files import ConfigError
from configs.run import load
from configs.yaml_text import parse
from launch.lifecycle import cluster

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 10))
HOSTILE = {
    "aliases of aliases": (LAUGHS, "more than 20000 values, what its aliases stand for included"),
    "merges of merges": (MERGES, "more than 20000 values"),
    "an alias to itself": ("a: &a [*a]", "alias to what it is part of"),
    "nested lists": ("[" * 100_000, "nests deeper than 40"),
    "nested keys": ("{a: " * 5_000, "nests deeper than 40"),
    "many values": ("a: [" + "1," * 40_000 + "]", "more than 20000 values"),
    "a large file": ("# " + "x" * 300_000, "more than 262144 characters"),
    "a key twice": ("seed: 1\ntrain: {steps: 3}\nseed: 2", "has the key 'seed' twice"),
    "a key twice, deeper": ("train: {steps: 3, steps: 4}", "has the key 'steps' twice"),
    "an empty number": ("seed: !!int ''", "not YAML"),
    "no boolean": ("seed: !!bool x", "not YAML"),
    "no time": ("seed: !!timestamp x", "not YAML"),
    "a long number": ("seed: " + "9" * 10_000, "not YAML"),
    "a Python object": ("seed: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "an unhashable key": ("{[a]: 1}", "unhashable"),
    "control characters": ("seed: \x00", "special characters are not allowed"),
    "several documents": ("seed: 1\n---\nseed: 2", "expected a single document"),
    "an unknown alias": ("seed: *a", "undefined alias"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.timeout(20)
def test_hostile_yaml_is_refused_in_one_line_wherever_it_is_read(tmp_path: Path, case: str) -> None:
    text, sentence = HOSTILE[case]
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    for read in (lambda: load(path), lambda: cluster.load(str(path))):
        with pytest.raises(ConfigError) as error:
            read()
        assert len(error.value.problems) == 1
        assert sentence in str(error.value)
        assert str(path) in str(error.value)
        assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    "text", ["", "# nothing", "a: 1", "a: [1, 2.5, true, null, x]", "a: &a {b: 1}\nc: {<<: *a, d: 2}"]
)
def test_what_is_within_the_bounds_is_what_yaml_says(text: str) -> None:
    assert parse(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HOME}",
        "x${oc.env:HOME}y",
        "${oc.decode:${oc.env:HOME}}",
        "${oc.env:HOME,a}",
        "${a.${b}}",
        "${",
        "[${oc.env:HOME}]",
    ],
)
def test_only_keys_of_the_configuration_are_replaced(
    tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "secret of the environment")
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1")
    with pytest.raises(ConfigError) as error:
        load(path, [f"data.shards={value}", "seed=many"])
    assert "secret" not in str(error.value)
    told = [problem for problem in error.value.problems if problem.startswith("data.shards = ")]
    assert len(told) == 1
    assert "only ${key} of another key" in told[0]
    assert any(problem.startswith("seed = 'many'") for problem in error.value.problems)
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"account: '{value}'")
    with pytest.raises(ConfigError, match=r"only \$\{key\}"):
        cluster.load(str(profile))


def test_a_date_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text("account: 2026-01-01")
    assert cluster.load(str(path)).account == "2026-01-01"


def test_a_key_of_the_configuration_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text("partition: gpu\naccount: of_${partition}")
    assert cluster.load(str(path)).account == "of_gpu"
