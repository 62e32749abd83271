"""METEOR: the Java program where it is installed, nltk's lite form elsewhere, each under its own name."""

import json
from pathlib import Path

import pytest
from medbundles.text.meteor import meteor, meteor_jar

HERE = Path(__file__).parent
PAIRS: list[dict[str, str]] = json.loads((HERE / "report_pairs.json").read_text(encoding="utf-8"))
HYPOTHESES = [pair["hypothesis"] for pair in PAIRS]
REFERENCES = [pair["reference"] for pair in PAIRS]


@pytest.mark.skipif(meteor_jar() is None, reason="METEOR needs the jar of pycocoevalcap and java")
def test_meteor_equals_the_coco_toolkit() -> None:
    stored = json.loads((HERE / "coco_reference.json").read_text(encoding="utf-8"))
    assert meteor(HYPOTHESES, REFERENCES) == {"meteor": pytest.approx(stored["scores"]["all"]["meteor"])}


class NoSynonyms:
    def synsets(self, word: str) -> list[str]:
        return []


def test_meteor_lite_is_the_mean_of_nltk_and_has_its_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medbundles.text.meteor.meteor_jar", lambda: None)
    from nltk.translate.meteor_score import single_meteor_score

    pairs = list(zip(HYPOTHESES, REFERENCES, strict=True))[:16]
    scores = [single_meteor_score(r.split(), h.split(), wordnet=NoSynonyms()) for h, r in pairs]
    assert meteor(HYPOTHESES[:16], REFERENCES[:16]) == {"meteor_lite": pytest.approx(sum(scores) / 16)}
    # One chunk of m matches costs 0.5 / m^3; "lungs" meets "lung" by its stem, in a chunk of its own.
    assert meteor(["no acute disease ."], ["no acute disease ."])["meteor_lite"] == 1 - 0.5 / 4**3
    assert meteor(["lungs are clear"], ["lung is clear"])["meteor_lite"] == pytest.approx(2 / 3 * 0.5)


def fake_meteor(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    jar = folder / "pycocoevalcap" / "meteor" / "meteor-1.5.jar"
    jar.parent.mkdir(parents=True)
    jar.touch()
    (folder / "java").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "java").chmod(0o755)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_meteor_runs_an_installed_jar_on_one_report_per_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # -Xmx2G -jar <jar> <hypotheses> <references> ...
    fake_meteor(tmp_path, monkeypatch, f'cp "$4" "$5" {tmp_path}; echo "Final score:            0.25"')
    assert meteor(["heart\nnormal .", ""], ["heart  large .", "clear ."]) == {"meteor": 0.25}
    assert (tmp_path / "hypotheses").read_text() == "heart normal .\n\n"
    assert (tmp_path / "references").read_text() == "heart large .\nclear .\n"


def test_a_failing_jar_is_not_replaced_by_the_lite_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_meteor(tmp_path, monkeypatch, "echo 'Could not reserve enough space' >&2; exit 1")
    with pytest.raises(RuntimeError, match=r"meteor-1\.5\.jar gave no score: Could not reserve"):
        meteor(["a"], ["a"])
