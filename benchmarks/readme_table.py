"""The table of docs/evidence.md of data sets with real noise, made from benchmarks/results/real_noise.json.

python benchmarks/readme_table.py        # print it; a test compares it with the page
"""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

RESULT = Path(__file__).parent / "results" / "real_noise.json"


def readme_table(figures: dict[str, Any]) -> str:
    """The table of annotators: means over the seeds, the worst noise of any in brackets."""
    lines = [
        "| data (what made the labels) | annotator | detection ROC-AUC | precision at 10 % | noise before → after (worst seed) | every answer believed | 50 audited (worst seed) | harm | referred |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, of_set in figures.items():
        first = True
        for annotator, runs in of_set["annotators"].items():
            mean = {key: fmean(figure(run, key) for run in runs) for key in _FIGURES}
            worst, worst_audited = (max(figure(run, key) for run in runs) for key in ("after", "audited"))
            blind = (
                ""
                if runs[0]["believed_blindly"] is None
                else f"{fmean(r['believed_blindly'] for r in runs):.3f}"
            )
            found = f"{mean['auc']:.3f} ({of_set['reference']['roc_auc']:.3f})" if first else ""
            top = f"{mean['precision']:.3f} ({of_set['reference']['precision_at_10']:.3f})" if first else ""
            lines.append(
                f"| {f'{name} ({MADE_BY[name]})' if first else ''} | {annotator} | {found} | {top} | "
                f"{mean['before']:.3f} → {mean['after']:.3f} ({worst:.3f}) | {blind} | "
                f"{mean['audited']:.3f} ({worst_audited:.3f}) | {mean['harm']:.3f} | {mean['referred']:.0f} |"
            )
            first = False
    return "\n".join(lines).replace("0.", ".")


RANKINGS = ("posterior", "margin", "margin, classifier", "class-adjusted margin", "cleanlab")


def rankings_table(figures: dict[str, Any]) -> str:
    """The table of rankings: ROC-AUC with its 95 % interval, and precision at 10 %, of the last seed."""
    lines = [f"| data | {' | '.join(RANKINGS)} |", f"|---{'|---' * len(RANKINGS)}|"]
    for name, of_set in figures.items():
        cells = []
        for how in RANKINGS:
            auc, precision = (of_set["rankings"][how][key] for key in ("roc_auc", "precision_at_10"))
            cells.append(f"{auc[0]:.3f} ({auc[1]:.3f}-{auc[2]:.3f}), {precision[0]:.3f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines).replace("0.", ".")


_FIGURES = ("auc", "precision", "before", "after", "audited", "harm", "referred")
MADE_BY = {
    "youtube_weak": "rules",
    "sms_weak": "rules",
    "hate_offensive_crowd": "one crowd vote",
    "medrel_distant": "knowledge base",
    "hausa_news": "keyword lexicon",
    "trec_weak": "rules",
    "bbc_news": "injected",
}


def figure(run: dict[str, Any], key: str) -> float:
    labels = run["labels"]
    return float({
        "auc": labels["detection"]["roc_auc"], "precision": labels["detection"]["precision_at_10"],
        "before": labels["noise"]["given"], "after": labels["noise"]["final"], "audited": run["audited"]["noise"], "harm": labels["harm"],
        "referred": run["relabel"]["referred"] + run["relabel"]["abstained"],
    }[key])  # fmt: skip


if __name__ == "__main__":
    made = json.loads(RESULT.read_text())["figures"]
    print(readme_table(made), rankings_table(made), sep="\n\n")
