"""The evidence per finding: Grad-CAM as MONAI has it, attention of the right node, maps the right way up."""

from __future__ import annotations

import copy

import pytest
import torch
from kif_mrg.conditions import CONDITIONS, NODE_OF
from kif_mrg.diagnosis import DiagnosisNet
from kif_mrg.explain import explain, findings_to_show, node_attention, positive_grad_cam
from kif_mrg.graph import NODES
from kif_mrg.networks import KifReporter
from kif_mrg.text import ReportTokenizer
from monai.visualize import GradCAM
from torch import Tensor, nn

FINDINGS = [CONDITIONS.index(name) for name in ("cardiomegaly", "pleural_effusion", "aorta_abnormal")]


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    return ReportTokenizer.build(["the heart is normal in size . no pleural effusion ."])


@pytest.fixture
def reporter(tokenizer: ReportTokenizer) -> KifReporter:
    diagnosis = DiagnosisNet()
    nn.init.normal_(diagnosis.classify.weight)  # as built they are nearly zero
    return KifReporter(diagnosis, tokenizer).eval()


class _PositiveLogits(nn.Module):
    """The positive logits (B, C) alone, as MONAI's GradCAM wants them."""

    def __init__(self, diagnosis: DiagnosisNet, memory: Tensor) -> None:
        super().__init__()
        self.diagnosis, self.memory = diagnosis, memory

    def forward(self, image: Tensor) -> Tensor:
        return self.diagnosis(image, self.memory)[:, 1]


def test_grad_cam_is_that_of_monai_on_the_last_feature_map(reporter) -> None:
    image, memory = torch.randn(2, 3, 96, 96), torch.randn(2, 5, 64)
    patches, cams = positive_grad_cam(reporter.diagnosis, image, memory, FINDINGS)
    assert patches.shape == (2, 9, 96)
    network = _PositiveLogits(reporter.diagnosis, memory).eval()
    reference = GradCAM(network, "diagnosis.visual.layer4", postprocessing=lambda cam: cam.relu())
    for i, finding in enumerate(FINDINGS):
        wanted = reference.compute_map(image, class_idx=finding).relu()
        torch.testing.assert_close(cams[:, i], wanted.flatten(1), rtol=1e-4, atol=1e-7)
    assert cams.any()


def test_a_map_is_zero_when_every_patch_lowers_the_logit(reporter) -> None:
    cardiomegaly, effusion, _ = FINDINGS
    weight = reporter.diagnosis.classify.weight.data.view(4, len(CONDITIONS), -1)
    weight[1, [cardiomegaly, effusion]] = 0
    weight[1, cardiomegaly, :96], weight[1, effusion, :96] = 1, -1  # the patches are not negative after ReLU
    cardio, pleural = explain(reporter, torch.randn(3, 96, 96), None, FINDINGS[:2])
    assert cardio.grad_cam.max() == 1
    assert not pleural.grad_cam.any()


def test_attention_is_the_column_of_the_findings_node(reporter) -> None:
    image, memory = torch.randn(3, 96, 96), torch.randn(5, 64)
    patches = reporter.describe(image[None], memory[None])["patches"]
    weights = node_attention(reporter, patches)
    assert weights is not None
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(1, 9))
    cardio, effusion, aorta = explain(reporter, image, memory, FINDINGS)
    assert (cardio.node, effusion.node, aorta.node) == ("cardiomegaly", "effusion", None)
    assert aorta.attention is None
    for evidence in (cardio, effusion):
        column = weights[0, :, NODES.index(NODE_OF[evidence.condition])]
        torch.testing.assert_close(evidence.attention, column.view(1, 3, 3))


def test_maps_are_the_right_way_up_and_views_stay_apart(reporter) -> None:
    reporter.eval()
    plain = torch.zeros(2, 3, 192, 320)  # two views of 6 x 10 patches
    marked = plain.clone()
    marked[1, :, 32:48, 272:288] = 3  # second view, row 1, column 8
    before, after = (explain(reporter, image, None, FINDINGS[:1])[0] for image in (plain, marked))
    assert before.attention.shape == before.grad_cam.shape == (2, 6, 10)
    change = (after.attention - before.attention).abs()
    assert change[0].max() < 1e-6 < change[1].max()
    row, column = divmod(int(change[1].argmax()), 10)
    assert abs(row - 1) <= 1
    assert abs(column - 8) <= 1


def test_a_reporter_without_the_graph_has_grad_cam_only(tokenizer) -> None:
    reporter = KifReporter(DiagnosisNet(), tokenizer, use_graph=False).eval()
    evidence = explain(reporter, torch.randn(3, 96, 96), None, FINDINGS[:1])[0]
    assert evidence.attention is None
    assert evidence.grad_cam.shape == (1, 3, 3)


def test_explaining_needs_no_gradient_tracking_and_changes_nothing(reporter) -> None:
    image = torch.randn(3, 96, 96)
    wanted = explain(reporter, image, None, FINDINGS)
    state = copy.deepcopy(reporter.state_dict())
    for parameter in reporter.parameters():
        parameter.requires_grad_(False)
    with torch.inference_mode():
        found = explain(reporter, image, None, FINDINGS)
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(a.grad_cam, b.grad_cam)
    assert all(parameter.grad is None for parameter in reporter.parameters())
    assert all(torch.equal(state[name], value) for name, value in reporter.state_dict().items())
    with pytest.raises(RuntimeError, match="eval mode"):
        explain(reporter.train(), image, None, FINDINGS)


def test_findings_shown_are_the_positive_ones_then_the_most_probable() -> None:
    c = len(CONDITIONS)
    positive = {index: 0.5 - 0.02 * index for index in range(c)}  # the first is the most probable
    states = dict.fromkeys(range(c), 0)
    no_finding = CONDITIONS.index("no_finding")
    positive[no_finding], states[no_finding] = 0.99, 1
    assert findings_to_show(positive, states) == [0, 1, 2]
    states |= {5: 1, 9: 1}
    assert findings_to_show(positive, states) == [5, 9, 0]
    states |= {1: 1, 2: 1, 3: 1}
    assert findings_to_show(positive, states) == [1, 2, 3, 5]
    few = {index: positive[index] for index in (7, no_finding)}
    assert findings_to_show(few, states) == [7]


def test_patches_that_form_no_grid_are_refused(reporter, monkeypatch) -> None:
    monkeypatch.setattr("kif_mrg.explain.node_attention", lambda *_: None)
    monkeypatch.setattr(
        "kif_mrg.explain.positive_grad_cam", lambda *_: (torch.zeros(1, 7, 96), torch.zeros(1, 1, 7))
    )
    with pytest.raises(ValueError, match="must form a grid in 1 views of 96 x 96 pixels, got 7"):
        explain(reporter, torch.zeros(3, 96, 96), None, FINDINGS[:1])
