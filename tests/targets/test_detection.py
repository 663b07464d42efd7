"""Detections: how boxes are read and found, and what is refused."""

import pytest
import torch

import relume
from relume.checkup import check
from relume.errors import TargetError
from relume.models.libraries import import_library
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
