"""What the rule labeler of chest CT reports looks for: phrases of the 18 findings of CT-RATE.

Patterns meet lower-case words separated by single spaces, without commas; hyphens stay. A pattern without a
closing word boundary also meets the plural and other endings.
"""

from __future__ import annotations

# Up to n words between two parts of a phrase, none of which denies, joins or ends it.
_STOP = r"(?!(?:no|not|without|and|is|are|was|were|normal|natural)\b)"


def _gap(words: int) -> str:
    return rf"(?: {_STOP}\S+){{0,{words}}}?"


_ACROSS = r"(?: (?!no\b)\S+){0,8}?"  # over verbs too; a "not" in between is left to the labeler
_THICK = r"(?:thick\w*|cuffing)"
_BRONCHUS = r"(?:peri-?bronch\w*|bronch\w* walls?|walls? of (?:the )?(?:\w+ )?bronch\w*)"
_SEPTUM = r"(?:(?:inter-?)?(?:lobular|septal|septa|septum)(?: septa\w*)?|inter-?lobular|inter-?septal)"
_JOINT = r"(?:[- ](?:and|or|pleur\w*|pericardi\w*|thicken\w*))*"  # "pericardial thickening-effusion"
_FLUID = r"(?:effusion|fluid)s?\b"
_PLACE = r"(?:spaces?|leaves|cavit\w+|area|sac|distance)"
_PLAQUE = r"(?:athero\w*|plaques?|calcif\w*)"

FINDINGS: dict[str, tuple[str, ...]] = {
    "Medical material": (
        r"catheters?\b",
        r"pace-?makers?\b",
        r"(?:defibrillator|icd|crt)s?\b",
        r"(?:chemotherapy )?port(?:-?a-?cath| (?:catheter|chamber|reservoir))?\b",
        r"stents?\b",
        r"prosthe\w+",
        r"implants?\b",
        r"(?:suture|surgical|medical|metal\w*|osteosynthesis|fixation) (?:\w+ )?"
        r"(?:material|clip|device|plate)s?\b",
        r"(?:surgical |metallic )?sutures?\b",
        r"(?:sternotomy|sternal|cerclage) (?:\w+ )?wires?\b",
        r"(?:clips|screws?|electrodes?|cannulas?)\b",
        r"(?:endotracheal|tracheostomy|nasogastric|orogastric|feeding|chest|thorax|drainage|intubation) "
        r"(?:tube|cannula|drain)s?\b",
        r"drains?\b",
        r"(?:valve|valvular) (?:replacement|prosthesis)",
        r"(?:pacemaker|pacing) (?:lead|wire)s?\b",
    ),
    "Arterial wall calcification": (
        rf"(?:{_PLAQUE}{_ACROSS} (?:and )?(?:the )?(?:thoracic )?(?:supra-?aortic|aorta|aortic|arch|arcus"
        rf"|vascular|vessels?|carotid|subclavian|brachiocephalic|(?<!coronary )arter(?:y|ies|ial)))\b",
        rf"(?:supra-?aortic|aorta|aortic|arch|arcus|vascular|carotid|subclavian|brachiocephalic"
        rf"|(?<!coronary )arterial?){_ACROSS} {_PLAQUE}",
        r"athero\w+",
    ),
    "Cardiomegaly": (
        r"cardiomegal",
        r"(?:cardiac|heart) enlargement",
        r"enlarge(?:d|ment of the) (?:heart|cardiac)",
        r"increase in (?:the )?(?:heart|cardiac|cardiothoracic)",
        r"increased (?:heart|cardiac|cardiothoracic)",
    ),
    "Pericardial effusion": (
        rf"pericardi\w*{_JOINT}[- ]{_FLUID}",
        rf"pericardial {_PLACE}(?: {_STOP}\S+){{0,4}}? {_FLUID}",
        rf"{_FLUID}(?: (?!(?:no|not|without|and)\b)\S+){{0,10}}? pericardi\w*",
    ),
    "Coronary artery wall calcification": (
        rf"coronar\w*{_ACROSS} {_PLAQUE}",
        rf"{_PLAQUE}{_ACROSS} coronar\w*",
    ),
    "Hiatal hernia": (r"hiat\w+ hernia", r"hernia\w*(?: \S+){0,4}? hiat", r"sliding(?: type)? hernia"),
    "Lymphadenopathy": (r"(?:lymph)?adenopath", r"lymph ?nodes?\b", r"laps?\b"),
    "Emphysema": (r"emphysem", r"bull(?:a|ae|as|ous)\b"),
    "Atelectasis": (
        r"(?:\w+-?)?atele[ck]",
        r"(?:\w+-?)?atelac",
        r"collapse of the (?:\w+ ){0,3}(?:lung|lobe)",
    ),
    "Lung nodule": (
        r"(?:micro)?nodules?\b",
        r"nodular (?:\w+ ){0,3}(?:lesion|densit|opaci|infiltrat|formation|appearance)",
        r"(?<!effect )mass(?:es)?\b(?! effect)",
    ),
    "Lung opacity": (
        r"opaci",
        r"ground[- ]?glass",
        r"frosted glass",
        r"ggos?\b",
        r"infiltrat",
        r"densit(?:y|ies) increas",
        r"increas\w* (?:in |of )?(?:\w+ )?densit",
        r"crazy[- ]paving",
    ),
    "Pulmonary fibrotic sequela": (
        r"fibro(?:sis|tic)",
        r"fibro-?atel",
        r"sequela",
        r"pleuro-?parenchymal (?:\w+ )?(?:band|recession|scar|densit|chang|fibro)",
        r"parenchymal bands?\b",
        r"scar(?:s|ring)?\b",
        r"honeycomb",
    ),
    "Pleural effusion": (
        rf"pleur\w*{_JOINT}[- ]{_FLUID}",
        rf"(?:pleural|pleura|hemithora\w+) (?:{_PLACE}(?: (?!(?:no|not|without)\b)\S+){{0,4}}? )?{_FLUID}",
        rf"{_FLUID}(?: (?!(?:no|not|without|pericardial)\b)\S+){{0,10}}? (?:pleura\w*|hemithora\w+)",
        r"hydro(?:pneumo)?thora",
    ),
    "Mosaic attenuation pattern": (r"mosaic",),
    "Peribronchial thickening": (
        rf"{_BRONCHUS}{_gap(4)} {_THICK}",
        rf"{_THICK}{_gap(6)} (?:and )?{_BRONCHUS}",
    ),
    "Consolidation": (r"consolidat",),
    "Bronchiectasis": (
        r"bronchi\w*ecta",
        rf"bronch\w*{_gap(3)} (?:ecta(?:sia|sis|tic)|dilat\w+)",
        rf"(?:ecta(?:sia|sis|tic)|dilat\w+){_gap(5)} bronch\w*",
    ),
    "Interlobular septal thickening": (
        rf"{_SEPTUM}{_gap(4)} {_THICK}",
        rf"{_THICK}{_gap(6)} (?:and )?{_SEPTUM}",
    ),
}

# What looks like the finding and is none.
LOOKALIKES: dict[str, tuple[str, ...]] = {
    "Arterial wall calcification": (
        r"calcif\w* (?:\w+ ){0,2}(?:lymph|nod|granulom|pleura)\w*(?: \S+)*",
        r"(?:aortic|mitral) (?:valv|annul)\w*(?: \S+){0,4}? calcif\w*",
        r"calcif\w*(?: \S+){0,4}? (?:aortic|mitral) (?:valv|annul)\w*",
    ),
    "Emphysema": (r"subcutaneous emphysema", r"emphysema of the (?:skin|soft tissue)"),
    "Lymphadenopathy": (r"calcif\w* (?:\w+ ){0,2}lymph ?nodes?",),
    "Lung opacity": (
        r"sequela\w* (?:\w+ ){0,2}densit\w* increas\w*",
        r"opacifi\w* (?:of the )?(?:vessel|contrast)",
    ),
    "Lung nodule": (r"nodular goit\w+",),
    "Interlobular septal thickening": (
        r"(?:interventricular|interatrial|nasal) sept\w*(?: \S+){0,4}? thick\w*",
    ),
}

# Findings of the lung that other organs have too: they do not count where only another organ is named.
LUNG_ONLY = ("Lung nodule", "Lung opacity", "Pulmonary fibrotic sequela")
LUNG = (
    r"(?:lungs?|lobes?|lobar|pulmon\w*|parenchym\w*|pleur\w*|hil(?:ar|um)|lingul\w*|apical|subpleural|bronch\w*"
    r"|segments?)\b"
)
OTHER_ORGAN = (
    r"(?:thyroid|liver|hepat\w*|spleen|splenic|adrenal|kidneys?|renal|perinephric|breasts?|mesent\w*|bones?|ribs?"
    r"|vertebra\w*|sternum|muscle|subcutaneous|pancrea\w*|gallbladder|stomach|gastric|mediastin\w*|esophag\w*)\b"
)
EFFUSION = r"effusions?\b"
FLUID_PLACES = {
    "Pericardial effusion": r"pericardi",
    "Pleural effusion": r"(?:pleur|hemithora)",
    "elsewhere": r"(?:peri(?:hepatic|splenic)|abdom|pelvi|joint|ascit|subphrenic)",
}

HEART = r"(?:heart(?! failure| chambers?)|cardiac(?! patholog| valve)|cardiothoracic|ct[or])"
ENLARGED = r"(?:enlarged|increased|larger|above|bigger|grown|high)\b"
NORMAL = r"(?:normal|natural|unremarkable|within)\b"
OTHER_STRUCTURES = r"(?:lungs?|aort\w*|arter\w*|pulmonary|effusions?|densit\w*|thick\w*|vascular|vessels?)"
