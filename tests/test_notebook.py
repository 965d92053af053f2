"""The notebook runs from top to bottom, with fewer seeds, epochs and questions than it is shown with."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
TOLD = 'options = {"seeds": 4}'
# X0 keeps its epochs and its curve, so that its released model is taken.
SMALL = """options = {"seeds": 1, "limit": 8, "overrides": ["recipe.epochs=[16,1,1]"]}"""


def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert TOLD in cells[0].source
    cells[0].source = cells[0].source.replace(TOLD, SMALL)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert "world (version 2)" in printed and "meta_ocl_gap" in printed
    assert sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs) == 2
    assert {path.parent.parent.name for path in tmp_path.glob("runs/*/*/*/results.json")} == {"world", "no_signal"}
