"""No bytes make a decoder start a process, or open a file or a socket: the kernel kills whoever tries."""

import ctypes
import io
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
import tifffile
from PIL import Image

from data_shards.modalities.kinds.catalogue import BY_NAME
from data_shards.sources.digits import Drawn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter has the numbers of x86-64's system calls"),
]

OPEN, SOCKET, CLONE, FORK, VFORK, EXEC, CREATE, OPEN_AT, EXEC_AT, CLONE_3, OPEN_AT_2 = (
    2,
    41,
    56,
    57,
    58,
    59,
    85,
    257,
    322,
    435,
    437,
)
KILL, ALLOW, NOT_THERE = 0x8000_0000, 0x7FFF_0000, 0x0005_0000 | 38
IS_A_THREAD = 0x10000
TEXTS = {
    "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 45678 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\n",
    "ffconcat": "ffconcat version 1.0\nfile {file}\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{file}\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>file://{file}</BaseURL></MPD>',
    "smil": "<smil><body><video src='{file}'/></body></smil>",
    "playlist": "[playlist]\nFile1={file}\nNumberOfEntries=1\n",
    "postscript": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n({file}) (r) file\n%%EOF\n",
    "svg": '<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file://{file}">]><svg>&x;</svg>',
    "vob index": "# VobSub index file, v7\nid: en, index: 0\n",
    "pattern": "/tmp/%d.png",
    "subtitles": "1\n00:00:00,000 --> 00:00:01,000\n{file}\n",
    "pickle": "cos\nsystem\n(S'touch {file}'\ntR.",
}

PACKED = (None, "lzw", "zlib", "packbits", "zstd", "lzma")


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    return file.getvalue()


def sound(kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(99), 8_000, format=kind)
    return file.getvalue()


def cloud_of_objects(name: str) -> bytes:
    class Opening:
        def __reduce__(self) -> tuple[object, ...]:
            return open, (name, "w")

    file = io.BytesIO()
    np.save(file, np.array([Opening()], object), allow_pickle=True)
    return file.getvalue()


def elsewhere(tmp_path: Path) -> bytes:
    """An HDF5 file whose data lie in another file."""
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["data"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/data")
    return (tmp_path / "links.h5").read_bytes()


def tiff(packed: str | None, **options: str) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((8, 8), np.float32), compression=packed, **options)
    return file.getvalue()


def picture_of_another_file(name: str) -> bytes:
    """An OME-TIFF whose notes say that its pixels are in another file."""
    head = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    data = f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:0</UUID></TiffData>'
    pixels = 'DimensionOrder="XYCZT" ID="P:0" SizeC="1" SizeT="1" SizeX="8" SizeY="8" SizeZ="1" Type="float"'
    note = f'{head}<Image ID="I:0"><Pixels {pixels}>{data}</Pixels></Image></OME>'
    return tiff(None, description=note, metadata=None)  # type: ignore[arg-type]  # of tifffile


def clip_of_another_file(name: str) -> bytes:
    """An MP4 whose data reference is a URL."""
    clip = bytearray(Drawn(0, 0, "mp4").read())
    reference = struct.pack(">I", 20 + len(name)) + b"url \0\0\0\0file://" + name.encode() + b"\0"
    place = clip.index(b"\0\0\0\x0curl ")
    clip[place : place + 12] = reference
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        size = slice(clip.index(box) - 4, clip.index(box))
        clip[size] = struct.pack(">I", int.from_bytes(clip[size], "big") + len(reference) - 12)
    return bytes(clip)


def wrapped(text: bytes) -> list[bytes]:
    """The text alone, and behind the first bytes of what is read."""
    starts = (
        b"RIFF\0\0\0\0AVI ",
        b"\0\0\0\x08free",
        b"\x1aE\xdf\xa3\x80",
        b"ID3\4\0\0\0\0\0\0",
        b"P6\n",
        b"BM",
        b"OggS",
    )
    return [text, *(start + text for start in starts)]


@pytest.fixture
def hostile(tmp_path: Path) -> list[bytes]:
    name = str(tmp_path / "secret")
    Path(name).write_text("secret")
    texts = [content for text in TEXTS.values() for content in wrapped(text.replace("{file}", name).encode())]
    pictures = [picture(kind) for kind in ("EPS", "PDF", "ICNS", "GIF", "TIFF", "MPO", "AVIF")]
    pictures += [picture_of_another_file(name), *map(tiff, PACKED)]
    return [*texts, *pictures, cloud_of_objects(name), elsewhere(tmp_path), clip_of_another_file(name)]


def decoded_in_a_cage(inputs: list[bytes], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    for number, data in enumerate(inputs):
        (tmp_path / f"{number:04d}").write_bytes(data)
    return subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, timeout=200, check=False
    )


def test_no_bytes_reach_beyond_the_decoders(hostile: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    child = decoded_in_a_cage(hostile, tmp_path / "in")
    assert child.returncode == 0, f"{signal.strsignal(-child.returncode)} at {child.stdout[-300:]}{child.stderr}"
    outcomes = json.loads(child.stdout.splitlines()[-1])
    assert len(outcomes) == len(hostile)
    assert outcomes[-1]["video"] == "(8, 32, 32, 3)", "its own data, not that of the file that it names"


@pytest.mark.parametrize("what", ["open", "socket", "process", "open in C"])
def test_the_kernel_kills_whoever_tries(what: str, tmp_path: Path) -> None:
    (tmp_path / what).write_bytes(b"")
    child = decoded_in_a_cage([], tmp_path)
    assert child.returncode == -signal.SIGSYS


def lock() -> None:
    """Let the kernel kill this process when it opens something or starts another process; threads are no processes."""
    lines = [(0x20, 0, 0, 0)]  # the number of the call
    for number in (OPEN, SOCKET, FORK, VFORK, EXEC, CREATE, OPEN_AT, EXEC_AT, OPEN_AT_2):
        lines += [(0x15, 0, 1, number), (0x06, 0, 0, KILL)]
    # The C library falls back from the newer call, whose arguments a filter cannot see.
    lines += [(0x15, 0, 1, CLONE_3), (0x06, 0, 0, NOT_THERE)]
    lines += [(0x15, 0, 3, CLONE), (0x20, 0, 0, 16), (0x45, 1, 0, IS_A_THREAD), (0x06, 0, 0, KILL), (0x06, 0, 0, ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    header = ctypes.create_string_buffer(struct.pack("HP", len(lines), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_filter = 38, 22
    assert libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0
    assert libc.prctl(set_filter, 2, header, 0, 0) == 0, ctypes.get_errno()


def decoded_shape(content: str, data: bytes) -> tuple[int, ...]:
    kind, role = ("flow", "motion") if content == "motion" else (content, "")
    return BY_NAME[kind].decoded_shape(role, data)


def outcome(content: str, data: bytes) -> str:
    try:
        return str(decoded_shape(content, data))
    except ValueError as error:
        return str(error)


def break_out(how: str) -> None:
    match how:
        case "open":
            Path("/dev/null").read_bytes()
        case "socket":
            socket.socket()
        case "process":
            os.fork()
        case "open in C":
            ctypes.CDLL(None).fopen(b"/dev/null", b"r")


def main() -> None:
    """Decode every file of the folder as every content, locked up."""
    contents = ("image", "audio", "video", "points", "text", "flow", "motion")
    inputs = {path.name: path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())}
    # What is imported at the first use, is now.
    for extension, content in (("png", "image"), ("wav", "audio"), ("mp4", "video"), ("npy", "points")):
        decoded_shape(content, Drawn(0, 0, extension).read())
    for kind in ("JPEG", "WEBP", "BMP", "PPM", "MPO"):
        decoded_shape("image", picture(kind))
    outcome("text", b"a")
    outcome("motion", b"a")
    for kind in PACKED:
        decoded_shape("image", tiff(kind))
    # Its library for callbacks looks at /proc once.
    decoded_shape("audio", sound("OGG"))

    lock()
    for name in inputs.keys() & {"open", "socket", "process", "open in C"}:
        break_out(name)
    outcomes = []
    for name, data in inputs.items():
        print(name, repr(data[:60]), flush=True)  # noqa: T201
        outcomes.append({content: outcome(content, data) for content in contents})
    print(json.dumps(outcomes))  # noqa: T201


if __name__ == "__main__":
    main()
