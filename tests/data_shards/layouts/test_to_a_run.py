"""From a published data set to an evaluated run: built in its layout, trained by its recipe with --tiny.

Four are in the ordinary suite. All: RECIPES=all .venv/bin/pytest tests/data_shards/layouts/test_to_a_run.py
"""

import gzip
import io
import json
import os
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from launch.cli.main import app

Put = Callable[..., Path]
Encode = Callable[..., bytes]
TRAIN, HELD = 8, 2
CLASSES = ("model.outputs.label.num_classes=2",)


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 8_000, 0, "NONE", "not compressed"))
        out.writeframes(np.arange(4_000, dtype="<i2").tobytes())
    return file.getvalue()


def mp4() -> bytes:
    """A clip with sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        heard = container.add_stream("aac", rate=16_000, layout="mono")
        for number in range(8):
            frame = np.full((16, 16, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 16_000
        container.mux(heard.encode(sound))
        for each in (stream, heard):
            container.mux(each.encode(None))
    return file.getvalue()


def imagenet(put: Put, picture: Encode, _: Encode) -> None:
    for split, count in (("train", TRAIN), ("val", HELD)):
        for number in range(count):
            synset = f"n0000000{number % 2}"
            put(f"{split}/{synset}/{synset}_{number}.JPEG", picture(10 * number, "JPEG", (40, 30)))


def audioset(put: Put, _: Encode, __: Encode) -> None:
    head = "# of 2017\n# num_ytids=8\n# YTID, start_seconds, end_seconds, positive_labels\n"
    for name, first, count in (("balanced_train", 0, TRAIN), ("unbalanced_train", 0, 0), ("eval", TRAIN, HELD)):
        ids = [f"clip{number:07d}" for number in range(first, first + count)]
        lines = [f'{each}, 0.000, 10.000, "/m/a{",/m/b" * (place % 2)}"\n' for place, each in enumerate(ids)]
        put(f"{name}_segments.csv", (head + "".join(lines)).encode())
        for each in ids:
            put(f"audio/{each}.wav", wav())
            put(f"video/{each}.mp4", mp4())
    put("class_labels_indices.csv", b'index,mid,display_name\n0,/m/a,"Speech"\n1,/m/b,"Music"\n')


def kinetics(put: Put, _: Encode, __: Encode) -> None:
    for split, named, first, count in (("train", "train", 0, TRAIN), ("val", "validate", TRAIN, HELD)):
        lines = "label,youtube_id,time_start,time_end,split\n"
        for number in range(first, first + count):
            lines += f"{('yoga', 'zumba')[number % 2]},clip{number:07d},0,10,{named}\n"
            put(f"{split}/clip{number:07d}_000000_000010.mp4", mp4())
        put(f"annotations/{split}.csv", lines.encode())


def modelnet40(put: Put, _: Encode, __: Encode) -> None:
    mesh = b"OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n"
    for split, count in (("train", TRAIN), ("test", HELD)):
        for number in range(count):
            name = ("chair", "lamp")[number % 2]
            put(f"{name}/{split}/{name}_{number:04d}.off", mesh)


def chairs(put: Put, picture: Encode, flo: Encode) -> None:
    for number in range(1, TRAIN + HELD + 1):
        put(f"data/{number:05d}_img1.ppm", picture(number, "PPM", (24, 16)))
        put(f"data/{number:05d}_img2.ppm", picture(100 + number, "PPM", (24, 16)))
        put(f"data/{number:05d}_flow.flo", flo(number, -number, (24, 16)))
    put("FlyingChairs_train_val.txt", b"1\n" * TRAIN + b"2\n" * HELD)


def autoflow(put: Put, picture: Encode, flo: Encode) -> None:
    for number in range(TRAIN + HELD):
        place = f"static_40k_png_1_of_4/table_{number}_batch_0"
        put(f"{place}/im0.png", picture(number, "PNG", (24, 16)))
        put(f"{place}/im1.png", picture(100 + number, "PNG", (24, 16)))
        put(f"{place}/forward.flo", flo(number, -number, (24, 16)))


def kitti(put: Put, picture: Encode, _: Encode, deep_png: Encode) -> None:
    coded = np.full((16, 24, 3), (1 << 15) + 64, np.uint16)
    for number in range(TRAIN + HELD):
        put(f"training/image_2/{number:06d}_10.png", picture(number, "PNG", (24, 16)))
        put(f"training/image_2/{number:06d}_11.png", picture(100 + number, "PNG", (24, 16)))
        put(f"training/flow_occ/{number:06d}_10.png", deep_png(coded))


def sintel(put: Put, picture: Encode, flo: Encode) -> None:
    for number in range(HELD + 1):
        for kind in ("clean", "final"):
            put(f"training/{kind}/alley_1/frame_{number:04d}.png", picture(number, "PNG", (24, 16)))
    for number in range(HELD):
        put(f"training/flow/alley_1/frame_{number:04d}.flo", flo(number, 0, (24, 16)))


def wikipedia(put: Put, _: Encode, __: Encode) -> None:
    page = "some words that are read " * 24
    put("AA/wiki_00", f'<doc id="1" url="u" title="T">\nT\n\n{page}\n</doc>\n'.encode())


def c4(put: Put, _: Encode, __: Encode) -> None:
    for name, count in (("c4-train.00000-of-00001", TRAIN), ("c4-validation.00000-of-00001", HELD)):
        line = json.dumps({"text": "some words that are read " * 6, "url": "a", "timestamp": "b"}) + "\n"
        put(f"{name}.json.gz", gzip.compress((line * count).encode()))


def cola(put: Put, _: Encode, __: Encode) -> None:
    for name, count in (("train", TRAIN), ("dev", HELD)):
        put(f"CoLA/{name}.tsv", "".join(f"gj04\t{n % 2}\t\tSentence {n}.\n" for n in range(count)).encode())


def glue(put: Put, _: Encode, __: Encode) -> None:
    """All eight tasks of the recipe, each with its own columns."""
    lines = {
        "CoLA": [f"s\t{n % 2}\t\tA sentence {n}." for n in range(4)],
        "SST-2": ["sentence\tlabel", *(f"fine {n}\t{n % 2}" for n in range(4))],
        "MRPC": ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *(f"{n % 2}\t1\t2\tOne {n}\tTwo" for n in range(4))],
        "QQP": [
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            *(f"1\t2\t3\tA{n}?\tB?\t{n % 2}" for n in range(4)),
        ],
        "STS-B": ["index\tsentence1\tsentence2\tscore", *(f"0\tA {n}\tB\t{n}.5" for n in range(4))],
        "MNLI": [
            "index\tsentence1\tsentence2\tgold_label",
            *(f"0\tP\tH\t{label}" for label in ("entailment", "neutral", "contradiction")),
        ],
        "QNLI": ["index\tquestion\tsentence\tlabel", "0\tA?\tB\tentailment", "1\tA?\tC\tnot_entailment"],
        "RTE": ["index\tsentence1\tsentence2\tlabel", "0\tA\tB\tentailment", "1\tA\tC\tnot_entailment"],
    }
    for task, rows in lines.items():
        for split in ("train", "dev_matched" if task == "MNLI" else "dev"):
            put(f"{task}/{split}.tsv", "".join(f"{row}\n" for row in rows).encode())


# The layout, what is typed to build it, its recipe, and what is typed beside the shards.
CASES: dict[str, tuple[Callable[[Put, Encode, Encode], None], tuple[str, ...], str, tuple[str, ...]]] = {
    "audioset": (audioset, ("audioset",), "perceiver_audioset_av", CLASSES),
    "autoflow": (autoflow, ("autoflow", "--test-share", "0.2"), "perceiver_io_flow", ()),
    "flying-chairs": (chairs, ("flying-chairs",), "perceiver_io_flow", ()),
    "imagenet": (imagenet, ("imagenet",), "perceiver_io_imagenet", CLASSES),
    "kinetics": (
        kinetics,
        ("kinetics",),
        "perceiver_io_kinetics_autoencoding",
        (*CLASSES, "data.inputs.label.num_classes=2", "model.inputs.label.num_classes=2"),
    ),
    "modelnet40": (modelnet40, ("modelnet40", "--num-points", "40"), "perceiver_modelnet40", CLASSES),
    "wikipedia": (
        wikipedia,
        ("wikipedia", "--num-bytes", "64", "--test-share", "0.2"),
        "perceiver_io_mlm_bytes",
        (),
    ),
    "c4": (c4, ("c4", "--num-bytes", "64"), "perceiver_io_mlm_bytes", ()),
    "all of glue": (glue, ("glue",), "perceiver_io_glue", ()),
    "glue": (cola, ("glue", "--task", "cola"), "perceiver_io_glue_single", ()),
}
CHOSEN = CASES if os.environ.get("RECIPES") == "all" else ("all of glue", "audioset", "flying-chairs", "modelnet40")


def trained(run: Path, recipe: str, *words: str) -> dict[str, Any]:
    """Train a recipe with --tiny, and return its evaluation."""
    typed = ["train", f"recipes/{recipe}", *words, "--run", str(run), "--tiny"]
    done = CliRunner().invoke(app, typed, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    [evaluation] = [line for line in lines if line["kind"] == "evaluation"]
    assert evaluation["step"] == 2
    return dict(evaluation)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOSEN)
def test_a_published_data_set_becomes_an_evaluated_run_by_its_recipe(
    name: str, build: Callable[..., Any], put: Put, picture: Encode, flo: Encode, tmp_path: Path
) -> None:
    write, (layout, *options), recipe, typed = CASES[name]
    write(put, picture, flo)
    folder = tmp_path / "raw" / "CoLA" if name == "glue" else None
    built = build(layout, *options, folder=folder)
    evaluation = trained(tmp_path / "run", recipe, f"data.shards={built.folder}", *typed)
    held = next(count for split, count in built.counts.items() if split != "train")
    # Of several answers the samples of the first, CoLA, are counted.
    assert evaluation["samples"] == (4 if name == "all of glue" else held) > 0


@pytest.mark.slow
@pytest.mark.skipif(CHOSEN is not CASES, reason="RECIPES=all")
def test_flow_is_evaluated_on_sintel_in_tiles_and_trained_on_others_as_the_recipe_says(
    build: Callable[..., Any], put: Put, picture: Encode, flo: Encode, deep_png: Encode, tmp_path: Path
) -> None:
    sintel(put, picture, flo)
    held = build("sintel", out="sintel")
    autoflow(put, picture, flo)
    kitti(put, picture, flo, deep_png)
    data = {name: build(name, out=name).folder for name in ("autoflow", "kitti")}
    datasets = [f"data.datasets.{name}.shards={folder}" for name, folder in data.items()]
    # What is typed is not shrunk by --tiny: four tiles of a training's size in place of Sintel's 436 x 1024.
    of_both = [f"{part}.inputs.flow.{size}" for part in ("data", "model") for size in ("height=8", "width=12")]
    tiles = [*of_both, "data.inputs.flow.test_height=16", "data.inputs.flow.test_width=24"]
    shards = [f"data.shards={held.folder}", "data.eval_split=clean"]
    evaluation = trained(tmp_path / "run", "perceiver_io_flow", *shards, *datasets, *tiles)
    assert evaluation["samples"] == HELD
    done = CliRunner().invoke(
        app, ["eval", str(tmp_path / "run"), "--split", "final", "--json"], catch_exceptions=False
    )
    assert json.loads(done.stdout)["samples"] == HELD
