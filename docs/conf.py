"""Sphinx: `sphinx-build -n -W -b html docs docs/_build/html`, and `-b doctest` for the claims."""

import os
import re
import sys
from importlib.metadata import version as version_of
from inspect import getdoc
from pathlib import Path

# The doctests run on JAX unless told otherwise, and TensorFlow, where something imports it, is silent.
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What JAX compiled for the tests serves the pages too; kerasgen would keep it in each page's own folder.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax"))

sys.path.insert(0, str(Path(__file__).parent))

from inventories import inventories
from search_language import EnglishAndChinese
from sphinx.ext.doctest import DocTestBuilder

from kerasgen import bounds

project = "kerasgen"
author = "the kerasgen contributors"
copyright = "the kerasgen contributors"
release = version = version_of("kerasgen")

extensions = [
    "myst_parser",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "kerasgen"
html_static_path = ["_static"]
html_css_files = ["kerasgen.css"]
html_favicon = "_static/seal.svg"
html_theme_options = {
    "light_logo": "wordmark-light.svg",
    "dark_logo": "wordmark-dark.svg",
    "sidebar_hide_name": True,
    "light_css_variables": {"color-brand-primary": "#9b2c22", "color-brand-content": "#9b2c22"},
    "dark_css_variables": {"color-brand-primary": "#e88a7b", "color-brand-content": "#e88a7b"},
}
# Python, NumPy, Keras and KerasHub, by inventories that are made here: nothing is fetched while pages are built.
intersphinx_mapping = inventories(Path(__file__).parent / "_build" / "inventories")

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# A docstring's "Source:" is where an algorithm comes from.
napoleon_custom_sections = [("Source", "notes_style")]
napoleon_use_rtype = False

# What has no page of its own.
nitpick_ignore_regex = [
    # The types of pytest's own fixtures, in the conformance suites.
    ("py:class", r"_?pytest\..*"),
    # Names that a signature shows as they stand in the source: a path of the standard library's, type variables, and
    # aliases of Literals.
    ("py:class", r"Path|Schedule|OnError|WeightsDtype|Card|tuple\[float|(kerasgen\.(plugins\.registry|specs)\.)?T"),
    ("py:class", r"dict\[str"),
    ("py:class", "EntryPoint"),
    ("py:class", r"tuple\[~kerasgen\.corpora\.base\.Part"),
    ("py:class", r"collections\.abc\.Mapping\[str"),
    # What one part of the package hands to another, and no person makes.
    ("py:class", r"kerasgen\.(corpora\.splits\.Division|generation\.utf8_states\.Utf8States)"),
    ("py:class", r"kerasgen\.tokens\.(bpe_files\.Contents|corpus_scan\.Survey|pretokenization\.Pretokenization)"),
    ("py:class", r"(kerasgen\.generation\.engine\.)?TextSpace"),
    ("py:class", r"(Artefact|Generation|Stream)Settings"),
]


def mend_docstring(app, what, name, obj, options, lines):
    """Turn the fenced code of docstrings into reStructuredText's."""
    fenced = False
    for number, line in enumerate(lines):
        if line.strip().startswith("```"):
            fenced = not fenced
            lines[number] = ".. code-block:: python\n" if fenced else ""
        elif fenced:
            lines[number] = "    " + line
    lines[:] = "\n".join(lines).split("\n")


def restore_property(app, what, name, obj, options, lines):
    """Undo napoleon on properties: it takes the words before a colon in the first line for a type."""
    if what == "property":
        lines[:] = [*(getdoc(obj) or "").split("\n"), ""]


def hide_bounds(app, what, name, obj, options, signature, return_annotation):
    """Show the type of an argument that has bounds, such as int for PositiveInt; its description says the bounds."""
    types = {"Beams": "int"}
    for module_name, module in sorted(sys.modules.items()):
        if module_name.partition(".")[0] == "kerasgen":
            found = {word: bounds.bounded(value) for word, value in vars(module).items() if word[0].isupper()}
            types |= {word: each[0].__name__ for word, each in found.items() if each is not None}
    shown = re.sub(r"(?<![\w.'\"])[A-Z]\w+(?!\w)", lambda word: types.get(word[0], word[0]), signature or "")
    return shown or signature, return_annotation


class OnceBuilder(DocTestBuilder):
    """Runs the examples of the pages, but not of the Chinese tutorials: a test compares those with the English ones."""

    def write_documents(self, docnames):
        super().write_documents({name for name in docnames if not name.startswith("tutorials/zh/")})


def setup(app):
    app.setup_extension("sphinx.ext.doctest")
    app.add_builder(OnceBuilder, override=True)
    app.add_search_language(EnglishAndChinese)
    app.connect("autodoc-process-docstring", mend_docstring, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", hide_bounds)
    app.connect("autodoc-process-docstring", restore_property, priority=600)  # after it


# Every doctest starts in an empty folder of its own, and keeps the state of runs there.
doctest_global_setup = """
import os, shutil, tempfile
_before = os.getcwd()
_folder = tempfile.mkdtemp(prefix="kerasgen-docs-")
os.chdir(_folder)
os.environ["XDG_STATE_HOME"] = _folder
os.environ["KERASGEN_CACHE"] = _folder
import kerasgen as kg
"""
doctest_global_cleanup = """
os.chdir(_before)
shutil.rmtree(_folder, ignore_errors=True)
"""
