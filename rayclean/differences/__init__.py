"""What two runs say differently: `rayclean.diff`.

configs.py     the keys of both configs whose values differ
sides.py       the labels of one run, shard by shard
joining.py     the same examples of two runs side by side, in flat memory, whatever their shards
labels.py      which of them differ
runs.py        all of it, with names, texts and reasons
"""
