"""Sphinx with MyST; `make docs` builds with every warning an error."""

import bitladder

project = "Bitladder"
author = "the Bitladder authors"
release = version = bitladder.__version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "alabaster"
html_theme_options = {
    "description": "The fewest bits per layer that keep a network's accuracy.",
    "page_width": "1280px",
    "body_max_width": "none",
}
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sourcelink = False
