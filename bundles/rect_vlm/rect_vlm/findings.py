"""The 18 findings of CT-RATE, in the order of its label tables, and the five lesions that are outlined."""

from __future__ import annotations

FINDINGS: tuple[str, ...] = (
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
)

# The order of the mask channels, that of task 3 of the VLM3D challenge.
LESIONS: tuple[str, ...] = (
    "pericardial_effusion",
    "pleural_effusion",
    "consolidation",
    "ground_glass_opacity",
    "lung_nodule",
)

# The scan label that is true whenever the lesion is there; "Lung opacity" is wider than ground glass.
FINDING_OF_LESION: dict[str, str] = {
    "pericardial_effusion": "Pericardial effusion",
    "pleural_effusion": "Pleural effusion",
    "consolidation": "Consolidation",
    "ground_glass_opacity": "Lung opacity",
    "lung_nodule": "Lung nodule",
}


def lesion_title(lesion: str) -> str:
    """Name of a lesion as texts and pictures show it: `ground_glass_opacity` -> `Ground glass opacity`."""
    return lesion.replace("_", " ").capitalize()
