"""Settings of Sphinx; `make docs` builds the pages."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.abspath(".."))

project = "pit_keras"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "pit_keras"
html_show_sphinx = False
exclude_patterns = ["_build"]

myst_heading_anchors = 3  # [text](page.md#heading) finds headings of these levels

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
