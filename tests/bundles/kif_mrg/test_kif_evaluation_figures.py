"""Figures and gallery of an evaluation: what is drawn is what was measured."""

from __future__ import annotations

import numpy as np
import pytest
from kif_mrg import evaluation_figures as figures
from kif_mrg.evaluation_gallery import difference, differing_facts, worst_and_spread
from matplotlib.figure import Figure

NOTE = "simulated cohort; split test, 4 reports"
NAN = float("nan")


def drawn(figure: Figure) -> Figure:
    figure.canvas.draw()
    return figure


def texts(figure: Figure) -> str:
    found = figure.findobj(lambda item: hasattr(item, "get_text"))
    return "\n".join(item.get_text() for item in found)


def entry(value: float, low: float = NAN, high: float = NAN) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def test_floor_bars_have_the_lengths_and_intervals_of_the_entries():
    arms = {
        "model": {"f1": entry(0.9, 0.8, 0.95), "bleu4": entry(0.4, 0.3, 0.5)},
        "constant": {"f1": entry(0.3, 0.2, 0.4), "bleu4": entry(NAN)},
    }
    figure = drawn(figures.floor_bars(arms, {"f1": "CE-F1", "bleu4": "BLEU-4"}, title="t", subtitle=NOTE))
    first, second = figure.axes
    assert [bar.get_width() for bar in first.patches] == [0.9, 0.3]
    assert [bar.get_width() for bar in second.patches] == [0.4, 0]
    (whiskers,) = [c for c in first.collections if hasattr(c, "get_segments")]
    ends = [segment[:, 0].tolist() for segment in whiskers.get_segments()]
    np.testing.assert_allclose(ends, [[0.8, 0.95], [0.2, 0.4]])
    assert [label.get_text() for label in first.get_yticklabels()] == ["model", "constant"]
    assert first.get_yaxis().get_inverted()  # the model on top
    assert first.get_xticks().max() <= 1
    for text in ("0.900", "0.300", "–", NOTE):
        assert text in texts(figure)


def test_condition_f1_shows_conditions_with_positive_references_only():
    series = {"reports": [0.5, NAN, 1.0], "diagnosis head": [0.25, 0.0, NAN]}
    figure = drawn(figures.condition_f1(["edema", "fracture", "lesion"], [3, 0, 7], series, subtitle=NOTE))
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["edema (3)", "lesion (7)"]
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0.5, 1.0])
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [0.25, NAN])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(series)
    drawn(figures.condition_f1(["edema"], [0], {"reports": [NAN]}))  # nothing to show


@pytest.mark.parametrize("count", [1, 4])
def test_state_confusions_have_a_panel_per_condition_with_its_counts(count):
    matrices = {f"c{i}": np.diag([0, 5, 7, i]) + np.eye(4, k=1, dtype=int) for i in range(count)}
    figure = drawn(figures.state_confusions(matrices, subtitle=NOTE))
    used = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title(loc="left") for ax in used] == list(matrices)
    counts = {text.get_position(): text.get_text() for text in used[0].texts}
    assert (counts[1, 1], counts[2, 2], counts[2, 1]) == ("5", "7", "1")
    assert (3, 3) not in counts  # no label of that state
    shade = used[0].images[0].get_array()
    assert shade[1, 1] == pytest.approx(5 / 6)


def test_report_lengths_count_every_report_once():
    said, true = ["a b", "a b c", "a"], ["a b c d"] * 2 + ["a"]
    (ax,) = drawn(figures.report_lengths(said, true, subtitle=NOTE)).axes
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert shown == ["references, mean 3.0", "model, mean 2.0"]
    heights = ax.patches[0].get_xy()[:, 1]
    assert heights.max() == 2
    long = [" ".join(["w"] * n) for n in (3, 90, 160)]
    assert drawn(figures.report_lengths(long, ["a"] * 3)).axes[0].get_xlim()[1] >= 160


def test_differences_are_named():
    blank, positive, negative, uncertain = range(4)
    assert difference(positive, blank) == difference(uncertain, blank) == "missed"
    assert difference(blank, positive) == "invented"
    assert difference(blank, uncertain) == "suspected without ground"
    assert difference(negative, positive) == difference(positive, negative) == "contradicted"
    assert difference(uncertain, negative) == difference(negative, uncertain) == "contradicted"
    assert difference(positive, uncertain) == difference(uncertain, positive) == "other certainty"
    assert difference(negative, blank) == "denial left out"
    assert difference(blank, negative) == "denied unasked"


def test_differing_facts_leave_out_what_agrees():
    reference, report = [0] * 14, [0] * 14
    reference[1], report[1] = 1, 1
    reference[9], report[8] = 1, 2
    assert differing_facts(reference, report) == [
        {
            "condition": "pneumothorax", "reference": "not mentioned", "report": "negative",
            "difference": "denied unasked",
        },
        {
            "condition": "pleural effusion", "reference": "positive", "report": "not mentioned",
            "difference": "missed",
        },
    ]  # fmt: skip


@pytest.mark.parametrize(("cases", "n"), [(100, 12), (13, 12), (5, 12), (1, 3), (2, 1)])
def test_the_gallery_takes_the_worst_and_then_even_steps_to_the_best(cases, n):
    order = list(np.random.default_rng(0).permutation(cases))
    chosen = worst_and_spread(order, n)
    assert len(chosen) == len(set(chosen)) == min(cases, n)
    places = [order.index(case) for case in chosen]
    assert places == sorted(places)
    worst = min(cases, n) // 3
    assert places[:worst] == list(range(worst))
    if len(chosen) - worst > 1:
        assert places[-1] == cases - 1
