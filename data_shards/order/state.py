"""The data state of a run: all that a resume needs for the same samples, whatever the number of ranks."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from data_shards.files import typed_json

VERSION = 2
# A user can do nothing with two hashes.
_OF_HASHES = {
    "manifest": "data.shards, or those of data.datasets, hold other samples: they were rebuilt or replaced, "
    "data.require names others, or `perceiver data index` was asked for other fields of the records",
    "datasets": "data.datasets: names, weights or modalities are others",
}


@dataclass(frozen=True)
class DataState:
    """What decides the samples of the next step: under 300 bytes as JSON, one for the whole job."""

    manifest: str
    """Fingerprint of the training split, with what is taken of its records and what data.require names."""
    seed: int
    global_batch: int
    lanes: int
    window: int
    datasets: str = ""
    """Hash of the names, weights and modalities of several datasets; empty where there is one."""
    step: int = 0
    """Batches that the optimizer has used; what was prefetched does not count."""
    version: int = VERSION

    def to_json(self) -> str:
        """Return the state in one line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "DataState":
        """Return the state of to_json(); ValueError where another version wrote it, or it is something else."""
        fields = typed_json.parse_object(text.encode())
        # Before the fields are read: those of another version would be told as unknown keys.
        if fields.get("version") != VERSION:
            raise ValueError(
                f"the data state has version {fields.get('version')}, expected {VERSION}; "
                "use the release that wrote it, or start a new run"
            )
        return typed_json.typed(DataState, fields)

    def check(self, saved: "DataState") -> None:
        """Raise ValueError that says what differs if a run in the saved state cannot resume with this order."""
        if found := difference(asdict(saved), {**asdict(self), "step": saved.step}):
            raise ValueError(f"the run would see other samples ({found}); set it back, or start a new run")


def difference(there: Mapping[str, object], here: Mapping[str, object]) -> str:
    """Return, in words, in what the data of a saved state differ from ours; nothing where they are alike."""
    return "; ".join(
        _OF_HASHES.get(key) or f"{key} was {there.get(key)!r}, is {value!r}"
        for key, value in here.items()
        if there.get(key) != value
    )


def datasets_hash(parts: Sequence[tuple[str, float, tuple[str, ...]]]) -> str:
    """Return 16 hexadecimal digits for the (name, weight, modalities) of several datasets."""
    # Sorted: the datasets are numbered by their names, so their order in the file decides nothing.
    return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()[:16]
