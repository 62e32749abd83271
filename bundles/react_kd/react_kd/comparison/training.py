"""One run of the comparison: a teacher or a student trained on tensors, and what it scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from medbundles.engines import freeze
from medbundles.precision import Precision
from torch import Tensor, nn

from react_kd.baselines import make_method
from react_kd.comparison.cohort import Cohort
from react_kd.comparison.plan import DOSES, REACT, STUDENT, TEACHER, Budget
from react_kd.losses import GradeLoss, ReactLoss
from react_kd.metrics import calibration_error, classification_scores, confusion_matrix, roc_auc
from react_kd.networks import Student, Teacher, copy_attention, masked_mean
from react_kd.workflow import student_availability, teacher_availability

FLIPS = [[axis + 2 for axis in range(3) if code >> axis & 1] for code in range(8)]
Said = dict[str, Tensor]


def batches(
    label: Tensor, budget: Budget, steps: int, seed: int, ungraded: bool
) -> Iterator[tuple[Tensor, int]]:
    """Indices of the cases of every step and its flip; graded and ungraded are shuffled apart."""
    generator = torch.Generator().manual_seed(seed)
    pools = [torch.nonzero(label >= 0).flatten(), torch.nonzero(label < 0).flatten()]
    if not ungraded or not len(pools[1]):
        pools = pools[:1]
    counts = [budget.batch_size]
    if len(pools) == 2:
        share = round(budget.ungraded_ratio * budget.batch_size)
        counts = [budget.batch_size - share, share]
    queues = [pool[:0] for pool in pools]
    for _ in range(steps):
        chosen = []
        for k, (pool, count) in enumerate(zip(pools, counts, strict=True)):
            while len(queues[k]) < count:
                queues[k] = torch.cat([queues[k], pool[torch.randperm(len(pool), generator=generator)]])
            chosen.append(queues[k][:count])
            queues[k] = queues[k][count:]
        yield torch.cat(chosen), int(torch.randint(8, (1,), generator=generator))


def flip(x: Tensor, code: int) -> Tensor:
    return x.flip(FLIPS[code]) if FLIPS[code] else x


def train_teacher(cohort: Cohort, budget: Budget, seed: int) -> Teacher:
    """The dual teacher on the graded cases, each at a random dose, streams dropped with probability 0.2."""
    torch.manual_seed(seed)
    precision = Precision("cpu")
    teacher = Teacher(**TEACHER)
    precision.prepare(teacher)
    grade = GradeLoss()
    optimizer = torch.optim.AdamW(
        teacher.parameters(), lr=budget.teacher_lr, weight_decay=budget.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, budget.teacher_lr, total_steps=budget.teacher_steps
    )
    for index, code in batches(cohort.label, budget, budget.teacher_steps, seed, ungraded=False):
        level = torch.randint(cohort.dose.shape[1], (len(index),))
        dose = cohort.dose[index].gather(1, level.view(-1, 1, 1, 1, 1).expand(-1, 1, *cohort.dose.shape[2:]))
        available = teacher_availability({"pet_available": cohort.pet_available[index]}, 0.2)
        inputs = (precision.to(flip(x, code)) for x in (cohort.image[index], cohort.pet[index], dose))
        said = teacher(*inputs, available)
        label = cohort.label[index]
        traced = torch.where(available[:, :2].any(dim=1), label, -1)
        loss = (
            grade(said["logits"], label)
            + 0.5 * grade(said["sf_logits"], traced)
            + 0.5 * grade(said["dose_logits"], label)
        )
        optimizer.zero_grad()
        precision.step(loss, optimizer, teacher.parameters(), 1.0)
        scheduler.step()
    freeze(teacher)
    return teacher


# Which teachers speak: that of the tracers, that of the dose.
STREAMS = {"all": (True, True), "no_function": (False, True), "no_dose": (True, False)}


@torch.inference_mode()
def teach_all(teacher: Teacher, cohort: Cohort) -> dict[str, Said]:
    """What the teacher says of every case under all 8 flips (8, N, ...), for each choice in STREAMS.

    Every case is encoded once, whatever the number of choices.
    """
    available = teacher_availability({"pet_available": cohort.pet_available})
    said: dict[str, dict[str, list[Tensor]]] = {name: {} for name in STREAMS}
    for code in range(8):
        for part in torch.arange(len(cohort)).split(16):
            image, pet, dose = (flip(x[part], code) for x in (cohort.image, cohort.pet, cohort.dose[:, :1]))
            maps = teacher.streams(image, pet, dose, available[part])
            for name, (tracers, doses) in STREAMS.items():
                chosen = available[part] & torch.tensor([tracers, tracers, doses])
                chosen[:, 2] |= ~chosen.any(dim=1)
                for key, value in teacher.say(maps, chosen).items():
                    said[name].setdefault(key, []).append(value.half() if key == "features" else value)
    shape = (8, len(cohort))
    return {
        name: {k: torch.cat(v).unflatten(0, shape) for k, v in kept.items()} for name, kept in said.items()
    }


def method_loss(method: str, teacher_auc: tuple[float, float]) -> nn.Module:
    """The loss of a method; the ablations are REACT-KD with one weight changed."""
    if method.startswith("react"):
        changes: dict[str, dict[str, Any]] = {
            "react_no_logits": {"alpha": 0.0}, "react_no_graph": {"lam": 0.0}, "react_no_gw": {"gw": 0.0},
        }  # fmt: skip
        return ReactLoss(**REACT | changes.get(method, {}))
    widths = {"student_channels": STUDENT["channels"], "teacher_channels": TEACHER["channels"]}
    return make_method(method, **widths, teacher_auc=teacher_auc)


def train_student(
    method: str,
    cohort: Cohort,
    said: Said,
    budget: Budget,
    seed: int,
    teacher_auc: tuple[float, float],
    use_ungraded: bool,
    teacher: Teacher | None = None,
) -> Student:
    """The student by one method; all methods start from the same weights and see the same batches.

    REACT-KD starts the student's CBAM3D from that of `teacher`, where one is given.
    """
    torch.manual_seed(seed)
    student = Student(**STUDENT)
    if teacher is not None and method.startswith("react"):
        copy_attention(teacher, student)
    if method == "react_no_cbam":
        student.fusion.cbam = nn.Identity()  # type: ignore[assignment]
    loss = method_loss(method, teacher_auc)
    # After the loss: the projections it draws must not change which modalities are dropped.
    torch.manual_seed(seed + 1)
    precision = Precision("cpu")
    precision.prepare(student)
    parameters = [*student.parameters(), *loss.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=budget.lr, weight_decay=budget.weight_decay)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, budget.lr, total_steps=budget.steps)
    dropout = 0.0 if method == "react_no_modality_dropout" else budget.modality_dropout
    for step, (index, code) in enumerate(batches(cohort.label, budget, budget.steps, seed, use_ungraded)):
        batch = {"label": cohort.label[index], "regions": flip(cohort.regions[index], code)}
        available = student_availability(
            {"pet_available": cohort.pet_available[index]}, dropout, budget.drop_pet_share
        )
        image = torch.cat([flip(cohort.image[index], code), flip(cohort.pet[index], code)], dim=1)
        learned = student.encode(precision.to(image), available)
        taught = {key: value[code, index].float() for key, value in said.items()}
        terms = loss(learned, taught, batch, step * 20 // budget.steps)
        optimizer.zero_grad()
        precision.step(torch.stack(list(terms.values())).sum(), optimizer, parameters, 1.0)
        scheduler.step()
    return student.eval()


@torch.inference_mode()
def student_probs(student: Student, cohort: Cohort) -> dict[str, Tensor]:
    """Probabilities (N, 3) per condition: CT alone at every dose, PET/CT, PET alone."""
    probs: dict[str, list[Tensor]] = {}
    precision = Precision("cpu")  # the memory format of the student's weights
    for part in torch.arange(len(cohort)).split(6):
        image, pet, dose = (precision.to(x[part]) for x in (cohort.image, cohort.pet, cohort.dose))
        maps = student.fusion.gated([student.ct(image), student.pet(pet)])
        every = torch.ones(len(part), 2, dtype=torch.bool)
        views = {
            "petct": masked_mean(maps, every),
            "pet": masked_mean(maps, every & torch.tensor([False, True])),
        }
        for i, level in enumerate(DOSES):
            views[_dose_name(level)] = maps[0] if level is None else student.features(dose[:, i : i + 1])
        for name, features in views.items():
            probs.setdefault(name, []).append(student.head(features).softmax(dim=1))
    return {name: torch.cat(parts) for name, parts in probs.items()}


def scores(probs: dict[str, Tensor], label: Tensor) -> dict[str, float]:
    """Macro AUC of every condition; accuracy, macro F1 and ECE with CT alone at full dose."""
    y = label.numpy()
    out = {f"auc_{name}": float(roc_auc(p.double().numpy(), y)["macro"]) for name, p in probs.items()}
    ct = probs["ct"].double().numpy()
    counted = classification_scores(confusion_matrix(ct, y))
    return out | {
        "accuracy": float(counted["accuracy"]), "f1": float(counted["f1"]), "ece":
        float(calibration_error(ct, y)),
    }  # fmt: skip


@torch.inference_mode()
def teacher_scores(teacher: Teacher, cohort: Cohort) -> dict[str, float]:
    """Macro AUC of the fused teacher, of both of its parts, and of the teacher with CT alone."""
    available = teacher_availability({"pet_available": cohort.pet_available})
    ct_only = available & torch.tensor([False, False, True])
    said = teacher(cohort.image, cohort.pet, cohort.dose[:, :1], available)
    said["ct"] = teacher(cohort.image, cohort.pet, cohort.dose[:, :1], ct_only)["logits"]
    names = {"logits": "fused", "sf_logits": "function", "dose_logits": "dose", "ct": "ct"}
    y = cohort.label.numpy()
    return {
        name: float(roc_auc(said[key].double().softmax(dim=1).numpy(), y)["macro"])
        for key, name in names.items()
    }


def _dose_name(level: float | None) -> str:
    return "ct" if level is None else f"ct_{level:g}"
