"""The report memory: training reports as vectors, and for every picture the K that fit it best.

A query never gets an entry of its own study, so no report can be copied from its own answer. Retrieval as
conditioning follows PromptMRG (AAAI 2024, arXiv 2308.12604).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from medbundles.problems import Problems
from torch import Tensor
from torch.nn import functional as F

from kif_mrg.annotation import read_annotation
from kif_mrg.memory_backends import Backend, Precomputed, make_backend
from kif_mrg.memory_building import build_entries, entries_digest, picture_key, take_over
from kif_mrg.memory_file import Entries, read_entries, read_json, write_npz
from kif_mrg.records import Record, describe
from kif_mrg.retrieval import nearest_rows, read_rows, write_rows

__all__ = ["ReportMemory", "build_memory", "make_memory"]

logger = logging.getLogger(__name__)
Annotation = str | Path | Mapping[str, Sequence[Record]]


class ReportMemory:
    """Memory in an npz file that `ensure` makes; see `make_memory` and `ReportMemory.load`.

    Args:
        path: the file; for the backend Precomputed without a file of its own it must be there.
        backend: how reports become vectors and pictures find them.
        dim: Dm, the width of a report's vector.
        annotation: its training reports are the entries; a path, or what read_annotation returned.

    Raises:
        FileNotFoundError: a precomputed file is missing.
    """

    def __init__(
        self, path: str | Path, backend: Backend, dim: int, annotation: Annotation | None = None
    ) -> None:
        self.path, self.backend, self.dim, self.annotation = Path(path), backend, dim, annotation
        self._opened: Entries | None = None
        if isinstance(backend, Precomputed) and backend.source is None:
            _require(self.path)

    @classmethod
    def load(cls, path: str | Path, source: str | None = None) -> ReportMemory:
        """Open a finished memory; `source` says where its encoder's weights or CLIP folder are by now.

        Raises:
            FileNotFoundError: the file, or the weights of its encoder, are missing.
            ValueError: no report memory, or weights other than those it was made with.
        """
        path = _require(Path(path))
        settings = read_json(path, "settings") or {"backend": "precomputed"}
        name, encoder, seed = settings["backend"], settings.get("encoder", ""), settings.get("seed", 0)
        if name == "precomputed":  # everything it was made from is in the file
            source = None
        else:
            source = source or read_json(path, "source")
        backend = make_backend(name, source, encoder, seed)
        entries = read_entries(path)
        memory = cls(path, backend, entries.features.shape[1])
        memory._opened = memory._checked(entries)
        return memory

    @property
    def features(self) -> Tensor:
        """Vectors (N, Dm) of the reports, float32, of length 1."""
        return self._open().features

    @property
    def study_ids(self) -> list[str]:
        """Study of each entry."""
        return self._open().study_ids

    @property
    def reports(self) -> list[str]:
        """Text of each entry; empty for a precomputed file without the key `reports`."""
        return self._open().reports

    def __len__(self) -> int:
        return len(self.study_ids)

    def gather(self, indices: Sequence[int]) -> Tensor:
        """Vectors (K, Dm) of the given rows."""
        return self.features[list(indices)]

    def ensure(self, records: Iterable[Record] | None = None) -> None:
        """Build the file if it is missing or was made from other reports, pictures or settings.

        A memory without annotation, as `load` returns it, is only checked. Rows that the records retrieve by
        their annotation are those of a precomputed memory; any other drops them and finds its own.

        Args:
            records: all records of the annotation, if they have been read already; otherwise they are read.

        Raises:
            ValueError: no training record; validation or test studies in the memory; the file is not one
                made here, or a precomputed one of another width.
            OSError: the file cannot be written.
            FileNotFoundError, ValueError: an image is missing or damaged.
        """
        rows = list(records) if records is not None else self._annotated()
        if self.annotation is not None:
            self._update(rows)
        self._refuse_leaks(rows, self.study_ids)
        if not isinstance(self.backend, Precomputed):
            for record in rows:
                record.pop("retrieved", None)

    def nearest(self, image: Tensor, k: int, exclude_study: str | None = None) -> list[int]:
        """Rows of the `k` reports that fit a picture (3, H, W) in 0..1, best first.

        Raises ValueError for a precomputed memory, or fewer than `k` entries of other studies.
        """
        entries = self._open()
        query = self.backend.encode(self.backend.prepare(image)[None])
        query = F.normalize(query - entries.centre, dim=1)
        return nearest_rows(query, [exclude_study], entries.keys, entries.study_ids, k)[0].tolist()

    def attach(self, records: Sequence[Record], k: int) -> None:
        """Fill `record["retrieved"]` with `k` rows, best first, none of the record's own study.

        The query is the first view. What was found is kept beside the memory in `<name>.retrieved.npz`. A
        precomputed memory takes the rows that the annotation names; where fewer than `k` of them are left
        they repeat in turn.

        Raises ValueError for records without usable rows (file, entry, key), or too large a `k`.
        """
        if isinstance(self.backend, Precomputed):
            self._take_given(records, k)
            return
        settings, cache = self._open().settings, self.path.with_suffix(".retrieved.npz")
        kept = read_rows(cache, settings, k)
        names = [picture_key(record) for record in records]
        missing = [record for record, name in zip(records, names, strict=True) if name not in kept]
        if missing:
            kept |= self._retrieve(missing, k)
            try:
                write_rows(cache, settings, kept)
            except OSError as error:  # a memory may be shared read-only
                logger.warning("retrieved reports are not kept for the next run: %s", error)
        for record, name in zip(records, names, strict=True):
            record["retrieved"] = kept[name]

    def _annotated(self) -> list[Record]:
        splits = {} if self.annotation is None else self.annotation
        if not isinstance(splits, Mapping):
            splits = read_annotation(splits)
        return [record for rows in splits.values() for record in rows]

    def _settings(self) -> dict[str, Any]:
        return json.loads(json.dumps({**self.backend.settings, "dim": self.dim}))

    def _update(self, rows: Sequence[Record]) -> None:
        training = [record for record in rows if record["split"] == "train"]
        wanted = self._settings()
        if not isinstance(self.backend, Precomputed):
            if not training:
                raise ValueError(f"report memory {self.path} needs training records, got none")
            wanted["entries"] = entries_digest(training)
        elif self.backend.source is None:
            return
        if self._up_to_date(wanted):
            return
        self._opened = None
        if isinstance(self.backend, Precomputed):
            content = take_over(str(self.backend.source), self.dim)
        else:
            logger.info("building the report memory %s from %d reports", self.path, len(training))
            content = build_entries(self.backend, training, self.dim)
        self._refuse_leaks(rows, content["study_ids"].tolist())  # before a sound memory is overwritten
        write_npz(self.path, {"settings": wanted, "source": self.backend.source, **content})

    def _up_to_date(self, wanted: Mapping[str, Any]) -> bool:
        if not self.path.is_file():
            return False
        found = read_json(self.path, "settings")
        if found is None:
            raise ValueError(
                f"report memory {self.path} was not made here and is not overwritten: choose another path, "
                "or the backend precomputed without source"
            )
        changed = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        if changed:
            logger.info("report memory %s is made again, changed: %s", self.path, ", ".join(changed))
        return not changed

    def _open(self) -> Entries:
        if self._opened is None:
            if not self.path.is_file():
                raise FileNotFoundError(f"report memory {self.path} is not built yet, ensure() builds it")
            self._opened = self._checked(read_entries(self.path))
        return self._opened

    def _checked(self, entries: Entries) -> Entries:
        wanted: dict[str, Any] = {"dim": self.dim}
        found: dict[str, Any] = {"dim": entries.features.shape[1]}
        if not isinstance(self.backend, Precomputed) or self.backend.source is not None:
            wanted = self._settings()
            found |= {key: entries.settings.get(key) for key in wanted if key != "dim"}
        if found != wanted:
            raise ValueError(f"report memory {self.path} must be made with {wanted}, got one with {found}")
        return entries

    def _refuse_leaks(self, rows: Iterable[Record], study_ids: Sequence[str]) -> None:
        held_out = {record["study_id"]: record["split"] for record in rows if record["split"] != "train"}
        leaked = sorted(held_out.keys() & set(study_ids))
        if leaked:
            examples = ", ".join(f"{study} ({held_out[study]})" for study in leaked[:5])
            raise ValueError(
                f"report memory {self.path}, key study_ids: must hold no study of validation or test, "
                f"got {len(leaked)}: {examples}"
            )

    def _retrieve(self, records: Sequence[Record], k: int) -> dict[str, list[int]]:
        """Rows by picture; the pictures of the memory's own entries need no second reading."""
        entries = self._open()
        names = [picture_key(record) for record in records]
        known = entries.pictures if self.backend.among_pictures else {}
        new = torch.tensor([name not in known for name in names])
        queries = torch.empty(len(records), entries.keys.shape[1])
        queries[~new] = entries.keys[[known[name] for name in names if name in known]]
        paths = [
            record["image_path"][0] for record, name in zip(records, names, strict=True) if name not in known
        ]
        if paths:
            vectors = self.backend.pictures(paths, "similar reports")
            queries[new] = F.normalize(vectors - entries.centre, dim=1)
        studies = [record["study_id"] for record in records]
        rows = nearest_rows(queries, studies, entries.keys, entries.study_ids, k)
        return dict(zip(names, rows.tolist(), strict=True))

    def _take_given(self, records: Sequence[Record], k: int) -> None:
        studies, problems = self.study_ids, Problems()
        for record in records:
            given = record.get("retrieved") or []
            usable = [row for row in given if 0 <= row < len(studies)]
            others = [row for row in usable if studies[row] != record["study_id"]]
            where = f"{describe(record)}, key retrieved: "
            if not given:
                problems.add("missing", where + "rows of the precomputed memory are required, missing")
            elif len(usable) < len(given):
                problems.add("range", where + f"rows must be in 0..{len(studies) - 1}, got {given}")
            elif not others:
                problems.add("own", where + f"must name another study, got only rows of {record['study_id']}")
            else:
                record["retrieved"] = [others[i % len(others)] for i in range(k)]
        problems.raise_if_any(f"the rows of {self.path}")


def make_memory(
    annotation: Annotation,
    path: str | Path,
    backend: str = "image_knn",
    dim: int = 512,
    source: str | None = None,
    encoder: str = "resnet101",
    seed: int = 0,
) -> ReportMemory:
    """Memory of an annotation's training reports; nothing is read or built before `ensure` is called.

    Args:
        annotation: path, or what read_annotation returned.
        path: the npz file.
        backend: "image_knn", "clip" or "precomputed".
        dim: width of a report's vector; for "clip" its projection_dim.
        source: folder of a local CLIP for "clip"; for "precomputed" an npz with `features` (N, dim) and
            `study_ids` (N), or None if `path` is one; for "image_knn" a local state dict of `encoder`, or
            None to compare thumbnails.
        encoder: VisualEncoder of "image_knn".
        seed: of the random projection of "image_knn".

    Raises:
        ValueError: unknown backend, or "clip" without a source.
        FileNotFoundError: the source, or a precomputed memory, is missing.
    """
    return ReportMemory(path, make_backend(backend, source, encoder, seed), dim, annotation)


def build_memory(
    annotation: str,
    output: str,
    backend: str = "image_knn",
    dim: int = 512,
    source: str | None = None,
    encoder: str = "resnet101",
    seed: int = 0,
) -> Path:
    """Command: build the report memory of an annotation file in `output`; arguments as in make_memory."""
    memory = make_memory(annotation, output, backend, dim, source, encoder, seed)
    memory.ensure()
    return memory.path


def _require(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"report memory not found: {path}")
    return path
