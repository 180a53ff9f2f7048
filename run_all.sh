#!/usr/bin/env bash
# The one entry: makes the environment if there is none, runs the notebooks' graph, ends with the scorecard.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: ./run_all.sh [options] [-- snakemake options]

  --profile smoke|cpu|gpu   how much to run (default cpu: every table and figure a laptop can measure)
  --only PREFIX             only notebooks that start with PREFIX, such as 41 or 4
  --jobs N                  notebooks side by side (default: the number of cores)
  --test                    the test command: pytest, then the smoke profile
  --lab                     open JupyterLab on the environment
  --book                    run the profile, then build an offline site from its notebooks: results/book/html
  --help                    this text

What follows -- goes to Snakemake, for example: ./run_all.sh -- --forceall
TEXT
}

fail() { echo "run_all.sh: $*" >&2; exit 2; }

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
profile=cpu only="" jobs="" mode=run

find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "needs Python 3.11 or 3.12 on the PATH"
}

has_paperlab() { "$1" -c 'import paperlab.lab, snakemake, papermill' >/dev/null 2>&1; }

# An active conda or virtual environment that has paperlab is used as it is; otherwise .venv is made here.
prepare_environment() {
    if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && has_paperlab python; then
        python=$(command -v python)
        return
    fi
    python=$root/.venv/bin/python
    local stamp=$root/.venv/.complete wanted
    wanted=$(cat "$root/pyproject.toml" "$root/requirements/lock.txt" | cksum)
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
    echo "Making the environment in .venv (once; a few minutes and about 3 GB) ..."
    [ -x "$python" ] || "$(find_python)" -m venv "$root/.venv"
    (cd "$root" && "$python" -m pip install --quiet --disable-pip-version-check \
        --constraint requirements/lock.txt --editable '.[dev,book]')
    "$python" -m ipykernel install --sys-prefix --name paperlab --display-name Paperlab >/dev/null
    echo "$wanted" >"$stamp"
}

run_graph() {
    local profile=$1; shift
    local config=(profile="$profile")
    if [ -n "$only" ]; then
        "$python" -m paperlab.lab.cli list "$only" >/dev/null
        config+=(only="$only")
    fi
    local parallel=(--cores "${jobs:-all}")
    # On a cluster jobs are counted, not cores; here the same option would lift the limit on cores.
    case " $* " in *" --executor "*) parallel+=(--jobs "${jobs:-unlimited}") ;; esac
    # Our lock ends with the run. Snakemake's own would outlive a kill, and the next run would refuse to start.
    (cd "$root" && "$python" -m paperlab.lab.alone "$root" \
        "$python" -m snakemake --nolock "${parallel[@]}" --config "${config[@]}" --quiet rules host \
        --rerun-incomplete "$@")
    "$python" -m paperlab.lab.cli report --profile "$profile"
}

# In a function, so that bash has read all of this file before it runs anything: editing it meanwhile is safe.
main() {
    while [ $# -gt 0 ]; do
        case $1 in
            --profile) profile=${2:?--profile needs a name}; shift 2 ;;
            --only) only=${2:?--only needs a prefix}; shift 2 ;;
            --jobs) jobs=${2:?--jobs needs a number}; shift 2 ;;
            --test) mode=test; shift ;;
            --lab) mode=lab; shift ;;
            --book) mode=book; shift ;;
            --help | -h) usage; exit 0 ;;
            --) shift; break ;;
            *) usage >&2; fail "unknown option $1" ;;
        esac
    done
    case $profile in smoke | cpu | gpu) ;; *) fail "unknown profile $profile; use smoke, cpu or gpu" ;; esac
    case $jobs in *[!0-9]* | 0) fail "--jobs $jobs: give a positive number" ;; esac
    prepare_environment
    PATH=$(dirname -- "$python"):$PATH
    export PATH
    case $mode in
        lab) cd "$root" && exec "$python" -m jupyterlab notebooks ;;
        test)
            (cd "$root" && "$python" -m pytest -m "not slow and not bench and not gpu and not browser" -n auto)
            run_graph smoke "$@"
            ;;
        book)
            run_graph "$profile" "$@"
            (cd "$root" && "$python" -m paperlab.lab.cli book --profile "$profile")
            ;;
        run) run_graph "$profile" "$@" ;;
    esac
}

main "$@"
exit
