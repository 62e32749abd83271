"""The conditions that are diagnosed and the states each can take.

A label is a vector of C states in the coding of CheXbert (arXiv 2004.09167): 0 blank, 1 positive, 2 negative,
3 uncertain.
"""

from medbundles.text.labeler import CHEXPERT_CONDITIONS

# How PromptMRG labelled its four auxiliary conditions is unpublished: without labels they stay IGNORE.
AUXILIARY_CONDITIONS = (
    "aorta_abnormal",
    "bone_spine_abnormal",
    "hemidiaphragm_abnormal",
    "lung_volume_abnormal",
)
CONDITIONS: tuple[str, ...] = CHEXPERT_CONDITIONS + AUXILIARY_CONDITIONS

STATES = ("[BLA]", "[POS]", "[NEG]", "[UNC]")  # the prompt token of each state, in the order of its index
IGNORE = -100  # label of a condition nobody labelled: no target in training, [BLA] in the prompt

# The node of the knowledge graph that shows a condition; the aorta and the diaphragm have none.
NODE_OF: dict[str, str] = {
    "enlarged_cardiomediastinum": "mediastinum",
    "cardiomegaly": "cardiomegaly",
    "lung_opacity": "opacity",
    "lung_lesion": "lesion",
    "edema": "edema",
    "consolidation": "airspace disease",
    "pneumonia": "pneumonia",
    "atelectasis": "atelectasis",
    "pneumothorax": "pneumothorax",
    "pleural_effusion": "effusion",
    "pleural_other": "thickening",
    "fracture": "bone fractures",
    "support_devices": "foreign object",
    "no_finding": "normal",
    "bone_spine_abnormal": "spine",
    "lung_volume_abnormal": "hypoinflation",
}
