"""The only package that imports Ray: one file per engine, and the switch between Ray and this process.

needs.py            resources of a verb, and whether Ray is worth starting for it
engines.py          the interface through which verbs run work, on Ray or in this process (threads.py: thread counts)
session.py          the connection to Ray of one command
environment.py      environment variables that Ray reads on import
cluster.py          connects to a Ray cluster or embeds one
last_words.py       what a command says when its process is ended at once (reaper.py: a process that ends what is left)
nodes.py            the nodes of a cluster, and the limits of its autoscaler
preflight.py        compares the resources of a verb with those of the cluster
ray_data.py         Ray Data: the same function over every shard, on a task pool or an actor pool (actor_pool.py: its size)
predict.py          inference over shards (shard_figures.py: sums over a shard)
asking.py           the annotation engine in this process; annotate.py: in an actor near the endpoint
serve.py            Ray Serve: an open LLM on vLLM behind an OpenAI-compatible endpoint
                    (llm_app.py: the application; serve_state.py: its health; server_checks.py: checks before it starts)
llm_service.py      the language model as a long-lived service (llm_key.py: its API key)
train.py            Ray Train: the loop of `rayclean.training` on 1..W workers, in one group or several (places.py, trainer.py)
tokens.py           tokens of the texts that a training reads, made before its workers are reserved
tune.py             Ray Tune: the trials of a sweep (trial_slots.py: how many at once; tune_rules.py: which ones end early)
jobs.py             Ray Jobs: runs submitted to a cluster
prometheus.py       metrics of runs for Prometheus
"""
