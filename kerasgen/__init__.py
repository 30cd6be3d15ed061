"""kerasgen: from a corpus to a fine-tuned text generator to an artefact that generates, on Keras 3 and KerasHub.

    import kerasgen as kg

    pipe = kg.Pipeline(corpus="sample", model="starter", sampler="top_k", seed=0)
    report = pipe.fit()
    print(pipe.generate("昨夜雨疏风骤", max_length=200))

Every public name is resolved on first use, so `import kerasgen` loads neither Keras nor a backend nor NumPy. The names
stand in `__init__.pyi`, which type checkers and editors read too.
"""

from __future__ import annotations

from kerasgen.public_names import lazily

__version__ = "1.0.0rc1"

__getattr__, __dir__ = lazily(__name__, "__version__")
