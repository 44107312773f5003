"""The `neurofm` command: a table of subcommands, each imported only when it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from neurofm.errors import NeurofmError

# name: (module with CONFIG, plan and run, what --help says); configs lie under configs/<name>/
STAGES = {
    "preprocess": ("neurofm.preprocessing.run", "recordings -> store"),
    "tokenize": ("neurofm.tokenizers.run", "store -> tokenizer"),
    "pretrain": ("neurofm.pretrain.run", "store -> encoder"),
    "finetune": ("neurofm.finetune.run", "encoder and labels -> scores"),
}
SELF_CONTAINED = {
    "simulate": ("neurofm.simulate.run", "write a cohort of real files with known truth"),
    "demo": ("neurofm.demo", "all of it, on a simulated cohort, in minutes"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status."""
    args = _parsed(argv)
    # Threads of torch that wait by spinning take six times the processor time where cores are
    # shared, with our own loader or with others; it has to be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        text, status = COMMANDS.get(args.command, _run)(args)
        print(text)
    except NeurofmError as error:
        print(f"neurofm {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"neurofm {args.command}: interrupted", file=sys.stderr)
        return 130
    return status


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    # of a list that an option stands in, argparse knows what comes before it only
    if rest and (any(word.startswith("-") for word in rest) or "overrides" not in args):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.overrides += rest
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neurofm",
        description="Pretrain and fine-tune foundation models for EEG, MEG and intracranial EEG.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (_, summary) in STAGES.items():
        sub = commands.add_parser(name, help=summary)
        sub.add_argument("config", help=f"a YAML file, or a name under configs/{name}/")
        _add_overrides(sub)
    for name, (_, summary) in SELF_CONTAINED.items():
        _add_overrides(commands.add_parser(name, help=summary))
    _add_inspect(commands.add_parser("inspect", help="what a store or a checkpoint holds"))
    _add_codes(commands.add_parser("codes", help="a tokenizer's codes, once, into its stores"))
    _add_store_commands(commands)
    return parser


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="folder, or URL of a store")
    parser.add_argument("--verify", action="store_true", help="read everything and check it")
    parser.add_argument("--recordings", action="store_true", help="list every recording")
    parser.add_argument("--report", metavar="FILE.html", help="write a page with all of it")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the sensors")


def _add_store_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    merge = commands.add_parser("merge", help="stores -> one store")
    merge.add_argument("stores", nargs="+", metavar="STORE", help="folder or URL; only read")
    merge.add_argument("--into", required=True, metavar="STORE", help="made if it is not there")
    merge.add_argument("--copy", action="store_true", help="copy samples instead of linking them")
    remove = commands.add_parser("remove", help="take recordings out of a store")
    remove.add_argument("store", help="folder or URL")
    remove.add_argument(
        "ids", nargs="+", metavar="ID", help="a recording, or a pattern as d_sub-1*"
    )
    remove.add_argument("--dry-run", action="store_true", help="print what would go and stop")
    audit = commands.add_parser(
        "audit", help="who and what is in two stores", epilog="exit status 1 if anything is in both"
    )
    audit.add_argument("a", help="folder or URL")
    audit.add_argument("b", help="folder or URL")
    audit.add_argument("--names-only", action="store_true", help="compare names and file hashes")


def _add_codes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokenizer", help="folder that `neurofm tokenize` wrote")
    parser.add_argument("stores", nargs="+", metavar="STORE", help="folder or URL")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dry-run", action="store_true", help="print what is missing and stop")
    parser.add_argument("--remove", action="store_true", help="delete the tokenizer's codes")


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change the config")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--print-config", action="store_true", help="print the config and stop")


def _run(args: argparse.Namespace) -> tuple[str, int]:
    from neurofm.config import load_config

    module_name, _ = (STAGES | SELF_CONTAINED)[args.command]
    module = importlib.import_module(module_name)
    source = getattr(args, "config", None)
    config = load_config(module.CONFIG, source, args.overrides, stage=args.command)
    if args.print_config:
        return config.to_yaml().rstrip(), 0
    if args.dry_run:
        return str(module.plan(config)), 0
    return str(module.run(config).summary()), 0


def _inspect(args: argparse.Namespace) -> tuple[str, int]:
    from neurofm.inspection import inspect

    wanted = {key: getattr(args, key) for key in ("verify", "recordings", "report", "plot")}
    return inspect(args.path, **wanted), 0


def _codes(args: argparse.Namespace) -> tuple[str, int]:
    from neurofm.tokenizers.codes import codes

    found = codes(
        args.tokenizer, args.stores, device=args.device, dry_run=args.dry_run, remove=args.remove
    )
    return found, 0


def _merge(args: argparse.Namespace) -> tuple[str, int]:
    from neurofm.store.merge import merge

    return merge(args.stores, args.into, link=not args.copy).summary(), 0


def _remove(args: argparse.Namespace) -> tuple[str, int]:
    from neurofm.store.remove import remove

    names = remove(args.store, args.ids, dry_run=args.dry_run)
    verb = "would be removed" if args.dry_run else "removed"
    return "\n".join([*names, f"{args.store}: {len(names)} recordings {verb}"]), 0


def _audit(args: argparse.Namespace) -> tuple[str, int]:
    from neurofm.store.audit import audit

    found = audit(args.a, args.b, signals=not args.names_only)
    return found.summary(), 0 if found.disjoint else 1


COMMANDS: dict[str, Callable[[argparse.Namespace], tuple[str, int]]] = {
    "inspect": _inspect,
    "codes": _codes,
    "merge": _merge,
    "remove": _remove,
    "audit": _audit,
}


if __name__ == "__main__":
    sys.exit(main())
