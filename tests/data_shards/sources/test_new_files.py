"""Files of nobody's shards as samples: what their keys say."""

from pathlib import Path

from data_shards.config import DataConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.sources.prediction import new_files


def test_a_key_of_several_rows_is_reported(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("key,image\na,1.png\nb,2.png\na,3.png\n,4.png\n,5.png\n")
    told: list[str] = []
    data = DataConfig(inputs={"image": ImageConfig(height=4, width=4)})
    samples = new_files.find([str(table)], data, told.append)
    assert [sample.key for sample in samples] == ["a", "b", "a", f"{table}:5", f"{table}:6"]
    assert told == [f"{table}: 1 key of several rows, such as 'a': their answers share it"]
