"""The command line: `paperlab list | run | verify | report | book | trace | sync | workshop | lock`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from paperlab.lab.profiles import profile_names

# What a user can cause by a wrong argument, file or claim; anything else is a defect and keeps its traceback.
_USER_ERRORS = (ValueError, KeyError, FileNotFoundError, PermissionError)


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; return 0, 1 where something is wrong with the results, 2 for a bad request."""
    options = _parser().parse_args(arguments)
    from paperlab.lab.execute import NotebookError

    try:
        return options.run(options)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (*_USER_ERRORS, NotebookError) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        print(f"paperlab: {message}", file=sys.stderr)
        return 1 if isinstance(error, NotebookError) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="paperlab", description="Run, check and trace the notebooks' results.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=function)
        return command

    def with_profile(command: argparse.ArgumentParser, default: str) -> None:
        command.add_argument("--profile", default=default, choices=profile_names(), help=f"default: {default}")

    listing = add("list", _list, "List notebooks with their parameters, and the claims ledgers.")
    listing.add_argument("notebook", nargs="?", default="", help="only those that start so, such as 41")
    run = add("run", _run, "Run notebooks in order, without Snakemake.")
    run.add_argument("notebook", help="a stem or its start, such as 41")
    run.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help="repeatable")
    with_profile(run, "smoke")
    verify = add("verify", _verify, "Check published results: claims, evidence, hashes, freshness, budgets.")
    verify.add_argument("--rerun", metavar="NOTEBOOK", help="run it again and compare every untimed file")
    with_profile(verify, "cpu")
    report = add("report", _report, "Build the results pages and print the scorecard.")
    with_profile(report, "cpu")
    book = add("book", _book, "Build an offline site from a profile's executed notebooks.")
    book.add_argument("--out", type=Path, help="default: results/book/")
    with_profile(book, "cpu")
    trace = add("trace", _trace, "Tell where a file under results/ comes from.")
    trace.add_argument("file", type=Path)
    sync = add("sync", _sync, "Write notebooks/*.ipynb from notebooks/py/*.py.")
    sync.add_argument("--check", action="store_true", help="write nothing; fail where they differ")
    sync.add_argument("--adopt", metavar="NOTEBOOK", help="the other way round, for one edited in JupyterLab")
    workshop = add("workshop", _workshop, "Write the notebooks with exercises as student and instructor copies.")
    workshop.add_argument("--out", type=Path, default=Path("workshop"), help="default: workshop/")
    lock = add("lock", _lock, "Write environment.yml and requirements/lock.txt from pyproject and this environment.")
    lock.add_argument("--check", action="store_true", help="write nothing; fail where they disagree")
    return parser


def _list(options: argparse.Namespace) -> int:
    from paperlab.lab.claims import all_claims
    from paperlab.lab.notebooks import notebook_names, parameters_of, title_of

    for name in notebook_names(options.notebook):
        print(f"{name:26} {title_of(name)}")
        print(f"{'':26} {', '.join(f'{key}={value!r}' for key, value in parameters_of(name).items())}")
    for system, ledger in all_claims().items():
        print(f"claims of {system}: {', '.join(ledger)}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from paperlab.lab.execute import MANIFEST, execute
    from paperlab.lab.notebooks import notebook_names
    from paperlab.lab.report import cost_line

    parameters = dict(_split_parameter(text) for text in options.parameter)
    for name in notebook_names(options.notebook):
        print(f"{name}: running, profile {options.profile}", flush=True)
        folder = execute(name, options.profile, parameters)
        print(f"{name}: {cost_line(folder / MANIFEST)}", flush=True)
    return 0


def _split_parameter(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"-p {text!r}: write NAME=VALUE")
    return name, yaml.safe_load(value)


def _verify(options: argparse.Namespace) -> int:
    from paperlab.lab.report import result_folder
    from paperlab.lab.verify import rerun, verify

    folder = result_folder(options.profile)
    if options.rerun:
        problems = rerun(options.rerun, options.profile, folder / options.rerun)
    else:
        problems = verify(folder)
    print("\n".join(problems) or f"{folder.name}: all checks passed")
    return 1 if problems else 0


def _report(options: argparse.Namespace) -> int:
    from paperlab.lab.report import scorecard_text, write_report

    pages = write_report(options.profile)
    print(scorecard_text(options.profile))
    print("\nResults: " + ", ".join(map(str, pages)))
    return 0


def _book(options: argparse.Namespace) -> int:
    from paperlab.lab.book import write_book

    print(f"open {write_book(options.profile, options.out)}")
    return 0


def _trace(options: argparse.Namespace) -> int:
    from paperlab.lab.trace import trace

    print(trace(options.file))
    return 0


def _sync(options: argparse.Namespace) -> int:
    from paperlab.lab.notebooks import adopt, sync

    if options.adopt:
        print(f"wrote {adopt(options.adopt)}")
        return 0
    changed = sync(check=options.check)
    if changed:
        print(f"{'differ from their scripts' if options.check else 'written'}: {', '.join(changed)}")
    return 1 if changed and options.check else 0


def _workshop(options: argparse.Namespace) -> int:
    from paperlab.lab.exercises import write_workshop

    print("\n".join(f"wrote {path}" for path in write_workshop(options.out)))
    return 0


def _lock(options: argparse.Namespace) -> int:
    from paperlab.lab.locks import disagreements, write_locks

    if options.check:
        problems = disagreements()
        print("\n".join(problems) or "pyproject.toml, environment.yml and requirements/lock.txt agree")
        return 1 if problems else 0
    print("\n".join(f"wrote {path}" for path in write_locks()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
