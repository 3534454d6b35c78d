"""The only package that imports Ray: one file per engine.

cluster.py    connect to a Ray cluster or embed one; preflight of what the config asks for
data.py       Ray Data: the same function over every shard, on a task pool or an actor pool
predict.py    Ray Data: inference on an actor pool
annotate.py   Ray Data + Serve: the annotation engine near the endpoint
train.py      Ray Train: the loop of `rayclean.training` on 1..W workers
serve.py      Ray Serve: an open LLM on vLLM behind an OpenAI-compatible endpoint
"""
