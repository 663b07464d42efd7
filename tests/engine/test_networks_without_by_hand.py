"""Real networks, which hold no activation written by hand: their maps are, to the last bit, those without looking for one."""

import pytest
import torch
from torch import nn

import relume
from relume import errors
from relume.engine import trace
from relume.models.libraries import import_library
from tests.helpers.networks import torchvision_network

TORCHVISION = """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 mnasnet0_5 mobilenet_v2
    mobilenet_v3_small regnet_y_400mf resnet18 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 swin_t swin_v2_t
    vgg11_bn vit_b_16
""".split()  # noqa: SIM905 - a list takes a line for each

#: A small network of each module of timm.
TIMM = """
    beit_base_patch16_224 eca_halonext26ts mobileone_s0 cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32
    convnext_atto_rms cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_m cspnext_tiny davit_tiny deit_tiny_patch16_224
    densenet121 dla102x dpn68 edgenext_xx_small efficientformer_l1 efficientformerv2_s0 tinynet_d efficientvim_m1_dist
    efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny
    ghostnet_100 hardcorenas_b hgnetv2_b0 hiera_tiny_224 hieradet_small hrnet_w18_small iformer_t inception_next_atto
    inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small levit_128s lowformer_b0 mambaout_femto
    maxvit_pico_rw_256 caformer_s18 gmlp_ti16_224 resmlp_12_224 mobilenetv3_small_050 mobilevit_xxs mvitv2_tiny
    nasnetalarge nest_tiny nextvit_small nf_regnet_b0 pit_ti_224 pnasnet5large pvt_v2_b0 rdnet_tiny regnetx_004_tv
    repghostnet_050 repvit_m1 res2next50 resnest14d resnet10t resnetv2_50d_evos regnetz_b16_evos rexnet_100 selecsls42
    legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224
    swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11
    visformer_tiny vit_tiny_patch16_224 vit_tiny_r_s16_p8_224 vit_srelpos_small_patch16_224 vitamin_small_224
    volo_d1_224 ese_vovnet19b_dw legacy_xception xception41p xcit_nano_12_p8_224
""".split()  # noqa: SIM905 - a list takes a line for each

HOLDING_ONE = {"resnetv2_50d_evos", "regnetz_b16_evos"}  # x*sigmoid(v*x), inside their EvoNorm


def build(library, name):
    if library == "torchvision":
        return torchvision_network(name), torch.randn(1, 3, *[224 if "vit" in name else 96] * 2)
    torch.manual_seed(0)
    model = import_library("timm").create_model(name, pretrained=False).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model, torch.randn(1, *model.default_cfg["input_size"])


def guided(model, x):
    try:
        e = relume.explain(model, x, 0, ["guided_backprop"])
    except (errors.NoRectifierError, errors.HiddenRegionError) as error:
        return torch.zeros(()), str(error)
    return e["guided_backprop"], str(e.coverage)


def is_as_without_looking(library, name, monkeypatch):
    model, x = build(library, name)
    map_, coverage = guided(model, x)
    with monkeypatch.context() as patch:
        patch.setattr(trace, "is_known", lambda _: False)
        patch.setattr(trace, "_has_suspects", lambda *_: False)
        plain, before = guided(model, x)
    return torch.equal(map_, plain) and coverage == before


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("torchvision", "resnet18"),
        ("torchvision", "mobilenet_v3_small"),
        ("torchvision", "shufflenet_v2_x0_5"),
        ("timm", "convnext_atto_rms"),
        ("timm", "edgenext_xx_small"),
    ],
)
def test_looking_changes_nothing(library, name, monkeypatch):
    assert is_as_without_looking(library, name, monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_looking_changes_nothing_in_networks_of_torchvision(monkeypatch):
    assert not [name for name in TORCHVISION if not is_as_without_looking("torchvision", name, monkeypatch)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(12))
def test_looking_changes_those_of_timm_that_hold_one(part, monkeypatch):
    names = TIMM[part::12]
    assert {name for name in names if not is_as_without_looking("timm", name, monkeypatch)} == HOLDING_ONE & set(names)
