"""The classifier: trained text path, present regions, prevalence, checkpoints without a text encoder."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rect_features import REGIONS, features
from rect_vlm.classifier import TEMPERATURES, MultiLabelClassifier, present_mean
from torch import Tensor

E, DT, K, GRID = 16, 12, 18, (2, 3, 3)


def classifier(pooling: str = "mean") -> MultiLabelClassifier:
    model = MultiLabelClassifier(E, DT, K, proj_dim=8, hidden=8, pooling=pooling)
    model.set_text(torch.randn(K, DT))
    return model


@pytest.mark.parametrize("pooling", ["mean", "text_attention"])
def test_every_parameter_learns_and_the_text_does_not(pooling: str) -> None:
    model = classifier(pooling)
    before = model.cls_text.clone()
    vision = {
        key: value.requires_grad_() if value.is_floating_point() else value
        for key, value in features(3, E, GRID).items()
    }
    model(vision)["logits"].square().sum().backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    # A bias added to every key of a softmax changes nothing.
    still = [name for name, grad in grads.items() if grad is None or grad.abs().max() < 1e-9]
    assert still in ([], ["look_up.key.bias"])
    torch.optim.AdamW(model.parameters(), lr=0.1).step()
    assert torch.equal(model.cls_text, before)
    assert not any(name.startswith("cls_text") for name, _ in model.named_parameters())


@pytest.mark.parametrize("pooling", ["mean", "text_attention"])
def test_outputs_are_cosines_scaled_and_shifted(pooling: str) -> None:
    model = classifier(pooling)
    model.set_prevalence(torch.linspace(0.05, 0.9, K))
    out = model(features(4, E, GRID))
    assert all(out[key].shape == (4, K) for key in ("logits", "probabilities", "similarities"))
    assert out["similarities"].abs().max() <= 1 + 1e-6
    torch.testing.assert_close(out["logits"], out["similarities"] / 0.07 + model.bias)
    torch.testing.assert_close(out["probabilities"], out["logits"].sigmoid())


def test_mean_pooling_agrees_with_torchs_cosine() -> None:
    model, vision = classifier(), features(4, E, GRID)
    text = model.text_proj(model.cls_text) + model.soft_prompts
    std, mean = torch.std_mean(present_mean(vision), dim=0, correction=0)
    image = model.image_proj((present_mean(vision) - mean) / std)
    expected = torch.stack([F.cosine_similarity(image[b : b + 1], text) for b in range(4)])
    torch.testing.assert_close(model(vision)["similarities"], expected, rtol=1e-3, atol=1e-4)


def told(model: MultiLabelClassifier, vision: dict[str, Tensor]) -> Tensor:
    """The image vectors (B, E) as the projection reads them."""
    seen: list[Tensor] = []
    hook = model.image_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].squeeze(1)))
    model(vision)
    hook.remove()
    return seen[0]


def shifted(vision: dict[str, Tensor], by: Tensor) -> dict[str, Tensor]:
    """The same scans with a constant (E,) in the features of all of them."""
    moved = {name: vision[name] + by for name in ("global_features", "region_features")}
    return {**vision, **moved}


def test_what_all_scans_have_in_common_does_not_count() -> None:
    model, vision = classifier(), features(6, E, GRID)
    common = shifted(vision, 5 + torch.randn(E))
    assert F.cosine_similarity(*present_mean(common)[:2].unsqueeze(1)) > 0.9
    image = told(model, common)
    torch.testing.assert_close(image.mean(0), torch.zeros(E), rtol=0, atol=1e-5)
    torch.testing.assert_close(image.var(0, correction=0), torch.ones(E), rtol=1e-3, atol=0)
    torch.testing.assert_close(model(common)["logits"], model(vision)["logits"], rtol=1e-3, atol=1e-3)


def test_running_statistics_standardise_outside_training() -> None:
    model, vision = classifier(), shifted(features(64, E, GRID), 5 + torch.randn(E))
    first = {name: value[:1] for name, value in vision.items()}
    before = model.eval()(first)["logits"]
    model.train()
    for _ in range(60):  # a running mean of momentum 0.1 has forgotten its start then
        model(vision)
    image = told(model.eval(), vision)
    torch.testing.assert_close(image, told(model.train(), vision), rtol=0.02, atol=0.02)
    model.eval()
    assert (model(first)["logits"] - before).abs().max() > 0.1
    torch.testing.assert_close(model(first)["logits"], model(vision)["logits"][:1])


def test_one_scan_alone_is_seen_in_training_as_in_evaluation() -> None:
    model = classifier()
    model(shifted(features(8, E, GRID), torch.ones(E)))
    statistics = {name: value.clone() for name, value in model.standard.named_buffers()}
    vision = features(1, E, GRID)
    logits = model(vision)["logits"]
    logits.square().sum().backward()
    assert model.soft_prompts.grad is not None
    assert model.soft_prompts.grad.abs().max() > 0
    torch.testing.assert_close(logits, model.eval()(vision)["logits"])
    assert all(torch.equal(value, statistics[name]) for name, value in model.standard.named_buffers())


def test_absent_regions_do_not_count() -> None:
    vision = features(3, E, GRID)
    vision["region_present"] = torch.tensor([[True, False, True, False], [False] * REGIONS, [True] * REGIONS])
    pooled = present_mean(vision)
    regions = vision["region_features"]
    expected = torch.stack(
        [
            (vision["global_features"][0] + regions[0, [0, 2]].mean(0)) / 2,
            vision["global_features"][1],
            (vision["global_features"][2] + regions[2].mean(0)) / 2,
        ]
    )
    torch.testing.assert_close(pooled, expected)


def test_text_attention_finds_the_patch_a_sentence_asks_for() -> None:
    look_up = classifier("text_attention").look_up
    assert look_up is not None
    text, patches = torch.randn(K, 8), torch.randn(2, 18, E)
    wanted = look_up.key(look_up.norm(patches))[:, 5]  # (2, E)
    look_up.query.weight.data.zero_()
    look_up.query.bias.data = 100 * wanted[0]
    best = (look_up.key(look_up.norm(patches))[0] @ wanted[0]).argmax()
    torch.testing.assert_close(
        look_up(text, patches)[0], patches[0, best].expand(K, -1), rtol=1e-3, atol=1e-3
    )


def test_biases_start_at_the_prevalence_and_stay_finite() -> None:
    model = classifier()
    prevalence = torch.cat([torch.zeros(1), torch.full((K - 2,), 0.2), torch.ones(1)])
    model.set_prevalence(prevalence)
    torch.testing.assert_close(model.bias.sigmoid(), prevalence.clamp(1e-3, 1 - 1e-3))


@pytest.mark.parametrize(("log_temperature", "expected"), [(-9.0, TEMPERATURES[0]), (3.0, TEMPERATURES[1])])
def test_temperature_stays_in_its_range(log_temperature: float, expected: float) -> None:
    model = classifier()
    model.log_temperature.data.fill_(log_temperature)
    out = model(features(2, E, GRID))
    torch.testing.assert_close(out["logits"], out["similarities"] / expected)


def test_similarities_stay_in_full_precision_under_autocast() -> None:
    model, vision = classifier().eval(), features(2, E, GRID)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(vision)
    assert {value.dtype for value in out.values()} == {torch.float32}
    torch.testing.assert_close(out["similarities"], model(vision)["similarities"], rtol=0.05, atol=0.05)


def test_a_checkpoint_needs_no_text_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, vision = classifier().eval(), features(2, E, GRID)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    for package in ("transformers", "tokenizers"):
        monkeypatch.setitem(sys.modules, package, None)
    other = MultiLabelClassifier(E, DT, K, proj_dim=8, hidden=8).eval()
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(other(vision)["probabilities"], model(vision)["probabilities"])


def test_training_without_text_is_refused() -> None:
    model = MultiLabelClassifier(E, DT, K, proj_dim=8, hidden=8)
    with pytest.raises(ValueError, match="no text to train with: call set_text"):
        model(features(2, E, GRID))
    assert model.eval()(features(2, E, GRID))["logits"].isfinite().all()


@pytest.mark.parametrize("shape", [(K, DT + 1), (K - 1, DT)])
def test_text_of_another_width_is_refused(shape: tuple[int, int]) -> None:
    wrong: Tensor = torch.randn(shape)
    with pytest.raises(ValueError, match=r"cls_text must have shape \(18, 12\) \(labels, text_dim\), got"):
        classifier().set_text(wrong)


def test_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pooling must be one of .*, got 'max'"):
        MultiLabelClassifier(E, pooling="max")
