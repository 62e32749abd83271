"""What the demo page says of a scan: findings as bars, lesions with colour and place, notes, errors."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, NamedTuple

from rect_vlm.findings import FINDINGS, LESIONS, lesion_title
from rect_vlm.predictions import Threshold, finding_limits
from rect_vlm.slice_figures import OUTLINES

Row = Mapping[str, Any]

TITLE = "Chest CT reading"
DISCLAIMER = (
    "Research software, not a medical device. Findings, outlines and reports may be wrong and must not be "
    "used for diagnosis or treatment."
)
FORMATS = ".nii, .nii.gz, .nrrd, .mha, a .zip of a DICOM series, or all its .dcm files at once"
DOWNLOADS = {"report": "Report (.txt)", "masks": "Masks (.nii.gz)", "json": "All (.json)"}
PUT_AWAY = '<div class="status" role="status">This scan was put away after an hour: read it again.</div>'
NO_REPORT = "This model was loaded without a report generator."


class Finding(NamedTuple):
    """A finding, its probability, and whether that is above the threshold."""

    name: str
    probability: float
    present: bool


def finding_rows(row: Row) -> list[Finding]:
    """The findings of a prediction, the likeliest first."""
    found = [Finding(name, value, name in row["present"]) for name, value in row["findings"].items()]
    return sorted(found, key=lambda finding: -finding.probability)


def findings_html(row: Row, threshold: Threshold) -> str:
    """A bar for every finding with a tick at its threshold, one for all or 18; those above are marked."""
    found, limits = finding_rows(row), dict(zip(FINDINGS, finding_limits(threshold), strict=True))
    bars = "".join(
        f'<tr class="{"present" if finding.present else "absent"}" '
        f'title="present above {limits[finding.name]:.2g}">'
        f'<th scope="row" style="--share:{100 * finding.probability:.1f}%;'
        f'--limit:{100 * limits[finding.name]:.1f}%">{escape(finding.name)}</th>'
        f"<td>{finding.probability:.2f}</td><td>{'present' if finding.present else ''}</td></tr>"
        for finding in found
    )
    count = sum(finding.present for finding in found)
    above = f"{limits[FINDINGS[0]]:g}" if len(set(limits.values())) == 1 else "their thresholds"
    return (
        f'<table class="findings"><caption>{count} of {len(found)} findings above {above}; '
        f"probabilities are not calibrated</caption><tbody>{bars}</tbody></table>"
    )


def lesion_choices(row: Row) -> list[tuple[str, str]]:
    """Label with volume, and name, of every lesion in the order of LESIONS."""
    choices = []
    for lesion in LESIONS:
        volume = row["lesions"][lesion]["volume_ml"]
        choices.append((f"{lesion_title(lesion)}: {_millilitres(volume)}", lesion))
    return choices


def lesions_html(row: Row) -> str:
    """Colour, volume, place and highest probability of every lesion."""
    rows = "".join(
        f'<tr><th scope="row"><span class="swatch" style="background:{OUTLINES[lesion]}"></span>'
        f"{lesion_title(lesion)}</th><td>{_millilitres(found['volume_ml'])}</td>"
        f"<td>{escape(found['location'] or '–')}</td><td>{found['highest_probability']:.2f}</td></tr>"
        for lesion, found in row["lesions"].items()
    )
    head = "".join(f"<th>{name}</th>" for name in ("Lesion", "Volume", "Place", "Highest probability"))
    return f'<table class="lesions"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def evidence_html(row: Row) -> str:
    """The lines that the language model was given besides the image."""
    lines = "".join(f"<li>{escape(line)}</li>" for line in row["evidence"])
    return f'<ul class="evidence">{lines}</ul>' if lines else '<p class="evidence">nothing</p>'


def done_html(row: Row) -> str:
    """The name of a scan that was read, and what must be known of it."""
    remarks = "".join(f"<li>{escape(note)}</li>" for note in row["notes"])
    return f'<div class="status done" role="status"><b>{escape(row["image"])}</b><ul>{remarks}</ul></div>'


def error_html(message: str) -> str:
    """Why a scan could not be read."""
    return f'<div class="status error" role="alert"><b>This scan cannot be read.</b> {escape(message)}</div>'


def _millilitres(volume: float) -> str:
    if not volume:
        return "none"
    return (
        f"{volume:.0f} ml" if volume >= 100 else f"{volume:.1f} ml" if volume >= 0.1 else f"{volume:.2f} ml"
    )
