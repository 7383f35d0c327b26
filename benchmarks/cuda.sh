#!/bin/sh
# Everything that needs a CUDA card, in one go: captured equals eager for every method, the speed of
# updates, alone and beside d3rlpy's, and a whole fine-tuning of ten seeds on Hopper. Results:
# benchmarks/results/<card>.json and OUT. Run it in the repository with baq installed:
# sh benchmarks/cuda.sh [OUT]
set -eu
OUT=${1:-runs/cuda}
mkdir -p "$OUT"
nvidia-smi --query-gpu=name,driver_version --format=csv | tee "$OUT/card.txt"
python -m pytest -q -m cuda | tee "$OUT/tests.txt"
baq bench --device cuda --algo iql --seeds 1,10,64 --save benchmarks/results | tee "$OUT/iql.txt"
baq bench --device cuda --algo iql --seeds 10 --tf32 | tee "$OUT/iql-tf32.txt"
baq bench --device cuda --algo awac,td3_bc,cql,baq --seeds 1,10 --rounds 3 \
    | tee "$OUT/methods.txt"
baq bench --device cuda --algo iql --seeds 10 --env Hopper-v5 --env-steps 2000 --rounds 1 \
    | tee "$OUT/loop.txt"
baq bench --device cuda --algo iql,awac,td3_bc,cql --seeds 1 --against d3rlpy --rounds 3 \
    --save benchmarks/results | tee "$OUT/against-d3rlpy.txt"
baq data suite build baq/hopper/medium-v0
start=$(date +%s)
baq pretrain --dataset baq/hopper/medium-v0 --algo iql --seeds 10 --device cuda \
    --gradient-steps 100000 --out "$OUT/hopper-offline"
baq finetune --checkpoint "$OUT/hopper-offline" --device cuda --env-steps 100000 \
    --out "$OUT/hopper-online" env_workers=true overlap=true
echo "ten seeds, 100k + 100k on Hopper-v5: $(($(date +%s) - start)) s" | tee "$OUT/whole.txt"
