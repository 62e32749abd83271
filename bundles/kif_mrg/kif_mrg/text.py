"""Reports as token ids: the WordPiece tokenizer of BERT with the five tokens of the diagnosis prompt."""

from __future__ import annotations

import logging
import os
import stat
import string
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medbundles.text import require_text_extra

from kif_mrg.conditions import STATES
from kif_mrg.graph import NODES, ROOT

logger = logging.getLogger(__name__)

DECODE = "[DEC]"
BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What a clean report is made of; every vocabulary of a chest report knows some of it.
PROBE = "the heart is normal in size . no pleural effusion"


class ReportTokenizer:
    """A BERT tokenizer whose vocabulary also holds [DEC] and the state tokens, one id each.

    Args:
        hf: transformers' BertTokenizer; the five tokens are added to it where they are missing.

    Raises:
        ValueError: the vocabulary turns every word of a report into [UNK]; names the tokenizer's folder.
    """

    def __init__(self, hf: Any) -> None:
        from tokenizers import decoders

        hf.add_special_tokens({"additional_special_tokens": [DECODE, *STATES]})
        # The stock decoder glues " ." to the word before it, whatever `clean_up_tokenization_spaces` says.
        hf.backend_tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
        self.hf = hf
        self.pad_id, self.unk_id, self.cls_id, self.sep_id = (
            int(hf.convert_tokens_to_ids(token))
            for token in (hf.pad_token, hf.unk_token, hf.cls_token, hf.sep_token)
        )
        self.dec_id = int(hf.convert_tokens_to_ids(DECODE))
        self.state_ids = [int(i) for i in hf.convert_tokens_to_ids(list(STATES))]
        if self.unknown_share([PROBE]) == 1:
            raise ValueError(
                f"a tokenizer must know the words of a report, got {len(self)} tokens that turn all of "
                f"{PROBE!r} into [UNK], loaded from {hf.name_or_path or 'memory'}"
            )

    def __len__(self) -> int:
        """Size of the vocabulary, [DEC] and the state tokens included."""
        return len(self.hf)

    def encode(self, report: str, max_words: int | None = None) -> list[int]:
        """Ids of a clean report, without special ids, cut after `max_words` whitespace-separated words."""
        if max_words is not None:
            report = " ".join(report.split()[:max_words])
        return self.hf.backend_tokenizer.encode(report, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids without special tokens; punctuation stays apart: `lungs clear .`."""
        return self.hf.backend_tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def normalise(self, text: str) -> str:
        """What `decode(encode(text))` gives when every piece is known: lower case, `well - expanded`."""
        backend = self.hf.backend_tokenizer
        pieces = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
        return " ".join(word for word, _ in pieces)

    def comparable(self, text: str) -> str:
        """The form in which reports and references alike are measured and labelled, here and nowhere else.

        A word with a hyphen, which the tokenizer takes apart, is one word again, as in published references.
        """
        return self.normalise(text).replace(" - ", "-")

    def node_ids(self, names: Sequence[str] = NODES) -> list[list[int]]:
        """Ids of the pieces of every node name, each name tokenised on its own; the root is [CLS]."""
        return [[self.cls_id] if name == ROOT else self.encode(name) for name in names]

    def unknown_share(self, texts: Iterable[str]) -> float:
        """Share of [UNK] among the tokens of the texts, in 0..1; 0 if there are none."""
        ids = [i for text in texts for i in self.encode(text)]
        return sum(i == self.unk_id for i in ids) / max(len(ids), 1)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `tokenizer.json` and `tokenizer_config.json`, each replaced in one step."""
        return save_pretrained(self.hf, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> ReportTokenizer:
        """Load a local folder with `tokenizer.json` or BERT's `vocab.txt`, or a name on the hub.

        Raises:
            ValueError: nothing usable in the folder (transformers answers that with a vocabulary of five).
        """
        require_text_extra()
        from transformers import BertTokenizer

        files = [Path(folder) / name for name in ("tokenizer.json", "vocab.txt")]
        local = Path(folder).is_dir() or len(Path(folder).parts) > 2  # a name on the hub is owner/name
        if local and not any(path.is_file() for path in files):
            raise ValueError(f"a tokenizer's folder must hold tokenizer.json or vocab.txt, got {folder}")
        return cls(BertTokenizer.from_pretrained(str(folder)))

    @classmethod
    def build(
        cls, texts: Iterable[str], folder: str | os.PathLike[str] | None = None, min_count: int = 1
    ) -> ReportTokenizer:
        """Build from clean texts and, if `folder` is given, save there; equal texts give equal files.

        Raises:
            ValueError: the texts hold no word.
        """
        require_text_extra()
        from transformers import BertTokenizer

        pieces = vocabulary(texts, min_count)
        tokenizer = cls(BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}))
        if folder is not None:
            tokenizer.save(folder)
        return tokenizer


def save_pretrained(item: Any, folder: str | os.PathLike[str], **options: Any) -> Path:
    """`item.save_pretrained` of transformers, with each file of the folder replaced in one step.

    Who may read the files is decided by the umask, as for all others: safetensors writes for the owner alone.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        usual = Path(temporary) / "usual"
        usual.touch()
        mode = stat.S_IMODE(usual.stat().st_mode)
        usual.unlink()
        item.save_pretrained(temporary, **options)
        for path in sorted(Path(temporary).iterdir()):
            path.chmod(mode)
            path.replace(Path(folder) / path.name)
    return Path(folder)


def vocabulary(texts: Iterable[str], min_count: int = 1) -> list[str]:
    """BERT's special tokens, single characters, then the words seen at least `min_count` times.

    The characters alone spell any ASCII word, so that a rare word costs length but never becomes [UNK]. Words
    of the graph's node names always enter whole. Order: most frequent first, ties by spelling.

    Raises:
        ValueError: the texts hold no word.
    """
    from tokenizers import normalizers, pre_tokenizers

    normaliser, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normaliser.normalize_str(text)))
    if not counts:
        raise ValueError("a vocabulary needs at least one word, got texts without any")
    names = {word for name in NODES if name != ROOT for word in name.split()}
    seen = set("".join(counts))
    letters = sorted(seen.union(string.ascii_lowercase, string.digits) - set(string.punctuation))
    marks = sorted(string.punctuation)  # the splitter leaves punctuation alone, never inside a word
    wanted = {word for word, count in counts.items() if count >= min_count} | names
    words = sorted(wanted - {*letters, *marks}, key=lambda word: (-counts[word], word))
    return [*BERT_TOKENS, *marks, *letters, *(f"##{letter}" for letter in letters), *words]


def make_tokenizer(
    folder: str | os.PathLike[str],
    records: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Mapping[str, Any]]],
    source: str | None = None,
    min_count: int = 1,
    save: bool = True,
) -> ReportTokenizer:
    """The tokenizer of a run: `source` if given, else one built from the training reports; saved to `folder`.

    Args:
        folder: where the tokenizer of the run is kept; inference loads it from there.
        records: training records with a clean `report`, or all splits, of which only `train` is read.
        source: a local BERT folder, a folder written by `ReportTokenizer.save`, or a name on the hub.
        min_count: words seen less often are spelled in characters (R2Gen: 3 for IU X-Ray, 10 for MIMIC-CXR).
        save: False leaves `folder` as it is, for a run that saves only when its data are known to be good.

    Raises:
        ValueError: `folder` is a model's, which writing to it would damage; no training report has a word.
    """
    if source is not None and Path(source).resolve() == Path(folder).resolve():
        return ReportTokenizer.load(folder)
    if any((Path(folder) / name).exists() for name in ("config.json", "vocab.txt")):
        raise ValueError(f"a run's tokenizer must not be written to a model's folder, got {folder}")
    if source is not None:
        tokenizer = ReportTokenizer.load(source)
    else:
        training = records["train"] if isinstance(records, Mapping) else records
        if not training:
            raise ValueError("a tokenizer is built from the training reports, got no training record")
        tokenizer = ReportTokenizer.build((record["report"] for record in training), min_count=min_count)
    if not save:
        return tokenizer
    if (Path(folder) / "tokenizer.json").is_file():
        if ReportTokenizer.load(folder).hf.get_vocab() == tokenizer.hf.get_vocab():
            return tokenizer
        logger.warning("the tokenizer in %s was of other texts and is replaced", folder)
    tokenizer.save(folder)
    return tokenizer
