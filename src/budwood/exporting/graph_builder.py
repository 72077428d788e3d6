"""A graph of ONNX operators, put together node by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

Name = str  # of a tensor of the graph


class GraphBuilder:
    """Collects the nodes and the constants of a graph; methods that add one return the name of its output."""

    def __init__(self) -> None:
        """Begin an empty graph."""
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Name] = {}

    def add(self, operator: str, *inputs: Name, name: Name | None = None, **attributes: Any) -> Name:
        """Add a node with one output.

        Args:
            operator: Name of the ONNX operator.
            *inputs: Names of its inputs; an empty name leaves out an optional one.
            name: Name of the output; None: a new one.
            **attributes: Attributes of the node.

        Returns:
            The name of the output.
        """
        self._count += 1
        output = name or f"made/{self._count}_{operator}"
        self.add_many(operator, inputs, (output,), **attributes)
        return output

    def add_many(self, operator: str, inputs: Sequence[Name], outputs: Sequence[Name], **attributes: Any) -> None:
        """Add a node with several outputs, whose names are given."""
        from onnx import helper

        self._count += 1
        name = f"node{self._count}"
        self.nodes.append(helper.make_node(operator, list(inputs), list(outputs), name, **attributes))

    def choose(self, condition: Name, if_true: Callable[[], Name], if_false: Callable[[], Name], dtype: Any) -> Name:
        """Add a node that computes one of two outputs.

        Args:
            condition: bool scalar.
            if_true: Adds the nodes that are computed where it is true, and returns their output.
            if_false: The same where it is false.
            dtype: NumPy type of either output.

        Returns:
            The name of the output.
        """
        from onnx import helper

        branches, outer = {}, self.nodes
        for name, make in (("then_branch", if_true), ("else_branch", if_false)):
            self.nodes = []
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            output = helper.make_tensor_value_info(make(), kind, None)
            branches[name] = helper.make_graph(self.nodes, name, [], [output])
        self.nodes = outer
        return self.add("If", condition, **branches)

    def constant(self, values: ArrayLike, dtype: Any) -> Name:
        """Add a constant, once for equal values.

        Args:
            values: Numbers of any shape.
            dtype: Their NumPy type.

        Returns:
            The name of the tensor.
        """
        from onnx import numpy_helper

        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant/{len(self._constants)}"
            self.tensors.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def whole(self, value: int | Sequence[int]) -> Name:
        """Add a constant of whole numbers, int64: a scalar or a vector."""
        return self.constant(value, np.int64)

    def real(self, value: float | Sequence[float]) -> Name:
        """Add a constant of real numbers, float64: a scalar or a vector."""
        return self.constant(value, np.float64)

    def cast(self, tensor: Name, dtype: Any) -> Name:
        """Convert a tensor to another NumPy type."""
        from onnx import helper

        return self.add("Cast", tensor, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def insert(self, model: ModelProto, prefix: str, given: Name, wanted: Sequence[Name]) -> list[Name]:
        """Insert the whole graph of a model that has one input.

        Args:
            model: The model; it is not changed.
            prefix: Put before all of its names.
            given: Tensor of this graph that its input becomes.
            wanted: Tensors of the model that are to be used.

        Returns:
            Their names in this graph.
        """
        from onnx import compose

        inner: GraphProto = compose.add_prefix(model, prefix).graph
        self.add("Identity", given, name=inner.input[0].name)
        self.nodes.extend(inner.node)
        self.tensors.extend(inner.initializer)
        return [f"{prefix}{name}" for name in wanted]
