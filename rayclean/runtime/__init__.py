"""The only package that imports Ray: one file per engine, and the switch between Ray and this process.

needs.py            what a verb needs, and whether Ray is worth starting for it
engines.py          what a verb calls to have work done, on Ray or in this process (threads.py: on how many threads)
session.py          the connection to Ray of one command
environment.py      the environment variables that Ray reads when it is imported
cluster.py          connects to a Ray cluster or embeds one
nodes.py            the nodes of a cluster, and how far an autoscaler may go
preflight.py        compares what a verb needs with what the cluster has
ray_data.py         Ray Data: the same function over every shard, on a task pool or an actor pool (actor_pool.py: its size)
predict.py          inference over shards (shard_figures.py: sums over a shard)
asking.py           the annotation engine in this process; annotate.py: in an actor near the endpoint
serve.py            Ray Serve: an open LLM on vLLM behind an OpenAI-compatible endpoint
                    (llm_app.py: the application; serve_state.py: its health; server_checks.py: checks before it starts)
llm_service.py      the language model as a service that stays (llm_key.py: its API key)
train.py            Ray Train: the loop of `rayclean.training` on 1..W workers
tune.py             Ray Tune: the trials of a sweep (trial_slots.py: how many at once; tune_rules.py: which ones end early)
jobs.py             Ray Jobs: runs submitted to a cluster
prometheus.py       metrics of runs for Prometheus
"""
