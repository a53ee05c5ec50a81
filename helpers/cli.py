"""The command `vision-notebooks`. Heavy imports wait until a command starts, so that --help is quick."""

import argparse
import os
import sys
from pathlib import Path

from helpers.errors import UserError

PROFILES_HELP = (
    "sample (the default): sample data, under a minute a run; "
    "cpu: real images, minutes; full: real images, for a GPU"
)

AT_ONCE = 256  # jobs handed to a cluster at a time; a thread here waits for each


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 (a run failed), 2 (bad input), 130 (Ctrl-C)."""
    for stream in (sys.stdout, sys.stderr):  # a Windows log file may lack a sign, such as "→"
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except UserError as error:
        print(f"vision-notebooks: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # as in "vision-notebooks list | head": nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("vision-notebooks: stopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vision-notebooks", description="Run the notebooks in a batch, and what belongs to it."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="execute notebooks and write results/index.html",
        description="Execute notebooks, each in a process of its own, and write a report on all of them.",
        epilog="-p drive_unet.epochs=5 is for one run, -p seed=1 for every chosen run that has it; "
        "a list is written -p 'transfer_depth.depths=[0, 2]'. Commas sweep: -p drive_unet.seed=0,1,2 makes "
        "three runs, several sweeps every combination.",
    )
    run.add_argument("names", nargs="*", metavar="NAME", help="runs to execute (default: all of the profile)")
    run.add_argument("--profile", choices=("sample", "cpu", "full"), default="sample", help=PROFILES_HELP)
    run.add_argument("-p", action="append", default=[], dest="assignments", metavar="NAME.param=value",
                     help="set a parameter; may be repeated, the last one counts")  # fmt: skip
    run.add_argument("--jobs", type=_positive(int), metavar="N",
                     help="runs at a time (default: 1, or all that a scheduler has room for)")  # fmt: skip
    run.add_argument("--scheduler", metavar="ADDRESS",
                     help="run on the workers of this Dask scheduler, such as tcp://host:8786")  # fmt: skip
    run.add_argument("--gpus", type=int, choices=range(9), metavar="N",
                     help="with --scheduler: GPUs of a run (default: full profile 1, else 0)")  # fmt: skip
    run.add_argument("--timeout", type=_positive(float), metavar="S", help="stop a run after S seconds")
    run.add_argument("--results", type=Path, metavar="DIR", help="where results go (default: results/)")
    run.add_argument(
        "--force", action="store_true", help="run also what has its result already, and from the start"
    )
    _add_notebooks(run)
    run.set_defaults(command=_run)

    compared = commands.add_parser(
        "compare",
        help="mean, spread and paired differences of a sweep",
        description="Compare the runs of sweeps: mean, standard deviation, paired differences, and a page.",
    )
    compared.add_argument("names", nargs="*", metavar="NAME", help="runs (default: all that were swept)")
    compared.add_argument("--metric", default="", metavar="M",
                          help="a name in metrics.json (default: the run's headline)")  # fmt: skip
    compared.add_argument("--over", default="seed", metavar="PARAM",
                          help="the parameter whose values are repeats (default: seed)")  # fmt: skip
    compared.add_argument("--results", type=Path, metavar="DIR", help="where results lie (default: results/)")
    compared.set_defaults(command=_compare)

    listing = commands.add_parser(
        "list",
        help="show the runs, or the parameters of some",
        description="Show the runs, or their parameters.",
    )
    listing.add_argument("names", nargs="*", metavar="NAME", help="show the parameters of these runs")
    _add_notebooks(listing)
    listing.set_defaults(command=_list)

    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("--data-dir", type=Path, metavar="DIR",
                        help="folder of the datasets (default: DATA_DIR, else data/)")  # fmt: skip
    data = commands.add_parser("data", help="list, get and check datasets", description="Real datasets.")
    data.set_defaults(command=_data_list, data_dir=None)
    actions = data.add_subparsers(metavar="ACTION")
    listing = actions.add_parser("list", parents=[folder], help="the datasets, and which are present")
    listing.set_defaults(command=_data_list)
    for name, action, text in (
        ("get", _data_get, "download a dataset, or tell how to get it"),
        ("check", _data_check, "open every file; report counts, missing partners and duplicates"),
    ):
        one = actions.add_parser(name, parents=[folder], help=text, description=text.capitalize() + ".")
        one.add_argument("name", metavar="NAME", help="a dataset of the list")
        one.set_defaults(command=action)

    audit = commands.add_parser(
        "audit",
        parents=[folder],
        help="tell whether a dataset's result could be trusted",
        description="Look for what would make a result false: copies across splits, shortcuts and more.",
    )
    audit.add_argument(
        "target",
        metavar="NAME|FOLDER",
        help="a dataset of the list, or a folder laid out like one, such as with a subfolder a class",
    )
    audit.add_argument("--out", type=Path, metavar="DIR",
                       help="where the page goes (default: results/audit_NAME)")  # fmt: skip
    audit.set_defaults(command=_audit)

    predict = commands.add_parser(
        "predict",
        help="apply a finished run's best model to images",
        description="Write predictions and an overlay for images, with a finished run's best model.",
    )
    predict.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="such as results/drive_unet")
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    predict.add_argument("--out", type=Path, metavar="DIR", help="where predictions go")
    predict.set_defaults(command=_predict)

    weights = commands.add_parser(
        "weights",
        help="list or fetch pretrained weights",
        description='Without names: list pretrained weights; with names or "all": fetch them into the cache.',
    )
    weights.add_argument("names", nargs="*", metavar="NAME")
    weights.set_defaults(command=_weights)
    return parser


def _add_notebooks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--notebooks", type=Path, metavar="DIR",
                        help="folder with runs.yaml and its notebooks (default: notebooks/)")  # fmt: skip


def _positive(kind: type):
    def parse(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    parse.__name__ = "positive number"  # argparse names the type so in its error
    return parse


def _run(options: argparse.Namespace) -> int:
    from helpers import batch, runs, runtime

    results = _absolute(options.results) or runtime.project_root() / "results"
    known = runs.read_runs(_notebooks(options))
    jobs, left_out = runs.plan(known, options.names, options.profile, options.assignments, results)
    if left_out:
        print(f"Left out, for they have no {options.profile} profile: {', '.join(left_out)}.")
    if not jobs:
        raise UserError(f'no run has a {options.profile} profile; "vision-notebooks list" shows which have.')
    if not options.scheduler:
        return batch.run_batch(jobs, results, options.jobs or 1, options.timeout, options.force)
    from helpers.cluster import Cluster

    gpus = options.gpus if options.gpus is not None else int(options.profile == "full")
    with Cluster(options.scheduler, gpus) as cluster:
        at_once = options.jobs or min(len(jobs), AT_ONCE)
        return batch.run_batch(jobs, results, at_once, options.timeout, options.force, cluster)


def _compare(options: argparse.Namespace) -> int:
    from helpers import compare, report, runtime
    from helpers.files import atomic_open

    results = _absolute(options.results) or runtime.project_root() / "results"
    if not results.is_dir():
        raise UserError(f"{results}: no such folder; correct --results.")
    found = compare.comparisons(report.read_all(results), options.metric, options.over)
    for sweep in compare.named(found, options.names, options.metric):
        print(f"{sweep.title}, {sweep.metric}; differences against the first, paired by {sweep.over}")
        _print_table([("  " + row[0], *row[1:]) for row in sweep.table()])
        if sweep.mixed:
            print(f"  careful: these runs also differ in {', '.join(sweep.mixed)}; run the sweep again.")
        with atomic_open(results / sweep.file) as file:
            file.write(report.render_comparison(sweep))
        print(results / sweep.file)
    return 0


def _list(options: argparse.Namespace) -> int:
    from helpers import parameters, runs

    known = runs.read_runs(_notebooks(options))
    for name in options.names:
        if name not in known:
            raise UserError(f'there is no run "{name}"; {parameters.suggest(name, known)}')
    if not options.names:
        rows = [("run", "notebook", "headline", "profiles", "about")]
        rows += [
            (run.name, run.notebook.name, run.headline, " ".join(run.profiles), run.about)
            for run in known.values()
        ]
        _print_table(rows)
    for name in options.names:
        print(f"{name}: {known[name].about}")
        cell = parameters.read_parameters(known[name].notebook).values()
        _print_table([(f"  {item.name}", repr(item.default), item.help) for item in cell])
    return 0


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as their longest text, the last one free."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] + [0]
    for row in rows:
        print("  ".join(f"{text:{width}}" for text, width in zip(row, widths)).rstrip())


def _data_list(options: argparse.Namespace) -> int:
    from helpers import data_tools

    return data_tools.main_list(_text(options.data_dir))


def _data_get(options: argparse.Namespace) -> int:
    from helpers import data_tools

    return data_tools.main_get(options.name, _text(options.data_dir))


def _data_check(options: argparse.Namespace) -> int:
    from helpers import data_tools

    return data_tools.main_check(options.name, _text(options.data_dir))


def _audit(options: argparse.Namespace) -> int:
    from helpers import audit

    return audit.main(options.target, _text(options.data_dir), _text(options.out))


def _predict(options: argparse.Namespace) -> int:
    from helpers import predictor

    return predictor.main(_text(options.folder), [_text(path) for path in options.images], _text(options.out))


def _weights(options: argparse.Namespace) -> int:
    from helpers import weights

    return weights.main(options.names, fetch=bool(options.names))


def _notebooks(options: argparse.Namespace) -> Path:
    from helpers import runtime

    return _absolute(options.notebooks) or runtime.project_root() / "notebooks"


def _absolute(path: Path | None) -> Path | None:
    """A path of the command line, where a relative one is meant from the current folder."""
    return path and path.expanduser().absolute()


def _text(path: Path | None) -> str:
    """The same as text, empty where nothing was given."""
    return str(_absolute(path) or "")


if __name__ == "__main__":
    sys.exit(main())
