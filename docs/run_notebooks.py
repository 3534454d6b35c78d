"""Execute the notebooks of `docs/notebooks` and write what they show into them, for the pages made of them.

    python docs/run_notebooks.py [NAME ...]

They run in a folder of their own, whose path is left out, as is what libraries write to stderr.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbclient
import nbformat

FOLDER = Path(__file__).parent / "notebooks"


def main(names: list[str]) -> None:
    """Execute some notebooks, by default all."""
    os.environ["COLUMNS"] = "100"  # of the tables that commands print
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for path in [FOLDER / f"{name}.ipynb" for name in names] or sorted(FOLDER.glob("*.ipynb")):
        notebook, start = nbformat.read(path, as_version=4), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            nbclient.NotebookClient(
                notebook,
                timeout=1800,
                coalesce_streams=True,
                record_timing=False,
                resources={"metadata": {"path": folder}},
            ).execute()
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    shown = [each for each in cell.outputs if each.get("name") != "stderr"]
                    cell.outputs = _joined([_without(folder, each) for each in shown])
        notebook.metadata.pop("widgets", None)
        nbformat.write(notebook, path)
        print(f"{path.name}: {time.monotonic() - start:.0f} s")


def _joined(outputs: list[Any]) -> list[Any]:
    """Lines of progress, which a notebook shows one by one, as one text."""
    found: list[Any] = []
    for output in outputs:
        if output.output_type == "display_data" and set(output.data) == {"text/html", "text/plain"}:
            output = nbformat.v4.new_output("stream", name="stdout", text=output.data["text/plain"])
        if found and found[-1].output_type == output.output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def _without(folder: str, output: Any) -> Any:
    """An output whose paths begin at the folder of the notebook."""
    if output.output_type == "stream":
        output.text = output.text.replace(f"{folder}/", "").replace(folder, ".")
    for kind, shown in (output.get("data") or {}).items():
        if isinstance(shown, str):
            output.data[kind] = shown.replace(f"{folder}/", "").replace(folder, ".")
    return output


if __name__ == "__main__":
    main(sys.argv[1:])
