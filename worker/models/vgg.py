"""The VGG networks of Simonyan and Zisserman (2014) with batch norm and one linear layer, as in RepDistiller (Tian et al., 2020).

``vgg13`` is the paper's configuration B; ``vgg8`` has one convolution in each of the five stages. The last pooling is global, so
that the network reads other sizes. B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from service.spec.architectures import Vgg
from worker.models.strides import fitting_strides

# Convolutions in each stage, and the stages' widths.
_DEPTHS = {"vgg8": 1, "vgg13": 2}
_WIDTHS = (64, 128, 256, 512, 512)
_FOURTH_HALVING_PIXELS = 64
"""From this size on, the last stage halves the image too, as in RepDistiller."""


class VggNetwork(nn.Module):
    """Five stages of 3x3 convolutions, global pooling, one linear layer; the second to fourth stage halve the image."""

    stage_layers = ("layer1", "layer2", "layer3", "layer4", "layer5")
    embedding_layers = ("pool",)

    def __init__(self, *, depth: int, strides: Sequence[int], num_channels: int, num_outputs: int) -> None:
        super().__init__()
        channels_in = (num_channels, *_WIDTHS)
        self.layer1, self.layer2, self.layer3, self.layer4, self.layer5 = (
            _stage(channels_in[index], width, depth=depth, stride=strides[index]) for index, width in enumerate(_WIDTHS)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(_WIDTHS[-1], num_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, classes)."""
        features = self.layer3(self.layer2(self.layer1(images)))
        features = self.layer5(self.layer4(features))
        logits: Tensor = self.fc(self.pool(features).flatten(1))
        return logits


def build_vgg(architecture: Vgg, *, input_shape: tuple[int, int, int], num_outputs: int) -> VggNetwork:
    """The network that the spec names, freshly initialised from torch's global generator."""
    channels, *sides = input_shape
    last = 2 if min(sides) >= _FOURTH_HALVING_PIXELS else 1
    strides = fitting_strides((1, 2, 2, 2, last), pixels=min(sides))
    return VggNetwork(depth=_DEPTHS[architecture.name], strides=strides, num_channels=channels, num_outputs=num_outputs)


def _stage(channels_in: int, channels_out: int, *, depth: int, stride: int) -> nn.Sequential:
    # The border of an odd side is pooled too.
    layers: list[nn.Module] = [nn.MaxPool2d(stride, ceil_mode=True)] if stride == 2 else []
    for index in range(depth):
        layers += [
            nn.Conv2d(channels_out if index else channels_in, channels_out, kernel_size=3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
