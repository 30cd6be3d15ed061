"""Trains a model: Keras's `fit` over packed rows, with exact resume. Imports Keras: import it late."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

from kerasgen import backend as backends
from kerasgen import compiled_loops, fork_safety, garbage, quiet
from kerasgen.errors import TuneArgumentError
from kerasgen.models import quantized_base
from kerasgen.models.base import MaskedLanguageModel
from kerasgen.models.forward import computing_in
from kerasgen.models.precision import resolve
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.streaming import StreamedDocuments
from kerasgen.tuners import (
    batch_size,
    checkpoint_contents,
    former_calls,
    sharded_arrays,
    sharding,
    stream_plan,
    throughput,
    user_callbacks,
    validation,
)
from kerasgen.tuners.base import TuneJob
from kerasgen.tuners.callbacks import MOST_UNREAD, History, OneRun, Unshown, Watcher, interruptible
from kerasgen.tuners.checkpoints import Checkpoint
from kerasgen.tuners.metrics_logger import MetricsLogger
from kerasgen.tuners.notebook_bar import NotebookBar, in_notebook
from kerasgen.tuners.objective import Objective
from kerasgen.tuners.plan import Plan
from kerasgen.tuners.recorder import Recorder, checkpoint_to_resume
from kerasgen.tuners.report import TuneReport, Validation
from kerasgen.tuners.run_directory import alone_together
from kerasgen.tuners.schedule import OfEachStep, WarmUpAndDecay
from kerasgen.tuners.settings import GradientTuner
from kerasgen.tuners.trainer import Trainer, compiled, outside, weights_kept


@former_calls.taken
def run(job: TuneJob, settings: GradientTuner, *, prepare: Callable[[], None], first_row: int = 0) -> TuneReport:
    """Train what `prepare` leaves trainable and return the report.

    Args:
        job: what to tune, on what, and how.
        settings: the tuner.
        prepare: called once the settings are known to fit; says which weights are trainable.
        first_row: of the token embeddings' table, if it is trainable, the rows before this one stay as they are.

    Raises:
        KerasgenError: as `FineTuner.tune` says.
    """
    fork_safety.check(fork_safety.KERAS)
    if settings.sharded_checkpoints:
        sharded_arrays.require()
    if isinstance(job.train, StreamedDocuments):
        settings.check_streaming()
    objective = _objective(job, settings)
    objective.check(job)
    settings, reasons = _decided(job, settings, objective)
    checked = user_callbacks.checked(job.callbacks, has_held_out=job.has_held_out, pairs=settings._learns_pairs)
    job = dataclasses.replace(job, callbacks=checked)
    with sharding.placed(job.model, settings) as share:
        one_run = _Run(job, settings, reasons=reasons, first_row=first_row, share=share, objective=objective)
        with alone_together(job.directory, share):
            return one_run.carry_out(prepare)


def _objective(job: TuneJob, settings: GradientTuner) -> Objective:
    """Return what the run minimizes, which for a masked language model is its own.

    Raises:
        TuneArgumentError: the tuner's settings are for models of the other kind.
    """
    settings.check_kind(is_masked=isinstance(job.model, MaskedLanguageModel))
    if not isinstance(job.model, MaskedLanguageModel):
        return settings.objective()
    from kerasgen.tuners.masked_objective import MaskedObjective

    return MaskedObjective(settings, job.model)


def _decided(job: TuneJob, settings: GradientTuner, objective: Objective) -> tuple[GradientTuner, Mapping[str, str]]:
    """Return the settings with everything decided that was left open, and why. A checkpoint keeps them so.

    Raises:
        TuneArgumentError: they don't fit the model or the devices.
    """
    precision, why_precision = resolve(settings.precision)
    settings = dataclasses.replace(settings, precision=precision, packing=validation.packing_of(job.model, settings))
    decided, reasons = batch_size.sized(
        settings,
        objective.targets(job.train),
        longest=validation.longest_row(job.model, settings),
        packs=settings.packing != "none",
        ways=sharding.ways_of_data(settings),
        gpu=throughput.on_gpu(),
        texts=objective.texts,
        endless=isinstance(job.train, StreamedDocuments),
    )
    return decided, {"backend": backends.reason(), "precision": why_precision, **reasons}


class _Run:
    """One run: a job and settings, which were found to fit each other.

    Args:
        job: what to tune, on what, and how.
        settings: the tuner, nothing of it left open.
        reasons: why what was left open was decided so.
        first_row: of the table of token embeddings, the first row that is trained.
        share: of this process in the run.
        objective: what the run minimizes.

    Raises:
        TuneArgumentError: they don't fit each other.
    """

    def __init__(
        self,
        job: TuneJob,
        settings: GradientTuner,
        *,
        reasons: Mapping[str, str],
        first_row: int,
        share: sharding.Share,
        objective: Objective,
    ) -> None:
        assert settings.sequence_length is not None
        assert settings.batch_size is not None
        assert settings.packing != "auto"
        if settings.learn == "all":
            job = dataclasses.replace(job, train=job.train.learning_all())
        self.job, self.model, self.first_row, self.share = job, job.model, first_row, share
        self.sequence_length, self.batch_size, self.packing = (
            settings.sequence_length,
            settings.batch_size,
            settings.packing,
        )
        self.settings, self.reasons = settings, reasons
        validation.check(job.model, settings, job.train, has_held_out=job.has_held_out)
        self.objective = objective
        self.plan = objective.plan(job, settings, share)
        if isinstance(job.train, StreamedDocuments):
            self.plan = stream_plan.over(job.train, self.plan, self._plan_of)
        elif not len(self.plan.rows):
            raise TuneArgumentError(
                f"There is nothing to train on: of each of the {len(job.train):,} training documents, what is learned "
                f"was left out, for it stands farther from the document's end than a row of {self.sequence_length} "
                "tokens is long. Raise sequence_length, or let a document end with what is learned."
            )

    def _plan_of(self, documents: EncodedDocuments) -> Plan | None:
        """Return the plan of a window of a streamed corpus, or None if nothing of it is learned."""
        if not self.objective.targets(documents).any():
            return None
        return self.objective.plan(dataclasses.replace(self.job, train=documents), self.settings, self.share)

    def carry_out(self, prepare: Callable[[], None]) -> TuneReport:
        """Train from the beginning or from a checkpoint and return the report."""
        job = self.job
        saved = checkpoint_to_resume(job.directory, job.resume, self.share)
        prepare()
        precision = self.model.network.dtype_policy.name
        with computing_in(self.model.network, self.settings.precision):
            trainer, schedule = compiled(self.model, self.plan, self.settings, self.first_row, self.objective.trainer)
            checkpoint_contents.reseed(trainer, job.seed)
            shared = self.objective.begin(trainer, self.plan, job, self.settings, saved, self.share)
            fingerprint = checkpoint_contents.fingerprint_of(
                trainer, job.train, job.held_out, self.settings, job.seed, shared
            )
            sharded = self.settings.sharded_checkpoints
            recorder = Recorder(
                trainer, job.directory, self.share, fingerprint, saved, sharded=sharded, further=self.plan.state
            )
            if saved is not None:
                self.plan.restore(saved.state)
            with recorder.writing(), ExitStack() as until_first_step:
                until_first_step.callback(compiled_loops.keep)
                until_first_step.enter_context(garbage.put_off())
                around = partial(outside, trainer, precision)
                return self._train(trainer, schedule, recorder, saved, around, until_first_step.close)

    def _train(
        self,
        trainer: Trainer,
        schedule: WarmUpAndDecay | OfEachStep,
        recorder: Recorder,
        saved: Checkpoint | None,
        around: Callable[[], AbstractContextManager[None]],
        after_first_step: Callable[[], None],
    ) -> TuneReport:
        job = self.job
        validate = None
        if job.held_out is not None and job.has_held_out:
            measure = self.objective.validate(trainer, self.plan, job, self.settings)
            validate = partial(_after_steps, measure, recorder.history)
        visiting = user_callbacks.invited(job.callbacks, around)
        watcher = Watcher(
            recorder.history,
            batches_per_step=self.plan.batches_per_step,
            steps=self.plan.steps,
            learning_rate=lambda step: float(schedule.of_step(step)),
            save=recorder.save,
            check=recorder.check,
            validate=validate,
            keep_best=recorder.keep_best,
            patience=self.settings.patience,
            sample=None if job.sample is None else partial(_within, around, job.sample),
            is_finite=recorder.is_finite,
            digest=recorder.digest if visiting else str,
            watched=bool(visiting),
            unread=MOST_UNREAD if throughput.on_accelerator() and not visiting else 0,
            show=job.verbose != 0,
            validate_every=self.settings.validate_every,
            checkpoint_every=self.settings.checkpoint_every,
            sample_every=self.settings.sample_every,
            after_first_step=after_first_step,
        )
        watcher.following = [logger.following(watcher) for logger in job.callbacks if isinstance(logger, MetricsLogger)]
        if saved is None and validate is not None:
            recorder.history.validations.append(watcher.measure())
        product_flops = throughput.matrix_product_flops(self.settings.precision)
        recorder.prepare()
        done = _fit(trainer, self.plan, watcher, visiting, verbose=job.verbose)
        if watcher.interrupted and watcher.step < self.plan.steps:
            recorder.wait()
            raise KeyboardInterrupt(
                f"Stopped after step {watcher.step} of {self.plan.steps}. The checkpoint is {watcher.checkpoint}; "
                "fit(resume=True) goes on from it."
            )
        watcher.conclude()
        if self.settings.patience is not None and recorder.history.waited:
            recorder.take_best()
            watcher.save_again()
            recorder.history.validations.append(watcher.measure())
        report = self._report(watcher, done, product_flops, resumed_from=None if saved is None else saved.step)
        recorder.finish(report)
        for following in watcher.following:
            following.report(report)
        return report

    def _report(self, watcher: Watcher, done: _Done, product_flops: float, *, resumed_from: int | None) -> TuneReport:
        plan, settings, history, network = self.plan, self.settings, watcher.seen, self.model.network
        return TuneReport(
            steps=watcher.step,
            epochs=plan.passes(watcher.step),
            losses=tuple(history.losses),
            validations=tuple(history.validations),
            samples=tuple(history.samples),
            tokens=done.tokens,
            characters=done.characters,
            seconds=done.seconds,
            fill=plan.fill,
            split_documents=plan.split_documents,
            shortened_documents=plan.shortened_documents,
            read_tokens=done.read_tokens,
            documents=plan.documents,
            sequence_length=self.sequence_length,
            packing=self.packing,
            parameters=quantized_base.count_params(network),
            trainable_parameters=_count(network.trainable_weights) - self.first_row * self.model.hidden_dim,
            backend=keras.config.backend(),
            precision=settings.precision,
            seed=self.job.seed,
            accuracies=tuple(history.accuracies),
            router_losses=tuple(history.router_losses),
            margins=tuple(history.margins),
            first_step_seconds=watcher.first_step_seconds,
            flops_per_token=throughput.training_flops(self.model, self.sequence_length),
            matrix_product_flops=product_flops,
            peak_memory_bytes=throughput.peak_memory_bytes(),
            steps_per_execution=settings.steps_per_execution,
            reasons=self.reasons,
            batch_size=self.batch_size,
            held_out_documents=0 if self.job.held_out is None else len(self.job.held_out),
            stopped=_why(watcher, plan),
            corpus=plan.tally(),
            warnings=(*_warnings(watcher), *self.objective.warnings(self.job)),
            resumed_from=resumed_from,
            checkpoint=None if watcher.checkpoint is None else str(watcher.checkpoint),
        )


def _after_steps(measure: Callable[[int], Validation], history: History) -> Validation:
    return measure(len(history.losses))


def _within(around: Callable[[], AbstractContextManager[None]], act: Callable[[], str]) -> str:
    with around():
        return act()


class _Done(NamedTuple):
    """The figures of a finished training: what it was trained on, and how long it took."""

    tokens: int
    read_tokens: int
    characters: int
    seconds: float


def _fit(trainer: Trainer, plan: Plan, watcher: Watcher, callbacks: list[Any], *, verbose: int) -> _Done:
    """Run the epochs that are left."""
    bars = [NotebookBar(watcher)] if verbose == 1 and in_notebook() else []
    verbose = 0 if bars else verbose
    together = OneRun(
        [watcher, *callbacks, *bars, Unshown()],
        add_history=True,
        add_progbar=verbose != 0,
        model=trainer,
        verbose=verbose,
        epochs=plan.shown_epochs,
        steps=plan.steps_per_epoch * plan.batches_per_step,
    )
    together.reads_logs = not watcher.unread
    tokens = read_tokens = characters = 0
    seconds = 0.0
    with interruptible(watcher):
        if watcher.step and plan.is_epochs_end(watcher.step) and watcher.validate_every is None:
            watcher.validate_now()  # the checkpoint may have been written just before
        while watcher.step < plan.steps and not watcher.exhausted:
            epoch = plan.epoch_of(watcher.step)
            batches = plan.batches(epoch, first_step=watcher.step)
            together.set_params(together.params | {"steps": len(batches)})
            tokens_of_epoch, characters_of_epoch = batches.tokens(), batches.characters()
            watcher.begin_epoch(tokens_of_epoch * plan.batches_per_step / len(batches))
            first, begin = watcher.step, time.perf_counter()
            # shuffle=False: Keras would shuffle the batches again, with a seed of its own.
            with weights_kept(trainer), quiet.several_models():
                trainer.fit(
                    batches, initial_epoch=epoch, epochs=epoch + 1, callbacks=together, shuffle=False, verbose=verbose
                )
            seconds += time.perf_counter() - begin
            share = (watcher.step - first) * plan.batches_per_step / len(batches)
            tokens += round(tokens_of_epoch * share)
            read_tokens += round(batches.read_tokens() * share)
            characters += round(characters_of_epoch * share)
            del batches  # of a streamed corpus, it holds the window's ids
            if trainer.stop_training:
                break
        together.finish()
    return _Done(tokens, read_tokens, characters, seconds - watcher.aside)


def _why(watcher: Watcher, plan: Plan) -> str:
    if watcher.exhausted:
        return "early stopping"
    if watcher.step < plan.steps:
        return "a callback"
    return "finished" if plan.ends_itself else "max_steps"


def _warnings(watcher: Watcher) -> tuple[str, ...]:
    skipped = watcher.skipped_batches
    if not skipped:
        return ()
    batches = watcher.step * watcher.batches_per_step
    return (f"{skipped:,} of {batches:,} batches changed no weight, for their gradients overflowed float16",)


def _count(weights: Sequence[Any]) -> int:
    return int(sum(np.prod(weight.shape) for weight in weights))
