"""Pre-training of the decoder: it learns the language of reports, and what it learnt is measured rightly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from kif_mrg import pretraining
from kif_mrg.corpus import CorpusSplit, TextRecord
from kif_mrg.decoder import load_decoder, make_decoder
from kif_mrg.perplexity import batches, perplexity, said_alone, shuffle_words
from kif_mrg.phantom import case_facts
from kif_mrg.phantom_report import write_report
from kif_mrg.pretraining import RESULT, PretrainingSettings, pretrain
from kif_mrg.text import ReportTokenizer
from medbundles.text.cleaning import clean_report

TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
SETTINGS = PretrainingSettings(epochs=4, batch_size=8, learning_rate=1e-2, decoder=TINY, shuffles=2)


def authored(split: str, count: int) -> list[TextRecord]:
    texts = [
        clean_report(write_report(case_facts(0, split, k), np.random.default_rng(k))) for k in range(count)
    ]
    return [{"id": f"{split}{k}", "study_id": f"{split}{k}", "report": text} for k, text in enumerate(texts)]


@pytest.fixture(scope="module")
def corpus() -> CorpusSplit:
    return CorpusSplit(authored("train", 100), authored("val", 16), authored("test", 16), repeats=0)


@pytest.fixture(scope="module")
def run(corpus: CorpusSplit, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("decoder")
    return folder, pretrain(corpus, folder, SETTINGS, progress=False)


def untrained(corpus: CorpusSplit) -> tuple[torch.nn.Module, ReportTokenizer]:
    tokenizer = ReportTokenizer.build(record["report"] for record in corpus.train)
    torch.manual_seed(0)
    return make_decoder(tokenizer, 1, TINY).eval(), tokenizer


def test_real_reports_are_more_expected_than_shuffled_ones(run: tuple[Path, dict]) -> None:
    folder, result = run
    assert 1 < 1.5 * result["perplexity_real"] < result["perplexity_shuffled"]
    assert result["perplexity_shuffled"] == np.mean(result["perplexity_shuffled_each"])
    assert len(set(result["perplexity_shuffled_each"])) == 2
    assert result["perplexity_validation"][-1] < 0.5 * result["perplexity_validation"][0]
    assert json.loads((folder / RESULT).read_text()) == result


def test_saved_decoder_is_the_best_one(run: tuple[Path, dict], corpus: CorpusSplit) -> None:
    folder, result = run
    decoder, tokenizer = load_decoder(folder, encoder_width=24)
    for records, expected in (
        (corpus.test, result["perplexity_real"]),
        (corpus.val, min(result["perplexity_validation"])),
    ):
        found = perplexity(decoder, tokenizer, [record["report"] for record in records])
        assert found == pytest.approx(expected, rel=1e-4)
    assert len(tokenizer) == result["vocabulary"]


def test_perplexity_is_that_of_the_definition(corpus: CorpusSplit) -> None:
    decoder, tokenizer = untrained(corpus)
    reports = [record["report"] for record in corpus.test[:5]]
    total = words = 0.0
    for report in reports:
        ids = [*tokenizer.encode(report), tokenizer.sep_id]
        with torch.no_grad():
            chances = said_alone(decoder, tokenizer, torch.tensor([ids]))[0].log_softmax(-1)
        total -= sum(float(chances[k, token]) for k, token in enumerate(ids))
        words += len(report.split()) + 1
    for size in (1, 2, 5):
        found = perplexity(decoder, tokenizer, reports, batch_size=size)
        assert found == pytest.approx(math.exp(total / words), rel=1e-4)


def test_untrained_decoder_expects_nothing(corpus: CorpusSplit) -> None:
    decoder, tokenizer = untrained(corpus)
    reports = [record["report"] for record in corpus.test]
    real, shuffled = (perplexity(decoder, tokenizer, t) for t in (reports, shuffle_words(reports, 0)))
    assert real == pytest.approx(shuffled, rel=0.02)
    # Drawn at random, its words are not quite equally likely.
    assert len(tokenizer) < real < 1.3 * len(tokenizer)
    with pytest.raises(ValueError, match="at least one report"):
        perplexity(decoder, tokenizer, [])


def test_measuring_leaves_the_mode_of_the_decoder(corpus: CorpusSplit) -> None:
    decoder, tokenizer = untrained(corpus)
    reports = [corpus.test[0]["report"]]
    assert perplexity(decoder.train(), tokenizer, reports) == perplexity(decoder, tokenizer, reports)
    assert decoder.training


def test_shuffling_keeps_the_words_of_each_report() -> None:
    reports = ["heart size is normal . no effusion .", "clear ."]
    shuffled = shuffle_words(reports, 1)
    assert shuffled != reports
    assert [sorted(text.split()) for text in shuffled] == [sorted(text.split()) for text in reports]
    assert shuffle_words(reports, 1) == shuffled != shuffle_words(reports, 2)


def test_batches_hold_every_report_once_with_little_padding() -> None:
    rng = np.random.default_rng(0)
    encoded = [[k + 1] * int(rng.integers(3, 60)) for k in range(64)]
    for order in (None, np.random.default_rng(1)):
        found = list(batches(encoded, 0, 8, order))
        rows = [[int(i) for i in row if i] for batch in found for row in batch]
        assert sorted(rows) == sorted(encoded)
        assert sum(batch.numel() for batch in found) < 1.3 * sum(map(len, encoded))
    first, second = (next(iter(batches(encoded, 0, 8, order))) for _ in range(2))
    assert not torch.equal(first, second)


def test_training_stops_when_validation_no_longer_improves(
    corpus: CorpusSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising = iter([5.0, 4.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0])
    monkeypatch.setattr(pretraining, "perplexity", lambda *args: next(rising))
    few = CorpusSplit(corpus.train[:8], corpus.val[:2], corpus.test[:2], 0)
    settings = PretrainingSettings(epochs=8, batch_size=8, decoder=TINY, patience=2, shuffles=1)
    assert pretrain(few, tmp_path, settings, progress=False)["perplexity_validation"] == [5.0, 4.0, 6.0, 7.0]


def test_unknown_setting_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"among epochs, .*, got epoch"):
        pretraining.main(str(tmp_path), epoch=3)
