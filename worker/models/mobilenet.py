"""MobileNetV2 (Sandler et al., 2018) at half width and expansion 6, as in RepDistiller (Tian et al., 2020).

Unlike the paper: the stage of 24 channels does not halve the image, ReLU replaces ReLU6, and the first block too has its 1x1
expansion. B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from service.spec.architectures import MobileNet
from worker.models.strides import fitting_strides

_STEM = 16
_HEAD = 1280
# Expansion, width, blocks, stride of the first of them.
_STAGES = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1))


class InvertedResidual(nn.Module):
    """A 1x1 convolution widens, a depthwise 3x3 filters, a linear 1x1 narrows; the input is added where its shape allows."""

    def __init__(self, channels_in: int, channels_out: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = nn.Sequential(
            nn.Conv2d(channels_in, hidden, kernel_size=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, kernel_size=3, stride=stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
        )
        self.project = nn.Sequential(
            nn.Conv2d(hidden, channels_out, kernel_size=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.has_shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/stride, W/stride)."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.has_shortcut else out


class MobileNetNetwork(nn.Module):
    """A 3x3 stem, seven stages of inverted residuals, a 1x1 convolution to 1,280 channels, global pooling, one linear layer."""

    stage_layers = ("layer2", "layer3", "layer5", "layer7")
    embedding_layers = ("pool",)

    def __init__(self, *, strides: Sequence[int], num_channels: int, num_outputs: int) -> None:
        super().__init__()
        stem_stride, *stage_strides = strides
        self.conv1 = nn.Conv2d(num_channels, _STEM, kernel_size=3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU()
        channels = _STEM
        stages = []
        for (expansion, width, blocks, _), stride in zip(_STAGES, stage_strides, strict=True):
            stages.append(_stage(channels, width, expansion=expansion, blocks=blocks, stride=stride))
            channels = width
        self.layer1, self.layer2, self.layer3, self.layer4, self.layer5, self.layer6, self.layer7 = stages
        self.conv2 = nn.Conv2d(channels, _HEAD, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(_HEAD)
        self.relu2 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(_HEAD, num_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, classes)."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        features = self.layer7(self.layer6(self.layer5(self.layer4(features))))
        features = self.relu2(self.bn2(self.conv2(features)))
        logits: Tensor = self.fc(self.pool(features).flatten(1))
        return logits


def build_mobilenet(_architecture: MobileNet, *, input_shape: tuple[int, int, int], num_outputs: int) -> MobileNetNetwork:
    """The network that the spec names, freshly initialised from torch's global generator."""
    channels, *sides = input_shape
    strides = fitting_strides((2, *(stride for *_, stride in _STAGES)), pixels=min(sides))
    return MobileNetNetwork(strides=strides, num_channels=channels, num_outputs=num_outputs)


def _stage(channels_in: int, channels_out: int, *, expansion: int, blocks: int, stride: int) -> nn.Sequential:
    first = InvertedResidual(channels_in, channels_out, expansion=expansion, stride=stride)
    others = (InvertedResidual(channels_out, channels_out, expansion=expansion, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)
