"""What a model must beat: findings and reports that come from training data, or from the wrong image."""

from __future__ import annotations

from collections.abc import Sequence

from medbundles.text.floors import constant_report, most_common_report, random_reports

MODEL, SHUFFLED, PREVALENCE = "model", "model, images shuffled", "training prevalence"
CONSTANT, COMMON, RANDOM = "constant report", "most common report", "random reports"
REFERENCES = "the references themselves"

EXPLAINED = {
    MODEL: "the trained model; its reports are greedy, with the evidence it finds itself",
    SHUFFLED: "the same model, every scan with the image of another patient: what remains is what all scans "
    "share",
    PREVALENCE: "for every scan the share of training scans with the finding",
    CONSTANT: "one training report for every scan: of the 40 commonest the one with the best BLEU-4 on the "
    "held-out training reports",
    COMMON: "the commonest training report for every scan",
    RANDOM: "a training report drawn for each scan",
    REFERENCES: "what equal reports would reach: the labeler does not read in them what the labels say",
}


def floor_reports(
    training: Sequence[str], held_out: Sequence[str], n: int, seed: int
) -> dict[str, list[str]]:
    """Reports for `n` scans by the name of the floor; without training reports there are none.

    Args:
        training: reports to take.
        held_out: training reports that choose the constant one; without any it is missing.
        n: scans.
        seed: of the random reports.
    """
    if not training:
        return {}
    floors = {CONSTANT: constant_report(training, held_out, n)} if held_out else {}
    return floors | {
        COMMON: most_common_report(training, n),
        RANDOM: random_reports(training, n, seed),
    }
