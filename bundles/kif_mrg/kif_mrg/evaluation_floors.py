"""What a reporter must beat: reports and diagnoses that come from the training data without the image."""

from __future__ import annotations

from collections.abc import Sequence

from medbundles.text.floors import constant_report, most_common_report, random_reports

MODEL, SHUFFLED = "model", "model, images shuffled"
CONSTANT, COMMON, RANDOM = "constant report", "most common report", "random reports"
UNRETRIEVED, COMMON_STATES = "model, without retrieval", "most common states"

EXPLAINED = {
    MODEL: "the trained reporter by beam search",
    SHUFFLED: "the same reporter, every case with the image of another study; retrieval is left unshuffled, "
    "so what remains comes from the reports retrieved for its own image and from what all cases share",
    CONSTANT: "one training report for every case: of the 40 commonest the one with the best BLEU-4 on the "
    "validation reports",
    COMMON: "the commonest training report for every case",
    RANDOM: "a training report drawn for each case",
    UNRETRIEVED: "the diagnosis head alone, reading typical training reports in place of retrieved ones",
    COMMON_STATES: "the commonest state of each condition in the training labels, for every case",
}


def floor_reports(
    training: Sequence[str], validation: Sequence[str], n: int, seed: int
) -> tuple[dict[str, list[str]], list[str]]:
    """Hypotheses for `n` cases by the name of the floor, and notes on the floors that cannot be had."""
    if not training:
        return {}, ["There are no training reports, so the floors made of them are missing."]
    floors, notes = {}, []
    if validation:
        floors[CONSTANT] = constant_report(training, validation, n)
    else:
        notes.append("There are no validation reports to choose the constant report on, so it is missing.")
    floors[COMMON] = most_common_report(training, n)
    floors[RANDOM] = random_reports(training, n, seed)
    return floors, notes
