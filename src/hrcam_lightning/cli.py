"""``hrcam fit | retrofit | filtered-retrain | validate | test | predict | cases | compare | report``."""

from __future__ import annotations

import io
import signal
import sys
import warnings
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from hrcam_lightning import __version__
from hrcam_lightning.callbacks import FusedMapPanels, LocalizationMetrics, MetricsFile, PredictionWriter
from hrcam_lightning.callbacks.localization import DEFAULT
from hrcam_lightning.callbacks.wandb_run import log_checkpoint, log_run
from hrcam_lightning.checkpoints import find_checkpoint, honour_switches
from hrcam_lightning.compare import command as compare
from hrcam_lightning.data import LocalizationDataModule
from hrcam_lightning.errors import InputError
from hrcam_lightning.files import check_writable, replacing
from hrcam_lightning.filtered import StudyTrainer
from hrcam_lightning.importers import command as cases
from hrcam_lightning.quiet import be_quiet
from hrcam_lightning.refusals import refusal
from hrcam_lightning.report import command as report
from hrcam_lightning.report.maps import Built
from hrcam_lightning.task import LocalizationTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jsonargparse import Namespace
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.cli import ArgsType

STUDY = "filtered-retrain"


class RunConfig(SaveConfigCallback):
    """Write the resolved configuration of a training run to ``config.yaml`` in the run folder.

    Lightning would write it to the logger's folder, which several loggers do not have in common.
    """

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file, for training only: a test of a run must not replace what it was trained with."""
        if stage != "fit":
            return
        root = Path(trainer.default_root_dir)
        write_config(self.parser, self.config, root)
        settings = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))
        log_run(trainer, settings, trainer.datamodule)  # type: ignore[attr-defined]


def write_config(parser: LightningArgumentParser, config: Namespace, folder: Path) -> None:
    """Write the configuration of a run to ``config.yaml``."""
    config = config.clone()
    if "ckpt_path" in config:
        config["ckpt_path"] = None  # the file is to train anew, not to go on from where this run did
    config.pop("overwrite", None)  # nor over another run; and `test` knows no such option
    with replacing(folder / "config.yaml") as part:
        part.write_text(parser.dump(config), encoding="utf-8")


class HrcamCLI(LightningCLI):
    """A LightningCLI with the callbacks that make a run worth its name, and one folder a run."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks, each set by flat keys of its own."""
        # Two of them: `save_last` would write last.ckpt only when best.ckpt is written.
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(ModelCheckpoint, "last_checkpoint")
        parser.add_lightning_class_args(LocalizationMetrics, "localization")
        parser.add_lightning_class_args(FusedMapPanels, "fused_maps")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/loss",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "last_checkpoint.filename": "last",
                "last_checkpoint.enable_version_counter": False,
            }
        )
        parser.add_argument(
            "--explainers",
            type=list[str | dict[str, Any]],
            default=list(DEFAULT),
            help="What is scored beside the model's own map, by name, or {method: ..., layers: ..., name: ...}.",
        )
        parser.link_arguments("explainers", "localization.explainers")
        parser.link_arguments("fused_maps.limits", "predictions.limits")
        for key in ("checkpoint", "last_checkpoint"):
            parser.link_arguments("trainer.default_root_dir", f"{key}.dirpath")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Commands, and which arguments of the trainer's methods are not options."""
        return {**LightningCLI.subcommands(), **{name: {"model", "datamodule"} for name in ("retrofit", STUDY)}}

    def _prepare_subcommand_parser(
        self,
        klass: type,
        subcommand: str,
        **kwargs: Any,  # noqa: ANN401 - lightning's own
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("fit", "retrofit"):
            parser.add_argument("--overwrite", type=bool, default=False, help="Replace a run that is there.")
        elif subcommand == "predict":
            parser.add_argument("--resume", action="store_true", help="Leave out the cases that are done already.")
            parser.link_arguments("resume", "predictions.resume")
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Read the command line; look at the run folder and the checkpoint before anything is built from them."""
        super().parse_arguments(parser, args)
        _check_nulls(parser, self.config)
        self._words = list(args) if isinstance(args, list) else sys.argv[1:]
        command = self.config["subcommand"]
        settings = self.config[command]
        root = settings["trainer"]["default_root_dir"]
        check_writable(Path(root))
        self._asked = settings["model"].clone()
        if command == STUDY:  # trains its own networks, and goes on with a study that is there
            return
        if settings["ckpt_path"] is not None:
            settings["ckpt_path"] = str(find_checkpoint(settings["ckpt_path"], root))
        elif command not in ("fit", "retrofit"):
            raise InputError(f"{command} needs a trained network: give --ckpt_path, for example {root}/best.ckpt")
        if command == "retrofit" or (command == "fit" and settings["ckpt_path"] is None):
            _spare_earlier_run(Path(root), command, settings["overwrite"] or bool(settings["trainer"]["fast_dev_run"]))
        if (
            command == "retrofit"
            and settings["ckpt_path"]
            and Path(settings["ckpt_path"]).resolve().parent == Path(root).resolve()
        ):
            raise InputError(f"{root} holds the base itself: choose another --trainer.default_root_dir for the result")

    def before_instantiate_classes(self) -> None:
        """Predictions go to disk alone, the table is `LocalizationMetrics`', and no checkpoint runs code of its own."""
        settings = self.config[self.subcommand]
        if self.subcommand == STUDY:
            return
        if settings["ckpt_path"] is not None:
            honour_switches(self._words, self._asked, settings["model"])
        if settings["weights_only"] is None:
            settings["weights_only"] = True
        if self.subcommand == "predict":
            settings["return_predictions"] = False
        elif self.subcommand in ("validate", "test"):
            settings["verbose"] = False

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it. A study keeps its configuration; no name of a hook could hold its dash."""
        super()._run_subcommand(subcommand)
        if subcommand == STUDY:
            folder = Path(self.trainer.default_root_dir) / "filtered_retrain"
            write_config(self._parser(subcommand), self.config[subcommand], folder)

    def after_fit(self) -> None:
        """Say where the run lies."""
        best = self.trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
        root = self.trainer.default_root_dir
        if best:
            log_checkpoint(self.trainer, Path(best))
        self._say(f"Best checkpoint: {best or 'none, for nothing was validated'}   pictures: {root}/maps")

    def after_retrofit(self) -> None:
        """Write a configuration that `test` and `predict` can use, and say where the run lies."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        parser = self._subcommand_parsers["fit"]
        config = self.config["retrofit"].clone()
        for name in set(self._subcommand_method_arguments["retrofit"]) - {"ckpt_path", "weights_only"}:
            del config[name]
        kept = ("decoder", "pooling", "resampling", "consistency", "level_loss")
        head = {name: self.model.hparams[name] for name in kept}
        folder = Path(self.trainer.default_root_dir)
        write_config(parser, parser.parse_object({"model": head}, config), folder)
        self._say(f"Retrofitted checkpoint: {folder}/best.ckpt   what each λ costs: {folder}/retrofit.csv")
        self._say_where("val")

    def after_validate(self) -> None:
        """Say where the files are."""
        self._say_where("val")

    def after_test(self) -> None:
        """Say where the files are."""
        self._say_where("test")

    def before_predict(self) -> None:
        """Tell the writer by which checkpoint; the trainer knows it only once it is too late to leave cases out."""
        for one in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(one, PredictionWriter):
                one.checkpoint = self.config["predict"]["ckpt_path"]

    def after_predict(self) -> None:
        """Say which scans could not be read; the others are done by now.

        Raises:
            InputError: If there are any, so that the exit code tells of them.
        """
        writer = next(one for one in self.trainer.callbacks if isinstance(one, PredictionWriter))  # type: ignore[attr-defined]
        unreadable = writer.unreadable
        if unreadable:
            first = next(iter(sorted(unreadable)))
            others = "the others are done" if writer.done else "and there are no others"
            raise InputError(
                f"{len(unreadable)} of the scans could not be read, {others}. {unreadable[first]} "
                "(all of them are in unreadable.csv; mend them and predict with --resume)"
            )

    def _say_where(self, stage: str) -> None:
        folder = f"{self.trainer.default_root_dir}/{stage}"
        self._say(f"Figures: {folder}/metrics.json, {folder}/cases.csv, {folder}/lesions.csv and {folder}/curves.csv")
        self._say(f"Pictures: {folder}/maps.png and {folder}/maps/, {folder}/cases.png and {folder}/curves.png")

    def _say(self, text: str) -> None:
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            Console().print(text, highlight=False, soft_wrap=True)


class BuiltCLI(HrcamCLI):
    """Builds what a command would run, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Leave it."""


def _check_nulls(parser: LightningArgumentParser, config: Namespace) -> None:
    """Look at every null in YAML, which jsonargparse lets pass: to its mind nothing was given.

    Raises:
        InputError: If a value is wanted there.
    """
    set_parsing_settings(unset_sentinel=True)  # so that None is a value like any other
    try:
        parser.validate(config)
    except TypeError as error:
        raise InputError(str(error)) from error
    finally:
        set_parsing_settings(unset_sentinel=False)  # with it, None would be written to config.yaml as a text


def _spare_earlier_run(root: Path, command: str, overwrite: bool) -> None:
    """Hours of training are not lost to a command typed twice.

    Raises:
        InputError: If a run lies in the folder.
    """
    earlier = next((name for name in ("best.ckpt", "last.ckpt") if (root / name).is_file()), None)
    if earlier and not overwrite:
        ways = ["choose another --trainer.default_root_dir", "replace it with --overwrite true"]
        ways += ["go on training with --ckpt_path last"] if command == "fit" else []
        raise InputError(f"{root} holds a run already ({earlier}): {', '.join(ways[:-1])}, or {ways[-1]}")


def main(args: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        args: Command line; that of the process if not given.

    Raises:
        InputError: If the data cannot be used.
        jsonargparse.ArgumentError: If the command line or a configuration cannot be read.
    """
    words = list(args) if args is not None else sys.argv[1:]
    if words[:1] == ["cases"]:  # needs no network, trainer or configuration
        cases.run(words[1:])
        return
    if words[:1] == ["compare"]:  # types the other commands itself
        compare.run(words[1:], __version__, _resolved)
        return
    if words[:1] == ["report"]:  # has the network of a run built from the run's own configuration
        report.run(words[1:], _built)
        return
    be_quiet()
    _cli(HrcamCLI, args)


def _cli(kind: type[HrcamCLI], args: Sequence[str] | None) -> HrcamCLI:
    """Read a command line, build what it speaks of, and run it."""
    return kind(
        LocalizationTask,
        LocalizationDataModule,
        subclass_mode_data=True,
        seed_everything_default=0,
        trainer_class=StudyTrainer,
        save_config_callback=RunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        trainer_defaults={
            "default_root_dir": "runs/default",
            "max_epochs": 20,
            "logger": False,
            "callbacks": [MetricsFile()],
        },
        parser_kwargs={
            "prog": "hrcam",
            "version": __version__,
            "exit_on_error": False,
            "epilog": (
                f"hrcam cases KIND: {cases.SUMMARY} hrcam compare: {compare.SUMMARY} hrcam report: {report.SUMMARY}"
            ),
        },
        auto_configure_optimizers=False,
        args=list(args) if args is not None else None,
    )


def _resolved(words: Sequence[str]) -> str:
    """The configuration that a command comes to, as YAML; nothing is run.

    Raises:
        InputError: If it comes to none.
    """
    # Meant for a script that calls main() by mistake; this call is no mistake.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    try:
        with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):
            main([*words, "--print_config"])
    except Exception as error:
        if (sentence := refusal(error)) is None:
            raise
        raise InputError(sentence) from error
    return shown.getvalue()


def _built(words: Sequence[str]) -> Built:
    """The trainer, network and data that a command comes to; nothing is run.

    Raises:
        InputError: If it comes to none.
    """
    be_quiet()
    # Meant for a script that calls main() by mistake; this call is no mistake.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    made = _cli(BuiltCLI, words)
    return Built(made.trainer, made.model, made.datamodule, Path(made.config["test"]["ckpt_path"]))


def console() -> None:
    """Entry point of the script: bad input is one sentence and exit code 2, a run that was told to end one and 143."""
    try:
        main()
    except SIGTERMException:  # a SystemExit without a code: a training cut short would pass for one that is done
        sys.stderr.write("hrcam: ended by SIGTERM; a training goes on from its last epoch with --ckpt_path last\n")
        sys.exit(128 + signal.SIGTERM)
    except Exception as error:
        if (sentence := refusal(error)) is None:
            raise
        sys.stderr.write(f"hrcam: error: {sentence}\n")
        sys.exit(2)
