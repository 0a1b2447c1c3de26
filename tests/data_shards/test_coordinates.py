"""Coordinates that a sample brings for the cells of an array: read beside the values, cut with them, and scaled."""

import io
from typing import Any

import numpy as np
import pytest

from data_shards.building.inspection.verification import Report
from data_shards.config import DataConfig
from data_shards.loading.batch import layout
from data_shards.loading.sample import BadMemberError, prepare
from data_shards.modalities.kinds.array import ArrayConfig

VALUES = np.arange(14, dtype=np.float32).reshape(7, 2)
PLACES = np.stack([np.arange(7.0), 10 * np.arange(7.0)], axis=1)
FIELDS: dict[str, Any] = {"members": "values.npy", "shape": (4, 2), "coordinates": "places.npy", "num_axes": 2}


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def read(
    values: np.ndarray = VALUES,
    places: np.ndarray | None = PLACES,
    rng: np.random.Generator | None = None,
    **fields: Any,  # noqa: ANN401 - of any key
) -> tuple[np.ndarray, np.ndarray, int]:
    config = DataConfig(inputs={"field": ArrayConfig(**{**FIELDS, **fields})})
    assert list(config.problems()) == []
    members = {"values.npy": npy(values)} | ({} if places is None else {"places.npy": npy(places)})
    sample = prepare(members, config, rng)
    for name, (shape, dtype) in layout(config).items():
        array = sample.arrays[name]
        assert (array.shape, str(array.dtype)) == (shape, str(dtype).removeprefix("torch."))
    return sample.arrays["field"], sample.arrays["field.coordinates"], sample.lengths["field"]


def test_values_and_coordinates_are_cut_together_and_padded_together() -> None:
    starts = set()
    for seed in range(40):
        values, places, length = read(rng=np.random.default_rng(seed))
        np.testing.assert_array_equal(values[:, 0] / 2, places[:, 0])
        np.testing.assert_array_equal(10 * places[:, 0], places[:, 1])
        assert length == 4
        starts.add(float(places[0, 0]))
    assert starts == {0, 1, 2, 3}
    values, places, length = read(VALUES[:3], PLACES[:3])
    assert length == 3
    np.testing.assert_array_equal(places, np.concatenate([PLACES[:3], np.zeros((1, 2))]))


def test_coordinates_are_scaled_before_they_lose_digits() -> None:
    seconds = 1.7e9 + np.arange(4.0)
    fields = {"shape": (4, 2), "num_axes": 1, "coordinates_min": (1.7e9,), "coordinates_max": (1.7e9 + 2,)}
    for places in (seconds, seconds[:, None]):
        np.testing.assert_array_equal(read(VALUES[:4], places, **fields)[1][:, 0], [-1, 0, 1, 2])


@pytest.mark.parametrize(
    ("fields", "values", "places"),
    [
        ({"shape": (4,), "axes": ("place",)}, (4,), (4, 2)),
        ({"shape": (3, 5, 1)}, (3, 5, 1), (3, 5, 2)),
        ({"shape": (3, 5), "axes": ("row", "column"), "num_axes": 3}, (3, 5), (3, 5, 3)),
        ({"shape": (3, 2, 5), "axes": ("row", "channel", "column")}, (3, 2, 5), (3, 5, 2)),
    ],
)
def test_every_cell_has_its_coordinates_whatever_the_axes(
    fields: dict[str, Any], values: tuple[int, ...], places: tuple[int, ...]
) -> None:
    drawn = np.random.default_rng(0).normal(size=places)
    np.testing.assert_array_equal(read(np.ones(values), drawn, **fields)[1], drawn.astype(np.float32))


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (None, "array without its coordinates, .places.npy"),
        (PLACES[:6], r"coordinates of shape \(6, 2\); expected \(7, 2\)"),
        (PLACES[:, :1], r"expected \(7, 2\)"),
        (np.full((7, 2), np.nan), "coordinates that are NaN or infinite"),
        (np.zeros((7, 2), complex), r"\.places\.npy: "),
    ],
)
def test_coordinates_that_do_not_fit_make_the_sample_bad(places: np.ndarray | None, words: str) -> None:
    with pytest.raises(BadMemberError, match=words):
        read(places=places)


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"num_axes": 0}, ["num_axes"]),
        ({"coordinates": "*places"}, []),
        ({"coordinates": "a/b/c"}, ["coordinates"]),
        ({"axes": ("channel", "place")}, ["coordinates"]),
        ({"coordinates_min": (0.0,)}, ["coordinates_min"]),
        ({"coordinates_min": (0.0, 1.0), "coordinates_max": (1.0, 1.0)}, ["coordinates_min"]),
        ({"coordinates": ""}, ["num_axes"]),
        ({"nan": "keep", "standardize": True}, ["standardize"]),
    ],
)
def test_a_problem_of_coordinates_names_its_key(fields: dict[str, Any], keys: list[str]) -> None:
    assert [key for key, _ in ArrayConfig(**{**FIELDS, **fields}).problems()] == keys


def test_nan_can_stay_where_a_value_is_not_known() -> None:
    values = np.array([[1, np.nan], [np.inf, 2], [3, 4], [5, 6]])
    found = read(values, PLACES[:4], nan="keep")[0]
    np.testing.assert_array_equal(found, [[1, np.nan], [np.nan, 2], [3, 4], [5, 6]])


def test_the_report_of_a_verification_has_the_shapes_of_coordinates() -> None:
    section = ArrayConfig(**FIELDS)
    report = Report()
    for role in section.roles:
        report.add_shape(f"field.{role}" if role else "field", section.decoded_shape(role, npy(PLACES)))
    assert set(report.shapes) == {"field", "field.coordinates"}
