"""PatientFile: a file for appending. A full disk does not end the run."""

from contextlib import suppress
from pathlib import Path


class PatientFile:
    """What the disk does not take at once is kept and written before what comes next."""

    def __init__(self, path: Path) -> None:
        # Unbuffered: what Python buffers is tried again when the file is closed, and lost if that fails.
        self._file = path.open("ab", buffering=0)
        self._waiting = b""

    def write(self, content: bytes) -> None:
        """Append the bytes, or keep them for later."""
        self._waiting += content
        with suppress(OSError):
            self._write()

    def close(self) -> None:
        """Close the file; OSError where the disk still does not take what is left."""
        with self._file:
            self._write()

    def _write(self) -> None:
        while self._waiting:
            # A disk that is nearly full takes a part.
            self._waiting = self._waiting[self._file.write(self._waiting) :]
