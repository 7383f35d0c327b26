"""An update on a CPU as a plain list of operations, recorded once and then run again and again.

What an update does never depends on numbers; a CUDA graph asks for the same. So its operations can
be written down while one update is made. Later updates are those operations alone, without what
Python spends around them on modules, the autograd engine and views that never change: a sixth of
the time at usual sizes and one seed. Kernels, arguments and order stay, and so does every bit.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from operator import getitem
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from baq_cli.agents.interface import Batch
from baq_cli.engine.updates.update import Update
from baq_cli.nets.streams import SeedStream

RECORD_AFTER = 1_000
"""Updates before a record is made: what that takes is won back within some hundred more."""

Heard = tuple[Callable[[], Tensor], Tensor]
"""How a tensor was drawn, and the tensor."""


class Recorder:
    """Make `after` updates eagerly, then from a record for each set of groups that they train."""

    def __init__(self, update: Update, after: int = RECORD_AFTER):
        self._update, self._after = update, after
        self._made = 0
        self.records: dict[frozenset[str], Record] = {}

    def learn(self, active: frozenset[str]) -> Batch:
        """Make one update; return its batch."""
        self._made += 1
        if active in self.records:
            batch, self._update.learner.metrics = self.records[active].run()
        elif self._made > self._after:
            batch, self.records[active] = record(self._update, active)
        else:
            batch = self._update.make(active)
        return batch


class Record:
    """The operations of an update, in order.

    They take what `draws` draw and `constants`: what is there before and after, like parameters,
    gradients, moments, rates and stored rows. They return the tensors of a batch by these names,
    with such parts, then the metrics.
    """

    def __init__(
        self,
        operations: Callable[..., Sequence[Tensor]],
        draws: Sequence[Callable[[], Tensor]],
        constants: Sequence[Tensor],
        named: Sequence[str],
        parts: dict[str, slice],
        metrics: Sequence[str],
    ):
        self._operations, self._draws, self._constants = operations, draws, constants
        self._named, self._parts, self._metrics = named, parts, metrics

    @torch.inference_mode()
    def run(self) -> tuple[Batch, dict[str, Tensor]]:
        """Make the update; return its batch and metrics."""
        drawn = [draw() for draw in self._draws]
        values = iter(self._operations(*drawn, *self._constants))
        tensors = dict(zip(self._named, values, strict=False))
        batch = Batch.from_tensors(tensors, self._parts)
        return batch, dict(zip(self._metrics, values, strict=True))


def record(update: Update, active: frozenset[str]) -> tuple[Batch, Record]:
    """Make one update, and write down its operations; return its batch and the record."""
    writer, heard = _Writer(), list[Heard]()
    stream, noise = (_Overheard(s, heard, writer) for s in (update.replay.stream, update.noise))
    with writer:
        batch = update.make(active, stream, noise)
    metrics = update.learner.metrics
    writer.graph.output([writer.node_of(t) for t in (*batch.tensors().values(), *metrics.values())])
    inputs = _as_inputs(writer.graph, writer.held, [tensor for _, tensor in heard])
    for node in writer.graph.nodes:
        node.target = _quickest(node.target)
    operations = fx.GraphModule(torch.nn.Module(), writer.graph).forward
    names = list(batch.tensors()), batch.parts, list(metrics)
    return batch, Record(operations, [draw for draw, _ in heard], inputs, *names)


class _Writer(TorchDispatchMode):
    """Writes down each operation as it is done, with what it takes from outside: `held`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self.held: dict[fx.Node, Tensor] = {}
        self.pausing = False
        self._nodes: MutableMapping[Tensor, fx.Node] = WeakIdKeyDictionary()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # that would import the compiler, which takes a second

    def node_of(self, tensor: Tensor) -> fx.Node:
        """Return what gives a tensor; one that was there before is held from now on."""
        if tensor not in self._nodes:
            node = self.graph.create_node("get_attr", f"held_{len(self.held)}")
            self.held[node], self._nodes[tensor] = tensor, node
        return self._nodes[tensor]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.pausing:
            return func(*args, **kwargs)
        if torch.Tag.data_dependent_output in func.tags:
            raise RuntimeError(f"an update must not read numbers of tensors, as {func} does")
        if func is torch.ops.aten.lift_fresh.default:  # of a tensor made just now of numbers
            func = torch.ops.aten.lift_fresh_copy.default
        taken = tree_map_only(Tensor, self.node_of, (args, kwargs))
        made = func(*args, **kwargs)
        node = self.graph.call_function(func, *taken)
        if isinstance(made, Tensor):
            self._nodes[made] = node
        elif isinstance(made, (list, tuple)):
            for i, tensor in enumerate(made):
                if isinstance(tensor, Tensor):  # and not a gradient that nobody asked for
                    self._nodes[tensor] = self.graph.call_function(getitem, (node, i))
        return made


class _Overheard(SeedStream):
    """A stream that keeps what is drawn from it, and how; drawing is not written down."""

    def __init__(self, stream: SeedStream, heard: list[Heard], writer: _Writer):
        vars(self).update(vars(stream))
        self._stream, self._heard, self._writer = stream, heard, writer

    def normal(self, *shape: int) -> Tensor:
        return self._keep(partial(self._stream.normal, *shape))

    def uniform(self, *shape: int) -> Tensor:
        return self._keep(partial(self._stream.uniform, *shape))

    def index(self, *shape: int) -> Tensor:
        return self._keep(partial(self._stream.index, *shape))

    def permutation(self, length: int) -> Tensor:
        return self._keep(partial(self._stream.permutation, length))

    def _keep(self, draw: Callable[[], Tensor]) -> Tensor:
        self._writer.pausing = True
        tensor = draw()
        self._writer.pausing = False
        self._heard.append((draw, tensor))
        return tensor


# -- the graph, made shorter


def _as_inputs(
    graph: fx.Graph, held: dict[fx.Node, Tensor], drawn: Sequence[Tensor]
) -> list[Tensor]:
    """Let a graph take as inputs what was drawn and what else it held, in this order.

    Views of what it held are made once, here. Returns the tensors for the inputs behind the draws.
    """
    number = {id(tensor): i for i, tensor in enumerate(drawn)}
    draws = {n: number[id(tensor)] for n, tensor in held.items() if id(tensor) in number}
    fixed = {n: tensor.detach() for n, tensor in held.items() if n not in draws}
    for node in graph.nodes:
        if _is_view(node) and all(each in fixed for each in node.all_input_nodes):
            args = fx.map_arg(node.args, fixed.__getitem__)
            fixed[node] = node.target(*args, **node.kwargs)
    with graph.inserting_before(next(iter(graph.nodes))):
        places = [graph.placeholder(f"drawn_{i}") for i in range(len(drawn))]
        needed = [n for n in fixed if any(user not in fixed for user in n.users)]
        given = [graph.placeholder(f"fixed_{i}") for i in range(len(needed))]
    for node, i in draws.items():
        node.replace_all_uses_with(places[i])
    for node, place in zip(needed, given, strict=True):
        node.replace_all_uses_with(place)
    inputs = [fixed[node] for node in needed]
    for node in reversed([*graph.nodes]):
        if node in fixed or node in draws:
            graph.erase_node(node)
        elif node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    return inputs


def _is_view(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target.is_view


def _quickest(target: Any) -> Any:
    """Return the function by which Python calls an operation in the least time.

    An operator object checks its arguments against a schema written in words. PyTorch's own
    functions and methods take the same ones in the same order, where the operation has any.
    """
    if not isinstance(target, torch._ops.OpOverload):
        return target
    arguments = target._schema.arguments
    if any(argument.is_out for argument in arguments):
        return target
    name = target._schema.name.removeprefix("aten::")
    if arguments[0].name == "self" and isinstance(arguments[0].type, torch.TensorType):
        method = getattr(Tensor, name, None)
        return method if isinstance(method, MethodDescriptorType) else target
    function = getattr(torch, name, None)
    return function if isinstance(function, BuiltinFunctionType) else target
