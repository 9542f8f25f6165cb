#!/usr/bin/env bash
# Build the peers' environments under .cache/peers/, outside the package's own dependencies.
#
#   experiments/benchmarks/peers.sh                 all peers
#   experiments/benchmarks/peers.sh norse spyx      these
#   PYTHON=python3.12 experiments/benchmarks/peers.sh
#
# What is there already is skipped. A peer that does not install or import leaves <peer>.failed with the reason, which
# layer.py prints; the next run tries it again.

set -u
cd "$(dirname "$0")/../.."
folder=.cache/peers
mkdir -p "$folder"

torch=torch==2.13.0 # its CPU build

packages() { # peer -> what pip installs, in one command
  case "$1" in
    snntorch) echo "$torch snntorch" ;;
    spikingjelly) echo "$torch spikingjelly" ;;
    norse) echo "$torch norse" ;;
    spyx) echo "spyx" ;;
    jaxpike) echo "jaxpike" ;;
    *) return 1 ;;
  esac
}

build() { # peer
  local peer=$1 env=$folder/$1 log=$folder/$1.log wanted
  wanted=$(packages "$peer") || { echo "$peer: no such peer"; return 1; }
  [ -e "$env/.ready" ] && { echo "$peer: there"; return; }
  rm -rf "$env" "$folder/$peer.failed"
  # shellcheck disable=SC2086 # several words are meant
  "${PYTHON:-python3}" -m venv "$env" &&
    "$env/bin/pip" install --quiet $wanted >"$log" 2>&1 &&
    "$env/bin/python" -c "import $peer" >>"$log" 2>&1 &&
    touch "$env/.ready" && { echo "$peer: installed"; return; }
  grep -iE 'error' "$log" | tail -n 1 >"$folder/$peer.failed"
  echo "$peer: not installed: $(cat "$folder/$peer.failed")"
}

for peer in "${@:-snntorch spikingjelly norse spyx jaxpike}"; do
  for one in $peer; do build "$one"; done
done
