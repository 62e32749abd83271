"""Rule labeler of chest CT reports: own sentences in the manner of CT-RATE and what they say."""

import numpy as np
import pytest
from rect_vlm.findings import FINDINGS
from rect_vlm.report_labeler import finding_states, label_findings, label_reports

BLANK, POSITIVE, NEGATIVE, UNCERTAIN = range(4)
SHORT = {
    "material": "Medical material",
    "artery": "Arterial wall calcification",
    "heart": "Cardiomegaly",
    "pericardial": "Pericardial effusion",
    "coronary": "Coronary artery wall calcification",
    "hernia": "Hiatal hernia",
    "nodes": "Lymphadenopathy",
    "emphysema": "Emphysema",
    "atelectasis": "Atelectasis",
    "nodule": "Lung nodule",
    "opacity": "Lung opacity",
    "sequela": "Pulmonary fibrotic sequela",
    "pleural": "Pleural effusion",
    "mosaic": "Mosaic attenuation pattern",
    "bronchial": "Peribronchial thickening",
    "consolidation": "Consolidation",
    "bronchiectasis": "Bronchiectasis",
    "septal": "Interlobular septal thickening",
}

# Every sentence with the findings it states, denies or leaves open; all others must stay blank.
STATED = {
    "A central venous catheter ends in the superior vena cava.": "material",
    "Metallic sutures of a former sternotomy are seen in the sternum.": "material",
    "A pacemaker was observed on the left chest wall.": "material",
    "Calcified atheroma plaques were observed in the aortic arch.": "artery",
    "Atheromatous plaques are present in the aorta and coronary arteries.": "artery coronary",
    "Atherosclerotic changes in the thoracic aorta.": "artery",
    "There are calcified plaques in the wall of the coronary arteries.": "coronary",
    "Coronary artery calcification is present.": "coronary",
    "The heart size has increased.": "heart",
    "The heart is slightly larger than normal.": "heart",
    "The cardiothoracic ratio is increased in favor of the heart.": "heart",
    "A minimal pericardial effusion was observed.": "pericardial",
    "In the pericardial space an effusion of 8 mm in its thickest part is seen.": "pericardial",
    "A sliding type hiatal hernia was observed at the lower end of the esophagus.": "hernia",
    "Several lymph nodes were observed in the mediastinum, the largest 12 mm in the short axis.": "nodes",
    "Conglomerate lymphadenopathies are observed in the paratracheal area.": "nodes",
    "There is a density decrease consistent with emphysema in the upper lobes of both lungs.": "emphysema",
    "Linear atelectasis is seen in the left lung lower lobe.": "atelectasis",
    "Subsegmental atelectatic changes were observed in the right middle lobe.": "atelectasis",
    "A 5 mm subpleural nodule is observed in the right lung lower lobe.": "nodule",
    "A mass of 40 mm is observed in the upper lobe of the left lung.": "nodule",
    "Patchy ground-glass density increases are present in both lungs.": "opacity",
    "An opacity with indistinct margins is observed in the right upper lobe.": "opacity",
    "Pleuroparenchymal sequelae changes are seen in both lung apices.": "sequela",
    "Fibrotic bands are observed in the left lung upper lobe.": "sequela",
    "Fibroatelectatic changes were observed in the lingular segment.": "atelectasis sequela",
    "Bilateral pleural effusion is present, deeper on the right.": "pleural",
    "Free fluid of 20 mm was observed between the pleural leaves on the right.": "pleural",
    "In the left pleural space there is an effusion reaching 15 mm.": "pleural",
    "A mosaic attenuation pattern was observed in both lungs.": "mosaic",
    "Peribronchial thickness increases were observed in both lower lobes.": "bronchial",
    "Thickening of the bronchial walls is seen in the central parts of both lungs.": "bronchial",
    "An area of consolidation is observed in the left lower lobe.": "consolidation",
    "Cylindrical bronchiectasis is present in the right middle lobe.": "bronchiectasis",
    "Mild ectasia of the bronchi was observed in the lower lobes.": "bronchiectasis",
    "Smooth interlobular septal thickenings were observed in the lower lobes of both lungs.": "septal",
    "There is thickening of the interlobular septa in the right upper lobe.": "septal",
    "Consolidation and accompanying ground glass areas with air bronchograms.": "consolidation opacity",
}
DENIED = {
    "Pericardial effusion-thickening was not observed.": "pericardial",
    "Pleural effusion-thickening was not detected.": "pleural",
    "No pleural or pericardial effusion was detected.": "pleural pericardial",
    "Bilateral pleural thickening-effusion was not detected.": "pleural",
    "Heart contour, size are normal.": "heart",
    "The heart contour and size are natural.": "heart",
    "The heart is not enlarged.": "heart",
    "CTO is within the normal range.": "heart",
    "No enlarged lymph nodes in hilar or prevascular pathological dimensions were detected.": "nodes",
    "Lymph nodes with pathological size were not observed.": "nodes",
    "Lymph nodes that did not reach pathological dimensions were observed in the mediastinum.": "nodes",
    "Aeration of both lungs is normal and no nodular or infiltrative lesion is detected.": "nodule opacity",
    "No mass, nodule or infiltration was detected in both lung parenchyma.": "nodule opacity",
    "A hiatal hernia was not observed.": "hernia",
    "Both lungs are free of emphysema and bronchiectasis.": "emphysema bronchiectasis",
    "There is no consolidation in the lungs.": "consolidation",
    "Peribronchial thickening was not observed in either lung.": "bronchial",
    "Mosaic attenuation was not detected.": "mosaic",
    "No interlobular septal thickening or atelectasis was seen.": "septal atelectasis",
    "Calcification was not observed in the aorta and coronary arteries.": "artery coronary",
    "Consolidation at the level of both the upper and lower lobe on the right was not seen.": "consolidation",
}
HEDGED = {
    "Possible atelectasis in the right lower lobe.": "atelectasis",
    "The appearance may represent consolidation.": "consolidation",
    "A small pleural effusion cannot be excluded.": "pleural",
    "Suspicious for bronchiectasis in the lower lobe of the left lung.": "bronchiectasis",
    "Interstitial fibrosis?": "sequela",
    "The finding could represent an infiltration of the left lung.": "opacity",
}
BOTH = {
    "There is a pleural effusion on the right, no pericardial effusion was detected.": {
        "pleural": POSITIVE,
        "pericardial": NEGATIVE,
    },
    "Pleural effusion was not observed but there is a pericardial effusion.": {
        "pleural": NEGATIVE,
        "pericardial": POSITIVE,
    },
    "Heart size is normal. Atelectasis is present without consolidation.": {
        "heart": NEGATIVE,
        "atelectasis": POSITIVE,
        "consolidation": NEGATIVE,
    },
    "Septal thickening is seen (lung fibrosis?).": {"septal": POSITIVE, "sequela": UNCERTAIN},
    "No nodule in the right lung. A 4 mm nodule in the left lung.": {"nodule": POSITIVE},
    "A nodule in the left lung, infiltration?": {"nodule": POSITIVE, "opacity": UNCERTAIN},
}
NOTHING = (
    "Trachea and both main bronchi are open.",
    "The mediastinum could not be evaluated optimally because no contrast was given.",
    "A nodule is observed in the thyroid gland.",
    "Sequela of a fracture is seen in the 5th rib.",
    "Subcutaneous emphysema is seen on the right.",
    "A calcified lymph node is seen in the hilar region.",
    "A mass of 3 cm is observed in the liver.",
    "Perihepatic effusion is present.",
    "Aortic valve calcification is present.",
    "Thoracic esophagus calibration was normal and no wall thickening was detected.",
    "",
)


def found(text: str) -> dict[str, int]:
    return {name: state for name, state in zip(FINDINGS, finding_states(text), strict=True) if state != BLANK}


def expected(names: str, state: int) -> dict[str, int]:
    return {name: state for name in FINDINGS if name in {SHORT[short] for short in names.split()}}


@pytest.mark.parametrize("text", STATED)
def test_what_is_stated_is_found(text: str) -> None:
    assert found(text) == expected(STATED[text], POSITIVE)


@pytest.mark.parametrize("text", DENIED)
def test_what_is_denied_is_negative(text: str) -> None:
    assert found(text) == expected(DENIED[text], NEGATIVE)


@pytest.mark.parametrize("text", HEDGED)
def test_what_is_left_open_is_uncertain(text: str) -> None:
    assert found(text) == expected(HEDGED[text], UNCERTAIN)


@pytest.mark.parametrize("text", BOTH)
def test_statements_in_one_text_keep_apart(text: str) -> None:
    assert found(text) == {SHORT[name]: state for name, state in BOTH[text].items()}


@pytest.mark.parametrize("text", NOTHING)
def test_what_is_no_finding_of_the_chest_stays_blank(text: str) -> None:
    assert found(text) == {}


def test_every_finding_is_stated_and_denied_or_hedged_somewhere() -> None:
    said = {name for names in STATED.values() for name in names.split()}
    other = {name for table in (DENIED, HEDGED) for names in table.values() for name in names.split()}
    assert said == set(SHORT)
    assert set(SHORT) - other == {"material"}
    assert len(STATED) + len(DENIED) + len(HEDGED) + len(BOTH) >= 60


def test_case_sections_and_layout_do_not_matter() -> None:
    sentences = list(STATED)[:30:3] + list(DENIED)[:9:2]
    plain = " ".join(text.rstrip(".") + "." for text in sentences)
    sections = "FINDINGS:\n" + plain + "\n\nIMPRESSION:\nFindings as above."
    numbered = "\n".join(f"{n}. {text}" for n, text in enumerate(sentences, 1))
    assert finding_states(sections) == finding_states(plain.upper()) == finding_states(numbered)
    assert finding_states(plain) == finding_states(plain.replace(". ", " . "))


def test_hedged_findings_count_as_asked() -> None:
    text = "Possible atelectasis in the right lower lobe."
    assert sum(label_findings(text)) == 0
    assert label_findings(text, uncertain="positive")[FINDINGS.index("Atelectasis")] == 1
    with pytest.raises(ValueError, match="uncertain must be"):
        label_findings(text, uncertain="maybe")  # type: ignore[arg-type]


def test_reports_become_a_table() -> None:
    table = label_reports(["Cardiomegaly.", "Heart size is normal."])
    assert table.dtype == np.int64
    assert table[:, FINDINGS.index("Cardiomegaly")].tolist() == [1, 0]
    assert table.sum() == 1
    assert label_reports([]).shape == (0, 18)
    with pytest.raises(TypeError, match="sequence of reports"):
        label_reports("Cardiomegaly.")
