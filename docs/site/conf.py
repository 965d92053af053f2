"""The documentation as a site: `make docs` builds it into build/docs.

The pages are the repository's own, where they are: README.md, docs/, the tasks' and the leaderboard's. They are written
for GitHub, so that nothing here asks them for more than Markdown; the navigation is added to README.md as it is read.
"""

import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

import ocl_bench

SITE = Path(__file__).parent
ROOT = SITE.parents[1]
sys.path.insert(0, str(SITE))  # for `fields`

# Where links to files that are no pages lead.
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]

project = "ocl-bench"
author = copyright = "the authors of ocl-bench"
root_doc = "README"
html_title = "ocl-bench"
html_theme = "furo"
html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main"}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "fields"]

NAVIGATION = {
    "Using it": ["running", "notebook", "tasks", "results", "leaderboard"],
    "What it says": ["findings", "validity", "mechanisms", "studies/README", "toy"],
    "Adding to it": ["adding_a_model", "adding_a_task", "plugins", "places", "maintaining"],
    "How it runs": ["engines", "scale", "clusters", "performance", "reliability"],
    "Reference": [f"reference/{name}" for name in ("command_line", "python", "task_file", "recipe", "results")],
}
TASKS = sorted(f"tasks/{path.parent.name}/README" for path in (ROOT / "tasks").glob("*/README.md"))
BOARD = ["leaderboard/README", "leaderboard/CHANGELOG"]
exclude_patterns = [".venv", "build", "runs"]
include_patterns = ["README.md", "CHANGELOG.md", "docs/*.md", "docs/*.ipynb", "docs/studies/*.md",
                    "docs/reference/*.md", "tasks/*/README.md", "leaderboard/*.md"]  # fmt: skip

myst_heading_anchors = 4
default_role = "code"  # docstrings are Markdown
nb_execution_mode = "off"  # a test runs it; what is shown is what is kept in it
nb_merge_streams = True
napoleon_google_docstring = True
autodoc_typehints = "signature"

for name in ocl_bench.__all__:  # made on first use; autodoc looks at what is there
    setattr(ocl_bench, name, getattr(ocl_bench, name))


def with_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the site's table of contents to the first page."""
    if docname != root_doc:
        return
    parts = {caption: [f"docs/{page}" for page in pages] for caption, pages in NAVIGATION.items()}
    for caption, pages in (parts | {"Tasks": TASKS, "Entries": BOARD, "Changes": ["CHANGELOG"]}).items():
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"


class SourceLinks(SphinxTransform):
    """Links to files and folders that are no pages go to the repository."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        """Change them in one document."""
        folder = (ROOT / self.env.docname).parent
        for node in [*self.document.findall(download_reference), *self.document.findall(pending_xref)]:
            path = (folder / node["reftarget"]).resolve()
            if isinstance(node, pending_xref) and not (node.get("reftype") == "myst" and path.is_dir()):
                continue
            kind = "tree" if path.is_dir() else "blob"
            address = f"{REPOSITORY}/{kind}/main/{path.relative_to(ROOT).as_posix()}"
            node.replace_self(nodes.reference("", "", *node.children, refuri=address))


def add_index(app: Sphinx, failure: Exception | None) -> None:
    """The first page is README.html; a server looks for index.html."""
    if failure is None and app.builder.format == "html":
        shutil.copyfile(app.outdir / "README.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_lexer("csv", TextLexer)  # pygments has none
    app.connect("source-read", with_navigation)
    app.connect("build-finished", add_index)
    app.add_transform(SourceLinks)
