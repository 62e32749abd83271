"""Diagnosis network: shapes, independence of samples, deployment, bad input."""

import copy
from typing import Any

import pytest
import torch
from kif_mrg.conditions import CONDITIONS, NODE_OF, STATES
from kif_mrg.diagnosis import DiagnosisNet
from torch import Tensor

VARIANTS: list[dict[str, Any]] = [
    {},
    {"query_fusion": "joint"},
    {"query_fusion": "none"},
    {"use_memory": False},
]


def images(batch: int) -> Tensor:
    return torch.randn(batch, 3, 64, 64)


def spread(net: DiagnosisNet) -> DiagnosisNet:
    """The same network with a classifier that shows what reaches it (its own starts at 0.001)."""
    torch.nn.init.normal_(net.classify.weight)
    return net.eval()


def test_conditions_are_the_fourteen_of_chexpert_and_four_more() -> None:
    assert len(CONDITIONS) == len(set(CONDITIONS)) == 18
    assert (CONDITIONS[0], CONDITIONS[13]) == ("enlarged_cardiomediastinum", "no_finding")
    assert set(NODE_OF) == set(CONDITIONS) - {"aorta_abnormal", "hemidiaphragm_abnormal"}
    assert STATES == ("[BLA]", "[POS]", "[NEG]", "[UNC]")


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_described_has_the_promised_shapes(variant: dict[str, Any]) -> None:
    net = DiagnosisNet(conditions=14, **variant).eval()
    found = net.describe(images(2), torch.randn(2, 7, 64))
    shapes = {key: tuple(value.shape) for key, value in found.items()}
    expected = {"patches": (2, 4, 96), "pooled": (2, 96), "class_logits": (2, 4, 14), "retrieved": (2, 64)}
    if not variant.get("use_memory", True):
        del expected["retrieved"]
    assert shapes == expected


def test_published_size_has_the_parameters_of_the_spec() -> None:
    with torch.device("meta"):
        net = DiagnosisNet("resnet101", memory_dim=512, heads=8, ff=2048)
        assert net(torch.empty(2, 3, 224, 224), torch.empty(2, 21, 512)).shape == (2, 4, 18)
    counts = {key: sum(p.numel() for p in part.parameters()) / 1e6 for key, part in net.named_children()}
    assert {key: round(value, 1) for key, value in counts.items()} == {
        "visual": 42.5,
        "query": 1.0,
        "query_fusion": 14.7,
        "aggregator": 14.7,
        "classify": 0.2,
    }


@pytest.mark.parametrize("batch", [3, 16])
def test_samples_do_not_see_each_other(batch: int) -> None:
    net, image, memory = spread(DiagnosisNet()), images(batch), torch.randn(batch, 5, 64)
    together = net.describe(image, memory)
    for i in (0, batch - 1):
        alone = net.describe(image[i : i + 1], memory[i : i + 1])
        for key, value in alone.items():
            torch.testing.assert_close(together[key][i : i + 1], value, atol=1e-5, rtol=1e-5, msg=key)


def test_no_gradient_flows_from_one_sample_to_the_image_of_another() -> None:
    image = images(3).requires_grad_()
    spread(DiagnosisNet())(image)[0].sum().backward()
    assert image.grad is not None
    assert image.grad[0].abs().max() > 0
    assert image.grad[1:].abs().max() == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_trainable_parameter_gets_a_gradient_from_images_alone(variant: dict[str, Any]) -> None:
    net = DiagnosisNet(**variant)
    output = net(images(2))
    (output * torch.randn_like(output)).sum().backward()
    trainable = {key: p.grad for key, p in net.named_parameters() if p.requires_grad}
    assert [key for key, grad in trainable.items() if grad is None or not bool(grad.any())] == []


def test_training_and_inference_diagnose_by_the_same_path() -> None:
    net = spread(DiagnosisNet())
    image, memory = images(2), torch.randn(2, 5, 64)
    expected = net(image, memory)
    for module in net.modules():  # dropout and batch statistics are all that may differ
        module.training = isinstance(module, DiagnosisNet)
    torch.testing.assert_close(net(image, memory), expected)


def test_the_retrieved_reports_matter_and_the_typical_ones_stand_in() -> None:
    net, image = spread(DiagnosisNet()), images(2)
    typical = net.prior_memory.expand(2, -1, -1)
    assert torch.equal(net(image), net(image, typical))
    assert (net(image) - net(image, -typical)).abs().max() > 1e-2
    groups = torch.nn.functional.normalize(torch.randn(5, 64), dim=1)
    net.set_prior_memory(groups.repeat_interleave(4, 0) + 1e-3 * torch.randn(20, 64))
    nearest = torch.cdist(groups, net.prior_memory).amin(dim=1)
    assert nearest.max() < 0.02
    torch.testing.assert_close(net.prior_memory.norm(dim=1), torch.ones(5))
    net.set_prior_memory(groups[:1])
    torch.testing.assert_close(net.prior_memory, groups[:1].expand(5, -1))


def test_copy_after_a_forward_and_state_dict_bring_back_the_network() -> None:
    net, image = spread(DiagnosisNet()), images(2)
    net.set_prior_memory(torch.randn(1, 64))
    expected = net(image)
    assert torch.equal(copy.deepcopy(net)(image), expected)
    fresh = DiagnosisNet().eval()
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(image), expected)


@pytest.mark.parametrize("training", [True, False])
def test_scripted_network_equals_the_network(training: bool) -> None:
    net, image = spread(DiagnosisNet()).train(training), images(2)
    scripted = torch.jit.script(copy.deepcopy(net))
    torch.testing.assert_close(scripted.eval()(image), net.eval()(image), atol=1e-5, rtol=1e-5)
    assert scripted.train(training)(images(1)).shape == (1, 4, 18)


def test_exported_network_takes_any_batch() -> None:
    net = spread(DiagnosisNet())
    program = torch.export.export(net, (images(2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for batch in (1, 3):
        image = images(batch)
        torch.testing.assert_close(program.module()(image), net(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query_fusion": "poke"}, "query_fusion must be one of"),
        ({"concepts": torch.zeros(3, 64)}, r"concepts must be \(20, 64\)"),
        ({"query_fusion": "none", "concepts": torch.zeros(20, 64)}, r"concepts must be \(0, 64\)"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiagnosisNet(**arguments)


def test_bad_memories_are_named() -> None:
    net = DiagnosisNet().eval()
    for memory in (torch.zeros(2, 5, 512), torch.zeros(1, 5, 64)):
        with pytest.raises(ValueError, match="B=2 and Dm=64"):
            net(images(2), memory)
    for features in (torch.zeros(3, 64), torch.zeros(9, 32), torch.full((9, 64), torch.nan)):
        with pytest.raises(ValueError, match="report features must be"):
            net.set_prior_memory(features)
