"""The visual projector: every query reads the image, absent regions are not read, lesions get tokens."""

from __future__ import annotations

import pytest
import torch
from rect_features import REGIONS, features
from rect_vlm.lesion_tokens import LesionTokens, lesion_weights
from rect_vlm.projector import VisualProjector

E, L, M, GRID = 16, 24, 5, (2, 2, 3)


def _projector(**changes: int) -> VisualProjector:
    return VisualProjector(E, L, M, layers=2, heads=4, **changes).eval()


def _weights(studies: int) -> torch.Tensor:
    weights = torch.zeros(studies, 5, 12)
    weights[:, 1, 3], weights[:, 1, 4], weights[:, 4, 0] = 1.0, 0.5, 0.25
    return weights


def test_tokens_have_the_width_of_the_language_model_and_the_asked_size() -> None:
    projector = _projector(lesion_tokens=5)
    projector.start_scale(0.04)
    tokens = projector(features(3, E, GRID) | {"lesion_weights": _weights(3)})
    assert tokens.shape == (3, M + 5, L) == (3, projector.num_tokens, L)
    assert 0.035 < float(tokens.detach().std()) < 0.045


@pytest.mark.parametrize("name", ["global_features", "local_features", "region_features"])
def test_all_features_are_read(name: str) -> None:
    projector, vision = _projector(), features(1, E, GRID)
    vision["region_present"][:] = True
    before = projector(vision)
    vision[name] = vision[name] + torch.randn_like(vision[name])
    assert (projector(vision) - before).abs().amax(2).min() > 1e-3  # every token


def test_absent_regions_are_not_read() -> None:
    projector, vision = _projector(), features(2, E, GRID)
    vision["region_present"] = torch.tensor([[True, False, True, False]] * 2)
    before = projector(vision)
    vision["region_features"][:, [1, 3]] = 100.0
    torch.testing.assert_close(projector(vision), before)
    vision["region_features"][:, 2] = -vision["region_features"][:, 2]
    assert not torch.allclose(projector(vision), before, atol=1e-4)


def test_a_study_does_not_depend_on_its_batch() -> None:
    projector, vision = _projector(), features(3, E, GRID)
    vision["region_present"] = torch.eye(3, REGIONS) > 0
    alone = projector({name: value[1:2] for name, value in vision.items()})
    torch.testing.assert_close(projector(vision)[1:2], alone, atol=1e-5, rtol=1e-4)


def test_every_parameter_learns() -> None:
    projector = _projector(lesion_tokens=5)
    vision = features(2, E, GRID) | {"lesion_weights": _weights(2)}
    vision["region_present"][:] = True
    (projector(vision) * torch.randn(2, M + 5, L)).sum().backward()
    still = [
        name
        for name, weight in projector.named_parameters()
        if not name.endswith("key.bias")  # adds the same to all logits of a softmax
        and (weight.grad is None or float(weight.grad.abs().max()) < 1e-6)
    ]
    assert still == []


def test_lesion_weights_are_the_covered_share_of_each_patch() -> None:
    masks = (torch.rand(2, 5, 4, 6, 6) < 0.3).float()
    weights = lesion_weights(masks, (2, 3, 2))
    assert weights.shape == (2, 5, 2 * 2 * 3)
    for n, (d, h, w) in enumerate((d, h, w) for d in range(2) for h in range(2) for w in range(3)):
        patch = masks[:, :, 2 * d : 2 * d + 2, 3 * h : 3 * h + 3, 2 * w : 2 * w + 2]
        torch.testing.assert_close(weights[:, :, n], patch.mean((2, 3, 4)))


def test_a_lesion_token_tells_the_inside_of_its_mask_alone() -> None:
    tokens, local, weights = LesionTokens(E, L, 5), torch.randn(1, 12, E), _weights(1)
    before = tokens(local, weights)
    outside = local.clone()
    outside[:, 5:] += 1.0
    torch.testing.assert_close(tokens(outside, weights), before)
    inside = local.clone()
    inside[:, 3:5] += torch.randn(E)
    changed = (tokens(inside, weights) - before).abs().amax(2)[0] > 1e-3
    assert changed.tolist() == [False, True, False, False, False]
    mean = (local[:, 3] + 0.5 * local[:, 4]) / 1.5
    torch.testing.assert_close(before[:, 1], tokens.speak(mean + tokens.kind[1]))


def test_an_absent_lesion_says_the_same_of_every_image() -> None:
    tokens = LesionTokens(E, L, 5)
    said = tokens(torch.randn(2, 12, E), _weights(2))
    torch.testing.assert_close(said[0, [0, 2, 3]], said[1, [0, 2, 3]])
    assert not torch.allclose(said[0, 1], said[1, 1])


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="must divide the encoder's width, got 5 heads for width 16"):
        VisualProjector(E, L, M, heads=5)
    with pytest.raises(ValueError, match="lesion_weights"):
        _projector(lesion_tokens=5)(features(1, E, GRID))
