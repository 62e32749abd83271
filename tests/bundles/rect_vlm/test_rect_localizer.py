"""The localizer: text that matters, folding, learning, image skips, and the deployed network."""

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from rect_features import PatchEncoder, features, text
from rect_vlm.localization_net import LocalizationNet
from rect_vlm.localizer import LesionLocalizer, resized
from torch import Tensor

E, DT, T, GRID, SIZE = 16, 12, 7, (2, 3, 4), (8, 12, 20)
SMALL = {"dim": 16, "heads": 2, "denoise_layers": 2, "base_channels": 8, "levels": 2, "stem_channels": (8, 8)}


def localizer(seed: int = 0, **changes: object) -> LesionLocalizer:
    torch.manual_seed(seed)
    model = LesionLocalizer(E, GRID, SIZE, DT, T, **{**SMALL, **changes})  # type: ignore[arg-type]
    model.set_text(*text(T, DT))
    return model


def seen(batch: int = 2) -> tuple[dict[str, Tensor], Tensor]:
    return features(batch, E, GRID), torch.randn(batch, 1, *SIZE)


def test_shapes_and_the_lesions_that_are_asked_for() -> None:
    model, (vision, image) = localizer().eval(), seen()
    out = model(vision, image)
    assert out["logits"].shape == (2, 5, *SIZE)
    assert out["grid_logits"].shape == (2, 5, *GRID)
    assert "denoise" not in out
    few = model(vision, image, torch.tensor([4, 1]))
    assert few["lesions"].tolist() == [[4, 1]] * 2
    for key in ("logits", "grid_logits", "features", "prompt"):
        torch.testing.assert_close(few[key], out[key][:, [4, 1]])


@pytest.mark.parametrize("training", [True, False])
def test_every_scan_may_be_asked_for_lesions_of_its_own(training: bool) -> None:
    model, (vision, image) = localizer(noise=0.0, mask_ratio=0.0).train(training), seen(3)
    lesions = torch.tensor([[4, 1], [0, 3], [1, 2]])
    together = model(vision, image, lesions)
    assert torch.equal(together["lesions"], lesions)
    for scan, wanted in enumerate(lesions):
        mine = {name: value[scan : scan + 1] for name, value in vision.items()}
        alone = model(mine, image[scan : scan + 1], wanted)
        for key in ("logits", "grid_logits", "features", "prompt"):
            torch.testing.assert_close(together[key][scan], alone[key][0], rtol=1e-4, atol=1e-4, msg=key)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_masks_of_a_scan_come_from_that_scan_alone(norm: str) -> None:
    model, (vision, image) = localizer(norm=norm).eval(), seen()
    patches = vision["local_features"].requires_grad_()
    out = model(vision, image.requires_grad_(), torch.tensor([[0, 2], [2, 4]]))
    for grad in torch.autograd.grad(out["logits"][0].square().sum(), [patches, image]):
        assert grad[0].abs().max() > 0
        assert grad[1].abs().max() == 0


@pytest.mark.parametrize("skips", [True, False])
def test_the_finer_features_correct_what_the_grid_says(skips: bool) -> None:
    model, (vision, image) = localizer(image_skips=skips).eval(), seen(1)
    torch.nn.init.zeros_(model.head.weight)
    out = model(vision, image)
    coarse = out["grid_logits"]
    for size in [*([(4, 6, 10)] if skips else []), SIZE]:
        coarse = resized(coarse, size)
    torch.testing.assert_close(out["logits"], coarse)
    heads = [model.head.weight, model.grid_head.weight]
    assert all(grad.abs().max() > 0 for grad in torch.autograd.grad(out["logits"].sum(), heads))


@pytest.mark.parametrize("changes", [{}, {"image_skips": False}])
def test_folded_lesions_equal_lesions_one_after_another(changes: dict[str, bool]) -> None:
    model, (vision, image) = localizer(noise=0.0, mask_ratio=0.0, **changes), seen()
    folded, single = model.train()(vision, image), model.eval()(vision, image)
    assert folded["logits"].shape[2:] == (GRID if changes else (4, 6, 10))  # what the decoder sees
    assert single["logits"].std(dim=(2, 3, 4)).min() > 0
    folded["logits"] = resized(folded["logits"], SIZE)
    for key in single:
        torch.testing.assert_close(folded[key], single[key], rtol=1e-4, atol=1e-4)


def test_text_tells_the_lesions_apart_and_swapped_texts_swap_the_masks() -> None:
    model, (vision, image) = localizer().eval(), seen()
    before = model(vision, image)["logits"]
    assert (before[:, 0] - before[:, 3]).abs().max() > 1e-3
    order = [3, 1, 2, 0, 4]
    model.set_text(model.loc_tokens[order].clone(), model.loc_mask[order].clone())
    torch.testing.assert_close(model(vision, image)["logits"], before[:, order])


def test_every_parameter_learns_queries_and_keys_included() -> None:
    model, (vision, image) = localizer(), seen()
    out = model(vision, image)
    loss = sum(out[key].square().mean() for key in ("logits", "grid_logits", "prompt", "denoise"))
    loss.backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        if not name.endswith("key.bias"):  # shifts every score of a softmax alike
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    assert len(model.denoiser.blocks) == 2
    assert not model.loc_tokens.requires_grad


def test_padding_of_a_text_is_never_read() -> None:
    model, (vision, image) = localizer().eval(), seen(1)
    before = model(vision, image)
    model.loc_tokens[~model.loc_mask] = 50.0
    after = model(vision, image)
    for key in ("logits", "prompt"):
        torch.testing.assert_close(after[key], before[key])


def test_without_text_guidance_a_learned_code_takes_its_place() -> None:
    model, (vision, image) = localizer(text_guidance=False), seen()
    model.eval().set_text(*text(T, DT))
    before = model(vision, image)["logits"]
    model.set_text(*text(T, DT))
    assert torch.equal(model(vision, image)["logits"], before)
    assert (before[:, 0] - before[:, 1]).abs().max() > 1e-3
    assert not any(name.startswith("text.project") for name, _ in model.named_parameters())


def test_image_skips_show_what_is_smaller_than_a_patch() -> None:
    for skips in (True, False):
        model, (vision, image) = localizer(image_skips=skips).eval(), seen(1)
        changed = image.clone()
        changed[..., 1, 1, 1] += 20
        moved = (model(vision, changed)["logits"] - model(vision, image)["logits"]).abs().max()
        assert (moved > 1e-3) == skips


def test_foreground_starts_rare() -> None:
    model, (vision, image) = localizer().eval(), seen()
    assert model(vision, image)["logits"].sigmoid().mean() < 0.1


def test_a_checkpoint_needs_no_text_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (vision, image) = localizer().eval(), seen(1)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    monkeypatch.setitem(sys.modules, "transformers", None)
    other = LesionLocalizer(E, GRID, SIZE, DT, T, **SMALL).eval()  # type: ignore[arg-type]
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(other(vision, image)["logits"], model(vision, image)["logits"])


def test_localization_net_traces_and_exports_with_the_image_alone() -> None:
    small = {**SMALL, "denoise_layers": 1, "levels": 1, "num_lesions": 2}
    model = LesionLocalizer(E, GRID, SIZE, DT, T, **small)  # type: ignore[arg-type]
    tokens, mask = text(T, DT)
    model.set_text(tokens[:2], mask[:2])
    net = LocalizationNet(PatchEncoder(E, GRID, SIZE), model).eval()  # type: ignore[arg-type]
    image = torch.randn(2, 1, *SIZE)
    expected = net(image)
    assert expected.shape == (2, 2, *SIZE)
    assert torch.equal(net(image, torch.ones(2, 1, *SIZE, dtype=torch.uint8)), expected)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        traced = torch.jit.trace(net, image[:1])
    assert not [one.message for one in caught if "rect_vlm" in one.filename]
    torch.testing.assert_close(traced(image), expected)
    torch.testing.assert_close(torch.export.export(net, (image,)).module()(image), expected)


def test_wrong_sizes_are_named() -> None:
    model, (vision, image) = localizer(), seen()
    with pytest.raises(ValueError, match=r"grid \(2, 3, 4\) needs 24 patches, got 18"):
        model(features(2, E, (2, 3, 3)), image)
    with pytest.raises(ValueError, match=r"image must have \(8, 12, 20\) voxels, got \(8, 12, 16\)"):
        model(vision, image[..., :16])
    with pytest.raises(ValueError, match=r"loc_tokens must have shape \(5, 7, 12\), got \(5, 7, 13\)"):
        model.set_text(*text(T, 13))
    with pytest.raises(ValueError, match=r"every lesion needs a token, got \[0, 0, 0, 0, 0\] tokens"):
        model.set_text(text(T, DT)[0], torch.zeros(5, T, dtype=torch.bool))
    with pytest.raises(ValueError, match="must share"):
        LocalizationNet(PatchEncoder(E, (2, 3, 2), SIZE), model)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no text to train with"):
        LesionLocalizer(E, GRID, SIZE, DT, T, **SMALL)(vision, image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 15}, "dim must be a multiple of heads, got dim=15 heads=2"),
        ({"mask_ratio": 1.0}, "mask_ratio in"),
        ({"base_channels": 12}, "channels must be multiples of 8"),
        ({"stem_channels": (8, 12)}, r"skip_channels=\(12, 8\)"),
        ({"levels": 0}, "levels at least 1"),
        ({"fine_kernel": 2}, "the kernel odd, got .* fine_kernel=2"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        localizer(**changes)
