"""Decodes texts by JAX: reads prompts in chunks, and takes many steps a call with the sampler in the graph.

What is compiled depends on rounded sizes alone (a chunk's columns and the cache's places; rows, the longest prompt, the
generated length). Temperature, k, p, penalties, seeds and lengths are inputs; no penalty at all is another graph.
Compiled code is kept on disk too, for the next process. Imports JAX.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from kerasgen import fork_safety
from kerasgen.constraints.valid_utf8 import Utf8Masks
from kerasgen.decoder import jax_layout
from kerasgen.decoder.config import DecoderConfig, RotaryPositions
from kerasgen.decoder.jax import MANY_ROWS, JaxDecoder, output_kernel
from kerasgen.decoder.jax_chunk import Chunk
from kerasgen.decoder.jax_hooks import Cache
from kerasgen.decoder.rotary_scaling import DynamicScaling, LongRopeScaling
from kerasgen.decoder.weights import Weights
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import jax_chunks, jax_queue
from kerasgen.generation.batches import Batch
from kerasgen.generation.engine import Block
from kerasgen.generation.jax_options import compiler_options, reads_row_by_row
from kerasgen.generation.jax_prompts import Prompts, Remembered
from kerasgen.generation.jax_speculation import SpeculatingSession
from kerasgen.samplers.base import TokenSampler
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.end_token import EndingTokenizer

FEW_TEXTS, MANY_TEXTS = 32, 256
"""Texts of a batch where a call says nothing, at least and at most."""

_MANY_CALLS = 64  # of graphs: some 450 tokens of one text


def _turning_length(config: DecoderConfig) -> int | None:
    """Return the length up to which LongRoPE uses its short factors; None without LongRoPE."""
    kinds = (config.positions, *config.positions_by_layer)
    scalings = [kind.scaling for kind in kinds if isinstance(kind, RotaryPositions)]
    return min((scaling.original_length for scaling in scalings if isinstance(scaling, LongRopeScaling)), default=None)


def _depends_on_length(config: DecoderConfig) -> bool:
    """Return whether a text's length changes the angles of its first tokens."""
    kinds = (config.positions, *config.positions_by_layer)
    scalings = [kind.scaling for kind in kinds if isinstance(kind, RotaryPositions)]
    return any(isinstance(scaling, LongRopeScaling | DynamicScaling) for scaling in scalings)


def _narrow(array: Any) -> Any:
    """Narrow a 64-bit array to 32 bits; return anything else as it is."""
    kind = getattr(array, "dtype", None)
    if kind is None or kind not in (np.int64, np.uint64, np.float64):
        return array
    return array.astype(f"{kind.kind}4")


class JaxEngine:
    """A decoder's weights, what is compiled for its shape, and prompts that it remembers.

    Args:
        tokenizer: the tokenizer whose ids are generated.
        config: the config of the decoder.
        weights: the weights of the decoder, as `kerasgen.decoder.jax_layout.prepare` returns them.

    Attributes:
        decoder: what computes with the weights.
        compilations: how many graphs have been traced and compiled so far.
        prompts: read before and kept; see `Prompts`.
    """

    name = "keras"

    def __init__(self, tokenizer: Tokenizer, config: DecoderConfig, weights: Weights) -> None:
        fork_safety.begin(fork_safety.JAX)
        self.tokenizer = tokenizer
        self.decoder = JaxDecoder(config, tokenizer.vocabulary_size)
        self.weights = weights
        self._row_kernel: Any = None
        self._utf8: tuple[Utf8Masks, Any] | None = None
        self.compilations = 0
        self._turning = _turning_length(config)
        self.prompts = self._no_prompts()
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._ending: dict[int, JaxEngine] = {}
        self._calls = self._sessions = 0
        self._moved: Weights | None = None

    @property
    def max_sequence_length(self) -> int | None:
        """Positions that the model knows, or None if it has no limit."""
        return self.decoder.config.max_sequence_length

    @property
    def shares_beginnings(self) -> bool:
        """Whether what was read of one text is what another reads that begins alike, whatever their lengths."""
        return not _depends_on_length(self.decoder.config)

    def _no_prompts(self) -> Prompts:
        """A memory of prompts; where angles depend on a text's length, what was read of another one is of no use."""
        return Prompts() if self._turning is None else Prompts(0)

    def ending_at(self, end_token_id: int) -> JaxEngine:
        """Return an engine of the same weights whose texts end at another token, which remembers nothing."""
        if end_token_id in self._ending:
            return self._ending[end_token_id]
        other = copy.copy(self)
        other._ending = {}
        other.tokenizer = cast(Tokenizer, EndingTokenizer(self.tokenizer, end_token_id))
        other.prompts = self._no_prompts()
        knowing = ("choose ", "steps ", "check ")  # graphs that hold the end token
        compiled = list(self._compiled.items())
        other._compiled = {name: call for name, call in compiled if not str(name).startswith(knowing)}
        return self._ending.setdefault(end_token_id, other)  # complete before another thread can get it

    def replace(self, weights: Weights) -> None:
        """Go on with other weights of the same shape; what was read with the old ones is forgotten."""
        self.weights = weights
        self._row_kernel = None
        self.prompts.clear()
        for other in self._ending.values():
            other.replace(weights)

    def weights_for(self, rows: int) -> Weights:
        """Return the weights for steps of so many rows.

        On a CPU a product of many rows is faster with the output layer the other way round, and so is one of one row
        where eight rows of a matrix are read at once (see the log): these have that layer that way too, unless it is
        bfloat16.
        """
        is_wide = output_kernel(self.decoder.config, self.weights).dtype == np.float32
        turned = rows >= MANY_ROWS or (rows == 1 and not reads_row_by_row())
        if not turned or jax.default_backend() != "cpu" or not is_wide:
            return self.weights
        row_kernel = self._row_kernel
        if row_kernel is None:
            kernel = np.asarray(output_kernel(self.decoder.config, self.weights))
            row_kernel = self._row_kernel = jax_layout.placed(kernel.T)
        return self.weights | {"head": self.weights["head"] | {"row_kernel": row_kernel}}

    def options_of_steps(self, rows: int) -> tuple[dict[str, Any], str]:
        """Return XLA's options for steps of so many rows, and what a graph's name says of them.

        Products of many rows are as fast by Eigen as by YNNPACK, which computes the activations in ten times the time
        that XLA's own take, and the output layer's by rows are faster (see the log).
        """
        if rows == 1 and reads_row_by_row():
            return compiler_options(one_row=True), " row by row"
        by_eigen = "row_kernel" in self.weights_for(rows)["head"] and rows >= MANY_ROWS
        return compiler_options(products=not by_eigen), " by Eigen" if by_eigen else ""

    def utf8_steps(self, masks: Utf8Masks) -> Any:
        """Return `masks.steps` as it lies on the device."""
        if self._utf8 is None or self._utf8[0] is not masks:
            self._utf8 = masks, jnp.asarray(masks.steps)
        return self._utf8[1]

    def remembers(self, token_ids: Sequence[int]) -> bool:
        """Return whether all of this text was read already and is kept."""
        return self.prompts.holds(token_ids)

    def check_growth(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> None:
        """Check that texts can grow to their limits.

        Raises:
            GenerateArgumentError: a text may grow past the length at which LongRoPE turns positions by other factors.
        """
        turning = self._turning
        for prompt, limit in zip(prompts, limits, strict=True):
            if turning is not None and len(prompt) <= turning < limit - 1:
                raise GenerateArgumentError(
                    f"This model's positions (LongRoPE) turn by other factors once a text has more than {turning} "
                    f"tokens, and all that was read of it would have to be read again. Received: a prompt of "
                    f"{len(prompt)} tokens that may grow to {limit}. Ask for max_length={turning + 1} at most; prompts "
                    f"of more than {turning} tokens may grow as they like."
                )

    def open(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> SpeculatingSession:
        """Return a session whose rows are these texts; see `Engine.open`.

        Raises:
            GenerateArgumentError: as `check_growth`.
        """
        fork_safety.check(fork_safety.JAX)
        self.check_growth(prompts, limits)
        self._sessions += 1
        if self._sessions > 1:
            self._move_weights()
        return SpeculatingSession(self, prompts, limits)

    def texts_at_once(self, limit: int) -> int:
        """Return how many texts of at most `limit` tokens a batch has: 32 on a CPU, and more on an accelerator.

        A step of many texts reads the weights once for all of them, so up to 256 are taken, as far as their caches fit
        into a quarter of what is free: a cache that grows stands there twice.
        """
        device = jax.local_devices()[0]
        stats = device.memory_stats() or {}
        if device.platform == "cpu" or "bytes_limit" not in stats:
            return FEW_TEXTS
        config = self.decoder.config
        of_token = 8 * config.num_layers * config.attention.key_value_dim  # keys and values, float32
        fitting = (stats["bytes_limit"] - stats["bytes_in_use"]) // (4 * of_token * max(limit, 1))
        return max(FEW_TEXTS, 1 << (max(1, min(MANY_TEXTS, int(fitting))).bit_length() - 1))

    def sharing(self, prompts: Sequence[Sequence[int]]) -> AbstractContextManager[None]:
        """Return a context in which beginnings that several of these prompts share are not read again."""
        texts: list[Remembered] = []
        for text in sorted(jax_chunks.shared(prompts), key=len) if self.shares_beginnings else ():
            with self.prompts.beside(texts):  # a longer one may begin with a shorter one
                texts.append(self.open([text], [len(text) + 1]).remembered())
        return self.prompts.beside(texts)

    def can_queue(self, batch: Batch, spec: Any, slots: int) -> bool:
        """Return whether `queue` decodes these texts and is worth it; see `QueueingEngine`."""
        return self.shares_beginnings and jax_queue.takes(spec) and jax_queue.fits(batch, slots)

    def queue(
        self, batch: Batch, spec: TokenSampler, utf8: Utf8Masks | None, slots: int, *, logprobs: bool
    ) -> Iterator[tuple[int, Block]]:
        """Yield each text's row and new tokens as texts end; see `QueueingEngine`."""
        fork_safety.check(fork_safety.JAX)
        return jax_queue.run(self, batch, spec, utf8, slots, logprobs=logprobs)

    def _move_weights(self) -> None:
        """Begin to move the weights into huge pages, once.

        That takes 0.3 to 1 s of GPT-2 base's, and a text of 100 tokens gains as much. So it is done when a process has
        generated before, or goes on for long: who wants one short text waits for nothing.
        """
        if self._moved is not self.weights:
            self._moved = self.weights
            parts = (self.weights["layers"], self._row_kernel, self.weights["head"], self.weights["embedding"])
            jax_layout.move_into_huge_pages(jax.tree.leaves(parts))

    def draft_limit(self, prompt: Sequence[int], limit: int) -> int:
        """Return up to how many tokens a session can follow a text; see `DraftingEngine`."""
        limit = min(limit, self.max_sequence_length or limit)
        if self._turning is not None and len(prompt) <= self._turning:
            return min(limit, self._turning + 1)  # beyond it, what was read would have to be read again
        return limit

    def open_draft(self, prompt: Sequence[int], limit: int) -> SpeculatingSession:
        """Return a session of one text that follows what another engine chooses; see `DraftingEngine`."""
        return self.open([tuple(prompt)], [limit])

    @property
    def weights_read(self) -> int:
        """Weights that one step reads: all of the layers, every expert among them, and the output layer's."""
        kernel = output_kernel(self.decoder.config, self.weights)
        return sum(int(array.size) for array in jax.tree.leaves(self.weights["layers"])) + int(kernel.size)

    def call(
        self,
        name: str,
        function: Callable[..., Any],
        *arguments: Any,
        donate: tuple[int, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        """Return `function(*arguments)`, compiled once under this name for each shape of the arguments."""
        self._calls += 1
        if self._calls == _MANY_CALLS:
            self._move_weights()
        call = self._compiled.get(name)
        if call is None:

            def traced(*arguments: Any) -> Any:
                self.compilations += 1  # runs when a graph is traced, and not when it is called
                return function(*arguments)

            # If two threads arrive at once, the first one's function is kept, so that a graph is compiled once.
            call = self._compiled.setdefault(
                name, jax.jit(traced, donate_argnums=donate, compiler_options=options or compiler_options())
            )
        if jax.config.jax_enable_x64:
            # For the whole process Python's numbers became int64 and float64; what is computed here is in 32 bits, and
            # the same with that setting as without.
            arguments = jax.tree.map(_narrow, arguments)
            with jax.enable_x64(False):
                return call(*arguments)
        return call(*arguments)

    @property
    def chunk_sizes(self) -> tuple[int, ...]:
        """Columns that a chunk of prompts may have, the most first."""
        if jax.default_backend() != "cpu":
            return jax_chunks.SIZES_OF_ACCELERATORS
        is_wide = output_kernel(self.decoder.config, self.weights).dtype == np.float32
        return jax_chunks.SIZES if is_wide else jax_chunks.SIZES_OF_HALF

    def read(self, chunk: Chunk, cache: Cache) -> tuple[Any, Cache]:
        """Read a chunk of prompts; see `JaxDecoder.read`. The cache is given away."""
        options = compiler_options(products=False)
        hidden, cache = self.call("read", self.decoder.read, self.weights, chunk, cache, donate=(2,), options=options)
        return hidden, cache

    def nothing(self, places: int) -> Cache:
        """Return one prompt's cache of so many places, in which nothing was read."""
        config = self.decoder.config
        heads, size = config.attention.num_key_value_heads, config.attention.head_dim
        shapes = (1, heads, size, places), (1, heads, places, size)
        # Each layer's own: they are written in place.
        made = [[jnp.zeros(shape, jnp.float32) for _ in range(config.num_layers)] for shape in shapes]
        return Cache(tuple(made[0]), tuple(made[1]))
