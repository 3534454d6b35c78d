"""What `load` makes of files, without the rest of it: the rows that its first pass stages and rejects."""

import shutil

from rayclean.class_names import spelling
from rayclean.config import DatasetConfig
from rayclean.datasets.first_pass import LoadJob, stage_piece
from rayclean.datasets.label_forms import label_form
from rayclean.datasets.sources import cut_into_pieces, find_sources
from rayclean.folder import Folder


class Staged:
    """Examples as example_id -> (text, code of the label), rejected rows as (row, reason, value), and the summaries."""

    def __init__(self, out, path, **options):
        shutil.rmtree(out, ignore_errors=True)  # what an earlier call wrote
        config = DatasetConfig(path=str(path), **options)
        job = LoadJob(config, str(out), 0, label_form("class", config))
        self.summaries = [stage_piece(job, piece) for piece in cut_into_pieces(find_sources(config))]
        folder = Folder(str(out))
        rows = [
            row for name in folder.shards("stage", "rows") for row in _rows(folder, "stage", "rows", name)
        ]
        self.examples = {row["example_id"]: (row["text"], row["label"]) for row in rows}
        assert len(self.examples) == len(rows)
        rejected = [row for name in folder.shards("rejected") for row in _rows(folder, "rejected", name)]
        self.rejected = [(row["row"], row["reason"], row["value"]) for row in rejected]

    @property
    def texts(self):
        return [text for text, _ in self.examples.values()]

    @property
    def pairs(self):
        """Text and label in the order of the files."""
        return [(text, spelling(label[2:])) for text, label in self.examples.values()]

    @property
    def labels(self):
        return {spelling(label[2:]) for _, label in self.examples.values()}

    @property
    def forms(self):
        return {words: found for summary in self.summaries for words, found in summary.forms.items()}


def _rows(folder, *parts):
    return folder.read_table(*parts).to_pylist()
