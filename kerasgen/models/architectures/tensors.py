"""The weights of a decoder under the names and in the layouts of transformers or of llama.cpp, there and back.

Everything follows from the architecture's table: which parts are one tensor, which kernels lie the other way round.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from kerasgen.decoder import weights as decoder_weights
from kerasgen.decoder.config import DecoderConfig, LearnedPositions
from kerasgen.decoder.weights import Shape, Weights
from kerasgen.models.architectures.base import Architecture, Part

Format: TypeAlias = Literal["transformers", "gguf"]
Take: TypeAlias = Callable[[str, Shape], Any]


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file, and the weights that it holds side by side.

    Args:
        name: in the file.
        weights: their full names by `kerasgen.decoder.weights`.
        shapes: of each weight.
        is_turned: whether a kernel is kept as `(out, in)`.
        heads: of each weight, how many heads have their halves interleaved; 0 for none.
        rows_before: rows of a table that belong to nobody.
        groups: how many groups of queries with their key and value stand one after another; 0 for all queries first.
        added: what the file's numbers have on top, as llama.cpp's norms that multiply by 1 + w.
        experts: how many tensors these are, one of each expert, whose number stands for the `{}` in the name; 0 for one
            tensor.
        is_vector: whether a kernel of one column is kept as a vector.
    """

    name: str
    weights: tuple[str, ...]
    shapes: tuple[Shape, ...]
    is_turned: bool
    heads: tuple[int, ...]
    rows_before: int
    groups: int = 0
    added: float = 0.0
    experts: int = 0
    is_vector: bool = False

    @property
    def names(self) -> list[str]:
        """The names in the file."""
        return [self.name.format(number) for number in range(self.experts)] if self.experts else [self.name]

    @property
    def shape(self) -> Shape:
        """The shape in the file."""
        *first, last = self.shapes[0]
        if self.is_vector:
            return tuple(first)
        joined = (*first, sum(shape[-1] for shape in self.shapes))
        if self.rows_before:
            return (self.rows_before + first[0], last)
        return (*joined[:-2], joined[-1], joined[-2]) if self.is_turned else joined

    def write(self, given: Mapping[str, Any]) -> Any:
        """Return the tensor of weights that are given by their full names; it may be a view."""
        parts = [_interleaved(given[name], heads) for name, heads in zip(self.weights, self.heads, strict=True)]
        joined = parts[0] if len(parts) == 1 else _joined(parts, self.groups)
        if self.added:
            joined = joined + np.float32(self.added)
        if self.rows_before:
            nobody = np.zeros((self.rows_before, joined.shape[1]), joined.dtype)
            joined = np.concatenate([nobody, joined])
        if self.is_vector:
            return joined[:, 0]
        return joined.swapaxes(-1, -2) if self.is_turned else joined

    def write_to(self, file: dict[str, Any], given: Mapping[str, Any]) -> None:
        """Put what `write` returns into a file's tensors by name."""
        tensor = self.write(given)
        file.update({name: tensor[number] if self.experts else tensor for number, name in enumerate(self.names)})

    def take(self, take: Take) -> Any:
        """Return the tensor, or those of all experts as one."""
        if not self.experts:
            return take(self.name, self.shape)
        return np.stack([take(name, self.shape[1:]) for name in self.names])

    def read(self, tensor: Any) -> dict[str, Any]:
        """Return the weights that a tensor holds, by their full names; they may be views."""
        if self.is_vector:
            tensor = tensor[None, :]
        joined = (tensor.swapaxes(-1, -2) if self.is_turned else tensor)[self.rows_before :]
        if self.added:
            joined = joined - np.float32(self.added)
        parts = _parted(joined, [shape[-1] for shape in self.shapes], self.groups) if len(self.shapes) > 1 else [joined]
        every = zip(self.weights, parts, self.heads, strict=True)
        return {name: _in_halves(part, heads) for name, part, heads in every}


def tensors(architecture: Architecture, config: DecoderConfig, kind: Format) -> Iterator[Tensor]:
    """Yield the tensors that a decoder of this description has in a file of this format, in the table's order."""
    yield from itertools.chain.from_iterable(_by_layer(architecture, config, kind))


def _by_layer(architecture: Architecture, config: DecoderConfig, kind: Format) -> Iterator[Iterator[Tensor]]:
    """Yield the tensors around the layers, then those of each layer."""
    shapes = decoder_weights.shapes(config)
    prefix = next(iter(architecture.transformers_prefixes), "") if kind == "transformers" else ""
    yield _of_parts(architecture, config, kind, architecture.parts, prefix, "", shapes)
    layer = architecture.transformers_layer if kind == "transformers" else "blk.{}"
    for index in range(config.num_layers):
        before = f"{prefix}{layer.format(index)}."
        parts = architecture.parts_of(config, index)
        yield _of_parts(architecture, config, kind, parts, before, f"layers.{index}.", shapes)


def write(architecture: Architecture, config: DecoderConfig, weights: Weights, kind: Format) -> dict[str, Any]:
    """Return NumPy weights as the tensors of a file, by name. They may be views."""
    given, file = decoder_weights.flat(weights), dict[str, Any]()
    for tensor in tensors(architecture, config, kind):
        tensor.write_to(file, given)
    return file


def read(architecture: Architecture, config: DecoderConfig, take: Take, kind: Format) -> Weights:
    """Return the weights that a file holds.

    Args:
        architecture: whose names the file has.
        config: the decoder's.
        take: returns the tensor of a name, and checks that it has the shape. Names have no prefix of transformers.
        kind: of the file.
    """
    return decoder_weights.whole(read_in_turn(architecture, config, take, kind))


def read_in_turn(architecture: Architecture, config: DecoderConfig, take: Take, kind: Format) -> Weights:
    """Return weights as `read` does, but for the layers, which are read one at a time as they are iterated over."""
    prefix = next(iter(architecture.transformers_prefixes), "") if kind == "transformers" else ""

    def weights(of_file: Iterable[Tensor]) -> Weights:
        by_name: dict[str, Any] = {}
        for tensor in of_file:
            by_name |= tensor.read(tensor.take(lambda name, shape: take(name.removeprefix(prefix), shape)))
        return decoder_weights.nested(by_name)

    around, *layers = _by_layer(architecture, config, kind)
    return weights(around) | {"layers": (weights(layer)["layers"][0] for layer in layers)}


def _of_parts(
    architecture: Architecture,
    config: DecoderConfig,
    kind: Format,
    parts: tuple[Part, ...],
    before: str,
    level: str,
    shapes: Mapping[str, Shape],
) -> Iterator[Tensor]:
    """The tensors of parts: those of one name are one, weight by weight of it."""
    together: dict[str, list[str]] = {}
    renamed = architecture.renamed(config)
    for part in parts:
        names = renamed.get(part.name, (part.transformers, part.gguf))
        together.setdefault(names[kind == "gguf"], []).append(part.name)
    offset = config.positions.offset if isinstance(config.positions, LearnedPositions) else 0
    for name, members in together.items():
        for leaf in ("", ".kernel", ".scale", ".bias"):
            held = tuple(f"{level}{member}{leaf}" for member in members)
            if held[0] not in shapes:
                continue
            is_kernel, of_experts = leaf == ".kernel", len(shapes.get(f"{level}{members[0]}.kernel", ())) == 3
            kept = architecture.transformers_expert_kernels if of_experts else architecture.transformers_kernels
            turned = is_kernel and (kind == "gguf" or kept == "out_in")
            own = "" if members == ["head"] else before  # which is no part of what the prefix stands for
            is_bare = kind == "transformers" and (members == ["sinks"] or (of_experts and "{}" not in name))
            ends = ("_bias", "") if is_bare else (".bias", ".weight")
            yield Tensor(
                name=f"{own}{name}{ends[0] if leaf == '.bias' else ends[1]}",
                weights=held,
                shapes=tuple(shapes[weight] for weight in held),
                is_turned=turned,
                heads=tuple(_interleaved_heads(architecture, config, kind, member) for member in members),
                groups=_groups(architecture, config, kind, members),
                added=float(leaf == ".scale" and kind == "gguf" and config.norm.kind == "rms_plus_one"),
                rows_before=offset if members == ["embedding.positions"] and kind == "transformers" else 0,
                experts=shapes[held[0]][0] if of_experts and "{}" in name else 0,
                is_vector=is_kernel and kind == "gguf" and shapes[held[0]][1:] == (1,),
            )


def _groups(architecture: Architecture, config: DecoderConfig, kind: Format, members: list[str]) -> int:
    if kind == "transformers" and architecture.transformers_gate_in_turn and members == ["gate", "up"]:
        return config.feedforward.intermediate_dim
    is_grouped = kind == "transformers" and architecture.transformers_by_group and members == ["query", "key", "value"]
    return config.attention.num_key_value_heads if is_grouped else 0


def _joined(parts: list[Any], groups: int) -> Any:
    """Columns of several weights side by side, or those of each group of them."""
    if not groups:
        return np.concatenate(parts, axis=-1)
    rows = parts[0].shape[:-1]
    return np.concatenate([part.reshape(*rows, groups, -1) for part in parts], axis=-1).reshape(*rows, -1)


def _parted(joined: Any, widths: list[int], groups: int) -> list[Any]:
    """Split a joined tensor into its parts; the inverse of `_joined`."""
    if not groups:
        return list(np.split(joined, np.cumsum(widths)[:-1], axis=-1))
    rows = joined.shape[:-1]
    ends = np.cumsum([width // groups for width in widths])[:-1]
    return [part.reshape(*rows, -1) for part in np.split(joined.reshape(*rows, groups, -1), ends, axis=-1)]


def _interleaved_heads(architecture: Architecture, config: DecoderConfig, kind: Format, part: str) -> int:
    if kind != "gguf" or not architecture.gguf_interleaves_rotary:
        return 0
    attention = config.attention
    return {"query": attention.num_query_heads, "key": attention.num_key_value_heads}.get(part, 0)


def _interleaved(array: Any, heads: int) -> Any:
    """The columns of each head with those of its two halves in turns."""
    if not heads:
        return array
    *first, columns = array.shape
    return array.reshape(*first, heads, 2, columns // heads // 2).swapaxes(-1, -2).reshape(array.shape)


def _in_halves(array: Any, heads: int) -> Any:
    """Undo `_interleaved`."""
    if not heads:
        return array
    *first, columns = array.shape
    return array.reshape(*first, heads, columns // heads // 2, 2).swapaxes(-1, -2).reshape(array.shape)
