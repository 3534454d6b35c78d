"""The answers about a few questions, found in a ledger of any size with one segment in memory at a time."""

import re
from collections.abc import Collection

from rayclean.annotators.ledger import SEGMENT, parse_answer, segment_lines, uncovered_segments
from rayclean.annotators.query import Annotation
from rayclean.folder import Folder


def recorded_answers(
    folder: Folder, unit_ids: Collection[int], keys: Collection[str], prompt_hashes: Collection[str]
) -> list[Annotation]:
    """All answers ever recorded about some units, to some keys or to some prompts, failed ones too, in order of time.

    Args:
        folder: of the ledger; there may be none.
        unit_ids: of the questions.
        keys: `Annotation.key`.
        prompt_hashes: `Annotation.prompt_hash`; of whatever run that uses this ledger.
    """
    marks = [f'"unit_id": {unit_id},' for unit_id in unit_ids] + [
        f'"{each}"' for each in (*keys, *prompt_hashes)
    ]
    if not marks:
        return []
    marked = re.compile("|".join(map(re.escape, marks)))
    found: dict[
        tuple[str, float, str | None], Annotation
    ] = {}  # a merged segment may repeat what is in another one
    read, again = set[str](), True
    while again:  # a segment that vanishes was merged into another one, which the next listing contains
        again = False
        for name in uncovered_segments([name for name in folder.names() if SEGMENT.fullmatch(name)]):
            lines = [] if name in read else segment_lines(folder, name)
            again |= lines is None
            read.add(name)
            for line in lines or ():
                answer = parse_answer(line) if marked.search(line) else None
                if isinstance(answer, Annotation) and (
                    answer.unit_id in unit_ids or answer.key in keys or answer.prompt_hash in prompt_hashes
                ):
                    found[answer.key, answer.written, answer.error] = answer
    return sorted(found.values(), key=lambda each: (each.written, each.key))
