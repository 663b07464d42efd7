"""Detections: how boxes are read and found, and what is refused."""

import pytest
import torch
from torch import nn

import relume
from relume.checkup import check
from relume.errors import InputError, TargetError
from relume.models.libraries import import_library, import_torchvision
from relume.targets import Detection, Segmentation
from relume.targets.boxes import boxes_in, overlap
from tests.helpers.heads import headed, images
from tests.helpers.networks import Scales
from tests.reference import targets as written


def test_an_overlap_is_its_twin():
    boxes = torch.rand(20, 4, dtype=torch.float64).cumsum(1)[:, [0, 1, 2, 3]]
    boxes[:, 3] = boxes[:, 1] + 0.5
    other = (0.2, 0.3, 1.4, 1.9)
    got = overlap(boxes, other)
    torch.testing.assert_close(got, torch.tensor([written.iou(box, other) for box in boxes.tolist()], dtype=torch.float64))
    assert overlap(torch.zeros(2, 4), (0, 0, 1, 1)).tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["yolo5", "yolo8", "detr"])
def test_boxes_are_in_pixels_of_the_input(kind):
    outputs = headed(kind)(images())
    boxes = boxes_in(outputs, 3, (8, 8))
    for i in range(3):
        corners, scores = written.read(outputs, i, kind)
        torch.testing.assert_close(boxes.corners[i], torch.tensor(corners, dtype=torch.float64))
        torch.testing.assert_close(boxes.scores[i], torch.stack([torch.stack(row) for row in scores]))


def test_a_box_by_its_number_and_any_class():
    net, x = headed("yolo8"), images()
    scores = net(x)[:, 4:].transpose(1, 2)
    score = relume.explain(net, x, Detection(2, index=5), ["gradient"]).score
    torch.testing.assert_close(score, scores[:, 5, 2])
    e = relume.explain(net, x, Detection(), ["gradient"])
    torch.testing.assert_close(e.score, scores.flatten(1).amax(1))
    assert e.target.tolist() == [int(row.flatten().argmax()) % 3 for row in scores]
    listed = headed("listed")
    e = relume.explain(listed, x, Detection(index=3), ["gradient"])
    torch.testing.assert_close(e.score, torch.stack([found["scores"][3] for found in listed(x)]))


@pytest.mark.parametrize("kind", ["yolo5", "yolo8", "detr", "listed"])
def test_a_frozen_detection_asks_the_same_box_of_other_outputs(kind):
    net, x = headed(kind), images()
    outputs, others = net(x), net(x.flip(0) * 2)
    frozen = Detection(1).known((8, 8), "auto").frozen(outputs, 3)
    for i in range(3):
        corners, scores = written.read(outputs, i, kind)
        best = written.best_of_class(corners, scores, 1)
        meant = corners[[row[1] for row in scores].index(best)]
        expected = written.best_overlap(*written.read(others, i, kind), 1, meant)
        torch.testing.assert_close(frozen.scores(others)[i], expected)
    assert frozen.frozen(others, 3) is frozen


def in_list(boxes, labels, scores):
    return [{"boxes": torch.tensor(boxes), "labels": torch.tensor(labels), "scores": scores}]


def test_a_box_without_area_is_found_if_it_is_the_same():
    """Detectors cut boxes off at the edge of the image; such a box overlaps with nothing, itself included."""
    edge = [8.0, 0.0, 8.0, 5.0]
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6], requires_grad=True)
    outputs = in_list([[0.0, 0.0, 4.0, 4.0], edge, edge, edge], [1, 2, 2, 1], scores)
    for target, place in ((Detection(2), 1), (Detection(index=2), 2), (Detection(1, index=3), 3)):
        (gradient,) = torch.autograd.grad(target.frozen(outputs, 1).scores(outputs).sum(), scores)
        assert gradient.tolist() == [float(i == place) for i in range(4)]
    moved = in_list([[0.0, 0.0, 4.0, 4.0]], [2], torch.tensor([0.9]))
    assert Detection(2).frozen(outputs, 1).scores(moved).tolist() == [0]


@pytest.mark.parametrize(
    ("target", "labels", "says"),
    [
        (Detection(2), [], "detected nothing in image 0; give another image, or .* score_thresh=0"),
        (Detection(2), [1, 3], "no box of class 2 is among the 2 of image 0; ask for one of 1, 3"),
        (Detection(index=2), [1, 3], "there is no box 2 in image 0, whose boxes are 0 to 1"),
        (Detection(3, index=0), [1, 3], "there is no box 0 of class 3 in image 0"),
        (Detection(3, box=(70, 70, 80, 80)), [1, 3], r"no box of class 3 in image 0 overlaps with \(70, 70, 80, 80\)"),
        (1, [], r"this network returns .*: relume.targets.Detection\(15\) \(--ask detection:15"),
    ],
)
def test_what_is_not_in_a_list_is_said(target, labels, says):
    def detector(x):
        boxes, scores = torch.rand(len(labels), 4).sort(1).values, x.mean((1, 2, 3))[:1].expand(len(labels))
        return [{"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64), "scores": scores}]

    with pytest.raises(TargetError, match=says):
        relume.explain(detector, torch.rand(1, 3, 8, 8), target, ["gradient"])


class TwoScales(nn.Module):
    """An SSD in small: boxes of two scales, side by side; torchvision's own class takes its list of images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        transform = import_torchvision().models.detection.transform.GeneralizedRCNNTransform
        self.transform = transform(16, 16, [0.5] * 3, [0.2] * 3)
        self.fine = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU())
        self.kinds = nn.ModuleList([nn.Conv2d(6, 3, 1), nn.Conv2d(6, 3, 1)])
        self.sides = nn.ModuleList([nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)])

    def forward(self, images):
        x = self.transform(images)[0].tensors
        maps = [fine := self.fine(x), self.deep(fine)]
        kinds = torch.cat([head(m).flatten(2) for head, m in zip(self.kinds, maps, strict=True)], 2).softmax(1)
        sides = torch.cat([head(m).flatten(2) for head, m in zip(self.sides, maps, strict=True)], 2).transpose(1, 2)
        scores, labels = kinds.max(1)
        boxes = torch.cat([sides[..., :2], sides[..., :2] + sides[..., 2:].exp()], 2)
        return [{"boxes": b, "labels": n, "scores": s} for b, n, s in zip(boxes, labels, scores, strict=True)]


def test_a_detector_is_given_its_list_of_images():
    net, x = TwoScales().eval(), torch.rand(2, 3, 16, 16)
    methods = ["guided_backprop", "gradcam"]
    e = relume.explain(net, [*x], Detection(), methods)
    torch.testing.assert_close(e.score, torch.stack([found["scores"].max() for found in net([*x])]))
    assert all(torch.equal(e[key], relume.explain(net, x, Detection(), methods)[key]) for key in methods)
    assert relume.coverage(net, [*x], Detection()).guided == 2
    assert relume.audit(net, [*x], Detection(), "gradient", checks=["edges"]).measures
    alone = relume.explain(net, [x[0]], Detection(), methods, batch_size=1)
    torch.testing.assert_close(alone["guided_backprop"], e["guided_backprop"][:1])
    with pytest.raises(InputError, match=r"these have \(3, 16, 16\), \(3, 16, 12\); explain each in a list of its own"):
        relume.explain(net, [x[0], x[1, :, :, :12]], Detection())


@pytest.mark.parametrize(("place", "layer"), [(3, "fine"), (16 * 16 + 3, "deep")])
def test_the_layer_is_of_the_scale_of_the_box_and_no_prediction(place, layer):
    e = relume.explain(TwoScales().eval(), torch.rand(1, 3, 16, 16), Detection(index=place), ["gradcam"])
    assert (e.layer, e.layer_choice.partition(", ")[2]) == (layer, "a list of boxes")


def test_a_shape_of_two_readings_is_refused_with_both():
    ambiguous = torch.rand(2, 12, 9)
    says = r"\(2, 12, 9\) may be 12 boxes of 4 classes, layout='boxes_first', or 9 boxes of 8 classes, layout='boxes_last'"
    with pytest.raises(TargetError, match=says):
        boxes_in(ambiguous, 2, (8, 8))
    assert boxes_in(ambiguous, 2, (8, 8), "boxes_first").scores.shape == (2, 12, 4)
    assert boxes_in(ambiguous, 2, (8, 8), "boxes_last").scores.shape == (2, 9, 8)
    assert boxes_in(torch.rand(1, 84, 8400), 1, (640, 640)).scores.shape == (1, 8400, 80)
    assert boxes_in(torch.rand(1, 25200, 85), 1, (640, 640)).scores.shape == (1, 25200, 80)
    assert boxes_in((torch.rand(1, 25200, 6), [torch.rand(1, 3, 80, 80, 6)]), 1, (640, 640)).scores.shape == (1, 25200, 1)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Detection(3), "class 3 is out of range: the network has 3 classes"),
        (Detection(1, index=16), "there is no box 16: the network returns 16, 0 to 15"),
        (Detection(1, box=(90, 90, 99, 99)), r"no box of image 0 overlaps with \(90, 90, 99, 99\)"),
        (Detection(1, box=(5, 5, 2, 9)), r"x0 < x1 and y0 < y1; got \(5, 5, 2, 9\)"),
        (Detection(1, box="big"), "a box is .* got 'big'"),
        (Detection(1, index=2, box=(0, 0, 1, 1)), "by its index, by its box, or is the sum of a class; give one"),
        (Detection(reduce="sum"), r"name it, as in Detection\(17, reduce='sum'\)"),
        (Detection(1, reduce="all"), "reduce is 'best' or 'sum', .*; got 'all'"),
        (Detection(1, layout="rows"), "got 'best' and 'rows'"),
        (Detection(-1), "the label of a detection is a number from 0 on, or None; got -1"),
        (Detection(True), "got True"),
        (Segmentation(1), r"returns \(N, 7, 16\): relume.targets.Detection\(\d\) \(--ask detection:\d in the command\)"),
        (1, r"returns \(N, 7, 16\): relume.targets.Detection"),
    ],
)
def test_what_cannot_be_asked_of_a_detector_is_said(target, says):
    with pytest.raises(TargetError, match=says):
        relume.explain(headed("yolo8"), images(), target, ["gradient"])


def test_the_best_of_logits_needs_a_class():
    with pytest.raises(TargetError, match="may stand for no object"):
        relume.explain(headed("detr"), images(), Detection(), ["gradient"])


def test_the_doctor_says_which_targets_fit():
    expected = {
        "classes": ("Class", "Probability", "Contrast", "Embedding"),
        "one": ("Binary", "Regression"),
        "pixels": ("Segmentation",),
        "yolo8": ("Detection",),
        "detr": ("Detection",),
    }
    for head, names in expected.items():
        checkup = check(headed(head).float(), images(count=1).float())
        assert tuple(target.partition("(")[0] for target in checkup.targets) == names
        assert checkup.works, checkup.troubles


def test_a_detector_of_several_scales():
    torch.manual_seed(0)
    net, x = Scales().eval(), torch.rand(1, 3, 64, 64)
    e = relume.explain(net, x, Detection(2), ["gradient", "gradcam"], labels=["a", "b", "c"])
    torch.testing.assert_close(e.score, net(x)[:, 6].amax(1))
    assert e.title().startswith("c (2) in the box ")


def test_the_detr_family_of_transformers():
    transformers = import_library("transformers")
    torch.manual_seed(0)
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 6, "num_labels": 4}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    config = transformers.DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, **sizes
    )
    model, x = transformers.DetrForObjectDetection(config).eval(), torch.rand(2, 3, 64, 64)
    returned = model(x)
    e = relume.explain(model, x, Detection(1), ["gradient", "guided_backprop", "gradcam"])
    torch.testing.assert_close(e.score, returned.logits[..., 1].amax(1))
    box = returned.pred_boxes[0, 3].detach() * 64
    corners = (*(box[:2] - box[2:] / 2).tolist(), *(box[:2] + box[2:] / 2).tolist())
    e = relume.explain(model, x[:1], Detection(1, box=corners), ["gradient"])
    assert e["gradient"].any()
    torch.testing.assert_close(e.score, model(x[:1]).logits[:, 3, 1])
