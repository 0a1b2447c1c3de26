"""The modalities that a network reads: the one place where they are listed."""

from model.modalities.array import ArrayInput
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.label import LabelInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput

# Written out and not gathered from subclasses: what a configuration can choose must not depend on what was imported.
INPUTS: tuple[type[Input], ...] = (
    AudioInput,
    FlowInput,
    ImageInput,
    LabelInput,
    PointsInput,
    TextInput,
    VideoInput,
    ArrayInput,
)
BY_NAME: dict[str, type[Input]] = {kind().modality: kind for kind in INPUTS}
