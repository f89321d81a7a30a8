"""ShuffleNet (Zhang et al., 2017; three groups) and ShuffleNet V2 (Ma et al., 2018; width 1) for CIFAR, as in RepDistiller.

Unlike the papers: the stem is a 1x1 convolution that keeps the image's size, and in the first ShuffleNet the depthwise
convolutions have a ReLU too. Weights have torch's default initialisation. B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from service.spec.architectures import ShuffleNet
from worker.models.strides import fitting_strides

_STEM = 24
_BLOCKS = (4, 8, 4)
"""In each stage; the first of them halves the image."""
_WIDTHS_V1 = (240, 480, 960)
_GROUPS_V1 = 3
_WIDTHS_V2 = (116, 232, 464)
_HEAD_V2 = 1024


class ShuffleBlockV1(nn.Module):
    """1x1 in groups, shuffle, depthwise 3x3, 1x1 in groups, added to the input; a stage's first block pools and appends it."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, is_first: bool, groups_in: int) -> None:
        super().__init__()
        branch_out = channels_out - channels_in if is_first else channels_out
        hidden = branch_out // 4
        self.is_first, self.groups_in = is_first, groups_in
        self.conv1 = nn.Conv2d(channels_in, hidden, kernel_size=1, groups=groups_in, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(hidden, hidden, kernel_size=3, stride=stride, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(hidden, branch_out, kernel_size=1, groups=_GROUPS_V1, bias=False)
        self.bn3 = nn.BatchNorm2d(branch_out)
        self.shortcut = nn.AvgPool2d(kernel_size=3, stride=stride, padding=1) if is_first else nn.Identity()
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/stride, W/stride)."""
        out = _shuffle(self.relu1(self.bn1(self.conv1(x))), groups=self.groups_in)
        out = self.relu2(self.bn2(self.conv2(out)))
        out, shortcut = self.bn3(self.conv3(out)), self.shortcut(x)
        result: Tensor = self.relu3(torch.cat([out, shortcut], dim=1) if self.is_first else out + shortcut)
        return result


class ShuffleBlockV2(nn.Module):
    """The right branch reads half of the channels, the left passes the others on; in a stage's first block both read all."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, is_first: bool) -> None:
        super().__init__()
        half = channels_out // 2
        right_in = channels_in if is_first else half
        self.is_first = is_first
        self.left: nn.Module = nn.Identity()
        if is_first:
            self.left = nn.Sequential(
                *_depthwise(channels_in, stride=stride),
                *_pointwise(channels_in, half),
            )
        self.right = nn.Sequential(
            *_pointwise(right_in, half),
            *_depthwise(half, stride=stride),
            *_pointwise(half, half),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/stride, W/stride)."""
        left, right = (x, x) if self.is_first else x.chunk(2, dim=1)
        return _shuffle(torch.cat([self.left(left), self.right(right)], dim=1), groups=2)


class ShuffleNetV1Network(nn.Module):
    """A 1x1 stem, three stages that each halve the image, global pooling, one linear layer."""

    stage_layers = ("layer1", "layer2", "layer3")
    embedding_layers = ("pool",)

    def __init__(self, *, strides: Sequence[int], num_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_channels, _STEM, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU()
        channels, stages = _STEM, []
        for width, blocks, stride in zip(_WIDTHS_V1, _BLOCKS, strides, strict=True):
            # The stem is too narrow for groups.
            groups_in = 1 if channels == _STEM else _GROUPS_V1
            first = ShuffleBlockV1(channels, width, stride=stride, is_first=True, groups_in=groups_in)
            others = (ShuffleBlockV1(width, width, stride=1, is_first=False, groups_in=_GROUPS_V1) for _ in range(blocks - 1))
            stages.append(nn.Sequential(first, *others))
            channels = width
        self.layer1, self.layer2, self.layer3 = stages
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, classes)."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.fc(self.pool(features).flatten(1))
        return logits


class ShuffleNetV2Network(nn.Module):
    """A 1x1 stem, three stages that each halve the image, a 1x1 convolution, global pooling, one linear layer."""

    stage_layers = ("layer1", "layer2", "layer3")
    embedding_layers = ("pool",)

    def __init__(self, *, strides: Sequence[int], num_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_channels, _STEM, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU()
        channels, stages = _STEM, []
        for width, blocks, stride in zip(_WIDTHS_V2, _BLOCKS, strides, strict=True):
            first = ShuffleBlockV2(channels, width, stride=stride, is_first=True)
            others = (ShuffleBlockV2(width, width, stride=1, is_first=False) for _ in range(blocks - 1))
            stages.append(nn.Sequential(first, *others))
            channels = width
        self.layer1, self.layer2, self.layer3 = stages
        self.conv2 = nn.Conv2d(channels, _HEAD_V2, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(_HEAD_V2)
        self.relu2 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(_HEAD_V2, num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, classes)."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        features = self.relu2(self.bn2(self.conv2(features)))
        logits: Tensor = self.fc(self.pool(features).flatten(1))
        return logits


def build_shufflenet(
    architecture: ShuffleNet, *, input_shape: tuple[int, int, int], num_outputs: int
) -> ShuffleNetV1Network | ShuffleNetV2Network:
    """The network that the spec names, freshly initialised from torch's global generator."""
    channels, *sides = input_shape
    network = ShuffleNetV1Network if architecture.name == "shufflenetv1" else ShuffleNetV2Network
    return network(strides=fitting_strides((2, 2, 2), pixels=min(sides)), num_channels=channels, num_outputs=num_outputs)


def _pointwise(channels_in: int, channels_out: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels_in, channels_out, kernel_size=1, bias=False)
    return [conv, nn.BatchNorm2d(channels_out), nn.ReLU()]


def _depthwise(channels: int, *, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, kernel_size=3, stride=stride, padding=1, groups=channels, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


def _shuffle(x: Tensor, *, groups: int) -> Tensor:
    """Takes channels from the groups in turn: 0 1 2 3 4 5 in two groups become 0 3 1 4 2 5."""
    batch, channels, height, width = x.shape
    return x.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)
