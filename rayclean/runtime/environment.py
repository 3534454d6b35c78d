"""Environment variables that Ray reads on import.

Modules that import Ray import this one first, so the variables are set only if Ray is used, not by `import
rayclean`. A variable that is already set keeps its value.
"""

import os

_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # rayclean shows its own
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers reuse the driver's Python environment
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Seconds that Ray Train waits for the resources of a group; an elastic group that lost a node then starts
    # with fewer workers.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # delay until the end of a training is noticed
    "TOKENIZERS_PARALLELISM": "false",
    # Seconds until the HTTP side of Ray Serve must answer: on a busy machine its start takes longer than Serve's own 5, and one
    # that is killed and started anew under `serve.start` is an error.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "VLLM_LOGGING_LEVEL": "WARNING",  # Ray Serve LLM imports vLLM
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial's results are written into its own folder
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the caller handles Ctrl-C
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that failed has no figures, and reports its error
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in configs are relative to the working folder of the command
    "RAY_AIR_NEW_OUTPUT": "0",  # rayclean shows its own progress
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def set_ray_environment() -> None:
    """Set every variable that is not set yet."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    level = "info" if os.environ.get("RAYCLEAN_DEBUG") else "fatal"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", level)
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # otherwise Ray does not send the token


set_ray_environment()
