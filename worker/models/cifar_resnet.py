"""The CIFAR ResNets of the distillation literature: He et al. (2015), section 4.2, as in RepDistiller (Tian et al., 2020).

RepDistiller's shortcut is a 1x1 convolution wherever the shape changes (option B of the paper). The last pooling is global, which
on 32x32 images is the 8x8 pooling of the original and lets the same network read other sizes. B batch, C channels, H height, W
width.
"""

from torch import Tensor, nn

from service.spec.architectures import CifarResNet

# Depth, then the widths of the stem and of the three stages.
_SHAPES: dict[str, tuple[int, tuple[int, int, int, int]]] = {
    "resnet20": (20, (16, 16, 32, 64)),
    "resnet56": (56, (16, 16, 32, 64)),
    "resnet110": (110, (16, 16, 32, 64)),
    "resnet8x4": (8, (32, 64, 128, 256)),
    "resnet32x4": (32, (32, 64, 128, 256)),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, named as in RepDistiller, so that its weights load by name."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/stride, W/stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.relu(self.bn2(self.conv2(out)) + self.downsample(x))
        return result


class CifarResNetNetwork(nn.Module):
    """A 3x3 stem, three stages of basic blocks (the second and third halve the image), global pooling, one linear layer."""

    stage_layers = ("layer1", "layer2", "layer3")
    embedding_layers = ("pool",)

    def __init__(self, *, depth: int, widths: tuple[int, int, int, int], num_channels: int, num_outputs: int) -> None:
        super().__init__()
        stem, *stages = widths
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(num_channels, stem, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.layer1 = _stage(stem, stages[0], blocks=blocks, stride=1)
        self.layer2 = _stage(stages[0], stages[1], blocks=blocks, stride=2)
        self.layer3 = _stage(stages[1], stages[2], blocks=blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(stages[2], num_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, classes)."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.fc(self.pool(features).flatten(1))
        return logits


def build_cifar_resnet(architecture: CifarResNet, *, input_shape: tuple[int, int, int], num_outputs: int) -> CifarResNetNetwork:
    """The network that the spec names, freshly initialised from torch's global generator."""
    depth, widths = _SHAPES[architecture.name]
    return CifarResNetNetwork(depth=depth, widths=widths, num_channels=input_shape[0], num_outputs=num_outputs)


def _stage(channels_in: int, channels_out: int, *, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels_out, stride=stride)
    return nn.Sequential(first, *(BasicBlock(channels_out, channels_out, stride=1) for _ in range(blocks - 1)))
