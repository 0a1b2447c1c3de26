"""The class names of a run's labels: from the shards, of which a run keeps a copy, so that answers have names."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.run import RunConfig
from data_shards.files import atomic, typed_json
from data_shards.loading import streams
from data_shards.loading.shard_folders import Places
from launch.lifecycle.run_folder import RunFolder
from launch.run.trained import preprocessing
from launch.run.trained.network import is_import
from model.outputs.label import LabelOutput, LabelsOutput

OWN = "label"
"""The name in a run's copy of the sample's own label, which no other label can have."""


def keep(config: RunConfig, folder: RunFolder, places: Places) -> None:
    """Write the names of the classes that a run's network predicts into its folder."""
    there = streams.all_label_names(config.data, places)
    names = {target or OWN: there[target] for target in _num_classes(config) if there.get(target)}
    if names:
        atomic.write(folder.class_names_path, json.dumps(names, indent=1, ensure_ascii=False) + "\n")
    else:
        # A run that has not begun may be given other shards: the names of the first ones would stay.
        folder.class_names_path.unlink(missing_ok=True)


def of(path: Path, config: RunConfig) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Return the class names by the label that is predicted, "" for the sample's own, and sentences on missing ones."""
    wanted = _num_classes(config)
    found: Mapping[str, Sequence[str]] = {}
    reason = ""
    if is_import(path):
        found = {"": preprocessing.of_import(path).classes}
    elif wanted:
        try:
            found = _of_run(RunFolder(path), config)
        except (OSError, ValueError) as error:
            # Without the names the network still answers by numbers.
            reason = f": {error}"
    # More or fewer names than the network has classes are those of other shards.
    names = {target: tuple(found[target]) for target in wanted if len(found.get(target, ())) == wanted[target]}
    is_complete = names.keys() == wanted.keys()
    notes = () if is_complete else (f"class names are not known, their numbers stand for them{reason}",)
    return names, notes


def _num_classes(config: RunConfig) -> dict[str, int]:
    """Return the number of classes of each label that is predicted, "" for the sample's own."""
    outputs = config.model.answers().values()
    return {of.target: of.num_classes for of in outputs if isinstance(of, LabelOutput | LabelsOutput)}


def _of_run(folder: RunFolder, config: RunConfig) -> Mapping[str, Sequence[str]]:
    if not folder.class_names_path.is_file():
        return streams.all_label_names(config.data, Places(config.data))
    kept = typed_json.read_object(folder.class_names_path)
    where = folder.class_names_path
    return {"" if name == OWN else name: typed_json.texts(names, f"{where}: {name}") for name, names in kept.items()}
