"""The small convolutional network for small images. B batch, C channels, H height, W width."""

from torch import Tensor, nn

from service.spec.architectures import SmallCnn


class SmallCnnNetwork(nn.Module):
    """Two 3x3 convolutions with batch norm, each halving the image, then two linear layers."""

    stage_layers = ("features.3", "features.7")
    embedding_layers = ("classifier.2",)

    def __init__(self, *, width: int, input_shape: tuple[int, int, int], num_outputs: int) -> None:
        super().__init__()
        channels, height, pixels_wide = input_shape
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(2 * width * (height // 4) * (pixels_wide // 4), 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, num_outputs),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, classes)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


def build_small_cnn(architecture: SmallCnn, *, input_shape: tuple[int, int, int], num_outputs: int) -> SmallCnnNetwork:
    """The network that the spec describes, freshly initialised from torch's global generator."""
    return SmallCnnNetwork(width=architecture.width, input_shape=input_shape, num_outputs=num_outputs)
