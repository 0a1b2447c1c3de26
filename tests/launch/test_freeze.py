from pathlib import Path

from launch.run.frozen_code import PACKAGES, changed_files, freeze


def make_source(folder: Path) -> Path:
    for package in PACKAGES:
        (folder / package / "__pycache__").mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f'"""{package}."""\n')
        (folder / package / "__pycache__" / "x.pyc").write_bytes(b"x")
    (folder / "configs" / "digits.yaml").write_text("seed: 1\n")
    return folder


def test_the_copy_holds_the_code_and_the_yaml_but_no_caches(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    freeze(tmp_path / "code", source)
    assert (tmp_path / "code" / "configs" / "digits.yaml").read_text() == "seed: 1\n"
    assert not list((tmp_path / "code").rglob("*.pyc"))
    assert changed_files(tmp_path / "code", source) == []


def test_an_edit_an_addition_and_a_removal_after_the_freeze_are_named(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    freeze(tmp_path / "code", source)
    (source / "model" / "__init__.py").write_text('"""Edited."""\n')
    (source / "trainer" / "new.py").write_text("")
    (source / "configs" / "digits.yaml").unlink()
    assert sorted(changed_files(tmp_path / "code", source)) == [
        "configs/digits.yaml",
        "model/__init__.py",
        "trainer/new.py",
    ]


def test_a_second_freeze_leaves_the_first_copy(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    freeze(tmp_path / "code", source)
    (source / "model" / "__init__.py").write_text('"""Edited."""\n')
    freeze(tmp_path / "code", source)
    assert (tmp_path / "code" / "model" / "__init__.py").read_text() == '"""model."""\n'


def test_a_freeze_that_was_killed_half_way_is_made_anew(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    (tmp_path / ".code.partial" / "model").mkdir(parents=True)
    (tmp_path / ".code.partial" / "model" / "half.py").write_text("")
    freeze(tmp_path / "code", source)
    assert not (tmp_path / "code" / "model" / "half.py").exists()
