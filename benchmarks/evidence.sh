#!/usr/bin/env bash
# The comparison of docs/results.md: methods on tasks that nothing was chosen on, with seeds that
# nothing was chosen with, under both protocols. What is there already is kept and gone on with, so
# the same command again continues. Needs pip install 'baq-cli[box2d,robotics]'.
#
#   benchmarks/evidence.sh --dry-run   the cells, and about how many hours are left
#   benchmarks/evidence.sh             on CPUs, to the end
#   benchmarks/evidence.sh --card      on a CUDA card, 100k + 100k everywhere: a piece of nine minutes,
#                                      which saves and ends with status 130; again until it ends with 0
#
# A task is a comparison of its own in OUT/PROTOCOL, so that tasks are finished one after the other;
# at the end one report of each protocol lies in OUT.
#
# The environment says where, on what and with what: OUT, WORKERS, PIECE_SECONDS, BAQ (the
# command); DEVICE, cuda for the CPUs' budget on a card; PROTOCOLS, one of them or both; METHODS
# and TASKS, those that are wanted now, tasks as in TASKS="pendulum/replay hopper/replay" (the
# others go beside them later); CHEAP and DEAR, gradient steps and environment steps of such
# tasks on CPUs; BASE, UTD, WIDTH and BATCH, those of `matched`; LIGHTER, what dear methods do
# less of under it on CPUs; CHOICE, the file that says what was chosen, committed before any run.
set -euo pipefail
cd "$(dirname "$0")/.."

ALL_TASKS="
cheap lunarlander/medium
cheap lunarlander/replay
cheap bipedalwalker/medium
cheap doublependulum/medium
cheap doublependulum/replay
cheap pointmaze-umaze/medium
cheap pendulum/replay
dear walker2d/medium
dear walker2d/replay
dear hopper/replay
"
BASE=${BASE:-td3_bc} UTD=${UTD:-1} WIDTH=${WIDTH:-64} BATCH=${BATCH:-64}
CHEAP=${CHEAP:-20000 50000} DEAR=${DEAR:-10000 20000}
# CQL's penalty by one sampled action and over four actions; two updates of SO2 a step, not ten.
LIGHTER=${LIGHTER-cql.gradient=sampled cal_ql.gradient=sampled wsrl.gradient=sampled cql.cql_actions=4
    cal_ql.cql_actions=4 wsrl.cql_actions=4 so2.utd=2 so2.policy_every=2 so2.online_share=0.25}
PROTOCOLS=${PROTOCOLS:-matched published}
PUBLISHED=$(printf '%s\n' baq "$BASE" awac iql cql cal_ql | awk '!seen[$0]++')
MATCHED=$(printf '%s\n' $PUBLISHED rlpd wsrl rebrac so2 | awk '!seen[$0]++')
TEN=10,11,12,13,14,15,16,17,18,19 FIVE=10,11,12,13,14
BAQ=${BAQ:-baq} DEVICE=${DEVICE:-cpu} PIECE_SECONDS=${PIECE_SECONDS:-540}
CHOICE=${CHOICE:-docs/results/development/choice.md}
FEWEST_SECONDS=${FEWEST_SECONDS:-30} # a piece that has fewer left begins nothing

listed() { local IFS=, && echo "$*"; }
among() { if [ -z "$1" ]; then cat; else grep -Fxf <(printf '%s\n' $1) || true; fi; }
of_budget() {
    echo "$ALL_TASKS" | sed -n "s#^$1 *##p" | among "${TASKS:-}" | sed 's#.*#baq/&-v0#'
}
refuse_others() { # NAME GIVEN KNOWN
    local others
    others=$(comm -23 <(printf '%s\n' $2 | sort) <(printf '%s\n' $3 "" | sort))
    [ -z "$others" ] || { echo "$1: $(echo $others) is not among $(echo $3)" >&2 && exit 2; }
}

status=0
compare() { # PROTOCOL METHODS TASK SEEDS GRADIENT_STEPS ENV_STEPS
    local protocol=$1 methods=$2 limit=() words
    words=(--protocol "$protocol" --algos "$(listed $methods)" --dataset "$3"
        --seeds "$4" --gradient-steps "$5" --env-steps "$6" --out "$OUT/$protocol/${3#baq/}"
        "${words_of_mode[@]}" "baq.base=$BASE" evaluation.episodes=5)
    if [ "$protocol" = matched ]; then
        words+=("shared.utd=$UTD" "shared.hidden=[$WIDTH,$WIDTH]" "shared.batch_size=$BATCH"
            "baq.behavior_hidden=[$WIDTH,$WIDTH]")
        [ "$mode" = --card ] || words+=($LIGHTER)
    fi
    if [ "$mode" = --card ]; then
        [ $((PIECE_SECONDS - SECONDS)) -gt $FEWEST_SECONDS ] || exit 130
        limit=(timeout --foreground --signal=TERM $((PIECE_SECONDS - SECONDS)))
    fi
    local ended=0
    ${limit[@]+"${limit[@]}"} "$BAQ" compare "${words[@]}" || ended=$?
    case $ended in
        0) ;;
        124 | 130) exit 130 ;; # stopped, and saved
        *) status=$ended ;;    # a cell failed: the others went on, and so do the other comparisons
    esac
}

mode=${1:-}
case $mode in
    "") OUT=${OUT:-runs/evidence} words_of_mode=(--device "$DEVICE" threads=1) ;;
    --dry-run) OUT=${OUT:-runs/evidence} words_of_mode=(--device "$DEVICE" threads=1 --dry-run) ;;
    --card) OUT=${OUT:-runs/evidence-card} WORKERS=${WORKERS:-4} words_of_mode=(--device cuda) ;;
    *) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
[ -z "${WORKERS:-}" ] || words_of_mode+=(--workers "$WORKERS")
if [ "$mode" != --dry-run ]; then # what was chosen, and since when it is written down
    if ! git ls-files --error-unmatch "$CHOICE" >/dev/null 2>&1 || ! git diff --quiet HEAD -- "$CHOICE"; then
        echo "$CHOICE is not committed as it stands: write down what was chosen, then run the test tasks" >&2
        exit 2
    fi
    git --no-pager log -1 --format="$CHOICE, %h of %cI:" -- "$CHOICE" && cat "$CHOICE"
fi

each() { # PROTOCOL METHODS BUDGET SEEDS GRADIENT_STEPS ENV_STEPS
    local task
    for task in $(of_budget "$3"); do compare "$1" "$2" "$task" "$4" "$5" "$6"; done
}

refuse_others METHODS "${METHODS:-}" "$MATCHED"
refuse_others TASKS "${TASKS:-}" "$(echo "$ALL_TASKS" | cut -d ' ' -f 2)"
for protocol in $PROTOCOLS; do
    methods=$MATCHED
    [ "$protocol" = matched ] || methods=$PUBLISHED
    methods=$(printf '%s\n' $methods | among "${METHODS:-}")
    [ -n "$methods" ] || continue
    if [ "$mode" = --card ]; then
        each "$protocol" "$methods" "\(cheap\|dear\)" $TEN 100000 100000
    else
        each "$protocol" "$methods" cheap $TEN $CHEAP
        each "$protocol" "$methods" dear $FIVE $DEAR
    fi
    if [ "$mode" != --dry-run ]; then
        tasks=$(of_budget "\(cheap\|dear\)" | sed "s|^baq|$OUT/$protocol|")
        "$BAQ" report $tasks --out "$OUT/$protocol-report" --title "Under --protocol $protocol" || status=$?
    fi
done
exit $status
