"""Tables as people bring them, in several formats."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path

TOPICS = {
    "billing": "invoice payment refund charge card receipt".split(),
    "login": "password account reset locked email code".split(),
    "delivery": "parcel courier address late tracking depot".split(),
}
SHARED = "the a my please with since today again still help was not is".split()


def tickets(rows: int = 120, seed: int = 0) -> list[dict[str, str]]:
    """Tickets with a key, a customer, a subject, a body, a priority and a category."""
    draw = random.Random(seed)
    found = []
    for number in range(rows):
        topic = draw.choice(list(TOPICS))
        words = draw.choices(TOPICS[topic], k=6) + draw.choices(SHARED, k=8)
        draw.shuffle(words)
        found.append(
            {
                "ticket_id": f"T-{number:05d}",
                "customer_id": f"C-{draw.randrange(rows // 3)}",
                "subject": " ".join(words[:3]),
                "body": f"{' '.join(words)} {number}",
                "priority": draw.choice(["low", "high"]),
                "category": topic,
            }
        )
    return found


def write_csv(path: Path, rows: Sequence[dict[str, str]], **options: str) -> Path:
    """Rows as a CSV; `options` are those of `csv.writer`, and `encoding`."""
    encoding = options.pop("encoding", "utf-8")
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)  # type: ignore[arg-type]
        writer.writeheader()
        writer.writerows(rows)
    return path
