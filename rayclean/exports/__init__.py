"""The user's own data set back, with the final labels beside every row, as the section `export` of a config asks for it.

    plan.py           which files are written, with which columns, from which parts of the source
    run_labels.py     what a run says of the rows of the source, in their order
    shard_labels.py   for one shard of the run: given and final label, where it comes from, and why (`reasons.py`)
    added_columns.py  the columns that are added, and the label column where it is replaced
    formats.py        the formats: `parquet_files.py`, `csv_files.py`, `json_files.py`, `huggingface_folder.py`;
                      `cells.py`: values as texts; `json_types.py`: types for keys of JSON
    parts.py          one part of the source -> one part of a file, in workers
    target.py         a target that appears last and as a whole
    export.py         all of it

The source is read a second time (`Reader.whole_rows`) and joined with the run by file and row (`rayclean.origins`), a batch at
a time, so that a column that rayclean never looked at comes back as it is.
"""
