"""The sentences of simulated chest CT reports; the first wording of each is the commonest.

They are written in the manner of the reports of CT-RATE (arXiv 2403.17834): what is there "was observed",
what is not "was not observed". No wording changes what a labeler should read.
"""

from __future__ import annotations

WORDING_RATES = (0.6, 0.25, 0.15)
ADVERB = {"mild": "mildly", "moderate": "moderately", "severe": "severely"}

TRACHEA = (
    "The trachea and main bronchi are open",
    "Trachea and both main bronchi are patent",
    "No occlusive pathology was observed in the trachea and main bronchi",
)
HEART_NORMAL = (
    "Heart size is normal",
    "The size and contours of the heart are normal",
    "Cardiomegaly was not observed",
)
HEART_LARGE = (
    "{Size} cardiomegaly was observed",
    "The heart is {adverb} enlarged",
    "Heart size is {adverb} increased",
)
PERICARDIUM_CLEAR = (
    "Pericardial effusion was not observed",
    "Pericardial effusion was not detected",
    "No pericardial effusion was observed",
)
PERICARDIUM_FLUID = (
    "Pericardial effusion measuring {mm} mm was observed",
    "There is pericardial effusion of {mm} mm",
    "A pericardial effusion reaching a thickness of {mm} mm was detected",
)
AORTA_NORMAL = (
    "Thoracic aorta diameter is normal",
    "The caliber of the thoracic aorta is normal",
    "Main vascular structures are normal",
)
AORTA_HARD = (
    "{Size} calcified atheroma plaques were observed in the wall of the aorta",
    "{Size} calcification was observed in the aortic arch and descending aorta",
    "There are {size} calcified plaques in the wall of the thoracic aorta",
)
CORONARIES_HARD = (
    "{Size} calcification was observed in the coronary arteries",
    "{Size} calcified plaques were observed in the walls of the coronary arteries",
    "There is {size} coronary artery calcification",
)
ESOPHAGUS_NORMAL = (
    "The esophagus is of normal caliber",
    "Esophagus caliber is normal",
    "Hiatal hernia was not observed",
)
HERNIA = (
    "A hiatal hernia of {mm} mm was observed",
    "There is a sliding type hiatal hernia of {mm} mm",
    "Hiatal hernia measuring {mm} mm was observed",
)
NODES_NORMAL = (
    "No pathologically enlarged lymph nodes were detected",
    "Lymph nodes of pathological size were not observed",
    "No enlarged lymph nodes were observed in the mediastinum",
)
NODES = (
    "Enlarged lymph nodes up to {mm} mm in short axis were observed in the {places} stations",
    "Lymphadenopathy up to {mm} mm was observed in the {places} stations",
    "There are enlarged lymph nodes in the {places} stations, the largest with a short axis of {mm} mm",
)
LUNGS_CLEAR = (
    "No nodular or infiltrative lesion was detected in either lung",
    "Aeration of both lungs is normal",
    "No mass, nodule or infiltration was observed in the lungs",
)
NO_NODULE = (
    "No nodule was detected in the lungs",
    "Lung nodule was not observed",
    "No pulmonary nodule was observed",
)
NODULE = (
    "A nodule of {mm} mm was observed in the {lobe} lobe",
    "There is a {mm} mm nodule in the {lobe} lobe",
    "A nodule measuring {mm} mm was detected in the {lobe} lobe",
)
NO_OPACITY = (
    "No infiltration or consolidation was observed",
    "Ground glass opacity or consolidation was not observed",
    "No consolidation or ground glass opacity was detected",
)
GROUND_GLASS = (
    "Ground glass opacity was observed in the {lobes}",
    "There are ground glass opacities in the {lobes}",
    "Areas of ground glass opacity were detected in the {lobes}",
)
CONSOLIDATION = (
    "An opacity consistent with consolidation of {mm} mm was observed in the {lobes}",
    "There is an opacity of {mm} mm compatible with consolidation in the {lobes}",
    "Consolidation with increased density of {mm} mm was detected in the {lobes}",
)
EMPHYSEMA = (
    "{Size} emphysematous changes were observed in both lungs",
    "There is {size} emphysema in both lungs",
    "{Size} emphysema was observed, most in the upper lobes",
)
MOSAIC = (
    "{Size} mosaic attenuation pattern was observed in both lungs",
    "There is a {size} mosaic attenuation pattern in both lungs",
    "{Size} mosaic attenuation was detected in the lungs",
)
SEPTA = (
    "{Size} interlobular septal thickening was observed in both lungs",
    "There is {size} thickening of the interlobular septa in both lungs",
    "{Size} interlobular septal thickening was detected",
)
CUFFS = (
    "{Size} peribronchial thickening was observed in both lungs",
    "There is {size} thickening of the bronchial walls in both lungs",
    "{Size} peribronchial thickening was detected",
)
WIDE_BRONCHI = (
    "Bronchiectasis was observed in the {lobes}",
    "There are bronchiectatic changes in the {lobes}",
    "Bronchiectasis was detected in the {lobes}",
)
ATELECTASIS = (
    "Atelectasis was observed in the {lobes}",
    "There are atelectatic changes in the {lobes}",
    "Subsegmental atelectasis was observed in the {lobes}",
)
SEQUELA = (
    "Fibrotic sequela changes were observed in the {apices}",
    "There are sequela fibrotic bands in the {apices}",
    "Pleuroparenchymal sequela changes were observed in the {apices}",
)
PLEURA_CLEAR = (
    "Pleural effusion was not observed",
    "Pleural effusion was not detected",
    "No pleural effusion was observed",
)
PLEURA_FLUID = (
    "{Size} {side} pleural effusion of {mm} mm was observed",
    "There is {size} {side} pleural effusion measuring {mm} mm",
    "{Size} {side} pleural effusion reaching {mm} mm was detected",
)
ABDOMEN = (
    "Upper abdominal organs are normal",
    "The upper abdominal organs in the sections are normal",
    "No pathology was detected in the upper abdominal sections",
)
MATERIAL = {
    "pacemaker": (
        "A pacemaker was observed on the left chest wall",
        "There is a pacemaker on the left anterior chest wall",
        "Cardiac pacemaker and its leads were observed on the left",
    ),
    "port catheter": (
        "A port catheter was observed on the right chest wall",
        "There is a port catheter on the right anterior chest wall",
        "Port catheter ending in the superior vena cava was observed on the right",
    ),
    "sternal wires": (
        "Sternotomy wires were observed",
        "There are sternal wires after sternotomy",
        "Sternal wires were observed",
    ),
}
NORMAL_IMPRESSION = (
    "Examination within normal limits",
    "No pathological finding in the thorax",
    "Normal chest CT",
)
TECHNIQUE = {
    False: "Non-contrast images were taken in the axial plane.",
    True: "Images were taken in the axial plane after intravenous contrast.",
}
