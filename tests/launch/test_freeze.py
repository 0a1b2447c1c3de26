"""The copy of the code and the plug-ins of a run: what is in it, and what is told of one that differs."""

import hashlib
import os
from pathlib import Path

import pytest

from launch.lifecycle.run_folder import RunFolder
from launch.run.frozen_code import (
    PACKAGES,
    changed_files,
    freeze,
    other_plugins,
    record_plugins,
    replace_plugins,
    take_plugins,
)
from trainer.health.run_lock import RunLock


def make_source(folder: Path) -> Path:
    for package in PACKAGES:
        (folder / package / "__pycache__").mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f'"""{package}."""\n')
        (folder / package / "__pycache__" / "x.pyc").write_bytes(b"x")
    (folder / "model" / ".hidden.py").write_text("")
    (folder / "configs" / "digits.yaml").write_text("seed: 1\n")
    return folder


def test_the_copy_holds_the_code_and_the_yaml_but_no_caches(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    freeze(tmp_path / "code", source)
    assert (tmp_path / "code" / "configs" / "digits.yaml").read_text() == "seed: 1\n"
    assert not list((tmp_path / "code").rglob("*.pyc"))
    assert not (tmp_path / "code" / "model" / ".hidden.py").exists()
    assert sorted(path.name for path in (tmp_path / "code").iterdir()) == sorted(PACKAGES)
    (source / "model" / ".hidden.py").unlink()
    assert changed_files(tmp_path / "code", source) == []


def test_an_edit_an_addition_and_a_removal_after_the_freeze_are_named(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    freeze(tmp_path / "code", source)
    (source / "model" / ".hidden.py").unlink()
    for package in ("trainer", "model", "launch", "data_shards"):
        path = source / package / "__init__.py"
        there = path.stat()
        # As long as before, and with the time of before.
        path.write_text(path.read_text().replace(package, package[::-1]))
        os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns))
    for package in ("trainer", "launch", "model"):
        (source / package / "new.py").write_text("")
    (source / "configs" / "digits.yaml").unlink()
    assert changed_files(tmp_path / "code", source) == [
        "configs/digits.yaml",
        *("launch/new.py", "model/new.py", "trainer/new.py"),
        *("data_shards/__init__.py", "launch/__init__.py", "model/__init__.py", "trainer/__init__.py"),
    ]


def test_plugins_are_copied_with_the_code_and_compared_with_another_copy_of_it(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    plugin = tmp_path / "lines.py"
    plugin.write_text("1\n")
    for name in ("one", "other"):
        freeze(tmp_path / name, source, plugins=[str(plugin)])
    assert (tmp_path / "one" / "plugins" / "lines.py").read_text() == "1\n"
    assert changed_files(tmp_path / "one", tmp_path / "other") == []
    (tmp_path / "one" / "plugins" / "lines.py").write_text("2\n")
    assert changed_files(tmp_path / "one", tmp_path / "other") == ["plugins/lines.py"]
    assert other_plugins(tmp_path / "other", [str(plugin)]) == []
    assert other_plugins(tmp_path / "one", [str(plugin)]) == [str(plugin)]
    (tmp_path / "one" / "plugins" / "lines.py").unlink()
    assert other_plugins(tmp_path / "one", [str(plugin)]) == [str(plugin)]


def test_a_run_without_plugins_is_given_some_and_then_others(tmp_path: Path) -> None:
    plugin = tmp_path / "lines.py"
    (tmp_path / "code").mkdir()
    for content in ("1\n", "2\n"):
        plugin.write_text(content)
        replace_plugins(tmp_path / "code", [str(plugin)])
        assert (tmp_path / "code" / "plugins" / "lines.py").read_text() == content


def test_the_record_names_each_copy_by_its_hash_and_is_written_where_it_changes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    record_plugins(folder)
    assert not folder.plugins_record_path.exists()
    (folder.code_folder / "plugins").mkdir(parents=True)
    names = ["a.py", "b.py", "c.py", "d.py"]
    for name in reversed(names):
        (folder.code_folder / "plugins" / name).write_text(name)
    record_plugins(folder)
    lines = ",\n".join(f' "{name}": "{hashlib.sha256(name.encode()).hexdigest()}"' for name in names)
    assert folder.plugins_record_path.read_text() == f"{{\n{lines}\n}}\n"
    written = folder.plugins_record_path.stat().st_ino
    record_plugins(folder)
    assert folder.plugins_record_path.stat().st_ino == written
    (folder.code_folder / "plugins" / "a.py").write_text("edited")
    record_plugins(folder)
    assert hashlib.sha256(b"edited").hexdigest() in folder.plugins_record_path.read_text()


def test_plugins_are_given_to_no_run_without_code_and_to_none_that_is_trained(tmp_path: Path) -> None:
    plugin, folder = tmp_path / "lines.py", RunFolder(tmp_path / "run")
    plugin.write_text("1\n")
    folder.path.mkdir()
    take_plugins(folder, [str(plugin)], has_begun=False)
    assert list(folder.path.iterdir()) == []
    folder.code_folder.mkdir()
    with RunLock(folder.lock_path), pytest.raises(ValueError, match=r"trains in this run; .*`perceiver stop "):
        take_plugins(folder, [str(plugin)], has_begun=False)
    # One that a run that has begun never had is none of another content.
    take_plugins(folder, [str(plugin)], has_begun=True)
    assert list(folder.code_folder.iterdir()) == []
    folder.quarantine_path.write_text("{}\n")
    take_plugins(folder, [str(plugin)], has_begun=False)
    assert (folder.code_folder / "plugins" / "lines.py").read_text() == "1\n"
    # It may list samples that the plug-in of before could not read.
    assert not folder.quarantine_path.exists()


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
