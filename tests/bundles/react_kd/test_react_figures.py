import json
import math
import warnings

import numpy as np
import pytest
from matplotlib.text import Text
from medbundles.tables import write_json
from react_kd import figures, metrics

CLASSES = ["well", "moderate", "poor"]
NOTE = "Simulated cohort, " + "long words about where the cases come from, " * 4
LABELS = np.arange(30) % 3
LOGITS = np.random.default_rng(0).normal(size=(30, 3)) + np.eye(3)[LABELS]
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
GRID = (20, 16, 10)
SPACING = (2.0, 3.0, 5.0)


@pytest.fixture(scope="module")
def evaluation():
    return metrics.evaluate(PROBS, LABELS, CLASSES, [f"p{i // 2}" for i in range(30)], n_bootstrap=50)


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def drawn(figure):
    """Render, and check that everything lies within the figure and that no axes cover each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit, glyphs that are missing
        figure.canvas.draw()
    renderer, page = figure.canvas.get_renderer(), figure.bbox.padded(1)
    boxes = [ax.get_tightbbox(renderer) for ax in figure.axes]  # with labels, legends and annotations
    others = [artist.get_window_extent(renderer) for artist in (*figure.texts, *figure.legends)]
    for i, box in enumerate([*boxes, *others]):
        assert page.x0 <= box.x0 <= box.x1 <= page.x1
        assert page.y0 <= box.y0 <= box.y1 <= page.y1
        if box.width and box.height:  # an empty note has no size
            assert not any(box.padded(-2).overlaps(other.padded(-2)) for other in boxes[:i])
    return figure


def scene():
    """Body, liver, and two lesions: the large one on the patient's right, in front, in slices 4 to 6."""
    liver, mass = np.zeros(GRID), np.zeros(GRID)
    liver[8:18, 4:13, 2:9] = 1
    mass[13:17, 9:12, 4:7] = 1
    mass[9:11, 5:7, 2:4] = 1
    ct = np.full(GRID, -1000.0)
    ct[1:19, 1:15] = 20
    ct[liver > 0], ct[mass > 0] = 100, 50
    cam = np.zeros(GRID)
    cam[14, 10, 5] = 1
    return ct, liver, mass, cam


def test_roc_states_auc_interval_and_cases_of_every_curve(evaluation):
    figure = drawn(figures.roc(PROBS, LABELS, evaluation, subtitle=NOTE))
    shown = texts(figure)
    for name in (*CLASSES, "macro", "micro"):
        value, low, high = metrics.value_and_interval(evaluation, f"auc_{name}")
        assert f"{name}: {value:.3f} [{low:.3f}, {high:.3f}]" in shown
    assert "n = 30 scans of 15 patients" in shown
    assert "Simulated cohort" in shown
    lines = {line.get_label().split(":")[0]: line.get_xydata() for line in figure.axes[0].lines}
    for name in ("well", "micro", "macro"):  # the area under what is drawn is the number beside it
        area = np.trapezoid(lines[name][:, 1], lines[name][:, 0])
        assert area == pytest.approx(metrics.value_and_interval(evaluation, f"auc_{name}")[0], abs=4e-3)


def test_roc_of_an_absent_class_says_so(tmp_path):
    keep = LABELS < 2
    with pytest.warns(RuntimeWarning, match="undefined"):
        result = metrics.evaluate(PROBS[keep], LABELS[keep], CLASSES, ["p"] * 20, n_bootstrap=5)
    result = json.loads(write_json(tmp_path / "e.json", result).read_text())  # nan has become null
    assert "poor: not defined" in texts(drawn(figures.roc(PROBS[keep], LABELS[keep], result)))


def test_decision_curve_draws_every_method_and_both_defaults(evaluation):
    curve = evaluation["decision_curve"]
    figure = drawn(figures.decision_curve({"ce": curve, "REACT-KD": curve}, n=30, subtitle=NOTE))
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["treat all", "treat none", "ce", "REACT-KD"]
    single = drawn(figures.decision_curve({"student": curve}, n=30))
    assert "bootstrap interval" in texts(single)


def test_dose_curve_goes_from_full_dose_down_and_names_the_noise_model():
    series = {"ce": [[0.8, 0.7, 0.9]] * 3, "kd": [[0.7, math.nan, math.nan]] * 3}
    figure = drawn(figures.dose_curve([math.inf, 5e4, 1e3], series, noise_model="Beer–Lambert", n=30))
    ax = figure.axes[0]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["full", r"$5\times10^{4}$", r"$10^{3}$"]
    assert "Beer–Lambert noise model" in ax.get_xlabel()
    assert "n = 30" in texts(figure)
    with pytest.raises(ValueError, match="series 'ce' must hold 3 rows"):
        figures.dose_curve(["full", 1e4, 1e3], {"ce": [[0.8, 0.7, 0.9]]}, noise_model="linear", n=30)


def test_modality_bars_have_the_heights_of_the_series():
    series = {"ce": [[0.9, 0.8, 0.95], [0.6, 0.5, 0.7]], "kd": [[0.8, 0.7, 0.9], [0.7, 0.6, 0.8]]}
    figure = drawn(figures.modality_bars(["CT + PET", "CT only"], series, n=30, subtitle=NOTE))
    assert sorted(bar.get_height() for bar in figure.axes[0].patches) == [0.6, 0.7, 0.8, 0.9]


def test_confusion_shows_cases_and_share_of_the_row():
    shown = texts(drawn(figures.confusion([[3, 1, 0], [0, 4, 0], [0, 0, 0]], CLASSES, subtitle=NOTE)))
    for cell in ("3\n75%", "1\n25%", "4\n100%", "0\n0%", "n = 8"):
        assert cell in shown


def test_reliability_and_learning_curves_render(evaluation):
    assert "expected calibration error" in texts(drawn(figures.reliability(evaluation, subtitle=NOTE)))
    history = [
        {"epoch": e, "loss": 1 / e, "auc": None if e % 2 else 0.5 + 0.1 * (e == 4)} for e in range(1, 9)
    ]
    shown = texts(drawn(figures.learning_curves(history, losses=["loss"], metrics=["auc"], subtitle=NOTE)))
    assert "best: 0.600, epoch 4" in shown


def test_forest_fills_the_marker_of_an_interval_without_zero():
    regimes = {
        "few labels": {"kd": (0.02, 0.01, 0.03), "at": (-0.01, -0.02, 0.01)},
        "noise": {"kd": (-1, -2, -0.5)},
    }
    figure = drawn(figures.comparison_forest(regimes, reference="ce", n_runs=9, subtitle=NOTE))
    fills = [
        line.get_markerfacecolor() for ax in figure.axes for line in ax.lines if line.get_marker() == "o"
    ]
    assert [fill == "white" for fill in fills] == [False, True, False]
    assert "+0.020 [+0.010, +0.030]" in texts(figure)
    assert "9 paired runs" in texts(figure)


def test_slices_are_shown_with_the_right_side_left_and_the_front_on_top():
    ct, _, mass, cam = scene()
    figure = drawn(figures.cam_overlay(ct, cam, mass, spacing=SPACING, slices=[5], subtitle=NOTE))
    plain, overlay = figure.axes[:2]
    picture = plain.images[0].get_array()
    assert picture.shape == (16, 20)
    assert picture[16 - 1 - 10, 20 - 1 - 14] == 50  # x = 14 lies to the right, y = 10 in front
    assert plain.get_aspect() == pytest.approx(1.5)
    heat = overlay.images[1].get_array()
    assert np.argwhere(heat == 1).tolist() == [[5, 5]]
    height, width = (abs(np.subtract(*limit)) for limit in (plain.get_ylim(), plain.get_xlim()))
    box = plain.get_window_extent()
    assert box.height / box.width == pytest.approx(height * 3 / (width * 2), rel=0.02)


@pytest.mark.parametrize("count", [3, 6])
def test_cam_montage_spreads_over_the_mass_and_shows_the_peak(count):
    ct, _, mass, cam = scene()
    figure = drawn(figures.cam_overlay(ct, cam, mass, spacing=SPACING, n_slices=count))
    titles = [int(ax.get_title().split()[1]) for ax in figure.axes[:count]]
    assert titles == sorted(set(titles))
    assert 5 in titles
    assert {2, 3} & set(titles)
    with pytest.raises(ValueError, match=r"\(X,Y,Z\)"):
        figures.cam_overlay(ct, cam[..., :5], mass, spacing=SPACING)


def test_region_graph_leaves_out_empty_nodes_and_states_volumes_and_cosines():
    ct, liver, mass, _ = scene()
    occupancy = np.stack([mass * (np.arange(20) > 12)[:, None, None], np.zeros(GRID), liver * (1 - mass)])
    edges = np.array([[0, 0, 0.75], [0, 0, 0], [0.75, 0, 0]])
    names = ["lesion 1", "lesion 2", "liver"]
    figure = drawn(figures.region_graph_panel(ct, occupancy, names, edges, spacing=SPACING, subtitle=NOTE))
    shown = texts(figure)
    assert "lesion 1, 1 mL" in shown  # 4 x 3 x 3 voxels of 30 mm3
    assert "lesion 2" not in shown
    assert "0.75" in shown
    with pytest.raises(ValueError, match="must hold a voxel"):
        figures.region_graph_panel(ct, 0 * occupancy, names, edges, spacing=SPACING)
