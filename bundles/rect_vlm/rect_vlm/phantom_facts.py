"""What a simulated chest CT shows: the facts its volume, masks, report and labels are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rect_vlm.findings import FINDINGS

Side = Literal["right", "left"]  # of the patient
Lobe = Literal["right upper", "right middle", "right lower", "left upper", "left lower"]
Severity = Literal["mild", "moderate", "severe"]
Material = Literal["pacemaker", "port catheter", "sternal wires"]
Station = Literal["prevascular", "right paratracheal", "subcarinal", "right hilar", "left hilar"]

SIDES: tuple[Side, ...] = ("right", "left")
LOBES: tuple[Lobe, ...] = ("right upper", "right middle", "right lower", "left upper", "left lower")
LOWER: dict[Side, Lobe] = {"right": "right lower", "left": "left lower"}
SEVERITIES: tuple[Severity, ...] = ("mild", "moderate", "severe")
MATERIALS: tuple[Material, ...] = ("pacemaker", "port catheter", "sternal wires")
STATIONS: tuple[Station, ...] = (
    "prevascular",
    "right paratracheal",
    "subcarinal",
    "right hilar",
    "left hilar",
)


def side_of(lobe: Lobe) -> Side:
    """The side of a lobe."""
    return "right" if lobe.startswith("right") else "left"


@dataclass(frozen=True)
class Focus:
    """A nodule, a consolidation or an area of ground glass: its lobe and its largest diameter in mm."""

    lobe: Lobe
    mm: int


@dataclass(frozen=True)
class Fluid:
    """Pleural effusion: its sides and its thickness at the base in mm."""

    sides: tuple[Side, ...]
    mm: int

    @property
    def size(self) -> str:
        """The word for this thickness."""
        return "small" if self.mm < 28 else "moderate" if self.mm < 45 else "large"


@dataclass(frozen=True)
class Facts:
    """Everything one chest CT shows; None or an empty tuple is a finding that is not there.

    `pericardial_mm` is the thickness of the fluid, `hernia_mm` the diameter of the hernia, `nodes_mm` the
    short axis of the largest lymph node.
    """

    contrast: bool = False
    material: Material | None = None
    arterial_calcification: Severity | None = None
    cardiomegaly: Severity | None = None
    pericardial_mm: int | None = None
    coronary_calcification: Severity | None = None
    hernia_mm: int | None = None
    nodes: tuple[Station, ...] = ()
    nodes_mm: int = 0
    emphysema: Severity | None = None
    atelectasis: tuple[Lobe, ...] = ()
    nodules: tuple[Focus, ...] = ()
    ground_glass: tuple[Focus, ...] = ()
    sequela: tuple[Side, ...] = ()
    effusion: Fluid | None = None
    mosaic: Severity | None = None
    peribronchial: Severity | None = None
    consolidation: tuple[Focus, ...] = ()
    bronchiectasis: tuple[Lobe, ...] = ()
    septal: Severity | None = None


def fact_labels(facts: Facts) -> list[int]:
    """The 18 labels (0 or 1) in the order of FINDINGS; ground glass and consolidation are lung opacities."""
    present = {
        "Medical material": facts.material,
        "Arterial wall calcification": facts.arterial_calcification,
        "Cardiomegaly": facts.cardiomegaly,
        "Pericardial effusion": facts.pericardial_mm,
        "Coronary artery wall calcification": facts.coronary_calcification,
        "Hiatal hernia": facts.hernia_mm,
        "Lymphadenopathy": facts.nodes,
        "Emphysema": facts.emphysema,
        "Atelectasis": facts.atelectasis,
        "Lung nodule": facts.nodules,
        "Lung opacity": facts.ground_glass + facts.consolidation,
        "Pulmonary fibrotic sequela": facts.sequela,
        "Pleural effusion": facts.effusion,
        "Mosaic attenuation pattern": facts.mosaic,
        "Peribronchial thickening": facts.peribronchial,
        "Consolidation": facts.consolidation,
        "Bronchiectasis": facts.bronchiectasis,
        "Interlobular septal thickening": facts.septal,
    }
    return [int(bool(present[finding])) for finding in FINDINGS]
