#!/usr/bin/env bash
# Runs the quick variant of every experiment, one after the other, minutes
# each; extra arguments go to each of them. Results are in runs/NAME-quick.
set -euo pipefail
cd "$(dirname "$0")/.."
for config in experiments/*.py; do
  grep -q '^def sweep' "$config" || continue
  echo "== $config:quick"
  python -m experiments.main --config="$config:quick" "$@"
done
