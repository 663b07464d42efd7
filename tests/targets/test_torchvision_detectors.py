"""torchvision's detectors with random weights: every method equal to the twin, for boxes asked for in every way."""

import pytest
import torch

import relume
from relume.errors import TargetError
from relume.explanation.remarks import NO_GRADIENT
from relume.models.libraries import import_torchvision
from relume.targets import Detection
from tests.reference import twin

detection = import_torchvision().models.detection
pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.torchvision, "roi_align"),
    reason="torchvision's own operators (nms, roi_align) are missing beside this torch; make test-newest has them",
)

METHODS = ["gradient", "guided_backprop", "gradcam", "guided_gradcam"]
SLOW = "ssd300_vgg16"  # a VGG of 300 pixels: one question, in float32
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
LAYERS = {
    "fasterrcnn_resnet50_fpn": "backbone.fpn.layer_blocks.0",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "backbone.fpn.layer_blocks.0",
    "retinanet_resnet50_fpn": "backbone.fpn.layer_blocks.0",
    "fcos_resnet50_fpn": "backbone.fpn.layer_blocks.0",
    SLOW: "backbone.extra.1",
    "ssdlite320_mobilenet_v3_large": "head.classification_head.module_list.0.0",
}


def build(name, threshold=0.0):
    """The network of five classes; random weights give low scores, so that no ``threshold`` is kept to."""
    torch.manual_seed(0)
    two_stages = name.startswith("faster")
    options = {"box_score_thresh" if two_stages else "score_thresh": threshold, "num_classes": 5}
    options |= {"rpn_post_nms_top_n_test": 40, "box_detections_per_img": 30} if two_stages else {"detections_per_img": 30}
    if not name.startswith("ssd"):  # whose sizes are their own
        options |= {"min_size": 96 if "mobilenet" in name else 64, "max_size": 128}
    model = getattr(detection, name)(weights=None, weights_backbone=None, **options).eval()
    return model if name == SLOW else model.double()


def image(dtype=torch.float64, height=64, width=80):
    return torch.rand(3, height, width, dtype=dtype, generator=torch.Generator().manual_seed(1))


def questions(listed):
    """Targets, each with the places in the list whose scores it is the sum of."""
    labels, boxes = listed["labels"].tolist(), listed["boxes"].tolist()
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
    place = max(range(5, len(labels)), key=areas.__getitem__)
    label = labels[place]
    same = [i for i, other in enumerate(labels) if other == label]
    return [
        (Detection(), [0]),
        (Detection(label), same[:1]),
        (Detection(index=3), [3]),
        (Detection(label, box=boxes[place]), [place]),
        (Detection(label, reduce="sum"), same),
    ]


def by_twin(model, layer, x, rule, sums):
    """Run once with every rectifier exchanged; give score, map, activation and gradient at ``layer`` for each sum of scores."""
    leaf, kept = x[None].clone().requires_grad_(), []
    handle = layer.register_forward_hook(lambda _m, _a, out: kept.append(out) or out.clone())
    with twin.Twin(rule):
        scores = model([leaf[0].clone()])[0]["scores"]
    handle.remove()
    for places in sums:
        score = scores[places].sum()
        gradients = torch.autograd.grad(score, [leaf, kept[0]], retain_graph=True, materialize_grads=True)
        yield score.detach(), gradients[0], kept[0].detach(), gradients[1]


@pytest.mark.parametrize("name", LAYERS)
def test_every_method_is_the_twin(name):
    model = build(name)
    x = image(next(model.parameters()).dtype)
    asked = questions(model([x])[0])
    asked = asked[3:4] if name == SLOW else asked
    targets, sums = zip(*asked, strict=True)
    explained = relume.compare(model, [x], targets, METHODS, evidence=None)
    assert explained[0].layer == LAYERS[name]
    assert explained[0].coverage.complete
    layer = model.get_submodule(LAYERS[name])
    plain, guided = (by_twin(model, layer, x, rule, sums) for rule in (twin.gradient, twin.guided))
    for e, (score, gradient, activation, at_layer), (_, guided_map, _, _) in zip(explained, plain, guided, strict=True):
        heat = twin.grad_cam(activation, at_layer)
        product = twin.guided_gradcam(guided_map, heat)
        assert guided_map.any()
        torch.testing.assert_close(e.score, score[None])
        for method, expected in zip(METHODS, (gradient, guided_map, heat, product), strict=True):
            error = (e[method] - expected).norm() / expected.norm().clamp(min=1e-300)
            assert error < TOLERANCE[x.dtype], (method, float(error))


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_scores_below_the_threshold_are_no_boxes(name):
    """Random weights detect nothing; a callable that adds up no scores at all has no gradient, and each map says so."""
    model, x = build(name, threshold=0.5), image()
    with pytest.raises(TargetError, match="detected nothing in image 0"):
        relume.explain(model, [x], Detection(1), ["gradient"])

    def total(outputs):
        return torch.stack([listed["scores"].sum() for listed in outputs])

    e = relume.explain(model, [x], total, ["gradient", "guided_backprop"])
    assert not e["guided_backprop"].any()
    assert e.remarks["guided_backprop"] == (NO_GRADIENT,)


def test_a_bias_at_the_prior_empties_no_map():
    """RetinaNet begins with logits of -4.6 everywhere; the guided map is the same up to the slope of the sigmoid."""
    model, x = build("retinanet_resnet50_fpn"), image()
    before = relume.explain(model, [x], Detection(index=0), ["guided_backprop"])
    torch.nn.init.zeros_(model.head.classification_head.cls_logits.bias)
    after = relume.explain(model, [x], Detection(index=0), ["guided_backprop"])
    slopes = [float(e.score * (1 - e.score)) for e in (before, after)]
    assert before["guided_backprop"].any()
    torch.testing.assert_close(before["guided_backprop"] / slopes[0], after["guided_backprop"] / slopes[1])
