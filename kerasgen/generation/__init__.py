"""Generation: prefill and decoding loops, streaming, and texts out of token ids.

Importing it, and decoding an artefact with it, needs no Keras; a Keras model brings its engine when it is decoded.
"""

from __future__ import annotations

from kerasgen.public_names import lazily

__getattr__, __dir__ = lazily(__name__)
