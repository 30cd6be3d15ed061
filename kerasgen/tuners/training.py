"""Tokens become weights: Keras's `fit` over packed rows, with exact resume. Imports Keras: import it late."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kerasgen import backend as backends
from kerasgen.errors import CheckpointError, MissingDependencyError, TuneArgumentError
from kerasgen.models.base import LanguageModel
from kerasgen.models.forward import TokenLosses, can_pack, set_precision
from kerasgen.models.precision import resolve
from kerasgen.models.scoring import score
from kerasgen.models.vocabulary import token_table
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.packing import pack
from kerasgen.tuners import checkpoints, curve, distributing, measuring
from kerasgen.tuners.base import TuneReport, Validation
from kerasgen.tuners.optimizer import build as build_optimizer
from kerasgen.tuners.plan import Plan
from kerasgen.tuners.schedule import WarmUpAndDecay
from kerasgen.tuners.settings import GradientTuner
from kerasgen.tuners.watching import History, OneRun, StepLog, Watcher, interruptible

BEST_FILE = "best.safetensors"
REPORT_FILE = "report.json"


class _LastValue(keras.metrics.Metric):  # type: ignore[misc]
    """The value of the last batch alone; Keras's own loss metric is a running mean."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.value = self.add_variable((), initializer="zeros", name="value")

    def update_state(self, value: Any) -> None:
        self.value.assign(ops.cast(value, self.value.dtype))

    def result(self) -> Any:
        return ops.convert_to_tensor(self.value)


class _Trainer(TokenLosses):
    """The model as `fit` trains it: the loss is the mean over the real targets of an optimizer step."""

    def __init__(self, model: LanguageModel, *, remat: bool) -> None:
        super().__init__(model, remat=remat)
        self.step_loss = _LastValue("step_loss")
        self.step_accuracy = _LastValue("step_accuracy")

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Return the batch's loss while training, and otherwise the nats of each target."""
        return self.weighted(inputs, training=True) if training else super().call(inputs, training=False)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        self.step_loss.update_state(y_pred.loss)
        self.step_accuracy.update_state(y_pred.accuracy)
        return y_pred.loss


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
    sequence_length = _sequence_length(model, settings)
    packing = _packing(model, settings)
    has_held_out = held_out is not None and held_out.targets > 0
    if settings.patience is not None and not has_held_out:
        raise TuneArgumentError(
            f"patience needs held-out documents to validate on. Received: patience={settings.patience} and none."
        )
    if settings.tensorboard:
        _require_tensorboard()
    if settings.loss_curve:
        curve.require()
    precision, reason = resolve(settings.precision)
    settings = dataclasses.replace(settings, precision=precision)
    if settings.remat and not can_pack(model):
        raise TuneArgumentError(f"remat=True is for GPT-2 and OPT. Received: {type(model.backbone).__name__}.")
    _require_precision(settings.precision)
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
    go_on = resume if resume != "auto" else not (directory / REPORT_FILE).exists()
    saved = checkpoints.read_latest(directory) if go_on else None
    if resume is True and saved is None:
        raise CheckpointError(f"There is no checkpoint in {directory} to resume from. Start with resume=False.")
    prepare()
    causal_lm = model.causal_lm
    before = causal_lm.dtype_policy.name
    set_precision(causal_lm, settings.precision)
    try:
        trainer, schedule = _compiled(model, plan, settings, first_row)
        _reseed(trainer, seed)
        fingerprint = _fingerprint(trainer, train, held_out, settings, seed)
        state = _state_variables(trainer)
        history = History()
        if saved is not None:
            _restore(saved, state, fingerprint, directory)
            history = History.from_dict(saved.state["history"])
        elif share.writes:
            _clear(directory)
        distributing.together(share, "the run begins")

        def save() -> Path:
            tensors = {name: distributing.gathered(variable) for name, variable in state.items()}
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
                name: distributing.gathered(variable) for name, variable in _named(trainer.trainable_variables).items()
            }
            if share.writes:
                checkpoints.write_tensors(directory / BEST_FILE, best)
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
            _assign(_named(trainer.trainable_variables), checkpoints.read_tensors(directory / BEST_FILE), directory)
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
            reasons={"backend": backends.reason(), "precision": reason},
            stopped=_why(watcher, plan),
            resumed_from=resumed_from,
            checkpoint=None if watcher.checkpoint is None else str(watcher.checkpoint),
        )
        # The report says that the run is finished: resume="auto" starts anew after it.
        if share.writes:
            directory.mkdir(parents=True, exist_ok=True)
            if settings.loss_curve:
                curve.draw(directory / curve.FILE, history.losses, history.validations)
            (directory / REPORT_FILE).write_text(json.dumps(report.to_dict(), indent=2), encoding="utf-8")
        distributing.together(share, "the report")
        return report
    finally:
        set_precision(causal_lm, before)


def _sequence_length(model: LanguageModel, settings: GradientTuner) -> int:
    longest = model.max_sequence_length
    if settings.sequence_length is None:
        return model.default_sequence_length
    if longest is not None and settings.sequence_length > longest:
        raise TuneArgumentError(
            f"sequence_length must be at most the model's {longest} positions. Received: {settings.sequence_length}."
        )
    return settings.sequence_length


def _packing(model: LanguageModel, settings: GradientTuner) -> Any:
    if settings.packing == "auto":
        return "best_fit" if can_pack(model) else "none"
    if settings.packing != "none" and not can_pack(model):
        raise TuneArgumentError(
            f"packing={settings.packing!r} needs a forward pass that keeps documents apart, and "
            f"{type(model.backbone).__name__} has none. Use packing='none' or 'auto'."
        )
    return settings.packing


def _compiled(
    model: LanguageModel, plan: Plan, settings: GradientTuner, first_row: int
) -> tuple[_Trainer, WarmUpAndDecay]:
    """The model with its optimizer, built: its variables can be saved and restored."""
    trainer = _Trainer(model, remat=settings.remat)
    schedule = WarmUpAndDecay(
        settings.learning_rate,
        plan.steps,
        settings.warmup_steps,
        settings.schedule,
        batches_per_step=plan.batches_per_step,
    )
    first_rows = {}
    if first_row:
        table = token_table(model)
        first_rows = {n: first_row for n, variable in enumerate(trainer.trainable_variables) if variable is table}
    optimizer = build_optimizer(settings, schedule, first_rows=first_rows)
    # On a CPU TensorFlow's own kernels train faster than XLA's; JAX has only XLA.
    trainer.compile(optimizer=optimizer, jit_compile=keras.config.backend() == "jax")
    optimizer.build(trainer.trainable_variables)
    return trainer, schedule


def _fit(
    trainer: _Trainer, plan: Plan, watcher: Watcher, callbacks: list[Any], *, verbose: int
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
            with _weights_kept(trainer):
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


@contextmanager
def _weights_kept(trainer: _Trainer) -> Iterator[None]:
    """Leave the model with weights when `fit` ends by an exception: on JAX it takes them away while it runs."""
    try:
        yield
    except BaseException:
        if hasattr(trainer, "jax_state_sync"):
            with suppress(RuntimeError):  # broken off within a step, there may be nothing to bring back
                trainer.jax_state_sync()
        raise


def _why(watcher: Watcher, plan: Plan) -> str:
    if watcher.exhausted:
        return "early stopping"
    if watcher.step < plan.steps:
        return "a callback"
    return "finished" if watcher.step == plan.steps_per_epoch * plan.epochs else "max_steps"


def _require_precision(precision: str) -> None:
    if precision != "mixed_float16" or keras.config.backend() != "jax":
        return
    import jax

    if jax.default_backend() != "gpu":  # JAX asks there for a float16 product that XLA has on GPUs alone
        raise TuneArgumentError(
            "On JAX, attention in float16 needs a GPU. Use 'mixed_bfloat16', or the TensorFlow backend. Received: "
            f"precision='mixed_float16' on a {jax.default_backend()}."
        )


def _require_tensorboard() -> None:
    for package in ("tensorflow", "tensorboard"):  # Keras writes summaries through the one, which needs the other
        try:
            importlib.import_module(f"{package}.summary")
        except ImportError as cause:
            raise MissingDependencyError(
                f"tensorboard=True needs the package {package}. Install kerasgen[tensorboard], or ask for csv=True "
                "instead.",
                package=package,
                extra="tensorboard",
            ) from cause


def _loggers(settings: GradientTuner, directory: Path, watcher: Watcher, plan: Plan) -> list[Any]:
    loggers: list[Any] = []
    if settings.csv:
        loggers.append(StepLog(directory / "steps.csv", watcher, steps_per_epoch=plan.steps_per_epoch))
    if settings.tensorboard:
        loggers.append(keras.callbacks.TensorBoard(log_dir=str(directory / "tensorboard"), update_freq="batch"))
    return loggers


def _reseed(trainer: _Trainer, seed: int) -> None:
    """Let dropout draw from the run's seed, whatever was drawn before.

    A Keras generator counts its second word up by one a draw, so generators must not start side by side.
    """
    for index, variable in enumerate(_random_states(trainer)):
        state = np.random.SeedSequence([seed, index]).generate_state(2)
        variable.assign(state.astype(np.uint32) >> 1)  # TensorFlow keeps a signed state


def _random_states(trainer: _Trainer) -> list[Any]:
    return [variable for variable in trainer.variables if variable.path.endswith("seed_generator_state")]


def _named(variables: Sequence[Any]) -> dict[str, Any]:
    """Variables by place: their paths count instances in the process, their order does not."""
    return {f"{index:05d}": variable for index, variable in enumerate(variables)}


def _state_variables(trainer: _Trainer) -> dict[str, Any]:
    groups = {
        "weights": trainer.trainable_variables,
        "random": _random_states(trainer),
        "optimizer": trainer.optimizer.variables,
    }
    return {
        f"{group}/{place}": variable
        for group, variables in groups.items()
        for place, variable in _named(variables).items()
    }


def _fingerprint(
    trainer: _Trainer, train: EncodedDocuments, held_out: EncodedDocuments | None, settings: GradientTuner, seed: int
) -> dict[str, Any]:
    """What must be the same for a run to go on: data, settings, seed, and the weights that a checkpoint leaves out."""
    frozen = hashlib.sha256()
    for variable in trainer.causal_lm.non_trainable_variables:
        if not variable.path.endswith("seed_generator_state"):
            frozen.update(distributing.gathered(variable).tobytes())
    chosen = dataclasses.asdict(settings)
    for name in ("checkpoint_every", "sample_every", "tensorboard", "csv", "loss_curve"):
        del chosen[name]  # they change no number
    return {
        "documents": train.digest(),
        "held-out documents": None if held_out is None else held_out.digest(),
        "frozen weights": frozen.hexdigest(),
        "tuner": type(settings).__name__,
        "seed": seed,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()},
    }


def _restore(
    saved: checkpoints.Checkpoint, state: Mapping[str, Any], fingerprint: Mapping[str, Any], directory: Path
) -> None:
    then = saved.state["fingerprint"]
    different = sorted(key for key in fingerprint.keys() | then.keys() if fingerprint.get(key) != then.get(key))
    if different:
        raise CheckpointError(
            f"The checkpoint in {directory} is of another run: {', '.join(different)} differ. Ask for the same "
            "settings and data, or start anew with resume=False."
        )
    _assign(state, saved.tensors, directory)


def _assign(variables: Mapping[str, Any], tensors: Mapping[str, Any], directory: Path) -> None:
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != there:
        name = min(key for key in shapes.keys() | there.keys() if shapes.get(key) != there.get(key))
        raise CheckpointError(
            f"The checkpoint in {directory} belongs to a model of another shape: {name} is {there.get(name)} there "
            f"and {shapes.get(name)} here."
        )
    for name, variable in variables.items():
        variable.assign(tensors[name])


def _clear(directory: Path) -> None:
    """Make room for a new run: an earlier one's checkpoints must not be taken for its own."""
    import shutil

    for old in directory.glob("step-*"):
        shutil.rmtree(old, ignore_errors=True)
    for name in (BEST_FILE, REPORT_FILE, curve.FILE, "steps.csv"):
        (directory / name).unlink(missing_ok=True)


def _count(weights: Sequence[Any]) -> int:
    return int(sum(np.prod(weight.shape) for weight in weights))
