"""inference.json on image files: what it writes, how it goes on after a kill, what a broken image does."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from kif_inference_runs import ALWAYS_POSITIVE, lines, untrained, workflow, write_reports
from kif_mrg.conditions import CONDITIONS
from kif_mrg.networks import KifReporter

STATES = ["blank", "positive", "negative", "uncertain"]


@pytest.fixture
def worded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of generate was given."""
    sizes, generate = [], KifReporter.generate

    def counting(self, image, *args, **kwargs):
        sizes.append(len(image))
        return generate(self, image, *args, **kwargs)

    monkeypatch.setattr(KifReporter, "generate", counting)
    return sizes


def test_the_test_split_is_reported_on_with_states_and_sources(models, cohort, tmp_path) -> None:
    run = workflow(models, cohort, tmp_path / "out", page_cases=2)
    assert run.check_properties() == []
    run.run()
    rows = lines(tmp_path / "out")
    entries = json.loads((cohort / "annotation.json").read_text())["test"]
    assert list(rows) == [entry["id"] for entry in entries]
    for index, row in enumerate(rows.values()):
        reporter, memory = run.evaluator.network, run.evaluator.memory
        sample = run.dataset[index]
        features = memory.gather([memory.study_ids.index(study) for study in row["retrieved"]])
        wanted = reporter.diagnosis(sample["image"][None], features[None])[0].softmax(dim=0)
        chances = torch.tensor([list(row["probabilities"][name].values()) for name in CONDITIONS]).T
        torch.testing.assert_close(chances, wanted, rtol=1e-3, atol=1e-4)
        assert [list(p) for p in row["probabilities"].values()] == [STATES] * len(CONDITIONS)
        assert [STATES.index(row["states"][name]) for name in CONDITIONS] == wanted.argmax(dim=0).tolist()
        assert row["states"][ALWAYS_POSITIVE] == "positive"
        assert row["report"]
        assert not any(token in row["report"].lower() for token in ("[pos]", "[bla]", "[dec]", "[sep]"))
        assert len(set(row["retrieved"])) == 5
        assert all(study.startswith("study_train") for study in row["retrieved"])
    page = (tmp_path / "out" / "reports.html").read_text()
    assert page.count("<figure>") == 2
    assert "2 of 4 cases" in page
    assert "cardiomegaly" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_killed_run_goes_on_behind_its_last_whole_line(models, folder, tmp_path, worded) -> None:
    out = tmp_path / "out"
    wanted = write_reports(models, folder, out)
    assert worded == [3]
    whole = (out / "reports.jsonl").read_bytes().splitlines(keepends=True)
    (out / "reports.jsonl").write_bytes(whole[0] + whole[1][:-30])
    assert write_reports(models, folder, out) == wanted
    assert worded == [3, 2]
    assert (out / "reports.jsonl").read_bytes().splitlines(keepends=True) == whole
    write_reports(models, folder, out)
    assert worded == [3, 2]
    write_reports(models, folder, out, overwrite=True)
    assert worded == [3, 2, 3]


def test_other_weights_image_or_settings_make_a_line_anew_and_other_cases_stay(
    models, cohort, folder, tmp_path, worded
) -> None:
    out = tmp_path / "out"
    write_reports(models, folder, out)
    shutil.copy(folder / "b.PNG", folder / "a.png")
    changed = write_reports(models, folder, out)
    assert changed["a.png"]["probabilities"] == changed["b.PNG"]["probabilities"]
    write_reports(models, folder, out, retrieved=3)
    other = untrained(cohort, tmp_path / "other", seed=1)
    assert len(write_reports(other, folder / "a.png", out)) == 3
    assert worded == [3, 1, 3, 1]


def test_another_number_of_views_makes_a_line_anew(models, folder, tmp_path, worded) -> None:
    image, numbers = folder / "a.png", (1, 2, 2, 1)
    found = [write_reports(models, image, tmp_path / "out", views=number)["a.png"] for number in numbers]
    assert worded == [1, 1, 1]
    assert found[0] == found[3]
    assert found[1] == found[2]
    assert found[0]["fingerprint"] != found[1]["fingerprint"]


def test_a_broken_line_that_is_not_the_last_stops_the_run(models, folder, tmp_path) -> None:
    (tmp_path / "reports.jsonl").write_text('{"id": \n{"id": "x"}\n')
    with pytest.raises(ValueError, match=r"reports\.jsonl: line 1 must be a JSON object with an id"):
        write_reports(models, folder, tmp_path)


def test_a_broken_image_is_listed_and_the_others_go_on(models, folder, tmp_path) -> None:
    out = tmp_path / "out"
    good = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(good[:200])
    with pytest.raises(RuntimeError, match=r"1 of 3 cases failed.*failed\.json; first a\.png.*ValueError"):
        write_reports(models, folder, out, page_cases=3)
    failed = json.loads((out / "failed.json").read_text())
    assert [entry["id"] for entry in failed] == ["a.png"]
    assert str(folder / "a.png") in failed[0]["error"]
    assert list(lines(out)) == ["b.PNG", "deep/c.png"]
    assert (out / "reports.html").read_text().count("<figure>") == 2
    (folder / "a.png").write_bytes(good)
    assert list(write_reports(models, folder, out)) == ["a.png", "b.PNG", "deep/c.png"]
    assert not (out / "failed.json").exists()


def test_a_missing_checkpoint_names_the_command_that_trains_one(folder, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lacks reporter\.pt, tokenizer: .*run training"):
        write_reports(str(tmp_path), folder, tmp_path / "out")
    assert not (tmp_path / "out" / "reports.jsonl").exists()


def test_the_network_needs_neither_checkpoint_nor_transformers(cohort, tmp_path, monkeypatch) -> None:
    def missing() -> None:
        raise ImportError("transformers")

    monkeypatch.setattr("kif_mrg.text.require_text_extra", missing)
    monkeypatch.setattr("kif_mrg.decoder.require_text_extra", missing)
    run = workflow(str(tmp_path / "none"), cohort, tmp_path / "out")
    assert run.check_properties() == []
    assert run.network_def.eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 4, len(CONDITIONS))
    assert not (tmp_path / "out").exists()
