"""An ONNX model from bytes, let to the runtime only when it is self-contained and of operators that are known here.

ONNX can name files beside it as its data, carry functions, and call operators of other domains, which a runtime loads
as native code. None of that is let pass. https://github.com/onnx/onnx/blob/main/docs/ExternalData.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from carelake.core.errors import Refused, Unavailable
from carelake.models.onnx.graph import INPUT, OUTPUT, library

__all__ = ["OPERATORS", "opened", "refuse_unsafe"]

OPERATORS = frozenset(
    {
        ("", "Abs"),
        ("", "Add"),
        ("", "Cast"),
        ("", "Clip"),
        ("", "Div"),
        ("", "IsNaN"),
        ("", "LessOrEqual"),
        ("", "MatMul"),
        ("", "Max"),
        ("", "Min"),
        ("", "Mul"),
        ("", "Sigmoid"),
        ("", "Sub"),
        ("", "Where"),
        ("ai.onnx.ml", "TreeEnsemble"),
    }
)
_MAX = 64 * 1024 * 1024
_MAX_NODES = 200


def refuse_unsafe(data: bytes) -> None:
    """Let pass what `graph.build` could have written, as to its shape.

    Raises:
        Refused: ``models.onnx_unsafe``, with what it holds.
    """
    onnx = library()
    if not data.startswith(b"\x08") or len(data) > _MAX:
        raise _unsafe("it is no ONNX model, or too large")
    try:
        model = onnx.load_from_string(data)
    except Exception:  # whatever protobuf makes of bytes that are not its own
        raise _unsafe("it cannot be read") from None
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer or len(graph.node) > _MAX_NODES:
        raise _unsafe("it has functions, training parts, sparse data or too many nodes")
    if [one.name for one in graph.input] != [INPUT] or [one.name for one in graph.output] != [OUTPUT]:
        raise _unsafe("it takes or gives something else than a risk model")
    for node in graph.node:
        if (node.domain, node.op_type) not in OPERATORS:
            raise _unsafe("it has an operator that no risk model needs")
    for tensor in _tensors(graph):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise _unsafe("it names files beside it as its data")
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:  # its own error, or that of shape inference
        raise _unsafe("it is not valid") from None


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise _unsafe("it has graphs within graphs")
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def opened(data: bytes) -> Any:
    """A session over the bytes: one thread, on the CPU, nothing read from disk.

    Raises:
        Refused: ``models.onnx_unsafe``. Unavailable: ``models.no_onnx``.
    """
    refuse_unsafe(data)
    try:
        import onnxruntime
    except ImportError:
        raise Unavailable(
            "models.no_onnx", "ONNX needs packages that are not installed: pip install 'carelake[onnx]'."
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception:  # the runtime's errors are of no common kind
        raise _unsafe("the runtime does not take it") from None


def _unsafe(what: str) -> Refused:
    return Refused("models.onnx_unsafe", f"The ONNX model is refused: {what}; derive it again of the native model.")
