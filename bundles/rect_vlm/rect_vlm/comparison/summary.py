"""From the scores of all runs to comparison.md, results.json and figures."""

from __future__ import annotations

from pathlib import Path

from medbundles.atomic import write_text
from medbundles.tables import markdown_table, write_json

from rect_vlm.comparison.figures import write_figures
from rect_vlm.comparison.plan import ARMS, Budget
from rect_vlm.comparison.results import read_results
from rect_vlm.comparison.tables import all_tables

NOTE = (
    "Simulated cohort, not patients. Each seed has a cohort of its own for training and validation; all "
    "arms of a seed see the same scans. Epochs were chosen on the validation scans; every phase was "
    "scored once, on one independent test cohort. An arm trains the phases that its change touches and "
    "takes the earlier ones from the full run of its seed, so it is compared with the full run phase by "
    "phase. Values are means and standard deviations over seeds; differences are paired over seeds, with "
    "95 % t intervals."
)


def write_summary(folder: Path, budget: Budget) -> str:
    """Write the tables and figures of all runs that are complete; returns the tables as Markdown.

    Raises:
        ValueError: no full run is complete, or the runs are not alike.
    """
    results = read_results(folder, budget)
    size = f"{len(results.seeds)} seeds of {budget.seeds} planned, {budget.test} test scans."
    arms = [
        {
            "arm": name,
            "left out": arm.title,
            "trains": ", ".join(arm.phases),
            "from the full run": ", ".join(arm.shares) or "–",
            "seeds": len(results.seeds_of(name)),
        }
        for name, arm in ARMS.items()
    ]
    tables = all_tables(results)
    text = [NOTE, "", size, "", markdown_table(arms)]
    for table in tables:
        text += [f"**{table.title}.** {table.note}", "", markdown_table(table.rows)]
    written = "\n".join(text)
    write_text(folder / "comparison.md", written)
    content = {
        "seeds": results.seeds,
        "arms": arms,
        "scores": {run.name: phases for run, phases in results.runs.items()},
        "tables": {table.title: table.rows for table in tables},
    }
    write_json(folder / "results.json", content)
    write_figures(folder, results)
    return written
