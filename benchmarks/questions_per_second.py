"""Questions per second to a served model that answers with the words of labels, beside another version.

    python benchmarks/questions_per_second.py --data FOLDER --peer CHECKOUT
    python benchmarks/questions_per_second.py --small        BBC News, a few questions, no peer

SmolLM2-135M on vLLM behind Ray Serve, in the precision and with as many questions at a time as each version chooses, without
demonstrations (with them, both versions compute the same long prompts most of the time). Two sets: `trec_weak` (six classes, most
of one word) and nine classes of `newsgroups20` (300 texts each, cut at 250 characters, 20 % of the labels wrong), whose words have
several tokens. Asked about the suspects and, by a version that measures its annotators, about control questions; of a version that
does not, as many are asked in all (`--peer-questions`; with fewer, its start weighs more). Seconds are those of `relabel`, the start
of the model included; so is that of the peer, with the same packages and an empty ledger.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import claim, write_result

HERE = Path(__file__).resolve().parent.parent
SUSPECTS, CONTROLS = 300, 100
FASTER = 5
TREC_WORDS = {
    "DESC": "description", "ENTY": "thing", "HUM": "person", "ABBR": "abbreviation", "LOC": "place", "NUM": "number",
}  # fmt: skip
GROUPS = {
    "rec.sport.hockey": "ice hockey",
    "soc.religion.christian": "Christian religion",
    "rec.sport.baseball": "baseball games",
    "sci.crypt": "cryptography and encryption",
    "sci.med": "medical science",
    "comp.graphics": "computer graphics",
    "sci.space": "space flight",
    "misc.forsale": "things for sale",
    "talk.politics.guns": "gun politics",
}
TEXTS_OF_A_GROUP, CHARACTERS = 300, 250


def newsgroups(data: Path, out: Path) -> None:
    """Nine of the groups, evenly."""
    import pandas as pd

    names = json.loads((data / "newsgroups20" / "labels.json").read_text())
    frame = pd.read_parquet(data / "newsgroups20" / "train.parquet")
    frame["label"] = frame["label"].map(lambda label: names[label])
    frame["text"] = frame["text"].str.strip().str[:CHARACTERS]
    frame = frame[frame["label"].isin(GROUPS) & (frame["text"].str.len() > 0)]
    frame.groupby("label").head(TEXTS_OF_A_GROUP)[["text", "label"]].to_parquet(out)


def settings(name: str, data: Path | None, work: Path) -> dict[str, Any]:
    """The section `dataset` of a set."""
    if name == "bbc_news":
        return {"name": name, "noise": {"kind": "sym", "rate": 0.2}}
    assert data is not None
    if name == "trec_weak":
        return {
            "path": str(data / name / "train.parquet"), "label": "noisy_label", "truth": "label",
            "labels": list(TREC_WORDS), "unlabelled": [-1], "words": TREC_WORDS,
        }  # fmt: skip
    newsgroups(data, work / "newsgroups.parquet")
    return {"path": str(work / "newsgroups.parquet"), "noise": {"kind": "sym", "rate": 0.2}, "words": GROUPS}


def ask(checkout: Path, dataset: dict[str, Any], work: Path, questions: int, controls: int) -> dict[str, Any]:
    """Run a version up to relabel, in a process of its own, with an empty cache and an empty ledger."""
    import tomli_w

    annotator: dict[str, Any] = {"name": "served", "model": "smollm2-135m"}
    relabel: dict[str, Any] = {"demonstrations": 0}
    if controls:
        annotator, relabel = (
            annotator | {"max_queries": questions + controls},
            relabel | {"controls": controls},
        )
    else:  # where the budget was before annotators were measured
        relabel |= {"max_queries": questions}
    config = {
        "name": "run", "output": str(work), "dataset": dataset, "encoder": {"name": "bag_of_words"},
        "annotator": annotator, "relabel": relabel,
    }  # fmt: skip
    (work / "config.toml").write_text(tomli_w.dumps(config))
    paths = filter(None, [str(checkout), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "RAYCLEAN_CACHE": str(work / "cache")}
    for verb in ("load", "predict", "detect", "relabel"):
        command = [sys.executable, "-m", "rayclean", verb, str(work / "config.toml")]
        subprocess.run(command, cwd=work, env=environment, check=True)
    manifest = json.loads((work / "run" / "relabel" / "manifest.json").read_text())
    found = {
        key: manifest["metrics"].get(key)
        for key in ("asked", "answered", "queries_per_second", "prompt_tokens")
    }
    return found | {"seconds": round(manifest["seconds"], 1), "questions": questions, "controls": controls}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of data sets, with newsgroups20 and trec_weak")
    parser.add_argument(
        "--peer", type=Path, help="checkout of a version that does not measure its annotators"
    )
    parser.add_argument("--peer-questions", type=int, default=SUSPECTS + CONTROLS)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if not options.small and options.data is None:
        parser.error("--data FOLDER, or --small")
    figures: dict[str, dict[str, Any]] = {}
    claims = []
    for name in ("bbc_news",) if options.small else ("trec_weak", "newsgroups"):
        suspects, controls = (24, 12) if options.small else (SUSPECTS, CONTROLS)
        figures[name] = {}
        with tempfile.TemporaryDirectory(prefix="rayclean-questions-") as folder:
            dataset = settings(name, options.data, Path(folder))
            for who, checkout in {"this version": HERE, "peer": options.peer}.items():
                if checkout is None:
                    continue
                work = Path(folder) / who.replace(" ", "-")
                work.mkdir()
                asked = (suspects, controls) if who != "peer" else (options.peer_questions, 0)
                figures[name][who] = ask(checkout.resolve(), dataset, work, *asked)
                print(name, who, figures[name][who], flush=True)
        if options.peer is not None:
            rates = [figures[name][who]["queries_per_second"] for who in ("this version", "peer")]
            claims.append(
                claim(
                    f"{name}: questions per second beside the peer's",
                    goal=f">= {FASTER}",
                    measured=round(rates[0] / rates[1], 1),
                    holds=rates[0] >= FASTER * rates[1],
                )
            )
    config = {
        "suspects": SUSPECTS,
        "controls": CONTROLS,
        "peer_questions": options.peer_questions,
    }
    write_result(__file__, config, 0, figures, claims, small=options.small, output=options.output)


if __name__ == "__main__":
    main()
