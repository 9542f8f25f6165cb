#!/usr/bin/env bash
# Build .cache/peers/snntorch_nir: snnTorch with the packages that its NIR importer needs and does not ask for.
#
#   experiments/benchmarks/peers.sh snntorch norse   # first: snnTorch itself, and Norse, which brings nir along
#   experiments/peers_nir.sh
#
# It sees snnTorch and torch through the environment of the benchmarks, by a path relative to its own packages so that
# the folder may move, and installs nir and nirtorch only. What is there already is skipped. Where it does not install or
# import, snntorch_nir.failed has the reason; the next run tries again.

set -u
cd "$(dirname "$0")/.."
folder=.cache/peers
env=$folder/snntorch_nir log=$folder/snntorch_nir.log base=$folder/snntorch

[ -e "$base/.ready" ] || { echo "snntorch: not there; run experiments/benchmarks/peers.sh snntorch first"; exit 1; }
[ -e "$env/.ready" ] && { echo "snntorch_nir: there"; exit 0; }
rm -rf "$env" "$folder/snntorch_nir.failed"
"$base/bin/python" -m venv "$env" &&
  (cd "$env"/lib/python*/site-packages && echo ../../../../snntorch/lib/python*/site-packages >snntorch.pth) &&
  "$env/bin/pip" install --quiet nir==1.0.8 nirtorch==2.6 >"$log" 2>&1 &&
  "$env/bin/python" -c "import snntorch, snntorch.import_nir" >>"$log" 2>&1 &&
  touch "$env/.ready" && { echo "snntorch_nir: installed"; exit 0; }
grep -iE 'error' "$log" | tail -n 1 >"$folder/snntorch_nir.failed"
echo "snntorch_nir: not installed: $(cat "$folder/snntorch_nir.failed")"
exit 1
