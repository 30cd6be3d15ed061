"""Testing: conformance suites that the authors of plugins inherit, a class for each contract, all of one shape.

Inherit the suite of your plugin's kind and override the fixture of that kind's name::

    class TestMySampler(SamplerContract):
        @pytest.fixture
        def sampler(self) -> MySampler:
            return MySampler(strength=0.3)
"""

from __future__ import annotations

import sys

from kerasgen.public_names import lazily

_SUITES = ("constraints", "corpora", "exporters", "models", "runtimes", "samplers", "tokenizers", "tuners", "values")

__getattr__, __dir__ = lazily(__name__)

if "pytest" in sys.modules:  # which then shows what a suite's failed assertion compared
    sys.modules["pytest"].register_assert_rewrite(
        *(f"{__name__}.{suite}" for suite in _SUITES if f"{__name__}.{suite}" not in sys.modules)
    )
