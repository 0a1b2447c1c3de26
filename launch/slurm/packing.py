"""The Python environment as one file, which each node of a job unpacks once to its own disk.

Thousands of ranks that start at once ask a shared disk for thousands of small files each. One large file a node is
read at the disk's full speed, and the ranks then start from a disk of their own.

    submit        the environment --> pack_folder/environment-HASH.tar, if it is not there
    node, ranks   lock: the first unpacks, the others wait --> each keeps the lock, shared --> python
    node, end     lock, if nobody has it: remove the folder
"""

import hashlib
import os
import shlex
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from data_shards.files import atomic
from launch.lifecycle.cluster import ClusterConfig

_OF_THE_SYSTEM = (Path("/"), Path("/usr"), Path("/usr/local"))


def archive(cluster: ClusterConfig, prefix: Path | None = None) -> Path | None:
    """Return the file for the environment that submits, named by its content; None where the profile packs nothing.

    ValueError where the environment has no folder of its own.
    """
    if not cluster.pack_folder:
        return None
    prefix = prefix or Path(sys.prefix)
    if prefix in _OF_THE_SYSTEM:
        raise ValueError(
            f"pack_folder is set, but the python that submits, {sys.executable}, is the system's own; submit with that "
            "of an environment (python -m venv), or leave pack_folder out"
        )
    digest = hashlib.sha256()
    for path in _files(prefix):
        status = path.lstat()
        digest.update(f"{path.relative_to(prefix)} {status.st_size} {status.st_mtime_ns}\n".encode(errors="replace"))
    return Path(cluster.pack_folder).resolve() / f"environment-{digest.hexdigest()[:16]}.tar"


def pack(cluster: ClusterConfig, prefix: Path | None = None) -> Path | None:
    """Return the packed file, written and reported if it did not exist; None if the profile packs nothing."""
    path, prefix = archive(cluster, prefix), prefix or Path(sys.prefix)
    if path is None or path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.written_beside(path) as file, tarfile.open(fileobj=file, mode="w") as tar:
            for each in _files(prefix):
                tar.add(each, str(each.relative_to(prefix)), recursive=False)
    except OSError as error:
        raise ValueError(
            f"{path}: the environment cannot be packed ({error.strerror or error}); free space, or name another "
            "pack_folder in the profile"
        ) from error
    sys.stderr.write(f"note: packed {prefix}, {path.stat().st_size / 2**30:.2f} GiB, into {path}\n")
    return path


def variables(cluster: ClusterConfig, path: Path) -> list[str]:
    """Return the lines of the batch script that say what the ranks unpack, and where."""
    return [
        f"export PERCEIVER_PACKED={shlex.quote(str(path))}",
        # The node's own variables are for its ranks to fill in: the profile allows nothing else that a shell would run.
        f"export PERCEIVER_UNPACK={shlex.quote(cluster.unpack_folder or '${TMPDIR:-/tmp}')}",
    ]


def cleaning(cluster: ClusterConfig) -> list[str]:
    """Return the shell that removes on each node what its ranks unpacked, and leaves with the status of before."""
    arguments = ["--ntasks=$SLURM_JOB_NUM_NODES", "--ntasks-per-node=1", "--export=ALL"]
    srun = " ".join(["timeout 60 srun", *arguments, *map(shlex.quote, cluster.srun_arguments)])
    return ["STATUS=$?", f"{srun} sh -c {shlex.quote(CLEAN)} > /dev/null 2>&1", "(exit $STATUS)"]


_PLACE = """
eval "FOLDER=$PERCEIVER_UNPACK"; PLACE="$FOLDER/perceiver-$(basename "$PERCEIVER_PACKED" .tar)-$(id -u)"
"""

# Under a lock of the node one rank unpacks while the others wait. Then each keeps the lock, shared, until its python
# has ended: whoever cleans up knows whether the folder is in use, by another job of the same environment too.
UNPACK = (
    _PLACE
    + r"""
FAILED="$PLACE.failed-$PERCEIVER_JOB-$PERCEIVER_ATTEMPT"
unpacked() {
  [ -x "$PLACE/bin/python" ] && return 0
  [ -e "$FAILED" ] && return 1
  rm -rf "$PLACE" "$PLACE.part"
  mkdir "$PLACE.part" && tar -xf "$PERCEIVER_PACKED" -C "$PLACE.part" && [ -x "$PLACE.part/bin/python" ] &&
    mv "$PLACE.part" "$PLACE" && return 0
  rm -rf "$PLACE.part"; : > "$FAILED"
  echo "perceiver: $(hostname): $PERCEIVER_PACKED cannot be unpacked into $FOLDER; its ranks start from $1" >&2
  return 1
}
locked() {
  until [ "$PLACE.lock" -ef /proc/self/fd/9 ]; do
    # A file that was removed while this rank waited for it keeps nobody out.
    (: >> "$PLACE.lock") && exec 9>> "$PLACE.lock" && flock 9 || return 1
  done
}
if mkdir -p "$FOLDER" && locked; then
  if unpacked "$1"; then shift; set -- "$PLACE/bin/python" "$@"; fi
  flock -s 9
else
  echo "perceiver: $(hostname): $FOLDER takes no file, or there is no flock; this rank starts from $1" >&2
fi
"""
)

CLEAN = (
    _PLACE
    + r"""
# What a rank started may outlive it by a moment and keeps the lock so long. A lock file that was removed meanwhile says
# nothing of the folder, which may be a new one of another job.
(: >> "$PLACE.lock") && exec 9>> "$PLACE.lock" && flock -w 10 9 && [ "$PLACE.lock" -ef /proc/self/fd/9 ] &&
  rm -rf "$PLACE" "$PLACE.part" "$PLACE".failed-* "$PLACE.lock"
"""
)


def _files(prefix: Path) -> Iterator[Path]:
    """Yield folders, files and links below a folder, each folder before what is in it, in the order of their names."""
    # Sorted: os.walk has the order of the disk, on which the name of the packed file must not depend.
    for root, folders, names in os.walk(prefix):
        yield from (Path(root, name) for name in sorted([*folders, *names]))
        folders[:] = sorted(name for name in folders if not Path(root, name).is_symlink())
