"""Every target's score written out for one image, from its definition: ``outputs`` are what the network returned for it."""

import math


def softmax(scores, index):
    return scores[index].exp() / sum(score.exp() for score in scores)


def nearest(scores, index, count):
    """The ``count`` classes whose scores are nearest to that of ``index``."""
    others = [k for k in range(len(scores)) if k != index]
    return sorted(others, key=lambda k: abs((scores[k] - scores[index]).item()))[:count]


def contrast(scores, index, others, gamma=1.0):
    return sum(scores[index] - gamma * scores[k] for k in others) / len(others)


def cosine(values, reference):
    product = sum(a * b for a, b in zip(values, reference, strict=True))
    return product / (math.sqrt(sum(float(b) ** 2 for b in reference)) * sum(a**2 for a in values).sqrt())


def pixels_of(scores, index):
    """The sum of a class's scores over the pixels at which it is the highest: ``scores`` are ``(classes, *spatial)``."""
    flat = scores.flatten(1)
    return sum(flat[index, p] for p in range(flat.shape[1]) if int(flat[:, p].argmax()) == index)


def corners(box):
    x, y, width, height = (float(v) for v in box.tolist())
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def iou(a, b):
    """The intersection over union of two boxes given by their corners."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def read(outputs, i, kind, size=8):
    """The boxes of image ``i``, by their corners in pixels, and a list of the scores of each for each class."""
    if kind == "yolo5":
        return [corners(row[:4]) for row in outputs[i]], [[row[4] * score for score in row[5:]] for row in outputs[i]]
    if kind == "yolo8":
        return [corners(row[:4]) for row in outputs[i].T], [list(row[4:]) for row in outputs[i].T]
    if kind == "detr":
        boxes = [corners(row * size) for row in outputs["pred_boxes"][i]]
        return boxes, [list(row) for row in outputs["logits"][i]]
    found = outputs[i]
    return [tuple(map(float, box)) for box in found["boxes"]], [
        [score if int(label) == k else None for k in range(3)]
        for label, score in zip(found["labels"], found["scores"], strict=True)
    ]


def best_of_class(boxes, scores, label):
    """The highest score for a class."""
    return max((row[label] for row in scores if row[label] is not None), key=lambda score: score.item())


def best_overlap(boxes, scores, label, box):
    """The score for a class of the box that overlaps most with ``box``."""
    able = [i for i, row in enumerate(scores) if row[label] is not None]
    return scores[max(able, key=lambda i: iou(boxes[i], box))][label]


def sum_of_class(boxes, scores, label):
    """The sum over the boxes of which the class is the best."""

    def is_best(row):
        return row[label] is not None and all(other is None or other.item() <= row[label].item() for other in row)

    return sum(row[label] for row in scores if is_best(row))
