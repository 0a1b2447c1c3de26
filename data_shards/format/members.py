"""What the name of a tar member means: its sample's key, its extension, and the modality of an extension."""

import re

_IMAGES = ("png", "jpg", "jpeg", "webp", "bmp")
_FRAMES = (*_IMAGES, "ppm")
EXTENSIONS = {
    "image": _IMAGES,
    "audio": ("wav", "flac", "mp3", "ogg"),
    "video": ("mp4", "webm", "mkv", "avi", "mov"),
    "points": ("npy", "npz", "ply", "off"),
    "text": ("txt",),
    "flow": tuple(f"first.{extension}" for extension in _FRAMES),
}
"""By modality. Of a pair of frames the first one stands for the pair."""
SECOND_FRAMES = tuple(f"second.{extension}" for extension in _FRAMES)
MOTION = "flo"
"""Member with the motion from the first frame of a pair to the second."""
LABEL = "cls"
"""Member with the label: an integer in ASCII."""
RECORD = "json"
"""Member with the rarely needed rest: {"weight": w, "labels": [...], "named_labels": {"writer": 3}}."""

_MODALITIES = {extension: modality for modality, extensions in EXTENSIONS.items() for extension in extensions}
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)


def modality_of(extension: str) -> str | None:
    """Return the modality that a member of that extension holds, None where it holds none."""
    return _MODALITIES.get(extension)


def content_of(extension: str) -> str | None:
    """Return what is decoded from a member: a modality, also of a pair's second frame, or "motion"; None for notes."""
    if extension == MOTION:
        return "motion"
    return "flow" if extension in SECOND_FRAMES else modality_of(extension)


def key_and_extension(name: str) -> tuple[str, str] | None:
    """Split a member's name at the first dot of its basename, as webdataset does; the extension in lower case.

    None where webdataset passes over a member as well: no dot, a hidden file, or a name such as `__meta__.json`.
    """
    match = _NAME.fullmatch(name)
    if match is None or re.match(r"__[^/]*__($|[/.])", name):
        return None
    return match[1], match[2].lower()
