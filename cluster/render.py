"""Write the manifests from `parameters.toml` and `templates/`.

python cluster/render.py            # after a change of parameters.toml; `make manifests`
python cluster/render.py --check    # exit 1 if a file is not what the parameters say
"""

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent
OUTPUT = {
    "raycluster.yaml.j2": "kuberay/raycluster.yaml",
    "rayjob-clean.yaml.j2": "kuberay/rayjob-clean.yaml",
    "rayjob-sweep.yaml.j2": "kuberay/rayjob-sweep.yaml",
    "rayservice.yaml.j2": "kuberay/rayservice.yaml",
    "network-policy.yaml.j2": "kuberay/network-policy.yaml",
    "aws.yaml.j2": "aws.yaml",
    "gcp.yaml.j2": "gcp.yaml",
    "slurm.sh.j2": "slurm.sh",
}
# Nothing here is HTML; the output is YAML and a shell script that people read before they apply them.
_environment = Environment(
    loader=FileSystemLoader(HERE / "templates"), undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True, keep_trailing_newline=True,
)  # fmt: skip


def render(parameters: dict[str, Any]) -> dict[str, str]:
    """Content of every file, by its path below `cluster/`.

    Raises:
        jinja2.UndefinedError: a parameter is missing.
    """
    return {path: _environment.get_template(name).render(parameters) for name, path in OUTPUT.items()}


def main() -> None:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit 1 if something would change"
    )
    check = parser.parse_args().check
    stale = []
    for path, text in render(tomllib.loads((HERE / "parameters.toml").read_text())).items():
        file = HERE / path
        if file.exists() and file.read_text() == text:
            continue
        stale.append(path)
        if not check:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
            print(f"wrote cluster/{path}")
    if check and stale:
        sys.exit(f"not what parameters.toml says: {', '.join(stale)}; run `make manifests`")


if __name__ == "__main__":
    main()
