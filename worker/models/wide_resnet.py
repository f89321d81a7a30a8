"""The wide ResNets of Zagoruyko and Komodakis (2016), without dropout, in the sizes of RepDistiller (Tian et al., 2020).

Batch norm and ReLU precede the convolutions, so the output of a stage is a sum before any ReLU. Stages and layers are
named as in the CIFAR ResNets. B batch, C channels, H height, W width.
"""

from torch import Tensor, nn

from service.spec.architectures import WideResNet

# Depth and widening factor.
_SHAPES: dict[str, tuple[int, int]] = {"wrn-16-2": (16, 2), "wrn-40-1": (40, 1), "wrn-40-2": (40, 2)}


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution of the activated input where the width changes."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False)
        self.downsample: nn.Conv2d | None = None
        if channels_in != channels_out:
            self.downsample = nn.Conv2d(channels_in, channels_out, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/stride, W/stride)."""
        activated = self.relu1(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(activated)
        result: Tensor = shortcut + self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return result


class WideResNetNetwork(nn.Module):
    """A 3x3 stem, three stages (the second and third halve the image), batch norm, ReLU, global pooling, one linear layer."""

    stage_layers = ("layer1", "layer2", "layer3")
    embedding_layers = ("pool",)

    def __init__(self, *, depth: int, widening: int, num_channels: int, num_outputs: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        stem, *stages = 16, 16 * widening, 32 * widening, 64 * widening
        self.conv1 = nn.Conv2d(num_channels, stem, kernel_size=3, padding=1, bias=False)
        self.layer1 = _stage(stem, stages[0], blocks=blocks, stride=1)
        self.layer2 = _stage(stages[0], stages[1], blocks=blocks, stride=2)
        self.layer3 = _stage(stages[1], stages[2], blocks=blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(stages[2])
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(stages[2], num_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, classes)."""
        features = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        features = self.relu(self.bn1(features))
        logits: Tensor = self.fc(self.pool(features).flatten(1))
        return logits


def build_wide_resnet(architecture: WideResNet, *, input_shape: tuple[int, int, int], num_outputs: int) -> WideResNetNetwork:
    """The network that the spec names, freshly initialised from torch's global generator."""
    depth, widening = _SHAPES[architecture.name]
    return WideResNetNetwork(depth=depth, widening=widening, num_channels=input_shape[0], num_outputs=num_outputs)


def _stage(channels_in: int, channels_out: int, *, blocks: int, stride: int) -> nn.Sequential:
    first = PreActivationBlock(channels_in, channels_out, stride=stride)
    return nn.Sequential(first, *(PreActivationBlock(channels_out, channels_out, stride=1) for _ in range(blocks - 1)))
