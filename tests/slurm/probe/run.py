"""Stands in for configs/run.py beside train.py: the settings of the probe are JSON."""

import json
from pathlib import Path
from typing import Any


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
