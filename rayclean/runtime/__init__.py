"""The only package that imports Ray: one file per engine.

cluster.py     connect to a Ray cluster or embed one
nodes.py       what nodes there are, and how far an autoscaler may go
preflight.py   what a config asks for against what the cluster has
data.py        Ray Data: the same function over every shard, on a task pool or an actor pool
pool.py        how many actors, with how many threads
predict.py     Ray Data: inference on an actor pool
annotate.py    the annotation engine in an actor near the endpoint
serve.py       Ray Serve: an open LLM on vLLM behind an OpenAI-compatible endpoint (llm_app.py, serve_state.py)
train.py       Ray Train: the loop of `rayclean.training` on 1..W workers
compare.py     several trainings side by side, for the report
tune.py        Ray Tune: the trials of a sweep
llm_service.py the language model as a service that stays, llm_key.py its API key
jobs.py        Ray Jobs: runs submitted to a cluster
metrics.py     figures for Prometheus
"""
