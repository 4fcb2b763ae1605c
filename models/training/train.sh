#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the bundled model from nothing: tokenizer, data, training, export, evaluation, test data. About an hour on one core; run it
# again after an interruption and it goes on where it was.
#   models/training/train.sh [WORK_FOLDER] [STEPS]
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
model="$here/../millrace-tiny"
work="${1:-$HOME/.cache/millrace-training}"
steps="${2:-4200}"
mkdir -p "$work"
if [ ! -x "$work/venv/bin/python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install -r "$here/requirements.txt"
fi
python="$work/venv/bin/python"
# Large buffers come back at once; without these the allocator returns them to the kernel after every step.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456
cd "$here"
[ -f "$work/tokenizer.done" ] || { "$python" make_tokenizer.py "$model/tokenizer.json"; touch "$work/tokenizer.done"; }
for shard in $(seq 0 7); do
  [ -f "$work/data/shard_000$shard.npz" ] || "$python" generate.py "$model/tokenizer.json" "$work/data" --first "$shard" --shards 1
done
"$python" train.py "$work/data" "$work/run" --steps "$steps" --threads "${THREADS:-1}"
"$python" export.py "$work/run/state.pt" "$model"
"$python" evaluate.py "$model" --write-prompts 200
"$python" evaluate.py "$model" --count 400 --write
"$python" reference.py "$model" "$here/../../tests/data/millrace-tiny/greedy.json"
