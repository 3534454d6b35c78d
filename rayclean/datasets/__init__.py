"""Reading labelled text from anywhere: one file per format and per built-in data set.

`FORMATS` and `BUILTIN` are the registries; adding a format means a file with a subclass of `base.Reader` and a line
here. `sources` finds the files and cuts them into pieces of work, `rows` checks one row, `labels` turns label values
into indices, `stage` and `shards` are what a worker does with a piece, `identity` makes `example_id`.
"""

FORMATS: dict[str, str] = {
    "parquet": "rayclean.datasets.parquet:Parquet",
    "csv": "rayclean.datasets.csv:Csv",
    "jsonl": "rayclean.datasets.jsonl:Jsonl",
    "huggingface": "rayclean.datasets.huggingface:HuggingFace",
}

BUILTIN: dict[str, str] = {"bbc_news": "rayclean.datasets.bbc_news:BbcNews"}
