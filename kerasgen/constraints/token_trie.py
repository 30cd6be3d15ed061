"""The bytes of a tokenizer's tokens as a prefix tree, in arrays, so that all tokens are walked at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.base import Tokenizer


class Level:
    """The distinct beginnings of one length of all tokens.

    Args:
        parents: int `(nodes,)`, the beginning one byte shorter, as a node of the level before.
        last_bytes: int `(nodes,)`.
        token_ids: the tokens of exactly this length.
        nodes: the node that each of them is.
    """

    def __init__(self, parents: list[int], last_bytes: list[int], token_ids: list[int], nodes: list[int]) -> None:
        self.parents = np.array(parents, dtype=np.int64)
        self.bytes = np.array(last_bytes, dtype=np.int64)
        self.token_ids = np.array(token_ids, dtype=np.int64)
        self.nodes = np.array(nodes, dtype=np.int64)


class TokenTrie:
    """The tokens' bytes as a tree, one level for each length.

    Args:
        texts: the bytes of each token; those without any are left out.
    """

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.levels: list[Level] = []
        waiting = [(token_id, text, 0) for token_id, text in enumerate(texts) if text]
        depth = 0
        while waiting:
            places: dict[tuple[int, int], int] = {}
            tokens: list[int] = []
            nodes: list[int] = []
            longer: list[tuple[int, bytes, int]] = []
            for token_id, text, parent in waiting:
                node = places.setdefault((parent, text[depth]), len(places))
                if len(text) == depth + 1:
                    tokens.append(token_id)
                    nodes.append(node)
                else:
                    longer.append((token_id, text, node))
            self.levels.append(Level([p for p, _ in places], [b for _, b in places], tokens, nodes))
            waiting = longer
            depth += 1


def token_texts(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes that each id adds to a text: no bytes for special tokens and for ids without a token."""
    texts = []
    for token_id in range(tokenizer.vocabulary_size):
        try:
            texts.append(tokenizer.shown_bytes(token_id))
        except TokenArgumentError:
            texts.append(b"")
    return texts
