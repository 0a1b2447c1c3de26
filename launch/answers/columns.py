"""The names of columns: each output's own, and those of the sample, whatever the outputs are called."""

from collections.abc import Collection

OF_SAMPLE = ("key", "shard")
"""The columns that say which sample a row is of."""


def name_of(column: str, output: str, outputs: Collection[str]) -> str:
    """Return the name in a table of a column that an output's task tells.

    It is the column's own, unless that is the sample's or begins with the longer name of another output: the answer
    `label_true` keeps its column, and the true class of `label` is in `label.true`. No output has a dot in its name.
    """
    if column in OF_SAMPLE:
        return f"output.{column}"
    owners = [name for name in outputs if column == name or column.startswith(f"{name}_")]
    # Of names with which one column begins the longest is the last.
    if output == max(owners, default=output):
        return column
    return f"{output}.{column.removeprefix(f'{output}_')}"
