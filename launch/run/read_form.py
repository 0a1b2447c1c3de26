"""The form of the cross-attention on a GPU: printed at each start, and reported if it differs from the last start."""

from collections.abc import Iterator

import torch

from data_shards.files.history import lines
from launch.lifecycle.run_folder import RunFolder
from model.attention.read_forms import reading
from model.config.perceiver import PerceiverConfig

_BEGINNING = "latents read the tokens"


def reading_of_this_start(config: PerceiverConfig, folder: RunFolder, device: torch.device) -> Iterator[str]:
    """Yield the sentences of a start; none on the CPU, where nothing but the code decides, nor of a plug-in's network.

    On a GPU the version of Triton does, too: another than at the last start rounds otherwise.
    """
    if device.type != "cuda" or config.network is not None:
        return
    now = reading(config, device)
    events = (str(record.get("message", "")) for record in lines(folder.metrics_path) if record["kind"] == "event")
    # Only the last: a user who accepted a change once has not to read of it again.
    before = [message for message in events if message.startswith(_BEGINNING)]
    yield now
    if before and before[-1] != now:
        yield (
            f"before this start {before[-1]}: from here on the results are not those of an undisturbed run to the "
            "last bit; start with the versions of before, or fork the run"
        )
