"""METEOR: the authors' Java program where it is installed, otherwise a lite form under its own name."""

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from . import require_text_extra
from .pairs import Words, word_pairs

HEAP = "-Xmx2G"  # the paraphrase table of English needs more than Java's default on small machines


def meteor(hypotheses: Sequence[str], references: Sequence[str], java: bool = True) -> dict[str, float]:
    """METEOR 1.5 of the corpus as `meteor` (Denkowski and Lavie, WMT 2014), or `meteor_lite`, a fraction.

    `meteor` needs the package pycocoevalcap, whose jar is run, and `java`. `meteor_lite` is the mean over the
    reports of nltk's METEOR with exact and stem matches only (no synonyms, no paraphrases, the parameters of
    2005): the two are different measures, never to be compared. Without `java` it is always the lite form,
    which needs no start of a Java machine.

    Raises:
        ValueError: unequal lengths or nothing to compare.
        RuntimeError: the Java program failed; carries its own message.
        ImportError: neither the Java program nor the extra `text` is installed.
    """
    pairs = word_pairs(hypotheses, references)
    jar = meteor_jar() if java else None
    return {"meteor": _java_meteor(pairs, jar)} if jar else {"meteor_lite": _lite_meteor(pairs)}


def meteor_jar() -> Path | None:
    """The METEOR jar of an installed pycocoevalcap; None without it or without `java` on the path."""
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or shutil.which("java") is None:
        return None
    jars = (Path(folder) / "meteor" / "meteor-1.5.jar" for folder in package.submodule_search_locations or ())
    return next((jar for jar in jars if jar.is_file()), None)


def _java_meteor(pairs: list[tuple[Words, Words]], jar: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("hypotheses", "references")]
        for path, reports in zip(paths, zip(*pairs, strict=True), strict=True):
            path.write_text("".join(" ".join(words) + "\n" for words in reports), encoding="utf-8")
        command = ["java", HEAP, "-jar", str(jar), *map(str, paths), "-l", "en", "-norm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    score = re.search(r"^Final score:\s+(\S+)", done.stdout, flags=re.MULTILINE)
    if done.returncode or score is None:
        message = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise RuntimeError(f"METEOR at {jar} gave no score: {''.join(message) or 'no output'}")
    return float(score[1])


class _NoSynonyms:
    """Stands for WordNet, whose data nltk would look for on disk; a word has no synonyms here."""

    def synsets(self, word: str) -> list[str]:
        return []


def _lite_meteor(pairs: list[tuple[Words, Words]]) -> float:
    require_text_extra()
    from nltk.translate.meteor_score import single_meteor_score

    return fmean(
        single_meteor_score(reference, hypothesis, wordnet=_NoSynonyms()) for hypothesis, reference in pairs
    )
