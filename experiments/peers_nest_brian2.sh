#!/usr/bin/env bash
# Build the environments of NEST and Brian2 under .cache/peers/, outside the package's own dependencies.
#
#   experiments/peers_nest_brian2.sh                both
#   experiments/peers_nest_brian2.sh brian2         this one
#   PYTHON=python3.12 experiments/peers_nest_brian2.sh
#
# What is there already is skipped. A peer that does not install or import leaves <peer>.failed with the reason, which
# export_check.py prints; the next run tries it again.

set -u
cd "$(dirname "$0")/.."
folder=.cache/peers
mkdir -p "$folder"

packages() { # peer -> what pip installs, in one command
  case "$1" in
    nest) echo "nest-simulator==3.10.0 numpy" ;;
    brian2) echo "brian2==2.9.0 numpy<2.3" ;; # 2.9 fails to import on a newer NumPy
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

for peer in "${@:-nest brian2}"; do
  for one in $peer; do build "$one"; done
done
