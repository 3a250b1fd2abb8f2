"""Settings of Sphinx; `make docs` builds the pages."""

import os
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.abspath(".."))

project = "pit_keras"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "pit_keras"
html_show_sphinx = False
exclude_patterns = ["_build"]
smartquotes = False  # docstrings quote code

myst_heading_anchors = 3  # [text](page.md#heading) finds headings of these levels

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def code_in_backticks(app, what, name, obj, options, lines):
    """Docstrings have code in single backticks, reStructuredText in double ones."""
    text = "\n".join(lines).replace("|", r"\|").replace("**", r"\*\*")
    lines[:] = re.sub(r"`([^`]+)`(?=(\w?))", as_code, text).split("\n")


def as_code(found):
    code = found[1].replace(r"\|", "|").replace(r"\*\*", "**")
    return f"``{code}``" + (r"\ " if found[2] else "")


def setup(app):
    app.connect("autodoc-process-docstring", code_in_backticks, priority=400)  # before napoleon
