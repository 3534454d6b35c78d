"""Reading labelled text from anywhere: a file per format and per built-in data set, and the passes of `load`.

`FORMATS`, `LABEL_FORMS` and `BUILTIN` are the registries; a new format is a file with a subclass of `base.Reader`, and
a line here.

    sources.py        finds the files and cuts them into pieces of work; path_hints.py: what to do where there are none;
                      partitions.py: columns in the names of folders
    first_pass.py     source -> staged shards, one piece at a time, in workers. For every row:
                        columns.py             chooses its text, tokens, label, truth and key columns
                        csv.py, jsonl.py, ...  read it, with text_files.py, encodings.py, nested_fields.py, and for CSV
                                               csv_sniffer.py, csv_dialect.py, csv_expectation.py, csv_records.py
                        class_label.py         gives numbers the names that the file holds for them
                        row_validation.py      accepts or rejects it
                        label_forms.py         reads its label: single_class.py, class_sets.py, tag_sequences.py
                        example_id.py          identifies it
    global_pass.py    what needs all examples, in the driver: label values, duplicate keys, some noise
                        labels.py              turns label values into indices
                        label_positions.py     says when numbers are positions in the label set
                        label_checks.py        says what was merged and left out, and stops at what cannot be right
                        instance_noise.py      computes features of texts for noise that depends on them
    second_pass.py    staged shards -> examples/ test/ truth/, one shard at a time, in workers
    rejected_rows.py  what a rejected row is, and how both passes write rejected/
    checks.py         what stops a load, with rejected_share.py: too many rows left out
    summary.py        what a load reports

`own_probabilities.py` belongs to `predict`: it reads probabilities that users bring.
"""

FORMATS: dict[str, str] = {
    "parquet": "rayclean.datasets.parquet:Parquet",
    "csv": "rayclean.datasets.csv:Csv",
    "jsonl": "rayclean.datasets.jsonl:Jsonl",
    "json": "rayclean.datasets.jsonl:Jsonl",
    "conll": "rayclean.datasets.conll:Conll",
    "huggingface": "rayclean.datasets.huggingface:HuggingFace",
}

LABEL_FORMS: dict[str, str] = {
    "class": "rayclean.datasets.single_class:SingleClass",
    "classes": "rayclean.datasets.class_sets:ClassSets",
    "tags": "rayclean.datasets.tag_sequences:TagSequences",
}

BUILTIN: dict[str, str] = {"bbc_news": "rayclean.datasets.bbc_news:BbcNews"}
