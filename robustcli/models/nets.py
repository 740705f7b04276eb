"""The paper's two networks (its Tables 1 and 2), with an augmentation slot before each ReLU.

Where the paper pools after a ReLU, the ReLU comes last: the values are the same, and it has a quarter to do.
"""

from __future__ import annotations

from torch import Tensor, nn

from robustcli.config import ModelSpec
from robustcli.fields import Eta
from robustcli.models.layers import Normalize, Slots

MNIST_ETA: tuple[Eta, ...] = (0.05, 0.1, 0.1)
CIFAR_ETA: tuple[Eta, ...] = ((0.0, 0.1),) * 4 + ((0.0, 0.15),) * 3


class MnistCNN(nn.Module):
    """Two 5x5 convolutions of 32 filters and one hidden layer of 256 (Table 1). Slots c1, c2, f1."""

    summary = "2 convolutions, 1 hidden layer; the paper's MNIST network (Table 1)"
    slot_names = ("c1", "c2", "f1")
    paper_eta = MNIST_ETA
    normalized = False

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(spec.channels, 32, 5, padding="same")
        self.conv2 = nn.Conv2d(32, 32, 5, padding="same")
        self.fc1 = nn.Linear(32 * (spec.height // 4) * (spec.width // 4), 256)
        self.fc2 = nn.Linear(256, spec.classes)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.5)
        self.slots = Slots(*self.slot_names)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) in [0, 1] to logits (n, classes)."""
        h = self.pool(self.slots["c1"](self.conv1(x))).relu()
        h = self.pool(self.slots["c2"](self.conv2(h))).relu()
        h = self.dropout(h.flatten(1))
        h = self.dropout(self.slots["f1"](self.fc1(h)).relu())
        logits: Tensor = self.fc2(h)
        return logits


class CifarCNN(nn.Module):
    """Five 3x3 convolutions, two hidden layers of 512 (Table 2), after normalisation. Slots c1 to c5, f1, f2."""

    summary = "5 convolutions, 2 hidden layers; the paper's CIFAR-10 network (Table 2)"
    slot_names = ("c1", "c2", "c3", "c4", "c5", "f1", "f2")
    paper_eta = CIFAR_ETA
    normalized = True

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        channels = spec.channels
        self.normalize = Normalize(spec.mean or (0.0,) * channels, spec.std or (1.0,) * channels)
        self.conv1 = nn.Conv2d(channels, 32, 3, padding="same")
        self.conv2 = nn.Conv2d(32, 64, 3, padding="same")
        self.conv3 = nn.Conv2d(64, 64, 3, padding="same")
        self.conv4 = nn.Conv2d(64, 64, 3, padding="same")
        self.conv5 = nn.Conv2d(64, 64, 3, padding="same")
        self.fc1 = nn.Linear(64 * (spec.height // 4) * (spec.width // 4), 512)
        self.fc2 = nn.Linear(512, 512)
        self.fc3 = nn.Linear(512, spec.classes)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.5)
        self.slots = Slots(*self.slot_names)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) in [0, 1] to logits (n, classes)."""
        h = self.slots["c1"](self.conv1(self.normalize(x))).relu()
        h = self.pool(self.slots["c2"](self.conv2(h))).relu()
        h = self.slots["c3"](self.conv3(h)).relu()
        h = self.slots["c4"](self.conv4(h)).relu()
        h = self.pool(self.slots["c5"](self.conv5(h))).relu()
        h = self.slots["f1"](self.fc1(self.dropout(h.flatten(1)))).relu()
        h = self.dropout(self.slots["f2"](self.fc2(h)).relu())
        logits: Tensor = self.fc3(h)
        return logits
