"""Tokens become weights: Keras's `fit` over packed rows, with exact resume. Imports Keras: import it late."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from kerasgen import backend as backends
from kerasgen.errors import CheckpointError, TuneArgumentError
from kerasgen.models.base import LanguageModel
from kerasgen.models.forward import can_pack, set_precision
from kerasgen.models.precision import resolve
from kerasgen.models.scoring import score
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.packing import pack
from kerasgen.tuners import checkpoints, curve, distributing, measuring, requirements, state
from kerasgen.tuners.base import TuneReport, Validation
from kerasgen.tuners.plan import Plan
from kerasgen.tuners.settings import GradientTuner
from kerasgen.tuners.trainer import Trainer, compiled, weights_kept
from kerasgen.tuners.watching import History, OneRun, StepLog, Watcher, interruptible


def run(
    model: LanguageModel,
    train: EncodedDocuments,
    held_out: EncodedDocuments | None,
    *,
    settings: GradientTuner,
    prepare: Callable[[], None],
    seed: int,
    directory: Path,
    resume: bool | Literal["auto"],
    callbacks: Sequence[Any],
    sample: Callable[[], str] | None,
    verbose: int,
    first_row: int = 0,
) -> TuneReport:
    """Train what `prepare` leaves trainable and return the report.

    `settings` is the tuner; `prepare` is called once the settings are known to fit, and says which weights are
    trainable; of the token embeddings' table, if it is, the rows before `first_row` stay as they are. The other
    arguments are those of `FineTuner.tune`.
    """
    with distributing.placed(model, settings) as share:
        return _run(
            model,
            train,
            held_out,
            settings=settings,
            prepare=prepare,
            seed=seed,
            directory=directory,
            resume=resume,
            callbacks=callbacks,
            sample=sample,
            verbose=verbose,
            first_row=first_row,
            share=share,
        )


def _run(
    model: LanguageModel,
    train: EncodedDocuments,
    held_out: EncodedDocuments | None,
    *,
    settings: GradientTuner,
    prepare: Callable[[], None],
    seed: int,
    directory: Path,
    resume: bool | Literal["auto"],
    callbacks: Sequence[Any],
    sample: Callable[[], str] | None,
    verbose: int,
    first_row: int,
    share: distributing.Share,
) -> TuneReport:
    sequence_length = requirements.sequence_length_of(model, settings)
    packing = requirements.packing_of(model, settings)
    has_held_out = held_out is not None and held_out.targets > 0
    if settings.patience is not None and not has_held_out:
        raise TuneArgumentError(
            f"patience needs held-out documents to validate on. Received: patience={settings.patience} and none."
        )
    if settings.tensorboard:
        requirements.require_tensorboard()
    if settings.loss_curve:
        curve.require()
    precision, reason = resolve(settings.precision)
    settings = dataclasses.replace(settings, precision=precision)
    if settings.remat and not can_pack(model):
        raise TuneArgumentError(f"remat=True is for GPT-2 and OPT. Received: {type(model.backbone).__name__}.")
    requirements.require_precision(settings.precision)
    if not train.targets:
        raise TuneArgumentError("There is nothing to train on: no training document holds a token.")
    rows = pack(train, sequence_length=sequence_length, packing=packing)
    plan = Plan(
        encoded=train,
        rows=rows,
        batch_size=settings.batch_size,
        batches_per_step=settings.gradient_accumulation_steps,
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        seed=seed,
        shares=share.count,
        share=share.index,
    )
    go_on = resume
    if resume == "auto":
        go_on = distributing.agreed(share, not state.finished(directory), "whether a run goes on")
    saved = checkpoints.read_latest(directory) if go_on else None
    distributing.together(share, "what is there was read")  # before one process changes it
    if resume is True and saved is None:
        raise CheckpointError(f"There is no checkpoint in {directory} to resume from. Start with resume=False.")
    prepare()
    causal_lm = model.causal_lm
    before = causal_lm.dtype_policy.name
    set_precision(causal_lm, settings.precision)
    try:
        trainer, schedule = compiled(model, plan, settings, first_row)
        state.reseed(trainer, seed)
        fingerprint = state.fingerprint_of(trainer, train, held_out, settings, seed)
        variables = state.state_variables(trainer)
        history = History()
        if saved is not None:
            state.restore(saved, variables, fingerprint, directory)
            history = History.from_dict(saved.state["history"])
        elif share.writes:
            state.clear(directory)
        distributing.together(share, "the run begins")

        def save() -> Path:
            tensors = {name: distributing.gathered(variable) for name, variable in variables.items()}
            info = {"fingerprint": fingerprint, "history": history.to_dict()}
            checkpoint = checkpoints.Checkpoint(len(history.losses), tensors, info)
            written = checkpoints.folder(directory, checkpoint.step)
            if share.writes:
                written = checkpoints.write(directory, checkpoint)
            distributing.together(share, f"the checkpoint of step {checkpoint.step}")
            return written

        def validate() -> Validation:
            assert held_out is not None
            found = score(
                model,
                held_out,
                sequence_length=sequence_length,
                batch_size=settings.batch_size,
                losses=trainer,
            )
            return Validation(len(history.losses), found.loss, found.bits_per_character)

        def keep_best() -> None:
            best = {
                name: distributing.gathered(variable)
                for name, variable in state.named(trainer.trainable_variables).items()
            }
            if share.writes:
                checkpoints.write_tensors(directory / state.BEST_FILE, best)
            distributing.together(share, "the best weights")

        watcher = Watcher(
            history,
            batches_per_step=plan.batches_per_step,
            steps=plan.steps,
            learning_rate=lambda step: float(schedule.of_step(step)),
            save=save,
            validate=validate if has_held_out else None,
            keep_best=keep_best,
            patience=settings.patience,
            sample=sample,
            show=verbose != 0,
            validate_every=settings.validate_every,
            checkpoint_every=settings.checkpoint_every,
            sample_every=settings.sample_every,
        )
        if saved is None and has_held_out:
            history.validations.append(validate())
        resumed_from = None if saved is None else saved.step
        product_flops = measuring.matrix_product_flops(settings.precision)
        tokens, characters, seconds = _fit(
            trainer,
            plan,
            watcher,
            [*(_loggers(settings, directory, watcher, plan) if share.writes else ()), *callbacks],
            verbose=verbose,
        )
        if watcher.interrupted and watcher.step < plan.steps:
            raise KeyboardInterrupt(
                f"Stopped after step {watcher.step} of {plan.steps}. The checkpoint is {watcher.checkpoint}; "
                "fit(resume=True) goes on from it."
            )
        watcher.validate_now()
        if settings.patience is not None and history.waited:
            state.assign(
                state.named(trainer.trainable_variables),
                checkpoints.read_tensors(directory / state.BEST_FILE),
                directory,
            )
            history.validations.append(validate())
        report = TuneReport(
            steps=watcher.step,
            epochs=watcher.step / plan.steps_per_epoch,
            losses=tuple(history.losses),
            validations=tuple(history.validations),
            samples=tuple(history.samples),
            tokens=tokens,
            characters=characters,
            seconds=seconds,
            fill=rows.fill,
            split_documents=rows.split_documents,
            documents=len(train),
            sequence_length=sequence_length,
            packing=packing,
            parameters=_count(causal_lm.weights),
            trainable_parameters=_count(causal_lm.trainable_weights) - first_row * model.backbone.hidden_dim,
            backend=keras.config.backend(),
            precision=settings.precision,
            seed=seed,
            accuracies=tuple(history.accuracies),
            first_step_seconds=watcher.first_step_seconds,
            flops_per_token=measuring.training_flops(model, sequence_length),
            matrix_product_flops=product_flops,
            peak_memory_bytes=measuring.peak_memory_bytes(),
            steps_per_execution=settings.steps_per_execution,
            reasons={"backend": backends.reason(), "precision": reason},
            stopped=_why(watcher, plan),
            resumed_from=resumed_from,
            checkpoint=None if watcher.checkpoint is None else str(watcher.checkpoint),
        )
        if share.writes:
            if settings.loss_curve:
                curve.draw(directory / curve.FILE, history.losses, history.validations)
            state.write_report(directory, report)
        distributing.together(share, "the report")
        return report
    finally:
        set_precision(causal_lm, before)


def _fit(
    trainer: Trainer, plan: Plan, watcher: Watcher, callbacks: list[Any], *, verbose: int
) -> tuple[int, int, float]:
    """Run the epochs that are left; returns target tokens, characters and seconds."""
    together = OneRun(
        [watcher, *callbacks],
        add_history=True,
        add_progbar=verbose != 0,
        model=trainer,
        verbose=verbose,
        epochs=-(-plan.steps // plan.steps_per_epoch),
        steps=plan.steps_per_epoch * plan.batches_per_step,
    )
    tokens = characters = 0
    seconds = 0.0
    with interruptible(watcher):
        if watcher.step and watcher.step % plan.steps_per_epoch == 0 and watcher.validate_every is None:
            watcher.validate_now()  # the checkpoint may have been written just before
        while watcher.step < plan.steps and not watcher.exhausted:
            epoch = watcher.step // plan.steps_per_epoch
            batches = plan.batches(epoch, first_step=watcher.step)
            together.set_params(together.params | {"steps": len(batches)})
            tokens_of_epoch, characters_of_epoch = batches.tokens(), batches.characters()
            first, begin = watcher.step, time.perf_counter()
            # shuffle=False: Keras would shuffle the batches again, with a seed of its own.
            with weights_kept(trainer):
                trainer.fit(
                    batches, initial_epoch=epoch, epochs=epoch + 1, callbacks=together, shuffle=False, verbose=verbose
                )
            seconds += time.perf_counter() - begin
            share = (watcher.step - first) * plan.batches_per_step / len(batches)
            tokens += round(tokens_of_epoch * share)
            characters += round(characters_of_epoch * share)
            if trainer.stop_training:
                break
        together.finish()
    return tokens, characters, seconds - watcher.aside


def _why(watcher: Watcher, plan: Plan) -> str:
    if watcher.exhausted:
        return "early stopping"
    if watcher.step < plan.steps:
        return "a callback"
    return "finished" if watcher.step == plan.steps_per_epoch * plan.epochs else "max_steps"


def _loggers(settings: GradientTuner, directory: Path, watcher: Watcher, plan: Plan) -> list[Any]:
    loggers: list[Any] = []
    if settings.csv:
        loggers.append(StepLog(directory / "steps.csv", watcher, steps_per_epoch=plan.steps_per_epoch))
    if settings.tensorboard:
        loggers.append(keras.callbacks.TensorBoard(log_dir=str(directory / "tensorboard"), update_freq="batch"))
    return loggers


def _count(weights: Sequence[Any]) -> int:
    return int(sum(np.prod(weight.shape) for weight in weights))
