"""Spreads a run over devices or processes, by `keras.distribution` on JAX. Imports Keras: import it late.

The model was made on one device. Its variables are placed on the mesh when a run begins, and gathered when it ends. A
model that one host can't hold is placed there while its file is read, and stays there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerasgen.decoder.config import DecoderConfig
from kerasgen.errors import ModelError, TuneArgumentError
from kerasgen.models import architectures, deferred_weights, described
from kerasgen.models.base import LanguageModel
from kerasgen.models.forward import can_pack
from kerasgen.tuners.settings import GradientTuner

DATA, MODEL = "data", "model"
PATIENCE_MS = 30 * 60 * 1000  # a process that waits this long for another has lost it
_barriers = itertools.count()  # every process passes the same ones in the same order


@dataclass(frozen=True)
class Share:
    """The part of each batch that this process reads, and whether it writes files.

    Args:
        count: the number of parts into which processes split a batch.
        index: the index of this process's part.
        writes: whether it is the one that writes checkpoints and reports.
        processes: the number of processes of the run.
    """

    count: int = 1
    index: int = 0
    writes: bool = True
    processes: int = 1


def mesh_shape(distribution: str, devices: int) -> tuple[int, int]:
    """Return how many ways the data and the model are split.

    Args:
        distribution: `"data"`, `"model"`, or both as in `"2x4"`.
        devices: the number of devices of all processes.

    Raises:
        TuneArgumentError: there are not as many devices.
    """
    if distribution == DATA:
        return devices, 1
    if distribution == MODEL:
        return 1, devices
    data, model = map(int, distribution.split("x"))
    if data * model != devices:
        raise TuneArgumentError(
            f"distribution={distribution!r} takes {data * model} devices, and JAX sees {devices}. "
            "Ask for all of them, or hide some from JAX."
        )
    return data, model


def ways_of_data(settings: GradientTuner) -> int:
    """Return how many devices share a batch, of which its rows must be a multiple."""
    if settings.distribution is None or keras.config.backend() != "jax":
        return 1
    return mesh_shape(settings.distribution, len(keras.distribution.list_devices()))[0]


@contextmanager
def placed(model: LanguageModel, settings: GradientTuner) -> Iterator[Share]:
    """Place the model's variables on the mesh that the settings ask for, and gather them afterwards.

    Raises:
        TuneArgumentError: the backend, the devices, the batch or the model's shape don't allow it.
    """
    processes = _processes()
    if settings.distribution is None:
        if processes > 1:
            raise TuneArgumentError(f"{processes} processes need a `distribution`, such as 'data'. Received: None.")
        yield Share()
        return
    if keras.config.backend() != "jax":
        raise TuneArgumentError(
            f"distribution={settings.distribution!r} needs the JAX backend. Received: {keras.config.backend()}."
        )
    data, ways = mesh_shape(settings.distribution, len(keras.distribution.list_devices()))
    _check(model, settings, data, ways)
    if data * ways == 1:
        yield Share()
        return
    distribution = _distribution(data, ways, described.sharded(model, MODEL) if ways > 1 else {})
    network = model.network
    stays = {id(variable) for variable in network.variables if is_spread(model)}
    with distribution.scope():
        for variable in network.variables:
            _place(variable, distribution.get_variable_layout(variable))
        try:
            yield Share(
                count=min(processes, data),
                index=distribution.data_shard_id if data > 1 else 0,
                writes=_process() == 0,
                processes=processes,
            )
        finally:
            for variable in network.variables:
                if id(variable) not in stays:
                    _place(variable, None)


def _distribution(data: int, ways: int, cuts: Mapping[str, tuple[str | None, ...]]) -> Any:
    """Return Keras's distribution over a mesh of all devices, in which variables of these paths are cut."""
    devices = np.asarray(keras.distribution.list_devices()).reshape(data, ways)
    layout = keras.distribution.LayoutMap(keras.distribution.DeviceMesh((data, ways), [DATA, MODEL], devices))
    for path, axes in cuts.items():
        layout[path] = axes
    return keras.distribution.ModelParallel(layout_map=layout, batch_dim_name=DATA, auto_shard_dataset=False)


@contextmanager
def spread_from_file(settings: GradientTuner) -> Iterator[None]:
    """Let each process keep its own part alone of a model that is read meanwhile, if the settings split its weights.

    Of transformers directories and GGUF files it then never holds more than one whole tensor.
    """
    distribution = settings.distribution
    if distribution in (None, DATA) or not settings.sharded_checkpoints or settings.vocabulary not in (None, "keep"):
        yield
        return

    def layouts(config: DecoderConfig, cuts: deferred_weights.Cuts) -> Callable[[Any], Any] | None:
        data, ways = mesh_shape(distribution, len(keras.distribution.list_devices()))
        if ways == 1 or _processes() == 1 or _undivided(config, ways):  # of the last, `placed` tells
            return None
        layout_of: Callable[[Any], Any] = _distribution(data, ways, cuts(MODEL)).get_variable_layout
        return layout_of

    with deferred_weights.spread(layouts):
        yield


def is_spread(model: LanguageModel) -> bool:
    """Return whether weights of the model lie on other processes too, so that no host holds it."""
    if _processes() == 1:
        return False
    values = (variable.value for variable in model.network.variables if variable._value is not None)
    return any(not value.is_fully_addressable and not value.is_fully_replicated for value in values)


def require_whole(model: LanguageModel, what: str) -> None:
    """Check that this process holds the whole model.

    Args:
        model: that a tuner split, or not.
        what: is to be done with it, such as "be saved".

    Raises:
        ModelError: it holds a part.
    """
    if is_spread(model):
        raise ModelError(
            f"The weights of this {model.kind} lie on {_processes()} processes, so it can't {what} by one of them. "
            "Adapters can be saved. A whole model comes from the run's checkpoints, on a machine that can hold it: "
            "there, fit(directory=…, resume=True) with the same settings in a single process returns at once."
        )


def gathered(variable: Any) -> Any:
    """Return the whole of a variable or an array as NumPy, wherever its parts are; every process must ask."""
    value = getattr(variable, "value", variable)
    if keras.config.backend() == "jax" and not value.is_fully_addressable and not value.is_fully_replicated:
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(value, tiled=True))
    return np.asarray(keras.ops.convert_to_numpy(value))


def begin_to_gather(variables: Iterable[Any]) -> None:
    """Begin to copy what is on accelerators to this host, all at once; `gathered` waits for each."""
    if keras.config.backend() != "jax":
        return
    for variable in variables:
        if not _is_here(variable.value) and variable.value.is_fully_addressable:
            variable.value.copy_to_host_async()


def _is_here(value: Any) -> bool:
    """Return whether an array of JAX is one array in this host's memory."""
    return len(value.sharding.device_set) == 1 and all(device.platform == "cpu" for device in value.devices())


def seen(variable: Any) -> Any:
    """Return what `gathered` does, without a copy where the backend has the numbers in this host's memory.

    It is to be forgotten before the next step: JAX copies an array that the step takes over while something sees it,
    and TensorFlow one that an optimizer changes.
    """
    value = variable.value
    if keras.config.backend() == "jax" and _is_here(value):
        try:
            # NumPy's `asarray` may see the array for as long as JAX has it, and not only as long as NumPy has.
            return np.from_dlpack(value)
        except (BufferError, TypeError, RuntimeError):  # NumPy itself has no such numbers, as bfloat16
            pass
    if keras.config.backend() == "tensorflow" and hasattr(value, "read_value"):
        return np.asarray(value.read_value())
    return gathered(variable)


def together(share: Share, what: str) -> None:
    """Wait until every process of the run has come here."""
    if share.processes > 1:
        # By the coordination service, which JAX shows in no public place: `sync_global_devices` is a sum over the
        # devices, and a process that leaves right after one takes its end of the connection away from the others.
        from jax._src import distributed

        distributed.global_state.client.wait_at_barrier(f"kerasgen {next(_barriers)}: {what}", PATIENCE_MS)


def agreed(share: Share, answer: bool, what: str) -> bool:
    """Return the answer of the writing process to all processes: what others see on a disk may have changed since."""
    if share.processes == 1:
        return answer
    from jax._src import distributed

    key = f"kerasgen {next(_barriers)}: {what}"
    client = distributed.global_state.client
    if share.writes:
        client.key_value_set(key, "yes" if answer else "no")
    return bool(client.blocking_key_value_get(key, PATIENCE_MS) == "yes")


def words_of_all(share: Share, word: str, key: str) -> list[str]:
    """Return what each process says, in the order of their numbers, once all have said it.

    Args:
        share: the share of this process in the run.
        word: what this process says.
        key: what it is about; each question has another.
    """
    if share.processes == 1:
        return [word]
    from jax._src import distributed

    client = distributed.global_state.client
    client.key_value_set(f"kerasgen {key}, process {_process()}", word)
    return [
        client.blocking_key_value_get(f"kerasgen {key}, process {number}", PATIENCE_MS)
        for number in range(share.processes)
    ]


def part_of(share: Share, names: Sequence[str]) -> Sequence[str]:
    """Return the part of some work that is this process's, where the processes divide it."""
    return names[_process() :: share.processes] if share.processes > 1 else names


def _check(model: LanguageModel, settings: GradientTuner, data: int, ways: int) -> None:
    assert settings.batch_size is not None  # it was decided before
    if settings.batch_size % data:
        raise TuneArgumentError(
            f"batch_size must be a multiple of the {data} devices that share a batch. Received: {settings.batch_size}."
        )
    if ways == 1:
        return
    if not can_pack(model) or described.config_of(model) is None:
        raise TuneArgumentError(
            f"Splitting the model is for {architectures.listed()}. Received: {described.name_of(model)}. Use 'data'."
        )
    config = described.config_of(model)
    assert config is not None
    for name, size in _undivided(config, ways):
        raise TuneArgumentError(
            f"The model can't be split {ways} ways: its {name} is {size}. "
            f"Received: distribution={settings.distribution!r}."
        )


def _undivided(config: DecoderConfig, ways: int) -> list[tuple[str, int]]:
    """Return the sizes of a decoder, by name, that so many ways don't divide."""
    heads = config.attention
    shares_keys = heads.num_key_value_heads < heads.num_query_heads
    sizes = {
        "num_key_value_heads" if shares_keys else "num_heads": heads.num_key_value_heads,
        "intermediate_dim": config.feedforward.intermediate_dim,
        "hidden_dim": config.hidden_dim,
    }
    return [(name, size) for name, size in sizes.items() if size % ways]


def _place(variable: Any, layout: Any) -> None:
    """Give a variable another layout; None brings it back to one device."""
    if (
        layout is not None
        and variable._layout is not None
        and variable.value.sharding.is_equivalent_to(layout.backend_layout, len(variable.shape))
    ):
        variable._layout = layout
        return
    value = gathered(variable)
    variable._layout = layout
    if layout is None:
        import jax

        variable._direct_assign(jax.device_put(value, jax.local_devices()[0]))
    else:
        variable._direct_assign(value)


def is_first_process() -> bool:
    """Whether this process is the only one of its run, or the first, which writes."""
    return _processes() == 1 or _process() == 0


def _processes() -> int:
    if keras.config.backend() != "jax":
        return 1
    import jax

    return int(jax.process_count())


def _process() -> int:
    import jax

    return int(jax.process_index())
