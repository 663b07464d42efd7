"""Small networks that more than one test needs."""

from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn

from relume.models.libraries import import_torchvision


class Small(nn.Module):
    """Conv–BN–ReLU in place, a residual sum with an in-place ReLU after it, pooling, a classifier with a ReLU of its own."""

    def __init__(self, classes=5, channels=3):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, classes))
        for bn in (self.bn1, self.bn2):
            nn.init.uniform_(bn.running_mean, -0.5, 0.5)
            nn.init.uniform_(bn.running_var, 0.5, 2)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        y += x
        x = self.body(self.relu(y))
        return self.head(x.mean((2, 3)))


def small_of(axes, channels=2, classes=3):
    """Two convolutions and a classifier, for inputs of one to three spatial axes."""
    conv, norm, pool = (getattr(nn, f"{name}{axes}d") for name in ("Conv", "BatchNorm", "AdaptiveAvgPool"))
    torch.manual_seed(0)
    layers = conv(channels, 4, 3, padding=1), norm(4), nn.ReLU(), conv(4, 6, 3), nn.ReLU(), pool(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(6 * 2**axes, classes)).eval()


class Embedding(Small):
    """The small network, which returns an embedding of its scores before them."""

    def forward(self, x):
        scores = super().forward(x)
        return torch.cat([scores, -scores], 1), scores


class ResNet20(nn.Module):
    """The CIFAR-10 ResNet-20 of the real data: functional ReLUs only, shortcuts without parameters."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        for i, (before, width) in enumerate([(16, 16), (16, 32), (32, 64)], start=1):
            setattr(self, f"layer{i}", nn.Sequential(*[ResNet20Block(before if b == 0 else width, width) for b in range(3)]))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class ResNet20Block(nn.Module):
    def __init__(self, before, width):
        super().__init__()
        self.stride, self.pad = (1 if before == width else 2), (width - before) // 2
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, self.stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class UNet(nn.Module):
    """Two steps down, two up, each with what came before beside it, and a 1×1 convolution for the classes."""

    def __init__(self, classes=5, width=8):
        super().__init__()
        self.encoder1, self.encoder2 = _twice(3, width), _twice(width, 2 * width)
        self.bottleneck = _twice(2 * width, 4 * width)
        self.up2, self.decoder2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), _twice(4 * width, 2 * width)
        self.up1, self.decoder1 = nn.ConvTranspose2d(2 * width, width, 2, 2), _twice(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        fine = self.encoder1(x)
        middle = self.encoder2(F.max_pool2d(fine, 2))
        y = self.bottleneck(F.max_pool2d(middle, 2))
        y = self.decoder2(torch.cat([self.up2(y), middle], 1))
        return self.head(self.decoder1(torch.cat([self.up1(y), fine], 1)))


def _twice(before, after):
    convs = (nn.Conv2d(before, after, 3, padding=1, bias=False), nn.Conv2d(after, after, 3, padding=1, bias=False))
    return nn.Sequential(convs[0], nn.BatchNorm2d(after), nn.ReLU(True), convs[1], nn.BatchNorm2d(after), nn.ReLU(True))


class Scales(nn.Module):
    """A detector as YOLOs are: boxes and classes of three scales, by branches of their own, joined to ``(N, 4 + K, boxes)``.

    A box's side is the mean of a distribution, taken by a fixed convolution.
    """

    def __init__(self, classes=3, bins=4):
        super().__init__()
        self.classes, self.bins, widths = classes, bins, (16, 24, 32)
        self.stem = _step(3, 8, 4)
        self.steps = nn.ModuleList([_step(before, after, 2) for before, after in zip((8, *widths), widths, strict=False)])
        self.boxes, self.kinds = (
            nn.ModuleList([nn.Sequential(_step(w, 8), _step(8, 8), nn.Conv2d(8, k, 1)) for w in widths])
            for k in (4 * bins, classes)
        )
        self.mean = nn.Conv2d(bins, 1, 1, bias=False)
        self.mean.weight.data[:] = torch.arange(bins).view(1, bins, 1, 1).float()

    def forward(self, x):
        y, scales = self.stem(x), []
        for step, boxes, kinds in zip(self.steps, self.boxes, self.kinds, strict=True):
            y = step(y)
            scales.append(torch.cat([boxes(y), kinds(y)], 1).flatten(2))
        sides, kinds = torch.cat(scales, 2).split((4 * self.bins, self.classes), 1)
        sides = self.mean(sides.unflatten(1, (4, self.bins)).transpose(1, 2).softmax(1))[:, 0]
        return torch.cat([sides, kinds.sigmoid()], 1)


def _step(before, after, stride=1):
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU())


def torchvision_network(name):
    """A network of torchvision with random weights, and random statistics and shifts in place of the tidy initial ones.

    The classifiers of VGG and AlexNet, whose weights take seconds to draw, are 64 wide where theirs are 4,096.
    """
    torch.manual_seed(0)
    models, linear = import_torchvision().models, nn.Linear
    quick = {"init_weights": False} if name.startswith(("googlenet", "inception_v3", "vgg")) else {}
    narrow = {"Linear": lambda *sizes: linear(*(64 if size == 4096 else size for size in sizes))}
    with patch.multiple(nn, **narrow if name.startswith(("alexnet", "vgg")) else {"Linear": linear}):
        model = models.get_model(name, weights=None, **quick).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


def snapshot(model):
    """Everything that a call must leave as it was, by value where it is a value and by identity where it is an object."""
    modules = {
        name: (
            id(m),
            type(m),
            m.training,
            {k: (id(v) if isinstance(v, torch.nn.Parameter | nn.Module) else repr(v)) for k, v in vars(m).items()},
            {k: list(v) for k, v in vars(m).items() if k.endswith("_hooks")},
        )
        for name, m in model.named_modules()
    }
    parameters = {
        n: (
            id(p),
            p.requires_grad,
            p._version,
            p.data_ptr(),
            None if p.grad is None else p.grad.clone(),
            p._backward_hooks,
        )
        for n, p in model.named_parameters()
    }
    buffers = {n: (id(b), b._version, b.clone()) for n, b in model.named_buffers()}
    return modules, parameters, buffers


def assert_unchanged(before, after):
    for one, other in zip(before, after, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            for a, b in zip(one[name], other[name], strict=True):
                same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
                assert same, f"{name}: {a} became {b}"


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.embed, self.head = nn.Conv2d(3, 4, 3), nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, image, kind, *, other=None, scale=1.0):
        y = F.relu(self.conv(image)).mean((2, 3)) * scale
        if other is not None:
            y = y - F.relu(self.conv(other)).mean((2, 3))
        return self.head(F.relu(y + self.embed(kind)))


class Pooled(nn.Module):
    """A small network for signals, pictures or volumes of any size and number of channels, by the number of axes."""

    def __init__(self, axes=2, channels=3, classes=3):
        super().__init__()
        torch.manual_seed(0)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.features = nn.Sequential(conv(channels, 4, 3, padding=1), nn.ReLU(), conv(4, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(6, classes)

    def forward(self, x):
        return self.head(self.features(x).flatten(2).mean(2))
