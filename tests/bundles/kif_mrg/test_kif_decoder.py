"""The decoder: prompt, targets, beam search and its limits, weights in half precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kif_mrg.decoder import make_decoder
from kif_mrg.decoding import generate_reports, half_weights, prompts, report_logits
from kif_mrg.text import ReportTokenizer
from kif_tiny_reporter import CONDITIONS, SMALL, loosen, make_tokenizer, padded

DV = 10
PAPER = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    return make_tokenizer()


@pytest.fixture
def decoder(tokenizer: ReportTokenizer) -> Any:
    made = make_decoder(tokenizer, DV, SMALL).eval()
    loosen(made)
    return made


def test_prompt_is_dec_and_one_token_per_condition(tokenizer: ReportTokenizer) -> None:
    states = torch.randint(0, 4, (5, CONDITIONS))
    states[0, 3] = -100
    ids = prompts(states, tokenizer)
    assert ids.shape == (5, 19)
    assert ids[:, 0].tolist() == [tokenizer.dec_id] * 5
    assert ids[0, 4] == tokenizer.state_ids[0]
    assert ids[1, 1:].tolist() == [tokenizer.state_ids[state] for state in states[1]]
    with pytest.raises(ValueError, match="0 to 3"):
        prompts(states + 1, tokenizer)
    with pytest.raises(ValueError, match=r"\(B, C\)"):
        prompts(states[0], tokenizer)


def test_first_target_is_the_first_report_token(decoder: Any, tokenizer: ReportTokenizer) -> None:
    """Agreement with the model's own loss, which shifts its targets and leaves out the prompt."""
    tokens, features = padded(tokenizer), torch.randn(4, 9, DV)
    prompt = prompts(torch.randint(0, 4, (4, CONDITIONS)), tokenizer)
    logits = report_logits(decoder, prompt, tokens, features)
    assert logits.shape == (*tokens.shape, len(tokenizer))
    targets = torch.cat(
        [torch.full_like(prompt, -100), tokens.where(tokens != tokenizer.pad_id, -100)], dim=1
    )
    whole = torch.cat([prompt, tokens], dim=1)
    loss = decoder(whole, encoder_hidden_states=features, labels=targets).loss
    ours = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), ignore_index=tokenizer.pad_id)
    torch.testing.assert_close(ours, loss)


def test_logits_depend_on_what_was_said_before_and_on_nothing_after(
    decoder: Any, tokenizer: ReportTokenizer
) -> None:
    tokens, prompt = padded(tokenizer), prompts(torch.zeros(4, 3, dtype=torch.int64), tokenizer)
    logits = report_logits(decoder, prompt, tokens)
    longer = report_logits(decoder, prompt, padded(tokenizer, extra=7))
    torch.testing.assert_close(longer[:, : tokens.shape[1]], logits, atol=1e-5, rtol=1e-4)
    other = tokens.clone()
    other[:, 4] = tokenizer.encode("heart")[0]
    changed = (report_logits(decoder, prompt, other) - logits).abs().amax((0, 2)) > 1e-5
    assert changed.tolist() == [False] * 5 + [True] * (tokens.shape[1] - 5)


def biased(decoder: Any, token: int, bias: float) -> Any:
    made = copy.deepcopy(decoder)
    made.cls.predictions.bias.data[token] += bias
    return made


def test_greedy_search_is_the_step_by_step_argmax(decoder: Any, tokenizer: ReportTokenizer) -> None:
    """Against the teacher-forced path without a cache, one sample at a time."""
    decoder = biased(decoder, tokenizer.sep_id, 4.0)
    prompt, features = prompts(torch.randint(0, 4, (6, 5)), tokenizer), torch.randn(6, 9, DV)
    found = generate_reports(decoder, tokenizer, prompt, features, 1, max_new_tokens=12, min_new_tokens=2)
    special = [i for i in tokenizer.hf.all_special_ids if i != tokenizer.sep_id]
    for row in range(6):
        said: list[int] = []
        while len(said) < 12:
            tokens = torch.tensor([[*said, tokenizer.pad_id]])
            logits = report_logits(decoder, prompt[row : row + 1], tokens, features[row : row + 1])[0, -1]
            logits[special + ([tokenizer.sep_id] if len(said) < 2 else [])] = -torch.inf
            if int(logits.argmax()) == tokenizer.sep_id:
                break
            said.append(int(logits.argmax()))
        assert found[row] == said
    assert len({len(ids) for ids in found}) > 1


@pytest.mark.parametrize("beams", [1, 3])
def test_reports_of_other_lengths_in_the_batch_change_nothing(
    decoder: Any, tokenizer: ReportTokenizer, beams: int
) -> None:
    decoder = biased(decoder, tokenizer.sep_id, 4.0)
    prompt, features = prompts(torch.randint(0, 4, (8, 5)), tokenizer), torch.randn(8, 9, DV)
    found = generate_reports(decoder, tokenizer, prompt, features, beams, 15, 1)
    alone = [generate_reports(decoder, tokenizer, *pair, beams, 15, 1)[0]
             for pair in zip(prompt[:, None].unbind(), features[:, None].unbind(), strict=True)]  # fmt: skip
    assert found == alone
    assert len({len(ids) for ids in found}) > 1


@pytest.mark.parametrize("beams", [1, 3])
def test_limits_count_the_report_and_special_tokens_stay_out(
    decoder: Any, tokenizer: ReportTokenizer, beams: int
) -> None:
    prompt, features = prompts(torch.randint(0, 4, (4, CONDITIONS)), tokenizer), torch.randn(4, 9, DV)
    eager = biased(decoder, tokenizer.sep_id, 50.0)  # would end at once
    assert [len(ids) for ids in generate_reports(eager, tokenizer, prompt, features, beams, 9, 5)] == [5] * 4
    assert generate_reports(eager, tokenizer, prompt, features, beams, 9, 0) == [[]] * 4
    stuck = biased(decoder, tokenizer.state_ids[1], 50.0)  # would repeat the prompt
    for ids in generate_reports(stuck, tokenizer, prompt, features, beams, 9, 9):
        assert len(ids) == 9
        assert not set(ids) & set(tokenizer.hf.all_special_ids)


def test_reports_too_long_for_the_positions_are_refused(decoder: Any, tokenizer: ReportTokenizer) -> None:
    prompt = prompts(torch.zeros(1, CONDITIONS, dtype=torch.int64), tokenizer)
    with pytest.raises(ValueError, match="must fit 96 positions of the decoder, got 119"):
        generate_reports(decoder, tokenizer, prompt, None, max_new_tokens=100)
    with pytest.raises(ValueError, match="must fit 96 positions"):
        report_logits(decoder, prompt, torch.zeros(1, 79, dtype=torch.int64))
    with pytest.raises(ValueError, match="min_new_tokens=9 max_new_tokens=4"):
        generate_reports(decoder, tokenizer, prompt, None, max_new_tokens=4, min_new_tokens=9)


def test_half_weights_are_a_copy_that_says_nearly_the_same(decoder: Any, tokenizer: ReportTokenizer) -> None:
    half = half_weights(decoder)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in decoder.parameters()} == {torch.float32}
    tokens, features = padded(tokenizer), torch.randn(4, 9, DV)
    prompt = prompts(torch.zeros(4, CONDITIONS, dtype=torch.int64), tokenizer)
    logits = report_logits(decoder, prompt, tokens, features)
    near = report_logits(half, prompt, tokens, features).float()
    assert F.cosine_similarity(near, logits, dim=-1).min() > 0.99
    assert len(generate_reports(half, tokenizer, prompt, features, 3, 6, 6)) == 4


def test_paper_size() -> None:
    tokenizer = ReportTokenizer.build([" ".join(f"w{i}" for i in range(30527))])
    with torch.device("meta"):
        paper = make_decoder(tokenizer, 2048, PAPER)
    surplus = (len(tokenizer) - 30527) * (768 + 1)  # one row of the tied table and one bias per token
    assert sum(p.numel() for p in paper.parameters()) - surplus == pytest.approx(161.5e6, abs=5e4)
