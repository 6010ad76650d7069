#!/usr/bin/env bash
# Runs the quick variant of every experiment, one after the other, minutes
# each; extra arguments go to each of them. Runs are in runs/NAME-quick; their
# tables and figures are copied to experiments/results/quick/NAME, which is what
# the README shows.
set -euo pipefail
cd "$(dirname "$0")/.."
for config in experiments/*.py; do
  grep -q '^sweep = ' "$config" || continue
  name=$(basename "$config" .py)
  echo "== $config:quick"
  python -m experiments.main --config="$config:quick" \
    --workdir="runs/$name-quick" "$@"
  kept="experiments/results/quick/$name"
  rm -rf "$kept" && mkdir -p "$kept"
  for file in results.csv curves.csv config.json versions.json; do
    if [ -f "runs/$name-quick/$file" ]; then
      cp "runs/$name-quick/$file" "$kept/"
    fi
  done
  # Some have tables only.
  if compgen -G "runs/$name-quick/figures/*.png" >/dev/null; then
    mkdir "$kept/figures"
    cp "runs/$name-quick/figures/"*.png "$kept/figures/"
  fi
done
