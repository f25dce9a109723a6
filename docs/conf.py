"""How the documentation is built: `sphinx-build -W -n docs OUT`, or `python -m pytest tests/test_docs.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parent.parent)]

from flake8_torchmem import __version__  # noqa: E402 the checkout, not what is installed

project = "flake8-torchmem"
author = "flake8-torchmem contributors"
copyright = author  # noqa: A001 Sphinx's name for it
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_design", "readme_parts", "rule_pages"]
exclude_patterns = ["_build", "_ext", "measured"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"bytes|str|int|float|bool|object|None|tuple|list|dict|frozenset|set|ValueError|Exception"),  # Python's own
    ("py:class", r"Remedy|NoRemedy|.*\.Disk"),  # behind what is documented: subject to change
]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = "flake8-torchmem"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#a3362b", "color-brand-content": "#a3362b"},
    "dark_css_variables": {"color-brand-primary": "#ff9d8f", "color-brand-content": "#ff9d8f"},
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def short_name(app: Sphinx, env: Any, node: Any, shown: nodes.Node) -> nodes.Node | None:  # noqa: ANN401
    """Docstrings and annotations say `Settings`: the one documented object of that name is meant."""
    domain = env.get_domain("py")
    found = [name for name in domain.objects if name.rpartition(".")[2] == node.get("reftarget")]
    if node.get("refdomain") != "py" or len(found) != 1:
        return None
    resolved: nodes.Node | None = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, shown)
    return resolved


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("missing-reference", short_name)
