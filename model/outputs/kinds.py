"""All kinds of answers, by the name under which a configuration chooses them."""

from dataclasses import fields

from model.outputs.autoregressive import AutoregressiveOutput
from model.outputs.embedding import EmbeddingOutput
from model.outputs.flow import FlowOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.masked import MaskedOutput
from model.outputs.output import Output
from model.outputs.points import PointsOutput
from model.outputs.text import TextOutput
from model.outputs.value import ValueOutput

# Written out, as the modalities are: nothing is chosen by having been imported.
OUTPUTS: tuple[type[Output], ...] = (
    LabelOutput,
    LabelsOutput,
    ValueOutput,
    TextOutput,
    FlowOutput,
    GridOutput,
    MaskedOutput,
    PointsOutput,
    EmbeddingOutput,
    AutoregressiveOutput,
)


def kind_of(output: type[Output]) -> str:
    """Return the name of a kind, which is the default of its field `kind`."""
    (name,) = (field.default for field in fields(output) if field.name == "kind")
    return str(name)


KINDS: dict[str, type[Output]] = {kind_of(output): output for output in OUTPUTS}
"""The kinds above, and those of the plug-ins in use, which configs/plugins.py adds."""
