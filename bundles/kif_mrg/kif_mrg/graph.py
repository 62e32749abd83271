"""The chest knowledge graph: 28 nodes and who may attend to whom (20 findings of Zhang et al., AAAI 2020)."""

import torch
from torch import Tensor

ROOT = "<root>"

# name, group, label. A group is an organ with its findings; label 1 marks the organs, any other label the
# findings of one organ, which makes them siblings.
_TABLE = (
    (ROOT, 0, 0),
    ("normal", 1, 2),
    ("other finding", 2, 3),
    ("heart", 3, 1),
    ("cardiomegaly", 3, 4),
    ("spine", 4, 1),
    ("scoliosis", 4, 5),
    ("pleural", 5, 1),
    ("effusion", 5, 6),
    ("thickening", 5, 6),
    ("pneumothorax", 5, 6),
    ("bone", 6, 1),
    ("bone fractures", 6, 7),
    ("lung", 7, 1),
    ("emphysema", 7, 8),
    ("pneumonia", 7, 8),
    ("edema", 7, 8),
    ("atelectasis", 7, 8),
    ("cicatrix", 7, 8),
    ("opacity", 7, 8),
    ("lesion", 7, 8),
    ("mediastinum", 8, 1),
    ("hernia", 8, 9),
    ("calcinosis", 8, 9),
    ("foreign object", 9, 10),
    ("airspace", 10, 1),
    ("airspace disease", 10, 11),
    ("hypoinflation", 10, 11),
)
NODES: tuple[str, ...] = tuple(name for name, _, _ in _TABLE)
GROUPS: tuple[int, ...] = tuple(group for _, group, _ in _TABLE)
LABELS: tuple[int, ...] = tuple(label for _, _, label in _TABLE)


def adjacency() -> Tensor:
    """Bool (28, 28), symmetric with a unit diagonal: True where node i may attend to node j.

    The root is linked to all; otherwise equal group (an organ and its findings) or equal label (organs among
    themselves, findings of one organ among themselves).
    """
    group, label = torch.tensor(GROUPS), torch.tensor(LABELS)
    root = group == 0
    same_group = group[:, None] == group[None, :]
    same_label = label[:, None] == label[None, :]
    return root[:, None] | root[None, :] | same_group | same_label
