"""A configuration that comes with the product is named by its name, wherever the command is typed."""

from pathlib import Path

import pytest

from configs.files import ConfigError, located, read_yaml
from configs.network import network_config
from configs.run import load

CONFIGS = Path(__file__).parents[2] / "configs"
ALL = sorted(CONFIGS.glob("*.yaml"))
NETWORKS = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name in ("paper", "recipes"))


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", ["{}", "configs/{}", "configs/{}.yaml"])
def test_a_named_run_is_found_outside_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert located(Path(name.format(path.stem))) == path


def test_networks_in_folders_are_found_by_folder_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in NETWORKS:
        assert located(path.relative_to(CONFIGS).with_suffix("")) == path
    assert network_config("pictures").num_latents == 32
    assert load(Path("digits")) == load(CONFIGS / "digits.yaml")


def test_what_the_user_has_goes_before_what_comes_with_the_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text("seed: 7\n")
    assert read_yaml(Path("digits")) == {"seed": 7}
    (tmp_path / "configs").mkdir()
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(Path("configs/digits.yaml"))


def test_only_a_file_hides_what_comes_with_the_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # As a newcomer has it, whose photos lie beside the configuration.
    (tmp_path / "pictures").mkdir()
    mine = tmp_path / "mine.yaml"
    mine.write_text("include: pictures\nseed: 7\n")
    assert located(Path("pictures")) == CONFIGS / "pictures.yaml"
    assert load(mine).seed == 7
    # A folder of no configuration's name stays what it is.
    (tmp_path / "photos").mkdir()
    assert located(Path("photos")) == Path("photos")


@pytest.mark.parametrize(
    "name", ["recipes/perceiver_imagnet", "perceiver_imagenet", "configs/recipes/perciever_imagenet.yaml"]
)
def test_a_recipe_whose_name_is_nearly_right_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "model" in read_yaml(Path("paper/p1"))
    assert load(Path("recipes/perceiver_imagenet")).train.steps == 150_120
    with pytest.raises(ConfigError, match=r"no such file; did you mean recipes/perceiver_imagenet\?"):
        read_yaml(Path(name))


@pytest.mark.parametrize("name", ["digit", "digits.yaml", "/digits", "../digits", "paper", "clusters", "__init__"])
def test_another_name_is_refused_with_those_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no such file; the named runs are av_digits, digits, .*pictures, by these"):
        read_yaml(Path(name))
