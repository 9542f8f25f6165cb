#!/usr/bin/env bash
# Build .cache/peers/eventax: event-driven spiking networks in JAX, whose gradients through spike times are exact too.
#
#   experiments/peers_eventax.sh
#   PYTHON=python3.12 experiments/peers_eventax.sh
#
# What is there already is skipped. Where it does not install or import, eventax.failed has the reason; the next run
# tries again.

set -u
cd "$(dirname "$0")/.."
folder=.cache/peers
mkdir -p "$folder"
env=$folder/eventax log=$folder/eventax.log

[ -e "$env/.ready" ] && { echo "eventax: there"; exit 0; }
rm -rf "$env" "$folder/eventax.failed"
"${PYTHON:-python3}" -m venv "$env" &&
  "$env/bin/pip" install --quiet eventax==0.1.0 >"$log" 2>&1 &&
  "$env/bin/python" -c "import eventax" >>"$log" 2>&1 &&
  touch "$env/.ready" && { echo "eventax: installed"; exit 0; }
grep -iE 'error' "$log" | tail -n 1 >"$folder/eventax.failed"
echo "eventax: not installed: $(cat "$folder/eventax.failed")"
exit 1
