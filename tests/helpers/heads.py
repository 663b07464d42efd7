"""One small trunk with every head that a target reads, for signals, pictures and volumes."""

import torch
from torch import nn

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BOXES = 16  # more than twice the values of one, so that the shape tells the layout
#: The number of values that the last layer of each head returns; that of pixels is a map.
VALUES = {"classes": 4, "one": 1, "embedding": 5, "yolo5": BOXES * 8, "yolo8": BOXES * 7, "detr": BOXES * 8, "listed": 12}


class Headed(nn.Module):
    """A convolution with BatchNorm and a ReLU in place, another with a functional one, and the ``head`` of that name."""

    def __init__(self, head, axes=2):
        super().__init__()
        torch.manual_seed(2)
        conv, norm = CONVS[axes], {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[axes]
        self.stem = nn.Sequential(conv(3, 6, 3, padding=1), norm(6), nn.ReLU(inplace=True))
        self.body = conv(6, 6, 3, padding=1)
        self.head_name, self.axes = head, tuple(range(2, 2 + axes))
        values = {
            "classes": 4,
            "one": 1,
            "embedding": 5,
            "yolo5": BOXES * 8,
            "yolo8": BOXES * 7,
            "detr": BOXES * 8,
            "listed": 12,
        }
        self.end = conv(6, 3, 1) if head == "pixels" else nn.Linear(6, values[head])
        nn.init.normal_(self.end.weight, 0, 2)  # so that each class is the best somewhere
        nn.init.zeros_(self.end.bias)
        nn.init.uniform_(self.stem[1].running_var, 0.5, 2)

    def forward(self, x):
        y = torch.relu(self.body(self.stem(x)))
        y = self.end(y if self.head_name == "pixels" else y.mean(self.axes))
        return {"yolo5": yolo5, "yolo8": yolo8, "detr": detr, "listed": listed}.get(self.head_name, lambda y: y)(y)


def placed(count, like):
    """Centre, width and height of boxes along the diagonal of an image of 8 × 8 pixels, in pixels."""
    centres = torch.linspace(1, 7, count, dtype=like.dtype, device=like.device)
    return torch.stack([centres, centres, torch.full_like(centres, 2), torch.full_like(centres, 3)], 1)


def yolo5(y):
    """``(N, boxes, 4 + 1 + classes)``: boxes, objectness, classes."""
    y = y.unflatten(1, (BOXES, 8))
    return torch.cat([placed(BOXES, y).expand(len(y), -1, -1) + 0 * y[..., :4], y[..., 4:].sigmoid()], 2)


def yolo8(y):
    """``(N, 4 + classes, boxes)``: boxes and classes."""
    y = y.unflatten(1, (BOXES, 7))
    return torch.cat([placed(BOXES, y).expand(len(y), -1, -1) + 0 * y[..., :4], y[..., 4:].sigmoid()], 2).transpose(1, 2)


def detr(y):
    """Logits, the last of them for no object, and boxes as shares of the image."""
    y = y.unflatten(1, (BOXES, 8))
    return {"logits": y[..., 4:], "pred_boxes": placed(BOXES, y).expand(len(y), -1, -1) / 8 + 0 * y[..., :4]}


def listed(y):
    """The boxes, labels and scores of each image, the highest score first, as torchvision's detectors return them."""
    corners = placed(12, y)
    corners = torch.cat([corners[:, :2] - corners[:, 2:] / 2, corners[:, :2] + corners[:, 2:] / 2], 1)
    labels = torch.arange(12, device=y.device) % 3
    detections = []
    for scores in y.sigmoid():
        order = scores.argsort(descending=True)
        detections.append({"boxes": corners[order], "labels": labels[order], "scores": scores[order]})
    return detections


#: The size of the images, by the number of their axes.
SIZES = {1: (8,), 2: (8, 8), 3: (6, 8, 8)}


def images(axes=2, count=3):
    """Images in float64, the same for the same arguments."""
    return torch.randn(count, 3, *SIZES[axes], dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def headed(head, axes=2):
    """The network in float64 and in evaluation mode."""
    return Headed(head, axes).double().eval()
