"How Sphinx draws the documentation; scripts/docs assembles the pages it reads."

project, author, copyright = "v23", "The v23 authors", "The v23 authors"
extensions = ["myst_nb"]
root_doc = "index"
exclude_patterns = ["_build"]
nb_execution_mode = "off"  # Every page carries the outputs it was committed with
nb_ipywidgets_js: dict[str, object] = {}  # Nothing is fetched from a network
nb_merge_streams = True
myst_enable_extensions: list[str] = ["colon_fence"]  # No dollar math: a dollar is money here
myst_heading_anchors = 3
html_theme = "furo"
html_title = "v23"
html_static_path, html_css_files = ["static"], ["v23.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
pygments_style, pygments_dark_style = "friendly", "monokai"
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure"]
