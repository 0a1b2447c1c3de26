"""Checks whether Python finds this product's packages, or others of the same names.

Five of them have names that a project of one's own may use too (`model`, `configs` ...), and Python takes the first
that it finds on its path: for `python -m` and torchrun that is the working directory, for a script the script's folder.
Standard library only, and read by Python 3.7 and newer; looks without importing.
"""

from __future__ import annotations

import os
import sysconfig
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

PACKAGES = ("configs", "data_shards", "launch", "model", "trainer")


def problem(*, is_command: bool = False) -> str:
    """Return what stands in the way of our packages and the remedy, in one sentence; nothing where all is well."""
    home = Path(__file__).resolve().parent.parent
    shadows = {}
    for name in PACKAGES:
        # Without importing: that would run the other project's code.
        place = _place(PathFinder.find_spec(name))
        if place is not None and place.parent != home:
            shadows[name] = place
    if not shadows:
        return ""
    names, places = ", ".join(shadows), ", ".join(map(str, shadows.values()))
    remedy = _remedy(list(shadows.values()), is_command)
    return f"{places}: found in place of this product's own {names} in {home}; {remedy}"


def _place(found: ModuleSpec | None) -> Path | None:
    """Return the file of a module, or the folder of a package."""
    if found is None or found.origin is None:
        return None
    origin = Path(found.origin).resolve()
    return origin if found.submodule_search_locations is None else origin.parent


def _remedy(places: list[Path], is_command: bool) -> str:
    folders = {place.parent for place in places}
    renamed = "rename it" if len(places) == 1 else "rename them"
    listed = {Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    if folders & listed:
        return f"take that folder out of PYTHONPATH, or {renamed}"
    if folders & {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")}:
        return "another project is installed under that name; install this product into an environment of its own"
    if is_command:
        return (
            "start `perceiver`, or with PYTHONSAFEPATH=1 (`python -P`) what is started by `python -m` or torchrun, so "
            f"that Python does not look in that folder first; or {renamed}"
        )
    return f"{renamed}: a project that imports this one needs other names for its own"
