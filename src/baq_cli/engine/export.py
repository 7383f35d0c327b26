"""Policies as ONNX and TorchScript files that act alone: normaliser and action scaling inside."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from baq_cli import __version__
from baq_cli.engine.deploy import OneSeed
from baq_cli.nets.perceptron import NORM_EPS

Array = npt.NDArray[Any]
Format = Literal["onnx", "torchscript"]
Run = Callable[[Array], Array]
"""A loaded file: observations `[B, obs_dim]` to actions `[B, action_dim]`."""

METADATA = "baq"
"""The key of the JSON document in ONNX metadata; TorchScript has it as the file `baq.json`."""
OPSET, IR_VERSION = 17, 8
"""The oldest that have LayerNormalization: ONNX Runtime reads them since 1.12."""

GROUPS = {"ordinary": (800, 1.0), "far": (100, 10.0), "extreme": (100, 100.0)}
"""Observations to check with: how many, and how many standard deviations they spread."""
TOLERANCE = 1e-5
"""The largest difference, in halves of an action's range."""
ROUNDING = 8.0
"""How many times float32's own rounding in the source policy the tolerance is at least.

Far from the data, sums of large numbers nearly cancel. Another order of summation, which every
runtime has, then rounds differently, by more than 1e-5.
"""


class ExportedPolicy(nn.Module):
    """What is exported: raw `obs [B, obs_dim]` to `action [B, action_dim]`, float32.

    Made of plain modules for one seed. Its actions never leave the bounds. A row that is not
    finite gives actions of NaN: a ReLU would otherwise turn it into a plausible one.
    """

    def __init__(self, one: OneSeed):
        super().__init__()
        low, high = (np.asarray(b) for b in (one.spaces.action_low, one.spaces.action_high))
        constants = {"low": low, "high": high, "middle": (low + high) / 2, "half": (high - low) / 2}
        for name, value in constants.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))
        self.register_buffer("obs_mean", one.inputs.obs_mean.clone())
        self.register_buffer("obs_std", one.inputs.obs_std.clone())
        self.obs_dim = one.spaces.obs_dim
        self.layers = nn.Sequential(*_plain_layers(one.agent.policy.net, one.spaces.action_dim))
        self.requires_grad_(False).eval()

    def forward(self, obs: Tensor) -> Tensor:
        if obs.dim() != 2 or obs.size(1) != self.obs_dim:
            raise ValueError(f"obs has the shape {obs.size()}, expected [batch, {self.obs_dim}]")
        action = self.layers((obs - self.obs_mean) / self.obs_std)
        action = torch.clamp(self.middle + self.half * action, self.low, self.high)
        return action + 0.0 * obs.sum(1, keepdim=True)


def _plain_layers(net: Any, action_dim: int) -> list[nn.Module]:
    """Return the modules of a perceptron of one seed, up to the tanh of its mode."""
    found: list[nn.Module] = []
    for number, layer in enumerate(net.layers):
        weight, bias = layer.weight[0, 0].mT, layer.bias[0, 0, 0]
        if number == len(net.layers) - 1:  # some have standard deviations beside their means
            weight, bias = weight[:action_dim], bias[:action_dim]
        found.append(nn.Linear(weight.shape[1], weight.shape[0]))
        found[-1].load_state_dict({"weight": weight, "bias": bias})
        if number < len(net.norms):
            gain, offset = net.norms[number].weight[0, 0, 0], net.norms[number].bias[0, 0, 0]
            found.append(nn.LayerNorm(len(gain), eps=NORM_EPS))
            found[-1].load_state_dict({"weight": gain, "bias": offset})
        found.append(nn.Tanh() if number == len(net.layers) - 1 else nn.ReLU())
    return found


def torchscript_bytes(policy: ExportedPolicy, facts: str) -> bytes:
    """Return a policy as a TorchScript file.

    Scripted, not traced: a trace drops the check of the shape, and observations `[B, 1]` would
    then be broadcast against the normaliser. PyTorch calls TorchScript deprecated since 2.10 and
    goes on reading and writing it; nothing else loads in C++ without compiling.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(
            torch.jit.script(policy), buffer, _extra_files={f"{METADATA}.json": facts.encode()}
        )
    return buffer.getvalue()


def run_torchscript(path: Path) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(str(path), map_location="cpu")

    def run(obs: Array) -> Array:
        with torch.inference_mode():
            return module(torch.from_numpy(obs)).numpy()

    return run


def onnx_bytes(policy: ExportedPolicy, facts: str) -> bytes:
    """Return a policy as an ONNX file.

    The graph is written here, node by node: a dozen of the oldest operators. So it needs neither
    of PyTorch's exporters, and runtimes read it that are years older.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def add(operator: str, *inputs: str | Tensor, to: str = "", **settings: Any) -> str:
        name = to or f"{operator.lower()}_{len(nodes)}"
        words = []
        for value in inputs:
            if isinstance(value, Tensor):
                constants.append(numpy_helper.from_array(value.numpy(), f"c{len(constants)}"))
                value = constants[-1].name
            words.append(value)
        nodes.append(helper.make_node(operator, words, [name], name, **settings))
        return name

    at = add("Div", add("Sub", "obs", policy.obs_mean), policy.obs_std)
    for module in policy.layers:
        if isinstance(module, nn.Linear):
            at = add("Gemm", at, module.weight, module.bias, transB=1)
        elif isinstance(module, nn.LayerNorm):
            at = add(
                "LayerNormalization", at, module.weight, module.bias, axis=-1, epsilon=module.eps
            )
        else:
            at = add("Tanh" if isinstance(module, nn.Tanh) else "Relu", at)
    at = add("Add", add("Mul", at, policy.half), policy.middle)
    at = add("Min", add("Max", at, policy.low), policy.high)
    nothing = add("Mul", add("ReduceSum", "obs", torch.tensor([1]), keepdims=1), torch.zeros(1))
    add("Add", at, nothing, to="action")

    def port(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])

    ports = [port("obs", policy.obs_dim)], [port("action", len(policy.low))]
    graph = helper.make_graph(nodes, "policy", *ports, constants)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="baq-cli",
        producer_version=__version__,
    )
    helper.set_model_props(model, {METADATA: facts})
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def run_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda obs: session.run(["action"], {"obs": obs})[0]
