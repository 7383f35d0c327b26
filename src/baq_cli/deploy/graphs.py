"""A policy's graph, with normaliser and action scaling inside, as TorchScript and as ONNX."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from baq_cli import __version__
from baq_cli.deploy.policy import OneSeed
from baq_cli.envs.scaling import inner_bounds
from baq_cli.errors import DataError, UsageError
from baq_cli.nets.exports import PlainMode
from baq_cli.plain_files import read

Array = npt.NDArray[Any]
FormatName = Literal["onnx", "torchscript"]
Run = Callable[[Array], Array]
"""A file that was loaded: observations `[B, obs_dim]` to actions `[B, action_dim]`, float32."""

METADATA = "baq"
"""The key of the JSON document in ONNX metadata; in TorchScript it is the file `baq.json`."""
OPSET, IR_VERSION = 17, 8
"""The oldest that have LayerNormalization; ONNX Runtime reads them since 1.12."""


class ExportedPolicy(nn.Module):
    """What is exported: raw `obs [B, obs_dim]` to `action [B, action_dim]`, float32.

    Made of plain modules for one seed. Its actions never leave the bounds, which lie where float32
    has numbers inside the action space's own. A row that is not finite gives actions of NaN: a
    ReLU would otherwise turn it into a plausible one.
    Raises UsageError for bounds beyond the range of float32, and DataError where it has no number
    between them.
    """

    if TYPE_CHECKING:  # TorchScript would read them, and can't as text
        obs_mean: Tensor
        obs_std: Tensor
        low: Tensor
        high: Tensor
        middle: Tensor
        half_range: Tensor

    def __init__(self, one: OneSeed, mode: PlainMode):
        super().__init__()
        low, high = np.asarray(one.spaces.action_low), np.asarray(one.spaces.action_high)
        if max(np.abs(low).max(), np.abs(high).max()) > np.finfo(np.float32).max:
            raise UsageError(
                "an exported file computes in float32, and the action bounds are beyond its range: "
                "use baq_cli.load_policy, or rescale the environment's actions"
            )
        try:
            first, last = inner_bounds(one.spaces.action_low, one.spaces.action_high, "float32")
        except DataError as error:
            raise DataError(
                f"an exported file computes in float32, and {error}, or use baq_cli.load_policy"
            ) from error
        for name, value in (
            ("low", first),
            ("high", last),
            ("middle", (low + high) / 2),
            ("half_range", (high - low) / 2),
        ):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))
        self.register_buffer("obs_mean", one.inputs.obs_mean.clone())
        self.register_buffer("obs_std", one.inputs.obs_std.clone())
        self.obs_dim = one.spaces.obs_dim
        self.layers = nn.Sequential(*mode.layers(one.spaces.action_dim))
        self.requires_grad_(False).eval()

    def forward(self, obs: Tensor) -> Tensor:
        if obs.dim() != 2 or obs.size(1) != self.obs_dim:
            raise ValueError(f"obs has the shape {obs.size()}, expected [batch, {self.obs_dim}]")
        action = self.layers((obs - self.obs_mean) / self.obs_std)
        action = torch.clamp(self.middle + self.half_range * action, self.low, self.high)
        return action + 0.0 * obs.sum(1, keepdim=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide that PyTorch calls TorchScript deprecated: whoever asks for it knows what for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _torchscript_bytes(policy: ExportedPolicy, facts: str) -> bytes:
    """Return a policy as a TorchScript file.

    Scripted, not traced: a trace would drop the check of the shape, and an observation `[B, 1]`
    be broadcast against the normaliser. PyTorch 2.13 calls TorchScript deprecated and still
    reads and writes it; it is what a C++ program loads without compiling anything.
    """
    buffer = io.BytesIO()
    with _quiet():
        script = torch.jit.script(policy)
        torch.jit.save(script, buffer, _extra_files={f"{METADATA}.json": facts.encode()})
    return buffer.getvalue()


def _run_torchscript(path: Path) -> Run:
    with _quiet():
        module = torch.jit.load(io.BytesIO(read(path, None)), map_location="cpu")

    def run(obs: Array) -> Array:
        with torch.inference_mode():
            return module(torch.from_numpy(obs)).numpy()

    return run


class _OnnxNodes:
    """Nodes of an ONNX graph, one after the other, and the constants that they read."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str | Tensor, to: str = "", **settings: Any) -> str:
        """Add a node that reads others by their names, and constants; return its own name."""
        from onnx import helper, numpy_helper

        name, words = to or f"{operator.lower()}_{len(self.nodes)}", []
        for value in inputs:
            if isinstance(value, Tensor):
                constant = numpy_helper.from_array(value.numpy(), f"c{len(self.constants)}")
                self.constants.append(constant)
                value = constant.name
            words.append(value)
        self.nodes.append(helper.make_node(operator, words, [name], name, **settings))
        return name


def _onnx_bytes(policy: ExportedPolicy, facts: str) -> bytes:
    """Return a policy as an ONNX file.

    The graph is written here, node by node: a dozen of the oldest operators. So it needs neither
    of PyTorch's exporters, and runtimes read it that are years older.
    """
    from onnx import TensorProto, checker, helper

    made = _OnnxNodes()
    add = made.add
    at = add("Div", add("Sub", "obs", policy.obs_mean), policy.obs_std)
    for module in policy.layers:
        if isinstance(module, nn.Linear):
            at = add("Gemm", at, module.weight, module.bias, transB=1)
        elif isinstance(module, nn.LayerNorm):
            at = add(
                "LayerNormalization", at, module.weight, module.bias, axis=-1, epsilon=module.eps
            )
        else:
            at = _activation(add, module, at)
    at = add("Add", add("Mul", at, policy.half_range), policy.middle)
    at = add("Min", add("Max", at, policy.low), policy.high)
    nothing = add("Mul", add("ReduceSum", "obs", torch.tensor([1]), keepdims=1), torch.zeros(1))
    add("Add", at, nothing, to="action")

    def port(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])

    ports = [port("obs", policy.obs_dim)], [port("action", len(policy.low))]
    graph = helper.make_graph(made.nodes, "policy", *ports, made.constants)
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


def _activation(add: Callable[..., str], module: nn.Module, at: str) -> str:
    """Add the nodes of an activation; those that old runtimes don't know are written out."""
    if isinstance(module, nn.GELU):  # x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))
        cubed = add("Mul", add("Mul", at, at), at)
        inside = add("Add", at, add("Mul", cubed, torch.tensor(0.044715)))
        bend = add("Tanh", add("Mul", inside, torch.tensor(math.sqrt(2 / math.pi))))
        half = add("Mul", at, torch.tensor(0.5))
        return add("Mul", half, add("Add", bend, torch.tensor(1.0)))
    if isinstance(module, nn.SiLU):
        return add("Mul", at, add("Sigmoid", at))
    if isinstance(module, nn.LeakyReLU):
        return add("LeakyRelu", at, alpha=module.negative_slope)
    return add("Tanh" if isinstance(module, nn.Tanh) else "Relu", at)


def _run_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = read(path, None)  # by its name it couldn't be opened where that is not UTF-8
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda obs: session.run(["action"], {"obs": obs})[0]


@dataclass(frozen=True)
class Format:
    """A file format: what it needs to be installed, and how it is written and run."""

    packages: tuple[str, ...]
    to_bytes: Callable[[ExportedPolicy, str], bytes]
    run: Callable[[Path], Run]


FORMATS: dict[FormatName, Format] = {
    "onnx": Format(("onnx", "onnxruntime"), _onnx_bytes, _run_onnx),
    "torchscript": Format((), _torchscript_bytes, _run_torchscript),
}


def require_format(name: FormatName) -> Format:
    """Return a format.

    Raises UsageError, naming the extra, when a package that it needs can't be imported.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # from 1.32 on importing it calls home
    found = FORMATS[name]
    for package in found.packages:
        try:
            import_module(package)
        except ImportError as error:
            raise UsageError(
                f"--format {name} needs the package {package}: pip install 'baq-cli[{name}]'"
            ) from error
    return found
