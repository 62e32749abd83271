"""Named loss terms and validation metrics: progress bar, TensorBoard, log lines and a JSON-lines history."""

import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from medbundles.atomic import write_text

logger = logging.getLogger(__name__)


class TermLogger:
    """Log the mean of every named term per epoch, and the evaluator's metrics of that epoch.

    Args:
        name: prefix of the tags, e.g. `teacher`.
        output_dir: folder of the TensorBoard event files and of `<name>_history.jsonl`.
        evaluator: the validation engine, run before this handler in the same epoch.
        progress: show a progress bar.
    """

    def __init__(
        self, name: str, output_dir: str | Path, evaluator: Engine | None = None, progress: bool = True
    ) -> None:
        self.output_dir, self.evaluator, self.progress = Path(output_dir), evaluator, progress
        self.restart(name)
        self._sums: dict[str, float] = defaultdict(float)
        self._count, self._validated = 0, False
        self._writer: Any = None
        self._bar: Any = None

    def restart(self, name: str) -> None:
        """Begin another run of the same trainer, logged as `name`."""
        self.name = name
        self.history = self.output_dir / f"{name}_history.jsonl"

    def attach(self, trainer: Engine) -> None:
        if idist.get_rank() != 0:
            return
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._note_validation)
        # Not STARTED: which epoch a resumed run begins with is known only after it.
        trainer.add_event_handler(Events.EPOCH_STARTED, self._start)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._write)
        trainer.add_event_handler(Events.COMPLETED | Events.TERMINATE | Events.EXCEPTION_RAISED, self._close)
        if self.progress:  # ignite's bar would keep the name it was attached with
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
            trainer.add_event_handler(Events.EPOCH_COMPLETED, self._close_bar)

    def _start(self, engine: Engine) -> None:
        if self._writer is not None:
            return
        from torch.utils.tensorboard import SummaryWriter

        epoch = engine.state.epoch
        rows = self.history.read_text().splitlines() if self.history.is_file() else []
        write_text(self.history, "".join(f"{row}\n" for row in rows if json.loads(row)["epoch"] < epoch))
        self._writer = SummaryWriter(str(self.output_dir / "tensorboard" / self.name), purge_step=epoch)

    def _advance(self, engine: Engine) -> None:
        from tqdm import tqdm

        if self._bar is None:
            title = f"{self.name} [{engine.state.epoch}/{engine.state.max_epochs}]"
            self._bar = tqdm(desc=title, total=engine.state.epoch_length, ncols=110)
        output: Any = engine.state.output
        self._bar.set_postfix(loss=float(output["loss"]), refresh=False)
        self._bar.update()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _add(self, engine: Engine) -> None:
        self._count += 1
        terms: Any = engine.state.output
        for key, value in terms.items():
            self._sums[key] += float(value)

    def _note_validation(self) -> None:
        self._validated = True

    def _write(self, engine: Engine) -> None:
        row = {key: value / max(self._count, 1) for key, value in self._sums.items()}
        # The metrics of an epoch without validation would be those of an earlier one.
        if self.evaluator is not None and self._validated:
            row |= {key: float(value) for key, value in self.evaluator.state.metrics.items()}
        for key, value in row.items():
            self._writer.add_scalar(f"{self.name}/{key}", value, engine.state.epoch)
        with self.history.open("a") as file:
            file.write(json.dumps({"epoch": engine.state.epoch, **row}) + "\n")
        text = "  ".join(f"{key} {value:.4f}" for key, value in row.items())
        logger.info("%s epoch %d/%d  %s", self.name, engine.state.epoch, engine.state.max_epochs, text)
        self._sums.clear()
        self._count, self._validated = 0, False

    def _close(self, engine: Engine, *_: Any) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._close_bar()
        # A handler of EXCEPTION_RAISED swallows the exception unless it raises it again.
        if _ and isinstance(_[0], BaseException):
            raise _[0]
