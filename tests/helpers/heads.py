"""One small trunk with every head that a target reads, for signals, pictures, volumes and tokens."""

import torch
import torch.nn.functional as F
from torch import nn

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


BOXES = 16  # more than twice the values of one, so that the shape tells the layout
#: The number of values that the last layer of each head returns; that of pixels is a map.
VALUES = {"classes": 4, "one": 1, "embedding": 5, "pixels": 3, "yolo5": BOXES * 8, "yolo8": BOXES * 7, "detr": BOXES * 8}
VALUES["listed"] = 12


class Headed(nn.Module):
    """A convolution with BatchNorm and a ReLU in place, another with a functional one, and the ``head`` of that name.

    Of ``"tokens"`` it is a vision transformer: patches with a class token, a block of attention with a GELU, a ReLU.
    """

    def __init__(self, head, axes=2):
        super().__init__()
        torch.manual_seed(9)
        spatial = 2 if axes == "tokens" else axes
        conv = CONVS[spatial]
        if axes == "tokens":
            self.stem, self.body = Patches(), Block()
        else:
            self.stem = nn.Sequential(conv(3, 6, 3, padding=1), NORMS[axes](6), nn.ReLU(inplace=True))
            self.body = conv(6, 6, 3, padding=1)
        pools = {"tokens": Grid() if head == "pixels" else ClassToken()}
        self.pool = pools.get(axes) or (nn.Identity() if head == "pixels" else Mean(spatial))
        self.end = conv(6, VALUES[head], 1) if head == "pixels" else nn.Linear(6, VALUES[head])
        nn.init.normal_(self.end.weight, 0, 2)  # so that each class is the best somewhere
        nn.init.zeros_(self.end.bias)
        if axes != "tokens":
            nn.init.uniform_(self.stem[1].running_var, 0.5, 2)
        self.read = READERS.get(head, nn.Identity)()

    def forward(self, x):
        return self.read(self.end(self.pool(torch.relu(self.body(self.stem(x))))))


class Patches(nn.Module):
    """Patches of 2 × 2 pixels as tokens, a class token before them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 2, 2)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(1, 17, 6))

    def forward(self, x):
        patches = self.conv(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(patches.shape[0], -1, -1), patches], 1) + self.places


class Block(nn.Module):
    """Attention and a perceptron, each beside what it is added to."""

    def __init__(self):
        super().__init__()
        self.before, self.between = nn.LayerNorm(6), nn.LayerNorm(6)
        self.queries, self.joined = nn.Linear(6, 18), nn.Linear(6, 6)
        self.perceptron = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))

    def forward(self, x):
        query, key, value = self.queries(self.before(x)).chunk(3, -1)
        x = x + self.joined(F.scaled_dot_product_attention(query, key, value))
        return x + self.perceptron(self.between(x))


class Mean(nn.Module):
    """The mean over all places."""

    def __init__(self, axes):
        super().__init__()
        self.axes = list(range(2, 2 + axes))

    def forward(self, x):
        return x.mean(self.axes)


class ClassToken(nn.Module):
    def forward(self, x):
        return x[:, 0]


class Grid(nn.Module):
    """The tokens of the patches where these were."""

    def forward(self, x):
        return x[:, 1:].transpose(1, 2).reshape(-1, 6, 4, 4)


class Boxes(nn.Module):
    """Centre, width and height of ``count`` boxes along the diagonal of an image of 8 × 8 pixels, in pixels."""

    def __init__(self, count=BOXES):
        super().__init__()
        centres = torch.linspace(1, 7, count)
        boxes = torch.stack([centres, centres, torch.full_like(centres, 2), torch.full_like(centres, 3)], 1)
        self.register_buffer("boxes", boxes)

    def of(self, values):
        """Give each image of ``values`` ``(N, boxes, values)`` the boxes."""
        return self.boxes + 0 * values[..., :4]


class Yolo5(Boxes):
    """``(N, boxes, 4 + 1 + classes)``: boxes, objectness, classes."""

    def forward(self, y):
        y = y.unflatten(1, (BOXES, 8))
        return torch.cat([self.of(y), y[..., 4:].sigmoid()], 2)


class Yolo8(Boxes):
    """``(N, 4 + classes, boxes)``: boxes and classes."""

    def forward(self, y):
        y = y.unflatten(1, (BOXES, 7))
        return torch.cat([self.of(y), y[..., 4:].sigmoid()], 2).transpose(1, 2)


class Detr(Boxes):
    """Logits, the last of them for no object, and boxes as shares of the image."""

    def forward(self, y):
        y = y.unflatten(1, (BOXES, 8))
        return {"logits": y[..., 4:], "pred_boxes": self.of(y) / 8}


class Listed(Boxes):
    """The boxes, labels and scores of each image, the highest score first, as torchvision's detectors return them."""

    def __init__(self):
        super().__init__(12)

    def forward(self, y):
        centres, sizes = self.boxes[:, :2], self.boxes[:, 2:]
        corners = torch.cat([centres - sizes / 2, centres + sizes / 2], 1)
        labels = torch.arange(12, device=y.device) % 3
        detections = []
        for scores in y.sigmoid():
            order = scores.argsort(descending=True)
            detections.append({"boxes": corners[order], "labels": labels[order], "scores": scores[order]})
        return detections


READERS = {"yolo5": Yolo5, "yolo8": Yolo8, "detr": Detr, "listed": Listed}

#: The size of the images, by the number of their axes.
SIZES = {1: (8,), 2: (8, 8), 3: (6, 8, 8), "tokens": (8, 8)}


def images(axes=2, count=3):
    """Images in float64, the same for the same arguments."""
    return torch.randn(count, 3, *SIZES[axes], dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def headed(head, axes=2):
    """The network in float64 and in evaluation mode."""
    return Headed(head, axes).double().eval()
