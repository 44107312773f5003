"""The `neurofm` command: a table of subcommands, each imported only when it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from neurofm.errors import NeurofmError

# name: (module with CONFIG, plan and run, what --help says); configs lie under configs/<name>/
STAGES = {
    "preprocess": ("neurofm.preprocessing.run", "recordings -> store"),
    "pretrain": ("neurofm.pretrain.run", "store -> encoder"),
    "finetune": ("neurofm.finetune.run", "encoder and labels -> scores"),
}
SELF_CONTAINED = {
    "simulate": ("neurofm.simulate.run", "write a cohort of real files with known truth"),
    "demo": ("neurofm.demo", "all of it, on a simulated cohort, in minutes"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status."""
    args = _parser().parse_args(argv)
    # Threads of torch that wait by spinning take six times the processor time where cores are
    # shared, with our own loader or with others; it has to be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        print(_inspect(args) if args.command == "inspect" else _run(args))
    except NeurofmError as error:
        print(f"neurofm {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"neurofm {args.command}: interrupted", file=sys.stderr)
        return 130
    return 0


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
    inspect = commands.add_parser("inspect", help="what a store or a checkpoint holds")
    inspect.add_argument("path")
    inspect.add_argument("--verify", action="store_true", help="read everything and check it")
    return parser


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change the config")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--print-config", action="store_true", help="print the config and stop")


def _run(args: argparse.Namespace) -> str:
    from neurofm.config import load_config

    module_name, _ = (STAGES | SELF_CONTAINED)[args.command]
    module = importlib.import_module(module_name)
    source = getattr(args, "config", None)
    config = load_config(module.CONFIG, source, args.overrides, stage=args.command)
    if args.print_config:
        return config.to_yaml().rstrip()
    if args.dry_run:
        return str(module.plan(config))
    return str(module.run(config).summary())


def _inspect(args: argparse.Namespace) -> str:
    from neurofm.inspection import inspect

    return inspect(args.path, verify=args.verify)


if __name__ == "__main__":
    sys.exit(main())
