"""The whole reporter: samples stay apart, training and inference agree, prompts stay out of reports."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from kif_mrg.conditions import IGNORE, STATES
from kif_mrg.decoding import half_weights
from kif_mrg.networks import KifReporter
from kif_tiny_reporter import (
    CONDITIONS,
    REPORTS,
    bert_folder,
    make_batch,
    make_reporter,
    make_tokenizer,
    padded,
)


@pytest.fixture(scope="module")
def reporter() -> KifReporter:
    torch.manual_seed(2)
    made = make_reporter(loose=True)
    made.decoder.cls.predictions.bias.data[made.tokenizer.sep_id] += 5  # reports of several lengths
    return made


@pytest.mark.parametrize("size", [1, 3, 16])
def test_a_batch_is_its_samples_one_by_one(reporter: KifReporter, size: int) -> None:
    image, memory, states = make_batch(size)
    tokens = padded(reporter.tokenizer, REPORTS * 4)[:size]
    with torch.no_grad():
        together = reporter(image, memory, states, tokens)
        alone = [
            reporter(*(item[i : i + 1] for item in (image, memory, states, tokens))) for i in range(size)
        ]
    for key in ("patches", "graph", "class_logits", "logits"):
        torch.testing.assert_close(
            together[key], torch.cat([row[key] for row in alone]), atol=1e-4, rtol=1e-4
        )
    said = reporter.generate(image, memory, max_new_tokens=12, min_new_tokens=1)
    for i in range(size):
        one = reporter.generate(image[i : i + 1], memory[i : i + 1], max_new_tokens=12, min_new_tokens=1)
        assert said["reports"][i] == one["reports"][0]
    assert size < 16 or len({len(ids) for ids in said["tokens"]}) > 1


def test_gradients_do_not_cross_samples(reporter: KifReporter) -> None:
    image, memory, states = make_batch(3)
    image.requires_grad_()
    said = reporter(image, memory, states, padded(reporter.tokenizer)[:3])
    for key in ("patches", "graph", "class_logits", "logits"):
        gradient = torch.autograd.grad(said[key][0].square().sum(), image, retain_graph=True)[0]
        assert bool(gradient[0].ne(0).any()), key
        assert not gradient[1:].any(), key


def test_generation_sees_what_training_sees(reporter: KifReporter) -> None:
    image, memory, states = make_batch(4)
    with torch.no_grad():
        said = reporter(image, memory, states, padded(reporter.tokenizer))
    made = reporter.generate(image, memory, max_new_tokens=4, min_new_tokens=1)
    assert torch.equal(made["class_logits"], said["class_logits"])
    assert torch.equal(made["states"], said["class_logits"].argmax(dim=1))
    assert made["states"].unique().numel() > 1
    again = reporter.generate(image, memory, max_new_tokens=4, min_new_tokens=1, states=made["states"])
    assert again["tokens"] == made["tokens"]
    chosen = reporter.generate(image, memory, max_new_tokens=4, min_new_tokens=1, states=states)
    assert torch.equal(chosen["states"], states)
    assert torch.equal(chosen["class_logits"], made["class_logits"])


def test_a_condition_never_labelled_is_blank_in_the_prompt_as_it_was_in_training() -> None:
    reporter = make_reporter()
    image, memory, states = make_batch(4)
    states[:, 14:] = IGNORE
    made = reporter.generate(image, memory, max_new_tokens=3, min_new_tokens=1)
    assert made["states"][:, 14:].any()  # untrained: whatever the head says
    reporter.train()(image, memory, states, padded(reporter.tokenizer))
    made = reporter.eval().generate(image, memory, max_new_tokens=3, min_new_tokens=1)
    assert reporter.known().tolist() == [True] * 14 + [False] * 4
    assert not made["states"][:, 14:].any()
    assert torch.equal(made["states"][:, :14], made["class_logits"].argmax(dim=1)[:, :14])
    assert torch.equal(copy.deepcopy(reporter).known(), reporter.known())


def test_the_report_holds_no_prompt_and_has_the_asked_length(reporter: KifReporter) -> None:
    image, memory, _ = make_batch(4)
    made = reporter.generate(image, memory, max_new_tokens=9, min_new_tokens=6)
    for report, ids in zip(made["reports"], made["tokens"], strict=True):
        assert 6 <= len(ids) <= 9
        assert not any(token in report for token in ("[DEC]", *STATES))
        assert report == reporter.tokenizer.decode(ids) != ""
        assert not set(ids) & set(reporter.tokenizer.hf.all_special_ids)


def test_image_and_prompt_matter_to_the_report(reporter: KifReporter) -> None:
    image, memory, states = make_batch(2)
    tokens = padded(reporter.tokenizer)[:2]
    with torch.no_grad():
        said = reporter(image, memory, states, tokens)["logits"]
        assert not torch.allclose(reporter(image.flip(0), memory, states, tokens)["logits"], said, atol=1e-3)
        assert not torch.allclose(reporter(image, memory, states.flip(0), tokens)["logits"], said, atol=1e-3)
        blank = states.where(states >= 0, 0)
        assert torch.equal(reporter(image, memory, blank, tokens)["logits"], said)


def test_two_views_give_twice_the_patches(reporter: KifReporter) -> None:
    image, memory, _ = make_batch(2, views=2)
    assert (
        reporter.describe(image, memory)["graph"].shape[1]
        == 2 * reporter.describe(image[:, 0])["graph"].shape[1]
    )
    assert len(reporter.generate(image, memory, max_new_tokens=3, min_new_tokens=1)["reports"]) == 2


def test_without_the_graph_the_decoder_reads_the_patches() -> None:
    plain = make_reporter(use_graph=False)
    image, memory, _ = make_batch(2)
    seen = plain.describe(image, memory)
    assert torch.equal(seen["graph"], seen["patches"])
    assert not any(name.startswith(("tags", "fusion")) for name, _ in plain.named_parameters())


def test_state_dict_round_trip_and_copy_after_a_backward(reporter: KifReporter) -> None:
    image, memory, states = make_batch(2)
    tokens = padded(reporter.tokenizer)[:2]
    said = reporter(image, memory, states, tokens)
    said["logits"].sum().backward()
    other = make_reporter()
    assert not torch.allclose(other(image, memory, states, tokens)["logits"], said["logits"])
    other.load_state_dict(reporter.state_dict())
    for made in (other, copy.deepcopy(reporter)):
        assert torch.equal(made(image, memory, states, tokens)["logits"], said["logits"])
        head, words = made.decoder.get_output_embeddings(), made.decoder.get_input_embeddings()
        assert head.weight is words.weight
    reporter.zero_grad()


def test_a_few_steps_teach_two_reports_and_reach_every_weight() -> None:
    reporter = make_reporter(decoder={"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64})
    image, memory, states = make_batch(2)
    states[0], states[1] = 1, 2
    tokens = padded(reporter.tokenizer)[1:3]
    optimizer = torch.optim.AdamW(reporter.parameters(), lr=1e-2)
    for step in range(28):
        said = reporter(image, memory, states, tokens)
        loss = F.cross_entropy(
            said["logits"].flatten(0, 1), tokens.flatten(), ignore_index=reporter.tokenizer.pad_id
        )
        optimizer.zero_grad()
        (loss + said["class_logits"].square().mean()).backward()
        if step == 0:
            idle = {name for name, p in reporter.named_parameters() if p.requires_grad and p.grad is None}
            assert idle == set()
        optimizer.step()
    made = reporter.generate(image, memory, states=states, max_new_tokens=30)
    assert made["reports"] == [reporter.tokenizer.normalise(report) for report in REPORTS[1:3]]
    assert (
        half_weights(reporter).generate(image, memory, states=states, max_new_tokens=30)["reports"]
        == made["reports"]
    )


def test_half_weights_leave_the_diagnosis_alone(reporter: KifReporter) -> None:
    image, memory, _ = make_batch(2)
    half, whole = half_weights(reporter), reporter.generate(image, memory, max_new_tokens=3, min_new_tokens=1)
    made = half.generate(image, memory, max_new_tokens=3, min_new_tokens=1)
    assert torch.equal(made["class_logits"], whole["class_logits"])
    assert half.decoder.dtype == torch.bfloat16
    assert reporter.decoder.dtype == torch.float32


def test_from_a_bert_folder_the_nodes_start_as_its_words(tmp_path: Path) -> None:
    reporter = make_reporter(decoder=str(bert_folder(tmp_path, make_tokenizer())))
    words = reporter.decoder.get_input_embeddings().weight
    assert torch.equal(reporter.tags.embedding.weight, words)
    assert reporter.tags.embedding.weight is not words
    wider = make_reporter(decoder=str(tmp_path), dim=48)
    assert wider.tags().shape == (1, 28, 48)
    image, memory, _ = make_batch(2)
    assert len(reporter.generate(image, memory, max_new_tokens=5, min_new_tokens=1)["reports"]) == 2


def test_what_cannot_be_said_is_named(reporter: KifReporter) -> None:
    image, memory, states = make_batch(2)
    tokens = padded(reporter.tokenizer)[:2]
    with pytest.raises(ValueError, match=rf"\(2, {CONDITIONS}\), got \(2, 14\)"):
        reporter(image, memory, states[:, :14], tokens)
    with pytest.raises(RuntimeError, match="eval mode"):
        copy.deepcopy(reporter).train().generate(image, memory)
