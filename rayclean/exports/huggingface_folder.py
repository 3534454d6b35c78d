"""A folder that `datasets.load_from_disk` opens, with the features of the data set where it has some."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from rayclean.exports.formats import ExportRows, FileFormat
from rayclean.exports.parquet_files import gathered
from rayclean.folder import Folder


class HuggingFaceFolder(FileFormat):
    """Written by the library itself from parts that it maps instead of reading them."""

    is_folder = True

    def write_part(self, batches: Iterable[ExportRows], path: str) -> None:
        """Write rows as a stream of Arrow."""
        schema = self.output.schema
        with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for table in gathered(each for each in batches if isinstance(each, pa.Table)):
                writer.write_table(table)

    def join(self, parts: Folder, names: Sequence[str], path: str) -> None:
        """Let the library save all parts as one data set."""
        import datasets

        with tempfile.TemporaryDirectory(prefix="rayclean-") as folder:
            local = [parts.path(name) for name in names]
            if not parts.is_local:
                remote, local = local, [os.path.join(folder, name) for name in names]
                for source, target in zip(remote, local, strict=True):
                    parts.fs.get_file(source, target)
            found = [datasets.Dataset.from_file(each) for each in local]
            with _without_bars():
                datasets.concatenate_datasets(found).save_to_disk(path)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Hide the library's own progress while the block runs."""
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()
