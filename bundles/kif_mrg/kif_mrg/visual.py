"""Image to patch features: a ResNet without its head (arXiv 1512.03385)."""

import torch
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn

ENCODERS = {
    "resnet101": ("bottleneck", [3, 4, 23, 3], [64, 128, 256, 512]),
    "small": ("basic", [1, 1, 1, 1], [16, 32, 64, 96]),
}


class VisualEncoder(nn.Module):
    """Patch features on a grid of 1/32 of the image: 49 patches at 224 px, 9 at 96 px.

    Args:
        name: `resnet101` (Dv = 2048) or `small` (Dv = 96).
        weights: local file with a torchvision state dict of that network; its head `fc` is left out.

    Raises:
        ValueError: unknown name; a file that is not this network's state dict.
    """

    def __init__(self, name: str = "resnet101", weights: str | None = None) -> None:
        super().__init__()
        if name not in ENCODERS:
            raise ValueError(f"encoder must be one of {sorted(ENCODERS)}, got encoder={name!r}")
        block, layers, planes = ENCODERS[name]
        net = ResNet(
            block,
            layers,
            planes,
            spatial_dims=2,
            n_input_channels=3,
            conv1_t_size=7,
            conv1_t_stride=2,  # MONAI's default 1 would give 196 patches instead of 49 at 224 px
            bias_downsample=False,
            feed_forward=False,
        )
        # Taken over by their names, so that a torchvision state dict fits.
        self.conv1, self.bn1, self.act, self.maxpool = net.conv1, net.bn1, net.act, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.width = net.in_planes
        if weights is not None:
            self._load(name, weights)

    def _load(self, name: str, weights: str) -> None:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        try:
            self.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")})
        except (RuntimeError, AttributeError) as problem:
            raise ValueError(
                f"weights must be a torchvision state dict of {name}, {weights}: {problem}"
            ) from problem

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, N, Dv) and their mean (B, Dv) of `image` (B, 3, H, W) or of V views (B, V, 3, H, W).

        The patches of several views follow one another: N = V * H/32 * W/32, row by row.
        """
        batch = image.shape[0]
        x = image.flatten(0, 1) if image.dim() == 5 else image
        x = self.maxpool(self.act(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B*V, Dv, H/32, W/32)
        patches = x.flatten(2).transpose(1, 2).reshape(batch, -1, self.width)
        return patches, patches.mean(dim=1)
