"""The commands `perceiver data build`: one command per kind of raw input."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from data_shards.building.builder import BuildOptions
from data_shards.building.splits import TRAIN
from data_shards.files.display import printable_lines
from data_shards.format.manifest import Manifest
from launch.cli.console import AsJson, Jobs, Plugins, TrustCode, progress_bar, report_shards, run_config

# Each command imports its source itself: `--help` would otherwise wait for all libraries that decode.
app = typer.Typer(no_args_is_help=True, help="Turn raw files into tar shards and a manifest.")

Out = Annotated[Path, typer.Argument(help="Folder to write. An interrupted build resumes in it.")]
Folder = Annotated[Path, typer.Argument(help="Folder of raw files.")]
Seed = Annotated[
    int,
    typer.Option("--seed", min=0, max=2**63 - 1, help="Random seed. The same seed gives the same bytes."),
]
MaxBad = Annotated[
    int, typer.Option("--max-bad", min=0, help="Maximum number of unreadable rows. More fail the build.")
]
TestShare = Annotated[
    float,
    typer.Option(help="Fraction of each class that becomes the split test, if the files name no split."),
]
PerShard = Annotated[int, typer.Option("--samples-per-shard", min=1, help="Maximum number of samples in a shard.")]


@app.command()
def digits(out: Out, seed: Seed = 0, jobs: Jobs = 2, as_json: AsJson = False) -> None:
    """The built-in digits: each as an image, a keypad tone, a point cloud, a clip and its name in words.

    Example: perceiver data build digits data/digits
    """
    from data_shards.sources import digits as source

    with progress_bar("digits") as progress:
        manifest = source.build(out, seed=seed, num_jobs=jobs, progress=progress)
    report_shards(out, manifest, as_json=as_json)


@app.command("av-digits")
def av_digits(
    out: Out,
    images: Annotated[Path, typer.Option(help="MNIST as PNG: a zip or folder with train|test/DIGIT/*.png.")],
    recordings: Annotated[Path, typer.Option(help="The Free Spoken Digit Dataset: a zip or folder with *.wav.")],
    seed: Seed = 0,
    jobs: Jobs = 2,
    as_json: AsJson = False,
) -> None:
    """Handwritten digits paired with spoken ones.

    Example: perceiver data build av-digits --images mnist_png.zip --recordings fsdd.zip data/av_digits
    """
    from data_shards.sources import av_digits as source

    def build(options: BuildOptions) -> Manifest:
        return source.build(out, images=images, recordings=recordings, **options)

    build_shards("av-digits", [images, recordings], out, as_json, BuildOptions(seed=seed, num_jobs=jobs), build)


@app.command()
def table(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines or Parquet, with one row per sample.")],
    out: Out,
    test_share: TestShare = 0.0,
    max_bad: MaxBad = 0,
    samples_per_shard: PerShard = 1_000,
    seed: Seed = 0,
    jobs: Jobs = 2,
    config: Plugins = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """A table with the columns image, audio, video, points, text (paths, or text in the cell), label, weight, split.

    A label is a number or a name. Several labels are a list, such as [0, 2]. An empty cell or NaN means no label.

    Further labels have the columns label.NAME. Optical flow has first, second (frames) and flow (a .flo file).
    Files of any other kind have the columns member.NAME.

    Example: perceiver data build table samples.csv data/samples
    """
    from data_shards.sources import table as source

    if config:
        run_config(config, trust_code=trust_code)
    options = options_of(seed, samples_per_shard, max_bad, jobs, test_share)
    build_shards(table.name, [table], out, as_json, options, lambda options: source.build(table, out, **options))


@app.command("image-folder")
def image_folder(
    folder: Folder,
    out: Out,
    test_share: TestShare = 0.0,
    max_bad: MaxBad = 0,
    samples_per_shard: PerShard = 1_000,
    seed: Seed = 0,
    jobs: Jobs = 2,
    as_json: AsJson = False,
) -> None:
    """Images in the layout of ImageNet: SPLIT/CLASS/*.jpg. SPLIT is train, test, val and so on, in any case.

    Example: perceiver data build image-folder imagenet data/imagenet
    """
    from data_shards.sources import image_folder as source

    options = options_of(seed, samples_per_shard, max_bad, jobs, test_share)
    build_shards(folder.name, [folder], out, as_json, options, lambda options: source.build(folder, out, **options))


@app.command("audio-folder")
def audio_folder(
    folder: Folder,
    out: Out,
    train_csv: Annotated[Path | None, typer.Option(help="AudioSet's list of training segments.")] = None,
    test_csv: Annotated[Path | None, typer.Option(help="AudioSet's list of evaluation segments.")] = None,
    classes: Annotated[Path | None, typer.Option(help="AudioSet's class_labels_indices.csv.")] = None,
    test_share: TestShare = 0.0,
    max_bad: MaxBad = 0,
    samples_per_shard: PerShard = 1_000,
    seed: Seed = 0,
    jobs: Jobs = 2,
    as_json: AsJson = False,
) -> None:
    """Recordings: one folder per class, or AudioSet's lists with several labels per recording.

    Example: perceiver data build audio-folder recordings data/recordings
    """
    from data_shards.sources import audio_folder as source

    lists = {name: path for name, path in {"train": train_csv, "test": test_csv}.items() if path is not None}
    options = options_of(seed, samples_per_shard, max_bad, jobs, test_share)

    def build(options: BuildOptions) -> Manifest:
        return source.build(folder, out, segments=lists or None, classes=classes, **options)

    build_shards(folder.name, [folder], out, as_json, options, build)


@app.command("point-clouds")
def point_clouds(
    folder: Folder,
    out: Out,
    num_points: Annotated[int, typer.Option(min=0, help="Points to sample from a mesh; 0 stores the mesh.")] = 2_048,
    test_share: TestShare = 0.0,
    max_bad: MaxBad = 0,
    samples_per_shard: PerShard = 1_000,
    seed: Seed = 0,
    jobs: Jobs = 2,
    as_json: AsJson = False,
) -> None:
    """Point clouds and meshes: ModelNet40's folders of OFF files, or its HDF5 files.

    Example: perceiver data build point-clouds ModelNet40 data/modelnet40
    """
    from data_shards.sources import point_clouds as source

    options = options_of(seed, samples_per_shard, max_bad, jobs, test_share)
    build_shards(
        folder.name,
        [folder],
        out,
        as_json,
        options,
        lambda options: source.build(folder, out, num_points=num_points, **options),
    )


@app.command()
def videos(
    source: Annotated[Path, typer.Argument(help="A folder with one folder per class, or a table.")],
    out: Out,
    audio: Annotated[bool, typer.Option(help="Extract the sound too.")] = True,
    test_share: TestShare = 0.0,
    max_bad: MaxBad = 0,
    samples_per_shard: PerShard = 1_000,
    seed: Seed = 0,
    jobs: Jobs = 2,
    as_json: AsJson = False,
) -> None:
    """Videos and their sound.

    Example: perceiver data build videos kinetics data/kinetics
    """
    from data_shards.sources import videos as builder

    options = options_of(seed, samples_per_shard, max_bad, jobs, test_share)
    build_shards(
        source.name, [source], out, as_json, options, lambda options: builder.build(source, out, audio=audio, **options)
    )


@app.command()
def text(
    out: Out,
    train: Annotated[Path, typer.Option(help="Text file, JSON lines, or a folder of them. They may be compressed.")],
    test: Annotated[Path | None, typer.Option(help="The same for the test split.")] = None,
    num_bytes: Annotated[int, typer.Option(min=4, help="Maximum number of bytes in a chunk.")] = 2_048,
    samples_per_shard: PerShard = 1_000,
    seed: Seed = 0,
    jobs: Jobs = 2,
    as_json: AsJson = False,
) -> None:
    """Lines of text or JSON, split into chunks.

    Example: perceiver data build text --train wiki.txt data/wiki
    """
    from data_shards.sources import text as source

    files = {name: path for name, path in {"train": train, "test": test}.items() if path is not None}
    options = BuildOptions(seed=seed, samples_per_shard=samples_per_shard, num_jobs=jobs)

    def build(options: BuildOptions) -> Manifest:
        return source.build(files, out, num_bytes=num_bytes, **options)

    build_shards(train.name, [*files.values()], out, as_json, options, build)


def options_of(seed: int, samples_per_shard: int, max_bad: int, jobs: int, test_share: float) -> BuildOptions:
    """Return the options that the sources of files have in common."""
    return BuildOptions(
        seed=seed, samples_per_shard=samples_per_shard, max_bad=max_bad, num_jobs=jobs, test_share=test_share
    )


def build_shards(
    name: str,
    sources: Sequence[Path],
    out: Path,
    as_json: bool,
    options: BuildOptions,
    build: Callable[[BuildOptions], Manifest],
) -> None:
    """Build shards of the sources, show the progress and what is skipped, and print the result."""
    # Before the first byte is written.
    for source in sources:
        _refuse_within(out, source)
    notes: list[str] = []

    def tell(sentence: str) -> None:
        notes.append(sentence)
        # With --json standard output is for one object alone.
        typer.echo(printable_lines(sentence), err=as_json)

    with progress_bar(name) as progress:
        manifest = build({**options, "progress": progress, "tell": tell})
    # Said now: after a training of days it would be late.
    if manifest.splits.keys() == {TRAIN}:
        tell(
            "there is no split but train, so nothing can be evaluated; `perceiver data build SOURCE --help` says how "
            "to set samples aside"
        )
    report_shards(out, manifest, as_json=as_json, notes=notes)


def _refuse_within(out: Path, source: Path) -> None:
    """Raise ValueError where shards would be written among the files that they are made of, and read with these."""
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out}: lies in {source}, whose files are read; choose a folder outside it")
