"""Points with features as tokens."""

import torch

from model.modalities.points import PointsInput
from model.positions import fourier_features


def test_coordinates_become_fourier_features_and_features_stay_as_they_are() -> None:
    cloud = torch.rand(2, 5, 6)
    for dimensions, features in ((3, 3), (2, 4), (6, 0)):
        config = PointsInput(
            num_points=5, num_dimensions=dimensions, num_features=features, num_bands=2, max_frequency=4.0
        )
        assert not list(config.problems())
        assert config.shape == (5, 6)
        tokens = config.adapter()(cloud, torch.float32)
        assert tokens.shape == (2, config.num_tokens, config.token_width)
        places = fourier_features(cloud[..., :dimensions], 2, [8.0] * dimensions)
        assert torch.equal(tokens, torch.cat([places, cloud[..., dimensions:]], dim=-1))
