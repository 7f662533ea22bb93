"""``hrcam-synth``: generate, verify, preview and read sets of phantoms."""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from synth.ceiling import SPLIT, TEMPLATES, drawn, observe, stored, write_ceiling
from synth.cluster import cluster
from synth.dataset import Shard, generate, ordered, share
from synth.files import DatasetError, write_whole
from synth.merge import merge
from synth.phantom import Phantoms
from synth.reading import SpecError
from synth.spec import PhantomSpec, Splits
from synth.tables import ceiling_table, summary_tables
from synth.verify import open_set, problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SHOWN_PROBLEMS = 5
OBSERVED = 400


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave with one sentence, without the usage."""
        raise SpecError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code: 0, 2 for bad input, 130 when interrupted."""
    arguments = argparse.Namespace()
    try:
        _parser().parse_args(argv, arguments)
        message: str = arguments.run(arguments)
    except (SpecError, DatasetError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    except BrokenProcessPool:
        return _fail("a worker was killed (out of memory?): continue with --resume and fewer --workers")
    except KeyboardInterrupt:
        advice = ": continue with --resume" if "resume" in arguments else ""
        return _fail(f"interrupted{advice}", code=130)
    sys.stdout.write(f"{message}\n")
    return 0


def console() -> NoReturn:
    """Run the command line and leave with its exit code."""
    sys.exit(main())


def _fail(sentence: str, code: int = 2) -> int:
    sys.stderr.write(f"hrcam-synth: error: {' '.join(sentence.split())}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hrcam-synth", description="Phantoms of known truth")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("generate", help="write a set: images, masks and tables")
    command.add_argument("out", type=Path, metavar="OUT", help="folder, new or empty")
    command.add_argument("--config", type=Path, required=True, metavar="SPEC", help="specification (YAML)")
    command.add_argument("--seed", type=_natural, default=0, metavar="N")
    size = command.add_mutually_exclusive_group()
    size.add_argument("--cases", type=_natural, metavar="N", help="cases in all, in the proportions of SPEC")
    size.add_argument(
        "--splits", metavar="train=N,val=N,test=N", help="cases in each split; reversed=N where there is a cue"
    )
    place = command.add_mutually_exclusive_group()
    place.add_argument("--workers", type=_natural, default=1, metavar="N", help="processes (default 1)")
    text = "work on the Dask cluster of that scheduler, whose workers see OUT under the same path"
    place.add_argument("--dask", metavar="ADDRESS", help=text)
    command.add_argument("--shard", type=_shard, metavar="K/N", help="write part K (from 0) of N, for merge")
    command.add_argument("--twins", action="store_true", help="write abnormal cases without their lesions as well")
    command.add_argument("--resume", action="store_true", help="complete an interrupted set")
    _add_overrides(command)
    command.set_defaults(run=_generate)

    command = commands.add_parser("merge", help="put the shards of a set together")
    command.add_argument("out", type=Path, metavar="OUT", help="folder, new or empty")
    command.add_argument("shards", type=Path, nargs="+", metavar="SHARD", help="all shards, in any order")
    command.add_argument("--resume", action="store_true", help="complete an interrupted merge")
    command.set_defaults(run=_merge)

    command = commands.add_parser("verify", help="check every hash, geometry, mask and label of a set")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.set_defaults(run=_verify)

    command = commands.add_parser("describe", help="show what a set holds: table and histograms")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("-o", "--out", type=Path, default=Path("describe.png"), metavar="PNG")
    command.set_defaults(run=_describe)

    command = commands.add_parser("preview", help="draw a contact sheet of a specification or a set")
    command.add_argument("source", type=Path, metavar="SPEC_OR_DIR")
    command.add_argument("-o", "--out", type=Path, default=Path("preview.png"), metavar="PNG")
    command.add_argument("--cases", type=_natural, default=16, metavar="N")
    command.add_argument("--seed", type=_natural, default=0, metavar="N", help="of what SPEC draws")
    _add_overrides(command)
    command.set_defaults(run=_preview)

    command = commands.add_parser("observer", help="score the best possible reader of a specification or a set")
    command.add_argument("config", type=Path, nargs="?", metavar="SPEC", help="read cases drawn from SPEC")
    command.add_argument("--dataset", type=Path, metavar="DIR", help=f"read the {SPLIT} split of a set instead")
    command.add_argument("--cases", type=_natural, metavar="N", help=f"default {OBSERVED}; of a set, all")
    command.add_argument("--seed", type=_natural, default=0, metavar="N", help="of the cases of SPEC and the reader")
    text = f"shapes that the reader averages over (default {TEMPLATES})"
    command.add_argument("--templates", type=_natural, default=TEMPLATES, metavar="N", help=text)
    command.add_argument("-o", "--out", type=Path, metavar="JSON", help="file for what is else printed")
    text = "leave it in the set of --dataset, as ceiling.json and ceiling.csv, for hrcam test"
    command.add_argument("--write", action="store_true", help=text)
    _add_overrides(command)
    command.set_defaults(run=_observer)
    return parser


def _add_overrides(command: argparse.ArgumentParser) -> None:
    text = "replace a value of SPEC, as in --set lesions.lesion.dprime=[4,6]"
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _shard(text: str) -> Shard:
    part, slash, number = text.partition("/")
    if not (slash and part.isdecimal() and number.isdecimal() and int(part) < int(number)):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N with K from 0 to N - 1")
    return Shard(int(part), int(number))


def _generate(arguments: argparse.Namespace) -> str:
    spec = _spec(arguments.config, arguments.overrides)
    splits = _splits(arguments.splits) if arguments.splits else dict(spec.splits)
    _require_some(arguments, "cases", "workers")
    if arguments.cases is not None:
        splits = share(splits, arguments.cases)
    splits = ordered(splits)
    place = cluster(arguments.dask) if arguments.dask else nullcontext()
    with _progress("generate") as update, place as spread:
        made = generate(
            arguments.out,
            spec,
            seed=arguments.seed,
            splits=splits,
            shard=arguments.shard,
            twins=arguments.twins,
            workers=arguments.workers,
            spread=spread,
            resume=arguments.resume,
            on_case=update,
        )
    text = ", ".join(f"{name} {count}" for name, count in splits.items())
    part = f"shard {arguments.shard} of " if arguments.shard else ""
    already = "" if made else " is complete already"
    return f"{arguments.out}{already}: {part}{sum(splits.values())} cases ({text})"


def _merge(arguments: argparse.Namespace) -> str:
    with _progress("merge") as update:
        made = merge(arguments.out, arguments.shards, resume=arguments.resume, on_case=update)
    already = "" if made else " is complete already"
    return f"{arguments.out}{already}: {len(open_set(arguments.out).cases)} cases of {len(arguments.shards)} shards"


def _verify(arguments: argparse.Namespace) -> str:
    with _progress("verify") as update:
        found = problems(arguments.folder, update)
    if found:
        rest = len(found) - SHOWN_PROBLEMS
        text = "; ".join(found[:SHOWN_PROBLEMS]) + (f"; and {rest} more" if rest > 0 else "")
        raise DatasetError(f"{arguments.folder} has {len(found)} problems: {text}")
    stored = open_set(arguments.folder)
    return f"{arguments.folder}: {len(stored.cases)} cases as generated, hash {stored.info['hash'][:16]}"


def _describe(arguments: argparse.Namespace) -> str:
    from synth import describe  # here, for the same reason as preview

    found = open_set(arguments.folder)
    summary = describe.summarise(found)
    describe.histograms(summary, arguments.out)
    title = f"{found.spec.name}: {len(found.cases)} cases of {' × '.join(map(str, found.spec.shape))} voxels"
    Console().print(summary_tables(title, summary, describe.MEASURES))
    return str(arguments.out)


def _preview(arguments: argparse.Namespace) -> str:
    _require_some(arguments, "cases")
    from synth import preview  # here, so that generating, and each of its workers, starts without matplotlib

    if arguments.source.is_dir():
        found = open_set(arguments.source)
        spec, pictures = found.spec, preview.stored(found, arguments.cases)
    else:
        spec = _spec(arguments.source, arguments.overrides)
        pictures = preview.drawn(Phantoms(spec, arguments.seed), arguments.cases)
    preview.contact_sheet(pictures, arguments.out, spec.spacing_mm)
    return str(arguments.out)


def _observer(arguments: argparse.Namespace) -> str:
    _require_some(arguments, "cases", "templates")
    if (arguments.config is None) == (arguments.dataset is None):
        raise SpecError("takes either SPEC or --dataset DIR", key="observer")
    if arguments.write and (arguments.dataset is None or arguments.cases is not None):
        advice = "give --dataset, without --cases"
        raise SpecError(f"leaves the ceiling of the whole {SPLIT} split of a set: {advice}", key="--write")
    if arguments.dataset is None:
        spec = _spec(arguments.config, arguments.overrides)
        total = arguments.cases or OBSERVED
        cases = drawn(Phantoms(spec, arguments.seed), range(total))
    else:
        if arguments.overrides:
            raise SpecError("is for SPEC: the specification of a set is its own", key="--set")
        found = open_set(arguments.dataset)
        spec, cases = found.spec, stored(found, arguments.cases)
        held = sum(row["split"] == SPLIT for row in found.cases)
        total = min(held, arguments.cases or held)
    with _progress("observer") as update:
        observed = observe(spec, cases, total=total, seed=arguments.seed, templates=arguments.templates, on_case=update)
    if arguments.write:
        write_ceiling(open_set(arguments.dataset), observed)
    text = json.dumps(observed.scores, indent=2)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(arguments.out, f"{text}\n".encode())
        text = str(arguments.out)
    Console(stderr=True).print(ceiling_table(observed.scores))  # for the eye; stdout is for programs
    return text


def _require_some(arguments: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(arguments, name) == 0:
            raise SpecError("is 0 but must be at least 1", key=f"--{name}")


def _spec(path: Path, overrides: Sequence[str]) -> PhantomSpec:
    values: dict[str, object] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise SpecError(f"is {text!r} but must be KEY=VALUE", key="--set")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise SpecError(f"is {text!r}, whose value is not YAML", key="--set") from None
    return PhantomSpec.from_yaml(path, values)


def _splits(text: str) -> Splits:
    pairs: Mapping[str, str] = {name: count for name, _, count in (part.partition("=") for part in text.split(","))}
    for count in pairs.values():
        if not count.isdecimal():
            raise SpecError(f"is {text!r} but must be like train=100,val=20,test=20", key="--splits")
    return {name.strip(): int(count) for name, count in pairs.items()}


class _Update(Protocol):
    def __call__(self, done: int, total: int) -> None: ...


@contextmanager
def _progress(title: str) -> Iterator[_Update]:
    """Show a bar on a terminal, and nothing where the output is kept."""
    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield update
