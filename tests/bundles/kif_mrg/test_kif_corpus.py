"""The real reports: parsed, cleaned, split so that nothing held out was seen in training."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from kif_mrg.corpus import ARCHIVE, TextRecord, iu_reports, split_by_study
from medbundles.text.cleaning import clean_report

XML = '<eCitation><uId id="{id}"/><Article><Abstract>{sections}</Abstract></Article></eCitation>'


def archive(folder: Path, members: dict[str, str]) -> Path:
    with tarfile.open(folder / ARCHIVE, "w:gz") as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(f"ecgen-radiology/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return folder


def report(name: str, **sections: str) -> str:
    texts = "".join(
        f'<AbstractText Label="{label}">{text}</AbstractText>' for label, text in sections.items()
    )
    return XML.format(id=name, sections=texts)


def record(study: int, text: str) -> TextRecord:
    return {"id": f"r{study}", "study_id": f"r{study}", "report": text}


def test_findings_and_impression_are_joined_and_cleaned(tmp_path: Path) -> None:
    folder = archive(
        tmp_path,
        {
            "10.xml": report("CXR10", INDICATION="Cough", FINDINGS="Lungs clear", IMPRESSION="Normal."),
            "9.xml": report("CXR9", FINDINGS="", IMPRESSION="1. Effusion, left. 2. No XXXX."),
            "8.xml": report("CXR8", INDICATION="Pain", COMPARISON="None."),
            "notes.txt": "not a report",
        },
    )
    assert iu_reports(folder) == [
        {"id": "CXR9", "study_id": "CXR9", "report": "effusion left . no xxxx ."},
        {"id": "CXR10", "study_id": "CXR10", "report": "lungs clear . normal ."},
    ]


def test_bad_archives_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"must hold {ARCHIVE}, found none in .*{tmp_path.name}"):
        iu_reports(tmp_path)
    with pytest.raises(ValueError, match=r"7\.xml must be XML"):
        iu_reports(archive(tmp_path, {"7.xml": "<eCitation>"}))
    with pytest.raises(ValueError, match=r"7\.xml must hold <uId"):
        iu_reports(archive(tmp_path, {"7.xml": "<eCitation/>"}))
    with pytest.raises(ValueError, match="must hold reports with FINDINGS or IMPRESSION"):
        iu_reports(archive(tmp_path, {"8.xml": report("CXR8", INDICATION="Pain")}))


def test_split_keeps_studies_apart_and_drops_repeated_texts() -> None:
    # Two images of a study, and every third study says what many others say.
    records = [
        record(k // 2, "normal chest ." if (k // 2) % 3 == 0 else f"finding {k} .") for k in range(600)
    ]
    split = split_by_study(records, seed=4)
    parts = [split.train, split.val, split.test]
    studies = [{found["study_id"] for found in part} for part in parts]
    texts = [{found["report"] for found in part} for part in parts]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not studies[first] & studies[second]
        assert not texts[first] & texts[second]
    assert sum(map(len, parts)) + split.repeats == len(records)
    assert split.repeats > 10
    assert 0.7 < len(split.train) / len(records) < 0.9


def test_split_of_a_study_depends_on_nothing_but_the_seed() -> None:
    records = [record(k, f"finding {k} .") for k in range(200)]
    split, fewer = split_by_study(records), split_by_study(records[::-2])
    assert {r["id"] for r in fewer.test} <= {r["id"] for r in split.test}
    assert {r["id"] for r in fewer.train} <= {r["id"] for r in split.train}
    assert split_by_study(records, seed=1) != split


def test_shares_that_leave_nothing_are_refused() -> None:
    records = [record(k, f"finding {k} .") for k in range(4)]
    with pytest.raises(ValueError, match=r"val=0\.5 test=0\.5"):
        split_by_study(records, 0.5, 0.5)
    with pytest.raises(ValueError, match="leave no report in val"):
        split_by_study(records, 0.001, 0.5)


def test_real_reports_are_all_there(sample) -> None:
    reports = iu_reports(sample("chest_xray_reports"))
    assert len(reports) == len({found["study_id"] for found in reports}) == 3927
    lengths = sorted(len(found["report"].split()) for found in reports)
    assert 30 < lengths[len(lengths) // 2] < 50
    assert all(clean_report(found["report"]).split() == found["report"].split() for found in reports[:200])
    split = split_by_study(reports)
    assert split.repeats > 0
    assert len(split.train) > 3000
