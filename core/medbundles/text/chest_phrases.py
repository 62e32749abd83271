"""What the chest X-ray rule labeler looks for: phrases of findings, and structures with their states.

Written with the phrase lists of chexpert-labeler in view (Stanford Machine Learning Group, MIT licence,
Irvin et al., AAAI 2019, arXiv 1901.07031). Patterns meet lower-case words separated by single spaces, without
commas; a pattern without a closing word boundary also meets the plural and other endings.
"""

CHEXPERT_CONDITIONS: tuple[str, ...] = (
    "enlarged_cardiomediastinum",
    "cardiomegaly",
    "lung_opacity",
    "lung_lesion",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural_effusion",
    "pleural_other",
    "fracture",
    "support_devices",
    "no_finding",
)

FINDINGS: dict[str, tuple[str, ...]] = {
    "enlarged_cardiomediastinum": (r"mediastinal (?:widening|enlargement|fullness|prominence)",),
    "cardiomegaly": (
        r"cardiomegal",
        r"cardiac enlargement",
        r"(?:atrial|ventricular|chamber) (?:enlargement|hypertrophy)",
    ),
    "lung_opacity": (
        r"opaci",
        r"(?:decreased|reduced) translucency",
        r"increased densit",
        r"air[ -]?space (?:diseas|process|patter|abnormal)",
        r"infiltrat",
        r"interstitial (?:marking|pattern|lung|diseas|chang|process|thicken|prominence|abnormal)",
        r"reticul",
        r"scar(?:s|ring|red)?\b",
        r"(?:peribronchial|bronchial|septal) (?:wall )?(?:thicken|cuff)",
        r"haz(?:y|iness)",
        r"ground[ -]?glass",
    ),
    "lung_lesion": (
        r"mass(?:es)?\b(?! effect)",
        r"mass-?like",
        r"nodules?\b",
        r"nodular (?:\w+ )?(?:densit|opaci|lesion|shadow|focus|foci)",
        r"lumps?\b",
        r"(?:cavitary|lung|pulmonary|parenchymal) lesion",
        r"carcinoma",
        r"neoplas",
        r"tumou?r",
        r"malignan",
    ),
    "edema": (
        r"o?edema",
        r"(?:congestive )?heart failure",
        r"chf\b",
        r"congestion",
        r"engorge",
        r"vascular prominence",
        r"indistinct(?:ness| vascular| pulmonary vas)",
    ),
    "consolidation": (r"consolidat",),
    "pneumonia": (r"(?:broncho)?pneumonia", r"infection", r"infectious"),
    "atelectasis": (r"atelecta", r"collapse"),
    "pneumothorax": (r"(?:hydro)?pneumothora(?:x|ces)", r"pleural air"),
    "pleural_effusion": (r"pleural fluid", r"effusion", r"hydropneumothora(?:x|ces)"),
    "pleural_other": (  # fibrosis of the lung is counted here by the lists this follows
        r"pleural (?:\w+ )?(?:thicken|plaque|calcif)",
        r"fibrosis",
        r"fibrothorax",
        r"pleur\w*[ -](?:parenchymal |pericardial )?(?:scar|thicken)",
        r"apical cap",
    ),
    "fracture": (r"fractur",),
    "support_devices": (
        r"pace ?(?:r|maker)",
        r"(?:(?:central|arterial|venous|picc|dialysis|infusion|subclavian|jugular|support) )?lines?\b",
        r"picc",
        r"tub(?:e|es|ing)\b",
        r"(?:valve|valvular) (?:replace|prosthe|repair)",
        r"(?:prosthetic|artificial|mechanical|bioprosthetic|replaced) (?:\w+ )?valve",
        r"catheter",
        r"hardware",
        r"arthroplast",
        r"markers?\b",
        r"a?icd\b",
        r"defibrillat",
        r"devices?\b",
        r"drains?\b",
        r"(?:fixation|metal\w*) plate",
        r"plate and screw",
        r"screws?\b",
        r"cannula",
        r"apparatus",
        r"coils?\b",
        r"equipment",
        r"(?:medi|chemo)?-?port(?:s|-?a-?cath)?\b",
        r"(?:pacing|pacer|pacemaker|biventricular|defibrillator) (?:\w+ )?(?:lead|wire)",
        r"(?:sternal|sternotomy|cerclage) (?:\w+ )?(?:wire|suture)",
        r"stents?\b",
        r"swan[ -]ganz",
        r"balloon pump",
        r"(?:ventricular assist|spinal cord|nerve) (?:device|stimulator)",
    ),
}

# What looks like a finding of the class and is none.
LOOKALIKES: dict[str, tuple[str, ...]] = {
    "lung_opacity": (r"pleur\w*[ -](?:parenchymal |pericardial )?scar", r"opacified (?:colon|bowel|stomach)"),
    "lung_lesion": (r"(?<!non[ -])calcified (?:\w+ ){0,4}(?:nodul|mass)",),
    "pneumonia": (r"granulomatous infecti", r"histoplasm\w* infecti"),
    "atelectasis": (
        r"(?:vertebra\w*|compression|body|bodies) (?:\w+ )?collapse",
        r"collapse of (?:the )?[tl]\d",
    ),
    "pleural_effusion": (r"pericardial effusion", r"joint effusion"),
    "support_devices": (
        r"(?:kerley|(?:mid)?clavicular|midline|fracture|hairline|fissur\w*|fissure|paratracheal|pleural|fat|skin)"
        r"(?: [ab])? lines?\b",
        r"lines? of (?:the )?fissure",
        r"b-lines?",
    ),
}

# Findings outside the thirteen classes: any of them un-negated excludes No Finding.
OTHER_FINDINGS: tuple[str, ...] = (
    r"emphysem",
    r"copd\b",
    r"obstructive (?:pulmonary|lung|airway)",
    r"hyper-?(?:inflat|expan|lucen|aerat)",
    r"(?:hypo|under) ?-?(?:inflat|expan|ventil|aerat)",
    r"(?:low|small|shallow|decreas\w*|diminish\w*|reduc\w*) (?:lung|inspiratory) (?:volume|effort)",
    r"lung volumes? (?:is|are|remain) (?:\w+ )?(?:low|small|decreas|diminish|reduc)",
    r"(?:flatten\w*|elevat\w*|eventration) (?:\w+ ){0,4}(?:hemi)?diaphragm",
    r"(?:hemi)?diaphragm\w* (?:\w+ ){0,3}(?:flatten|elevat|eventration)",
    r"eventration",
    r"blunt",
    r"volume loss",
    r"(?:\w*scolio|kypho)\w+",
    r"(?:dextro|levo)\w*[ -]?curv",
    r"degenerat",
    r"osteophyt",
    r"spondyl",
    r"arthr(?:itis|itic|osis|opath)",
    r"osteo(?:peni|poro|dystroph|scler)",
    r"deminerali[sz]",
    r"(?:compression|wedg\w*) (?:deform|chang)",
    r"deformit",
    r"(?:lytic|sclerotic|blastic) lesion",
    r"metasta",
    r"hernia",
    r"granulom",
    r"calcifi",
    r"atheroscl",
    r"tortuo",
    r"ecta(?:sia|tic)",
    r"aneurysm",
    r"(?:uncoil|unfold)",
    r"thicken",
    r"prominen",
    r"(?:lymph)?adenopath",
    r"bronchi(?:tis|olitis|ectasis)",
    r"(?:bulla|blebs?\b)",
    r"asthma",
    r"aspirat",
    r"(?:cephali[sz]ation|cuffing)",
    r"contusion",
    r"h(?:a)?emorrhag",
    r"h(?:a)?ematoma",
    r"pericardial effusion",
    r"pneumo(?:mediastinum|peritoneum)",
    r"hypertension",
    r"(?:bullet|shrapnel)",
)

# Structures whose state makes the finding: normal, enlarged, or left open (unchanged, borderline).
STRUCTURES: dict[str, str] = {
    "cardiomegaly": (
        r"(?:heart(?! failure| border| valve)(?: size| shadow| contours?| silhouette)?"
        r"|cardiac (?:and mediastinal )?(?:silhouettes?|size|shadow|contours?|outline|structures?)"
        r"|mediastinal and cardiac (?:silhouettes?|contours?|structures?))"
    ),
    "enlarged_cardiomediastinum": (
        r"(?:(?:cardio ?-?|cardiac and |cardiac |heart and )?mediastin(?:um|al (?:and (?:cardiac|hilar) )?"
        r"(?:silhouettes?|contours?|configurations?|structures?|borders?|outlines?|shadows?|size|width))"
        r"|pericardial silhouette)"
    ),
}
ENLARGED = r"(?:enlarg\w*|prominen\w*|widen\w*|dilat\w*|increased|large|generous|wide)"
NORMAL = r"(?:normal|unremarkable)"
OPEN = r"(?:stable|unchanged|similar|borderline|obscured)"
# "Enlarged" is not carried across the name of another structure; "normal" is ("heart and lungs are normal").
OTHER_STRUCTURES = (
    r"(?:lungs?|pulmonary|vascul\w*|aort\w*|hil\w+|arter\w*|markings?|opaci\w*|effusions?|nodul\w*|mass)"
)
