"""A run of a model that is fitted in closed form: the files of its folder are those of any other
run, with a single epoch.

Its answers to the training windows, each by a fit that did not know the subject, are kept in
last.pt as "out_of_fold": whoever blends models needs them.
"""

import time

import numpy as np
import torch

from eeg import UserError, cli
from eeg.data.batches import aligned
from eeg.data.split import Damaged, Split
from eeg.models.model import Model
from eeg.ridge.fit import Fit
from eeg.runs.journal import Journal
from eeg.runs.parallel import Ranks
from eeg.score.metrics import auroc, nrmse
from eeg.train import checkpoint
from eeg.train.options import Options
from eeg.train.progress import best_so_far, finite, say_result
from eeg.train.targets import choose_targets
from eeg.train.validation import Validation

EPOCH = 1  # the only one


class Fitter:
    """Fits `model` on split.train and validates it on split.valid, as a Trainer would be used.

    journal: writes the files of the run's folder; threads: that read windows.
    """

    part = None  # windows are never computed in parts
    domains = None  # nor compared
    epoch, batch = EPOCH, 0

    def __init__(
        self,
        options: Options,
        model: Model,
        split: Split,
        journal: Journal,
        ranks: Ranks,
        threads: int = 1,
    ):
        if ranks.world > 1:
            raise UserError(
                f"{options.model} is fitted by one process, torchrun has started {ranks.world}; "
                "start run/train.py without it"
            )
        self.options, self.model, self.split, self.journal = options, model, split, journal
        split.cache = aligned(split.cache, options.align)
        self.targets = choose_targets(options, split, model)
        self.damaged = Damaged(split.cache, self._on_event)
        self.validation = Validation(split, self.targets, self.damaged)
        self.fit = Fit(model, split, self.targets.y, self.damaged, options.seed, threads)
        self.batches = self.fit  # whoever asks how windows are read
        self.stepper = _Still(model, ranks)

    def run(self) -> str:
        """-> "finished" """
        began = time.monotonic()
        with cli.Progress("windows") as progress:
            found = self.fit.run(progress)
        self.model.eval()
        score = self.validation.score(self.stepper, lambda done, total: None)
        with torch.no_grad():
            self.model.shrink.fill_(score.shrink)
        entry = {
            "epoch": EPOCH,
            "train": self._training_figures(found),
            "valid": {name: finite(figure) for name, figure in score.figures.items()},
            "shrink": score.shrink,
            "skipped_steps": 0,
            "best": True,
            "strengths": {kind: finite(value) for kind, value in found.strengths.items()},
        }
        self.best = {"epoch": EPOCH, "value": score.value}
        self._keep(entry, time.monotonic() - began, found)
        self._save(found)
        say_result(self, "finished:", score.value, score.shrink)
        self.journal.say(f"weights {self._weights}")
        facts = {"epoch": EPOCH, "epochs": EPOCH, "device": "cpu", "seconds_left": 0}
        self.journal.state("finished", **facts, **best_so_far(self.best))
        return "finished"

    def _training_figures(self, found):
        """Of the answers out of fold: the loss, in standard deviations of the labels, and the
        score."""
        known = np.isfinite(found.answers).all((1, 2))
        y = self.targets.y[found.rows[known], : self.model.n_outputs].astype(float)[:, None]
        p = found.answers[known]
        error = (p - y) / self.model.scale.numpy()
        figures = {"loss": float(np.square(error).mean())}
        first, said = np.broadcast_to(y, p.shape)[..., 0].ravel(), p[..., 0].ravel()
        if self.targets.is_class:
            return figures | {"nrmse": None, "auroc": finite(auroc(first, said))}
        return figures | {"nrmse": finite(nrmse(first, said))}

    def _keep(self, entry, seconds, found):
        """history.json, timing.json, and their lines in the log."""
        journal, valid = self.journal, entry["valid"]
        rate = round(found.windows / max(seconds, 1e-9))
        memory = cli.anonymous_memory()
        times = {"windows_per_second": rate, "memory": memory, "device": "cpu"}
        journal.history["epochs"] = [entry]
        journal.timing["epochs"] = [{"epoch": EPOCH, "seconds": round(seconds, 3)} | times]
        journal.publish()
        subjects, folds = len(np.unique(self.fit.subjects)), int(found.fold.max()) + 1
        journal.say(f"fit     {found}, chosen by {folds} folds of {subjects} subjects")
        metric = "auroc" if self.targets.is_class else "nrmse"
        train, figure = entry["train"][metric], valid[metric]
        journal.say(
            f"        {metric.upper()} on training subjects that the fit did not know "
            f"{_figure(train)}, valid {_figure(figure)}, {seconds:.1f} s, {rate:,} win/s, "
            f"{memory / 1e9:.1f} GB"
        )

    def _save(self, found):
        """Checkpoints and the weights that evaluation reads. Raises UserError where there is no
        room."""
        state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        settings = self.model.settings
        best = {"model": state, "settings": settings, "epoch": EPOCH}
        out_of_fold = {
            "rows": torch.from_numpy(found.rows),
            "starts": list(found.crops),
            "fold": torch.from_numpy(found.fold),
            "answers": torch.from_numpy(found.answers),
        }
        about = checkpoint.describe(self)
        folder = self.journal.folder
        with checkpoint.finishing(folder, folder):
            checkpoint.save(
                folder / "checkpoints", "last", best | {"out_of_fold": out_of_fold}, about
            )
            checkpoint.save(folder / "checkpoints", "best", best, about)
            checkpoint.export(self._weights, settings, state)

    @property
    def _weights(self):
        return self.journal.folder / f"weights_challenge_{self.split.cache.challenge}.pt"

    def _on_event(self, kind, text):
        self.journal.event(EPOCH, 0, kind, text)


def _figure(value):
    return "unknown" if value is None else f"{value:.3f}"


class _Still:
    """Stands for a Stepper where validation wants one: the model takes no steps and is on the CPU,
    so no device fails."""

    def __init__(self, model, ranks):
        self.model = self.validated = model
        self.ranks, self.guard = ranks, self
        self.device = torch.device("cpu")

    def read(self, what, *works):
        return works[0]()
