"""The tokenizer: nothing is lost, nothing is glued, prompt tokens are single ids, bad folders are refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from kif_mrg.conditions import STATES
from kif_mrg.graph import NODES
from kif_mrg.text import ReportTokenizer, make_tokenizer, vocabulary
from kif_tiny_reporter import REPORTS, bert_folder
from medbundles.text.nlg import bleu

UNSEEN = "cardiomediastinal silhouette 3x7mm t10 , q-tip (sic) = ; normal ."


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    return ReportTokenizer.build(REPORTS)


@pytest.mark.parametrize("text", [*REPORTS, UNSEEN, "lungs clear .", " .", ""])
def test_decoding_returns_the_normalised_text(tokenizer: ReportTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.unk_id not in ids
    assert tokenizer.decode(ids) == tokenizer.normalise(text)


def test_periods_stay_apart_and_hyphens_become_words(tokenizer: ReportTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode(REPORTS[0])) == REPORTS[0]
    assert tokenizer.decode(tokenizer.encode("well-expanded lungs .")) == "well - expanded lungs ."


def test_a_reference_through_the_tokenizer_scores_one(tokenizer: ReportTokenizer) -> None:
    said = [tokenizer.decode(tokenizer.encode(report)) for report in REPORTS]
    assert bleu(said, [tokenizer.normalise(report) for report in REPORTS])["bleu4"] == pytest.approx(1)


def test_prompt_tokens_are_one_id_each_and_never_text(tokenizer: ReportTokenizer) -> None:
    ids = [tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.dec_id, *tokenizer.state_ids]
    assert len(set(ids)) == 8
    assert max(ids) == len(tokenizer) - 1
    assert tokenizer.hf.convert_ids_to_tokens(tokenizer.state_ids) == list(STATES)
    lungs = tokenizer.encode("lungs")
    assert tokenizer.decode([tokenizer.dec_id, *tokenizer.state_ids, *lungs, tokenizer.sep_id]) == "lungs"


def test_rare_words_are_spelled(tokenizer: ReportTokenizer) -> None:
    texts = ["heart heart heart", "heart scoliosis zygoma"]
    assert "zygoma" in vocabulary(texts)
    assert {"heart", "scoliosis"} <= set(vocabulary(texts, min_count=3))  # a node's name stays whole
    assert "zygoma" not in vocabulary(texts, min_count=3)
    rare = ReportTokenizer.build(texts, min_count=3)
    assert len(rare.encode("zygoma")) == 6
    assert rare.decode(rare.encode("zygoma heart")) == "zygoma heart"


def test_vocabulary_is_its_words_once_and_does_not_depend_on_their_order() -> None:
    words = vocabulary(REPORTS)
    assert len(words) == len(set(words))
    assert words == vocabulary(reversed(REPORTS))
    known = {word for report in REPORTS for word in report.replace("-", " - ").split()}
    assert known | {word for name in NODES[1:] for word in name.split()} <= set(words)


def test_reports_are_cut_by_words(tokenizer: ReportTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode(REPORTS[0], max_words=4)) == "the heart is normal"
    assert tokenizer.encode(REPORTS[0], max_words=400) == tokenizer.encode(REPORTS[0])


def test_saved_and_loaded_again(tokenizer: ReportTokenizer, tmp_path: Path) -> None:
    first = ReportTokenizer.build(REPORTS, tmp_path / "a").save(tmp_path / "c")
    ReportTokenizer.build(REPORTS, tmp_path / "b")
    assert sorted(path.name for path in first.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    for path in first.iterdir():
        assert (tmp_path / "a" / path.name).read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    loaded = ReportTokenizer.load(first)
    assert loaded.hf.get_vocab() == tokenizer.hf.get_vocab()
    assert loaded.state_ids == tokenizer.state_ids
    assert loaded.decode(loaded.encode(REPORTS[1])) == REPORTS[1]
    again = loaded.save(tmp_path / "d")
    assert ReportTokenizer.load(again).hf.get_vocab() == tokenizer.hf.get_vocab()


def test_a_bert_vocabulary_gains_exactly_the_prompt_tokens(
    tokenizer: ReportTokenizer, tmp_path: Path
) -> None:
    loaded = ReportTokenizer.load(bert_folder(tmp_path))
    lines = (tmp_path / "vocab.txt").read_text().splitlines()
    assert len(loaded) == len(lines) + 5
    assert loaded.encode("heart") == [lines.index("heart")]
    assert loaded.dec_id == len(lines)


def test_folders_without_a_vocabulary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"must hold tokenizer.json or vocab.txt, got {tmp_path}"):
        ReportTokenizer.load(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(ValueError, match=rf"into \[UNK\], loaded from {tmp_path}"):
        ReportTokenizer.load(tmp_path)


def test_texts_without_words_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one word"):
        ReportTokenizer.build(["", "  "])


def records(*reports: str) -> list[dict[str, str]]:
    return [{"report": report} for report in reports]


def test_a_runs_tokenizer_is_of_its_training_reports(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = {"train": records(*REPORTS), "val": records("xiphoid"), "test": records("azygos")}
    with caplog.at_level(logging.WARNING):
        made = make_tokenizer(tmp_path, splits)
        assert make_tokenizer(tmp_path, splits["train"]).hf.get_vocab() == made.hf.get_vocab()
        assert not caplog.records
        other = make_tokenizer(tmp_path, records("heart and lungs"))
    assert "replaced" in caplog.text
    assert not {"xiphoid", "azygos"} & set(made.hf.get_vocab())
    assert ReportTokenizer.load(tmp_path).hf.get_vocab() == other.hf.get_vocab()


def test_a_source_is_copied_into_the_run_and_never_written_to(tmp_path: Path) -> None:
    source = bert_folder(tmp_path / "bert")
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    made = make_tokenizer(tmp_path / "run", records("unrelated"), source=str(source))
    assert ReportTokenizer.load(tmp_path / "run").hf.get_vocab() == made.hf.get_vocab()
    assert "unrelated" not in made.hf.get_vocab()
    assert make_tokenizer(source, [], source=str(source)).hf.get_vocab() == made.hf.get_vocab()
    with pytest.raises(ValueError, match="model's folder"):
        make_tokenizer(source, records(*REPORTS))
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def test_saved_files_are_plain_json_without_paths(tokenizer: ReportTokenizer, tmp_path: Path) -> None:
    folder = ReportTokenizer.load(tokenizer.save(tmp_path / "a")).save(tmp_path / "b")
    for path in folder.iterdir():
        assert str(tmp_path) not in json.dumps(json.loads(path.read_text()))
