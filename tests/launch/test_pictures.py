"""What the pictures of a run show: every logged loss and score, and which predictions are wrong."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from test_predict import MODEL, MakeRun, make_run

from configs.plugins import trust
from launch.pictures import drawing
from launch.run.trained import evaluation
from trainer.tasks.metric import Metric

__all__ = ["make_run"]
ACCURACY = Metric("accuracy", "%", highest=1.0)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved; they are saved all the same."""
    figures: list[Figure] = []
    save = drawing._save

    def keep(figure: Figure, out: Path) -> None:
        figures.append(figure)
        save(figure, out)

    monkeypatch.setattr(drawing, "_save", keep)
    return figures


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be saved, which takes most of the time."""
    figures: list[Figure] = []
    monkeypatch.setattr(drawing, "_save", lambda figure, _out: figures.append(figure))
    return figures


@pytest.mark.parametrize("modality", ["array", "eeg"])
def test_an_evaluation_draws_arrays_and_inputs_of_a_plug_in_with_their_predictions(
    make_run: MakeRun, tmp_path: Path, drawn: list[Figure], modality: str
) -> None:
    shutil.copy(Path(__file__).parents[2] / "examples" / "plugins" / "eeg.py", tmp_path)
    size = "shape: [16, 12]" if modality == "array" else "num_samples: 16, num_channels: 12"
    config = f"""
plugins: [{"" if modality == "array" else "eeg.py"}]
data: {{inputs: {{eeg: {{modality: {modality}, members: eeg.npy, {size}}}}}, lanes: 2, window: 8}}
model:
  inputs: {{eeg: {{patch: {"[4]" if modality == "array" else 4}}}}}
  outputs: {{label: {{kind: label, num_classes: 2}}}}{MODEL.replace("global_batch: 8", "global_batch: 4")}"""
    rows = []
    for number in range(10):
        np.save(tmp_path / f"{number}.npy", np.random.default_rng(number).normal(size=(16, 12)))
        row = {
            "member.eeg": f"{number}.npy",
            "label": f"class {number % 2}",
            "split": "test" if number < 5 else "train",
        }
        rows.append(row)
    run = make_run(config, rows)
    trust(run)
    evaluation.main(run, as_json=True)
    assert (run / "pictures" / "inputs_eeg.png").is_file()
    (figure,) = [each for each in drawn if each.axes[0].images and each.axes[0].get_title().startswith("class")]
    assert {axes.images[0].get_array().shape for axes in figure.axes if axes.images} == {(16, 12)}


def test_an_array_of_few_channels_is_curves_and_any_other_a_heat_map(tmp_path: Path, drawn: list[Figure]) -> None:
    shapes = [(9,), (9, 3), (9, 30), (9, 8, 2), (3, 4, 5, 6)]
    drawing.arrays([np.ones(shape) for shape in shapes], list("abcde"), list("abcdx"), tmp_path / "out.png")
    axes = drawn[0].axes[: len(shapes)]
    assert [len(each.lines) for each in axes] == [1, 3, 0, 0, 0]
    assert [each.images[0].get_array().shape for each in axes[2:]] == [(9, 30), (9, 8), (3, 4)]
    assert [each.get_title() for each in axes] == ["a", "b", "c", "d", "x, is e"]
    assert [each.axison for each in drawn[0].axes] == [True] * 5 + [False] * 3


def test_what_was_hidden_of_many_channels_shows_a_grey_ground() -> None:
    hidden = np.ones((1, 9, 30))
    hidden[0, 2] = np.nan
    figure = drawing.samples({"shown": hidden, "drawn": np.ones((1, 9, 30))}, is_unit=False)
    cells = figure.axes
    assert [cells[0].get_aspect(), cells[0].images[0].get_clim()] == ["auto", (1.0, 1.0)]
    assert [cell.get_facecolor() for cell in (cells[0], cells[drawing.COLUMNS])] == [(0.6, 0.6, 0.6, 1.0)] * 2
    assert np.ma.masked_invalid(cells[0].images[0].get_array()).mask[:, 2].all()


def metrics(tmp_path: Path, *records: dict[str, object]) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_loss_curve_has_every_loss_and_every_score_by_step(tmp_path: Path, drawn: list[Figure]) -> None:
    path = metrics(
        tmp_path,
        {"kind": "train", "step": 10, "loss": 2.0},
        {"kind": "evaluation", "step": 10, "samples": 5, "label/accuracy": 0.25, "label/accuracy/image": 0.125},
        {"kind": "train", "step": 20, "loss": 1.0},
        {"kind": "train", "step": 25, "loss": None},
        {"kind": "save", "step": 20, "loss": 9.0},
        {"kind": "evaluation", "step": 20, "samples": 5, "label/accuracy": 0.5, "label/accuracy/image": None},
        {
            "kind": "evaluation",
            "step": 30,
            "samples": 5,
            "label/accuracy": 0.75,
            "label/accuracy/image": 0.5,
            "colour/accuracy": 3.0,
        },
    )
    drawing.loss_curve(path, tmp_path / "loss.png", "label", ACCURACY)
    left, right = drawn[0].axes
    assert [line.get_xydata().tolist() for line in left.lines] == [[[10, 2], [20, 1]]]
    assert left.get_yscale() == "log"
    assert {line.get_label(): line.get_xydata().tolist() for line in right.lines} == {
        "all inputs": [[10, 0.25], [20, 0.5], [30, 0.75]],
        "only image": [[10, 0.125], [30, 0.5]],
    }
    assert right.get_ylim() == (0, 1)
    assert right.get_title() == "label: accuracy"
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["all inputs", "only image"]
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size[0] > 100


def test_a_curve_is_drawn_of_a_run_that_has_logged_nothing_and_of_scores_that_are_no_shares(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    drawing.loss_curve(metrics(tmp_path), tmp_path / "loss.png", "label", ACCURACY)
    assert [len(axes.lines) for axes in drawn[0].axes] == [0, 0]
    assert drawn[0].axes[1].get_legend() is None
    assert drawn[0].axes[1].get_title() == "label: accuracy"
    path = metrics(tmp_path, *({"kind": "evaluation", "step": step, "label/psnr": 20.0 + step} for step in (1, 2)))
    drawing.loss_curve(path, tmp_path / "loss.png", "label", Metric("psnr", "dB"))
    right = drawn[1].axes[1]
    assert right.get_ylim()[1] > 20
    assert right.get_ylim()[0] > 20
    assert right.get_title() == "label: psnr (dB)"
    path = metrics(tmp_path, {"kind": "evaluation", "step": 1, "$x$/error": 0.5})
    drawing.loss_curve(path, tmp_path / "loss.png", "$x$", Metric("error", "px", higher_is_better=False))
    right = drawn[2].axes[1]
    assert right.get_title() == "$x$: error (px)"
    assert not any(text.get_parse_math() for text in (right.title, *right.get_legend().get_texts()))
    assert drawing._title("label", Metric("log_loss", "")) == "label: log loss"
    # The legend lies where a curve does not end.
    for axes, is_above in ((right, True), (drawn[1].axes[1], False)):
        legend, middle = axes.get_legend().get_window_extent(), axes.bbox.y0 + axes.bbox.height / 2
        assert bool(legend.y0 > middle) is is_above
        assert bool(legend.y1 < middle) is not is_above


def test_numbers_beside_a_curve_are_steps_and_no_powers_of_ten(tmp_path: Path, drawn: list[Figure]) -> None:
    losses = [{"kind": "train", "step": step, "loss": loss} for step, loss in ((10, 0.67), (12, 0.68))]
    path = metrics(tmp_path, *losses, {"kind": "evaluation", "step": 12, "label/accuracy": 0.5})
    drawing.loss_curve(path, tmp_path / "loss.png", "label", ACCURACY)
    costs = {"GFLOP per sample": [0.027, 0.043]}
    drawing.quality_over_cost([8, 16], costs, [0.5, 0.52], "label", ACCURACY, tmp_path / "latents.png")
    left, right, cost = (axes for figure in drawn for axes in figure.axes)
    assert all(float(tick) == int(tick) for tick in right.get_xticks())
    for axis in (left.yaxis, cost.xaxis):
        words = [tick.get_text() for tick in axis.get_ticklabels(which="both")]
        assert [float(word) for word in words if word]
        assert not any("e" in word or "$" in word for word in words)
    ticks = zip(cost.get_yticks(), cost.get_yticklabels(), strict=True)
    for tick, text in ticks:
        assert float(text.get_text().removesuffix("%")) == pytest.approx(100 * tick)


@pytest.mark.parametrize(
    ("limits", "words"),
    [((0.9, 1.3), "0.9 1"), ((1.1, 4.9), "2 3 4"), ((0.5, 20.0), "1 10")],
)
def test_the_numbers_of_a_loss_are_as_many_as_have_room(limits: tuple[float, float], words: str) -> None:
    axes = Figure().subplots()
    axes.set(yscale="log", ylim=limits)
    drawing._plain_ticks(axes.yaxis)
    inside = [text for text in axes.get_yticklabels(which="both") if limits[0] <= text.get_position()[1] <= limits[1]]
    assert sorted((text.get_text() for text in inside if text.get_text()), key=float) == words.split()


def test_quality_over_cost_has_a_point_and_its_number_for_each_size(figures: list[Figure], tmp_path: Path) -> None:
    costs, values = {"GFLOP": [1.0, 2.0], "ms": [30.0, 50.0]}, [20.0, 22.0]
    drawing.quality_over_cost([8, 16], costs, values, "$x$", Metric("psnr", "dB"), tmp_path / "latents.png")
    for axes, (label, spent) in zip(figures[0].axes, costs.items(), strict=True):
        points = [list(point) for point in zip(spent, values, strict=True)]
        assert [line.get_xydata().tolist() for line in axes.lines] == [points]
        assert [(text.get_text(), list(text.xy)) for text in axes.texts] == list(zip(["8", "16"], points, strict=True))
        # Beside its point, whatever the numbers of the axes are.
        assert {text.anncoords for text in axes.texts} == {"offset points"}
        assert all(max(map(abs, text.xyann)) < 20 for text in axes.texts)
        assert (axes.get_xlabel(), axes.get_xscale(), axes.get_title()) == (label, "log", "$x$: psnr (dB)")
        assert not axes.title.get_parse_math()
        assert axes.get_xgridlines()[0].get_visible()
        assert not any(text.get_text().endswith("%") for text in axes.get_yticklabels())
        # Room for the number beside the last point.
        assert axes.margins()[1] < axes.margins()[0] < 0.5
    width, height = figures[0].get_size_inches()
    assert width > 2 * height


def test_samples_of_any_range_are_drawn_in_that_of_the_last_row() -> None:
    rows = {"seen": np.full((1, 2, 2, 3), 5.0), "true": np.full((1, 2, 2, 3), -3.0)}
    rows["seen"][0, 0] = np.nan
    rows["true"][0, 0] = 5.0
    seen, true = (drawing.samples(rows, is_unit=False).axes[place].images[0].get_array() for place in (0, 8))
    assert seen[..., 0].tolist() == [[0.6, 0.6], [1, 1]]
    assert true[..., 0].tolist() == [[1, 1], [0, 0]]
    # Of one value and of none there is no range.
    rows["true"][:] = 4.5
    assert (drawing.samples(rows, is_unit=False).axes[0].images[0].get_array()[1] == 0.5).all()
    assert drawing._range(np.array([np.nan])) == (0.0, 1.0)


def test_as_many_channels_as_can_be_told_apart_are_curves_and_more_a_map() -> None:
    few, more = (np.tile(np.linspace(-3.0, 5.0, channels), (1, 4, 1)) for channels in (8, 9))
    curves, heat = (drawing.samples({"true": each}, is_unit=False).axes[0] for each in (few, more))
    assert (len(curves.lines), len(curves.images)) == (8, 0)
    assert curves.get_ylim() == pytest.approx((-3.4, 5.4))
    assert (len(heat.lines), heat.images[0].get_clim()) == (0, (-3.0, 5.0))


def test_a_confusion_of_few_classes_has_its_numbers_written_in(tmp_path: Path, drawn: list[Figure]) -> None:
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 1, 1]])
    drawing.confusion(counts, ["a", "$x$", "b" * 13], tmp_path / "confusion.png")
    (axes,) = drawn[0].axes
    words = [text.get_text() for text in axes.texts]
    assert words == ["75%", "25%", "0%", "0%", "0%", "0%", "0%", "50%", "50%"]
    assert [text.get_position() for text in axes.texts[:2]] == [(0, 0), (1, 0)]
    assert {(text.get_ha(), text.get_va()) for text in axes.texts} == {("center", "center")}
    # White on dark: full cells are dark and empty ones bright.
    assert [text.get_color() for text in axes.texts] == ["white"] + ["black"] * 8
    (cells,) = axes.images
    assert cells.get_clim() == (0, 1)
    assert sum(cells.to_rgba(1.0)[:3]) < 1 < 2 < sum(cells.to_rgba(0.0)[:3])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answered", "true")
    names = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    assert [name.get_text() for name in names] == ["a", "$x$", "b" * 12 + "…"] * 2
    assert not any(name.get_parse_math() for name in names)
    assert {name.get_rotation() for name in axes.get_xticklabels()} == {90}
    width, height = drawn[0].get_size_inches()
    assert width == height
    assert drawn[0].get_layout_engine() is not None


@pytest.mark.parametrize(("classes", "written", "named"), [(12, 144, 12), (13, 0, 13), (40, 0, 40), (41, 0, None)])
def test_a_confusion_of_many_classes_has_the_words_that_have_room(
    figures: list[Figure], tmp_path: Path, classes: int, written: int, named: int | None
) -> None:
    drawing.confusion(np.eye(classes, dtype=int), [], tmp_path / "confusion.png")
    (axes,) = figures[0].axes
    assert len(axes.texts) == written
    if named:
        assert [name.get_text() for name in axes.get_xticklabels()] == list(map(str, range(named)))
    else:
        assert len(axes.get_xticks()) < 20


def test_wrong_predictions_are_red_and_say_what_is_true(tmp_path: Path, drawn: list[Figure]) -> None:
    images = np.random.default_rng(0).random((9, 4, 4, 3)).astype(np.float32)
    truths = ["cat"] * 8 + ["x" * 50]
    guesses = ["cat", "dog", *["cat"] * 6, "x" * 50]
    drawing.predictions(images, truths, guesses, tmp_path / "predictions.png")
    cells = drawn[0].axes
    assert len(cells) == 16
    titles = [(cell.get_title(), cell.title.get_color()) for cell in cells[:9]]
    assert titles[:2] == [("cat", "black"), ("dog, is cat", "red")]
    assert titles[8][0] == "x" * 40 + "…"
    shown = [cell.images[0].get_array() for cell in cells[:9]]
    assert all(np.allclose(one, other) for one, other in zip(shown, images, strict=True))
    assert not any(cell.images for cell in cells[9:])
    assert not any(cell.axison for cell in cells)
    drawing.predictions(images[:8], truths[:8], guesses[:8], tmp_path / "predictions.png")
    assert len(drawn[1].axes) == 8


def test_samples_are_drawn_whole_clips_by_their_middle_frame_and_recordings_as_waves(tmp_path: Path) -> None:
    values = np.random.default_rng(0)
    images = values.random((2, 4, 4, 3)).astype(np.float32) * 3 - 1
    clips = values.random((2, 5, 4, 4, 3)).astype(np.float32)
    waves = values.random((2, 10, 1)).astype(np.float32)
    figure = drawing.samples({"images": images, "clips": clips, "waves": waves})
    rows = [figure.axes[start : start + 8] for start in (0, 8, 16)]
    assert [row[0].get_title() for row in rows] == ["images", "clips", "waves"]
    for index in range(2):
        assert np.allclose(rows[0][index].images[0].get_array(), images[index].clip(0, 1))
        assert np.allclose(rows[1][index].images[0].get_array(), clips[index][2])
        assert np.allclose(rows[2][index].lines[0].get_ydata(), waves[index].ravel())
        assert rows[2][index].get_ylim() == (-1, 1)
    assert not any(cell.images or cell.lines for row in rows for cell in row[2:])
    assert all(len(cell.get_xticks()) == len(cell.get_yticks()) == 0 for cell in figure.axes)
    picture = drawing.pixels(figure)
    assert (picture.dtype, picture.shape[2]) == (np.uint8, 3)
    drawing.reconstructions(images, images, tmp_path / "drawn.png", seen=None, num_entries=0, is_unit=True)
    with Image.open(tmp_path / "drawn.png") as file:
        assert file.size[0] > 100


def test_pictures_grow_with_what_is_in_them_and_nothing_in_them_overlaps(tmp_path: Path, drawn: list[Figure]) -> None:
    images = np.zeros((17, 4, 4, 3), dtype=np.float32)
    for count in (1, 17):
        names = ["cat"] * count
        drawing.predictions(images[:count], names, names, tmp_path / "predictions.png")
        drawing.arrays(images[:count], names, names, tmp_path / "arrays.png")
    for one, three in ((figure.get_size_inches() for figure in drawn[start::2]) for start in (0, 1)):
        assert (three[0], three[1]) == (one[0], pytest.approx(3 * one[1]))
        assert one[0] > 8 > 3 > one[1]
    rows = [drawing.samples(dict.fromkeys("ab"[:count], images[:1])) for count in (1, 2)]
    assert rows[1].get_size_inches()[1] == pytest.approx(2 * rows[0].get_size_inches()[1])
    assert rows[0].get_size_inches()[0] > 8
    drawing.loss_curve(metrics(tmp_path), tmp_path / "loss.png", "label", ACCURACY)
    width, height = drawn[-1].get_size_inches()
    assert width > 1.5 * height, "two curves stand beside each other"
    assert all(figure.get_layout_engine() is not None for figure in [*drawn, *rows])


def test_a_curve_says_what_its_axes_and_lines_are(tmp_path: Path, drawn: list[Figure]) -> None:
    path = metrics(tmp_path, {"kind": "evaluation", "step": 1, "label/accuracy": 0.5})
    drawing.loss_curve(path, tmp_path / "loss.png", "label", ACCURACY)
    left, right = drawn[0].axes
    assert (left.get_title(), left.get_xlabel(), right.get_xlabel()) == ("training loss", "step", "step")
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["all inputs"]
    assert right.lines[0].get_marker() == "."
    assert all(axes.get_xgridlines()[0].get_visible() for axes in (left, right))


def test_more_samples_than_a_row_holds_are_left_out_and_a_picture_has_three_channels() -> None:
    images = np.random.default_rng(0).random((10, 4, 4, 3)).astype(np.float32)
    figure = drawing.samples({"images": images})
    assert len(figure.axes) == 8
    assert all(cell.images for cell in figure.axes)
    height, width, channels = drawing.pixels(figure).shape
    assert channels == 3
    assert width > height > 10


def test_a_picture_is_not_worth_a_sync_of_the_disk(tmp_path: Path, disk_calls: list[tuple[str, str]]) -> None:
    drawing.loss_curve(metrics(tmp_path), tmp_path / "loss.png", "label", ACCURACY)
    assert [kind for kind, _ in disk_calls] == ["name"]


def test_a_name_of_exactly_as_many_letters_as_fit_is_shown_whole(tmp_path: Path, drawn: list[Figure]) -> None:
    images, names = np.zeros((2, 4, 4, 3)), ["x" * 40, "$x$"]
    drawing.predictions(images, names, names, tmp_path / "predictions.png")
    assert [cell.get_title() for cell in drawn[0].axes[:2]] == names
    assert not any(cell.title.get_parse_math() for cell in drawn[0].axes[:2])
