#!/usr/bin/env bash
# One rayclean command on a Ray cluster inside a Slurm allocation. Made by `make manifests`, do not edit.
#
#   sbatch cluster/slurm.sh clean my-run.toml configs/cluster/mixed.toml output=/shared/runs
#
# The head is the first node and runs the driver; the others join it. An allocation that is cut off costs no finished work:
# the same sbatch goes on. --requeue lets Slurm do that by itself after the failure of a node.
#SBATCH --job-name=rayclean
#SBATCH --partition=gpu
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

if [ $# -lt 2 ]; then
  echo "usage: sbatch $0 clean|sweep|... CONFIG [FILE|KEY=VALUE]..." >&2
  exit 2
fi
export PATH="$HOME/rayclean/.venv/bin:$PATH"
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
# Since Slurm 22.05 the steps of a job do not inherit this: every srun would be bound to one CPU.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-16}"
# A token for this allocation alone, which its processes inherit; only the owner's processes can read it.
RAY_AUTH_TOKEN="$(python -c 'import secrets; print(secrets.token_hex(32))')"
export RAY_AUTH_TOKEN

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(head -n 1 <<<"$nodes")
# Its name may stand for loopback (127.0.1.1 in /etc/hosts) or IPv6: of these and all others, the first that nodes can reach.
addresses=$(srun --nodes=1 --ntasks=1 -w "$head" bash -c 'hostname --ip-address; hostname --all-ip-addresses' || true)
address=$(tr ' ' '\n' <<<"$addresses" | awk -F. 'NF == 4 && /^[0-9.]+$/ && $1 != 127 && !seen++')
if [ -z "$address" ]; then
  echo "$head has no IPv4 address beside loopback, on which other nodes could reach it; \`hostname\` says: ${addresses:-nothing}" >&2
  exit 1
fi
port=$((20000 + SLURM_JOB_ID % 20000))
# Two jobs of one user may share a node's /tmp; the path of a socket in it must stay short.
temporary="/tmp/ray-$SLURM_JOB_ID"

start() { # node, what `ray start` gets
  local node=$1
  shift
  srun --nodes=1 --ntasks=1 --export=ALL -w "$node" ray start "$@" --num-cpus=16 --num-gpus=1 \
    --disable-usage-stats --block &
}
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT

start "$head" --head --node-ip-address="$address" --port="$port" --dashboard-host=127.0.0.1 --temp-dir="$temporary"
for _ in $(seq 60); do
  srun --overlap --nodes=1 --ntasks=1 -w "$head" ray health-check --address "$address:$port" && break
  sleep 2
done
while read -r node; do
  [ "$node" = "$head" ] || start "$node" --address="$address:$port"
done <<<"$nodes"

export RAY_ADDRESS="$address:$port"
srun --overlap --nodes=1 --ntasks=1 --export=ALL -w "$head" python - <<'PYTHON'
import os
import time

import ray

ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
wanted, until = int(os.environ["SLURM_JOB_NUM_NODES"]), time.monotonic() + 300
while (there := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > until:
        raise SystemExit(f"{there} of {wanted} nodes have joined Ray after 300 s; see the output of `ray start` above")
    time.sleep(2)
PYTHON
srun --overlap --nodes=1 --ntasks=1 --export=ALL -w "$head" rayclean "$@"
