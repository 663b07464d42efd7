"""The private names of torch that relume reads: when torch changes one, a sentence says which part of relume reads it."""

import inspect

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from relume.acceleration import packed_convolution
from relume.engine import graph, module_state, recorded_graphs, saved_tensors, tensor_state, token_grid
from relume.engine.rectifiers import RECTIFIERS
from relume.engine.wrappers import inside
from relume.targets import activation

X = torch.randn(2, 4, 6, 6)
BOUND = torch.zeros(4, 6, 6)
EVAL = {"training": False}

# an operation for every node whose name and saved values relume knows
RECTIFYING = {
    "ReluBackward0": F.relu,
    "HardtanhBackward0": F.relu6,
    "ClampBackward0": lambda x: x.clamp(BOUND, BOUND + 6),
    "ClampBackward1": lambda x: x.clamp(0, 6),
    "ClampMinBackward0": lambda x: torch.clamp_min(x, 0),
    "ClampMinBackward1": lambda x: torch.clamp_min(x, BOUND),
    "ThresholdBackward0": lambda x: F.threshold(x, 0, 0),
    "ThresholdBackward1": lambda x: F.threshold_(x.clone(), 0, 0),
    "MaximumBackward0": lambda x: torch.maximum(x, BOUND),
    "FmaxBackward0": lambda x: torch.fmax(x, BOUND),
    "LeakyReluBackward0": F.leaky_relu,
    "LeakyReluBackward1": lambda x: F.leaky_relu_(x.clone()),
    "PreluKernelBackward0": lambda x: F.prelu(x, torch.tensor([0.2])),
    "EluBackward0": F.elu,
    "EluBackward1": lambda x: F.elu_(x.clone()),
    "CeluBackward0": F.celu,
    "CeluBackward1": lambda x: F.celu_(x.clone()),
    "GeluBackward0": F.gelu,
    "SiluBackward0": F.silu,
    "MishBackward0": F.mish,
    "HardswishBackward0": F.hardswish,
    "SoftplusBackward0": F.softplus,
    "RreluWithNoiseBackward0": F.rrelu,
    "RreluWithNoiseBackward1": lambda x: F.rrelu_(x.clone()),
}
WEIGHT, STATISTICS = torch.randn(4, 4, 3, 3), (torch.zeros(4), torch.ones(4))
SAVING_LESS = {
    **{name: RECTIFYING[name] for name in ("ReluBackward0", "LeakyReluBackward0", "LeakyReluBackward1")},
    "ConvolutionBackward0": lambda x: F.conv2d(x, WEIGHT),
    "NativeBatchNormBackward0": lambda x: F.batch_norm(x, *STATISTICS),
    "MaxPool2DWithIndicesBackward0": lambda x: F.max_pool2d(x, 2),
    "MaxPool3DWithIndicesBackward0": lambda x: F.max_pool3d(x, 2),
    "AvgPool2DBackward0": lambda x: F.avg_pool2d(x, 2),
    "AvgPool3DBackward0": lambda x: F.avg_pool3d(x, 2),
    "AdaptiveAvgPool2DBackward0": lambda x: F.adaptive_avg_pool2d(x, 2),
    "AdaptiveAvgPool3DBackward0": lambda x: F.adaptive_avg_pool3d(x, 2),
}
ELSEWHERE = {"CudnnBatchNormBackward0"}  # nodes of other devices


def node_of(operation):
    return operation(X.clone().requires_grad_()).grad_fn


def rectifiers():
    assert RECTIFYING.keys() == RECTIFIERS.keys()
    for name, operation in RECTIFYING.items():
        node, kind = node_of(operation), RECTIFIERS[name]
        assert node.name() == name
        assert kind.rectifies(node), name
        assert kind.output(node).shape == kind.active(node).shape == X.shape, name
        assert (type(kind.sealed(node)), type(kind.rises(node)), kind.operand(node)) == (bool, bool, 0), name


def lean_saving():
    assert SAVING_LESS.keys() == saved_tensors._LESS.keys() - ELSEWHERE
    for name, operation in SAVING_LESS.items():
        node = node_of(operation)
        assert node.name() == name
        for less in saved_tensors._LESS[name]:
            assert hasattr(node, f"_raw_saved_{less.value}"), (name, less.value)
            assert less.holds(node) in (True, False)


def normalising():
    node = node_of(SAVING_LESS["NativeBatchNormBackward0"])
    assert node.name() in graph._NORMALISING
    assert node._saved_input.shape == X.shape
    names = {name for name in dir(torch._C._functions) if "BatchNorm" in name or "BatchNormLegit" in name}
    assert names >= graph._NORMALISING


def hidden_regions():
    def named(function, *args):
        output = function(*args)  # whose node is gone with it
        return graph._hides(output.grad_fn, output.grad_fn.name())

    x = X.clone().requires_grad_()
    assert named(torch.compile(torch.relu, backend="aot_eager"), x)
    assert named(lambda x: torch.utils.checkpoint.checkpoint(torch.relu, x, use_reentrant=True), x)
    group = torch.utils.checkpoint.GraphExecGroup
    assert group._get_current_group() is None


def custom_functions():
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad

    assert graph._function(node_of(Own.apply)) is Own


def maps():
    made = {"ConvolutionBackward0", "NativeBatchNormBackward0", "MaxPool2DWithIndicesBackward0"}
    assert {node_of(SAVING_LESS[name]).name() for name in made} == made
    assert made <= set(token_grid.CHANNELS_FIRST)
    assert token_grid.Grids.is_pooled(F.avg_pool2d(X.clone().requires_grad_(), 2))
    assert token_grid.Grids.is_pooled(X.clone().requires_grad_().mean((2, 3)))


def values_of_nodes():
    for operation in (torch.exp, lambda x: x.bfloat16(), lambda x: x.mean((2, 3))):
        made = operation(X.clone().requires_grad_())
        (about,) = made.grad_fn._input_metadata
        assert (tuple(about.shape), about.dtype) == (tuple(made.shape), made.dtype)
    assert len(X.clone().requires_grad_().chunk(2)[0].grad_fn._input_metadata) == 2


def predictions():
    node = node_of(lambda x: F.conv_transpose2d(x, WEIGHT))
    assert node._saved_transposed is True
    assert node._saved_weight.shape == WEIGHT.shape
    assert node._saved_groups == 1


def activations():
    for name, end in activation._ENDS.items():
        operation = {"softmax": torch.softmax, "log-softmax": torch.log_softmax, "sigmoid": lambda x, _: x.sigmoid()}[end]
        scores = operation(torch.randn(2, 3, requires_grad=True), -1)
        assert scores.grad_fn.name() == name
        assert activation.last_activation(scores) == end


def modules():
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    assert list(module_state.children_of(net)) == ["0", "1"]
    assert [name for _, name, _ in module_state.tensors_of(net[1])] == [
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]
    assert module_state.tensor_of(net[1], "running_mean") is net[1].running_mean
    assert isinstance(net[0], module_state.AnyConvolution)
    assert isinstance(net[1], module_state.AnyBatchNorm)
    assert all(name in vars(net) for name in module_state.FORWARD_HOOKS)
    known = {name for name in vars(net) if "forward" in name and "hooks" in name}
    assert known == set(module_state.FORWARD_HOOKS)
    assert module_state.alias(net[0].weight, net[0].weight).data_ptr() == net[0].weight.data_ptr()


def tensors():
    x = torch.zeros(3)
    assert tensor_state.version(x.add_(1)) == 1
    assert tensor_state.is_view(x.requires_grad_()[1:])
    assert not tensor_state.is_view(x)
    assert hasattr(torch, "_lazy_clone")
    assert tensor_state.memory_key(x.untyped_storage()) == tensor_state.memory_key(x[1:].untyped_storage())


def compiled_wrapper():
    net = nn.ReLU()
    assert inside(torch.compile(net, backend="eager")) is net


def recorded():
    traced = torch.fx.symbolic_trace(nn.Dropout(0.3).train())
    assert recorded_graphs.is_runnable(traced)
    assert recorded_graphs.is_runnable(torch.export.export(nn.ReLU(), (X,)).module())
    assert recorded_graphs._declared(str(torch.ops.aten.dropout.default._schema)) is torch.ops.aten.dropout.default
    for place in (torch._C._nn, torch._VF):
        assert inspect.ismodule(place) or hasattr(place, "dropout"), place
    assert type(torch.ops.aten.relu) is torch._ops.OpOverloadPacket
    assert type(torch.ops.aten.relu.default) is torch._ops.OpOverload


def mkldnn():
    assert torch._C._get_mkldnn_enabled() in (True, False)
    assert packed_convolution._mkldnn._is_mkldnn_bf16_supported() in (True, False)
    assert nn.Conv2d._conv_forward is not nn.Conv3d._conv_forward


CONCERNS = {
    rectifiers: "a node of a rectifier or a value that it saves (relume/engine/rectifiers.py): rectifiers would go unguided",
    lean_saving: "a node or a value that it saves (relume/engine/saved_tensors.py): prepare(lean=True) would keep more",
    normalising: "a node of batch normalisation (relume/engine/graph.py): a wrong gradient of torch would not be mended",
    hidden_regions: "a node that hides operations, or checkpointing (relume/engine/graph.py): rectifiers would be missed",
    custom_functions: "the node of a torch.autograd.Function (relume/engine/graph.py): custom functions would not be told",
    maps: "a node whose result has its channels first, or is pooled (relume/engine/token_grid.py): layers would be misread",
    values_of_nodes: "the shapes and dtypes that a node tells (relume/engine/by_hand.py): activations by hand would be missed",
    predictions: "what a transposed convolution saves (relume/engine/dense_predictions.py): predictions would be misread",
    activations: "a node of softmax or sigmoid (relume/targets/activation.py): scores would be taken for what they are not",
    modules: "where a module keeps its tensors, modules or hooks (relume/engine/module_state.py): the replica would be wrong",
    tensors: "the version, view, clone or memory of a tensor (relume/engine/tensor_state.py): writes would go unnoticed",
    compiled_wrapper: "what torch.compile wraps a module in (relume/engine/wrappers.py): compiled networks would be refused",
    recorded: "recorded graphs or the schemas of operations (relume/engine/recorded_graphs.py): training would be missed",
    mkldnn: "oneDNN's convolutions (relume/acceleration/packed_convolution.py): they would not be packed",
}


# torch's own, of reentrant checkpointing and of scalar loss functions
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("concern", CONCERNS, ids=lambda concern: concern.__name__)
def test_torch_calls_it_as_it_did(concern):
    try:
        concern()
    except (AssertionError, AttributeError, ImportError, KeyError, NotImplementedError, RuntimeError, TypeError) as error:
        pytest.fail(f"torch {torch.__version__} has changed {CONCERNS[concern]}; read in torch 2.13: {error!r}")
