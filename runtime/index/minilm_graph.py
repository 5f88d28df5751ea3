"""MiniLM's encoder as an ONNX graph, built from its weights alone.

Source: BERT (Devlin et al. 2019, arXiv:1810.04805) as sentence-transformers/all-MiniLM-L6-v2 configures it: 6 layers,
12 heads, hidden size 384, exact (erf) GELU, layer-norm epsilon 1e-12, absolute positions; then the mean over the
attended tokens and L2 normalisation (its modules.json).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

LAYERS = 6
HEADS = 12
HIDDEN = 384
POSITIONS = 512
VOCABULARY = 30522

_HEAD = HIDDEN // HEADS
_OPSET = 20  # the first with a Gelu operator
_IR_VERSION = 9
_MASKED = -1e9  # exp() of it is 0 in float32

Weights = Mapping[str, npt.NDArray[np.float32]]


def encoder_graph(weights: Weights) -> ModelProto:
    """The model `(input_ids, attention_mask) int64[n, t] -> embedding float32[n, 384]`, rows of L2 length 1.

    `t` is at most 512; at least one token of every row must be attended. Raises KeyError or ValueError when a weight
    is missing or of another shape.
    """
    graph = _Graph(weights)
    hidden = _embeddings(graph)
    bias = _attention_bias(graph)
    for number in range(LAYERS):
        hidden = _layer(graph, f"encoder.layer.{number}", hidden, bias)
    _pooled(graph, hidden)
    return graph.model()


class _Graph:
    """Collects nodes and initializers; every method returns the name of the tensor it made."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=f"n{len(self._nodes)}", **attributes))
        return name

    def split(self, tensor: str, parts: int) -> list[str]:
        names = [f"t{len(self._nodes)}_{part}" for part in range(parts)]
        self._nodes.append(
            helper.make_node("Split", [tensor], names, name=f"n{len(self._nodes)}", axis=-1, num_outputs=parts)
        )
        return names

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self._initializers.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant("i_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def number(self, value: float) -> str:
        return self.constant(f"f_{value}", np.array(value, dtype=np.float32))

    def values(self, name: str, *shape: int) -> npt.NDArray[np.float32]:
        found = self._weights[name]
        if found.shape != shape or found.dtype != np.float32:
            raise ValueError(f"{name} is {found.dtype}{list(found.shape)}, not float32{list(shape)}")
        return found

    def weight(self, name: str, *shape: int) -> str:
        return self.constant(name, self.values(name, *shape))

    def dense(self, name: str, tensor: str, inputs: int, outputs: int) -> str:
        """x W^T + b: torch keeps a linear layer's weight as [outputs, inputs]."""
        matrix = self.constant(f"{name}.matrix", self.values(f"{name}.weight", outputs, inputs).T)
        return self.node("Add", self.node("MatMul", tensor, matrix), self.weight(f"{name}.bias", outputs))

    def layer_norm(self, name: str, tensor: str) -> str:
        scale, shift = self.weight(f"{name}.weight", HIDDEN), self.weight(f"{name}.bias", HIDDEN)
        return self.node("LayerNormalization", tensor, scale, shift, axis=-1, epsilon=1e-12)

    def model(self) -> ModelProto:
        tokens = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"])
            for name in ("input_ids", "attention_mask")
        ]
        embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["texts", HIDDEN])
        graph = helper.make_graph(self._nodes, "minilm", tokens, [embedding], list(self._initializers.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        checker.check_model(model)
        return model


def _embeddings(graph: _Graph) -> str:
    """Word + position + token type. Only one text is encoded at a time, so its token type is always 0."""
    words = graph.node("Gather", graph.weight("embeddings.word_embeddings.weight", VOCABULARY, HIDDEN), "input_ids")
    positions = graph.values("embeddings.position_embeddings.weight", POSITIONS, HIDDEN)
    token_type = graph.values("embeddings.token_type_embeddings.weight", 2, HIDDEN)[0]
    table = graph.constant("embeddings.position_and_type", positions + token_type)
    length = graph.node("Shape", "input_ids", start=1, end=2)
    here = graph.node("Slice", table, graph.integers(0), length, graph.integers(0))
    return graph.layer_norm("embeddings.LayerNorm", graph.node("Add", words, here))


def _attention_bias(graph: _Graph) -> str:
    """float32[n, 1, 1, t]: 0 where a token is attended, very negative where it is padding."""
    mask = graph.node("Cast", "attention_mask", output="mask", to=TensorProto.FLOAT)
    padding = graph.node("Sub", graph.number(1.0), mask)
    return graph.node(
        "Unsqueeze", graph.node("Mul", padding, graph.number(_MASKED)), graph.integers(1, 2), output="attention_bias"
    )


def _layer(graph: _Graph, name: str, hidden: str, bias: str) -> str:
    attended = _attention(graph, f"{name}.attention.self", hidden, bias)
    projected = graph.dense(f"{name}.attention.output.dense", attended, HIDDEN, HIDDEN)
    between = graph.layer_norm(f"{name}.attention.output.LayerNorm", graph.node("Add", projected, hidden))
    wide = graph.node("Gelu", graph.dense(f"{name}.intermediate.dense", between, HIDDEN, 4 * HIDDEN))
    narrow = graph.dense(f"{name}.output.dense", wide, 4 * HIDDEN, HIDDEN)
    return graph.layer_norm(f"{name}.output.LayerNorm", graph.node("Add", narrow, between))


def _attention(graph: _Graph, name: str, hidden: str, bias: str) -> str:
    """softmax(Q K^T / sqrt(d) + bias) V for every head; Q, K and V in one product, which int8 runs faster."""
    parts = ("query", "key", "value")
    matrix = np.concatenate([graph.values(f"{name}.{part}.weight", HIDDEN, HIDDEN).T for part in parts], axis=1)
    shift = np.concatenate([graph.values(f"{name}.{part}.bias", HIDDEN) for part in parts])
    joined = graph.node("MatMul", hidden, graph.constant(f"{name}.matrix", matrix))
    query, key, value = graph.split(graph.node("Add", joined, graph.constant(f"{name}.bias", shift)), 3)

    def heads(tensor: str, order: list[int]) -> str:
        return graph.node("Transpose", graph.node("Reshape", tensor, graph.integers(0, 0, HEADS, _HEAD)), perm=order)

    products = graph.node("MatMul", heads(query, [0, 2, 1, 3]), heads(key, [0, 2, 3, 1]))
    scores = graph.node("Add", graph.node("Mul", products, graph.number(_HEAD**-0.5)), bias)
    mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), heads(value, [0, 2, 1, 3]))
    return graph.node("Reshape", graph.node("Transpose", mixed, perm=[0, 2, 1, 3]), graph.integers(0, 0, HIDDEN))


def _pooled(graph: _Graph, hidden: str) -> str:
    """The mean over attended tokens, scaled to length 1. The mean's divisor falls out of the scaling."""
    mask = graph.node("Unsqueeze", "mask", graph.integers(-1))
    total = graph.node("ReduceSum", graph.node("Mul", hidden, mask), graph.integers(1), keepdims=0)
    return graph.node("LpNormalization", total, output="embedding", axis=-1, p=2)
