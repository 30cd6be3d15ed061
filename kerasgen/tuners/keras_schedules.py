"""Holds a Keras learning-rate schedule as a setting: a value that can be compared, printed and saved.

Imports Keras only for who has a schedule of it, and when one is built again.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from kerasgen.errors import TuneArgumentError


class KerasSchedule(dict[str, Any]):
    """A serialized Keras schedule: `class_name`, `config`, `module` and `registered_name`."""

    live: Any = None
    """The schedule itself, where it was given in this process; it is no part of the value."""

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self["config"].items())
        return f"{self['class_name']}({settings})"

    def build(self) -> Any:
        """Return the schedule.

        Raises:
            TuneArgumentError: Keras can't find its class, or its settings are not what the class takes.
        """
        if self.live is None:
            import keras

            try:
                self.live = keras.saving.deserialize_keras_object(json.loads(json.dumps(self, allow_nan=False)))
            except (ImportError, TypeError, ValueError, AttributeError) as cause:
                raise TuneArgumentError(
                    f"The learning-rate schedule {self!r} can't be built again: {cause}. Import the module that "
                    "registers its class, or pass another learning_rate."
                ) from cause
        return self.live


def taken(value: Any) -> Any:
    """Convert a Keras schedule, or its serialized form, to a `KerasSchedule`; return anything else as it is.

    Raises:
        TuneArgumentError: it is a callable or a schedule that can't be written down.
    """
    if isinstance(value, KerasSchedule):
        return value
    if isinstance(value, dict) and {"class_name", "config"} <= value.keys():
        return KerasSchedule(value)
    schedules = getattr(getattr(sys.modules.get("keras"), "optimizers", None), "schedules", None)
    if schedules is None or not isinstance(value, schedules.LearningRateSchedule):
        if callable(value):
            raise TuneArgumentError(
                "learning_rate must be a number, or a keras.optimizers.schedules.LearningRateSchedule, which can be "
                f"saved and gone on with. Received: {value!r}. Put what it computes into the `__call__(step)` of a "
                "subclass, with a get_config."
            )
        return value
    import keras

    try:
        schedule = KerasSchedule(json.loads(json.dumps(keras.saving.serialize_keras_object(value), allow_nan=False)))
    except (NotImplementedError, TypeError, ValueError) as cause:
        raise TuneArgumentError(
            f"The schedule {type(value).__name__} can't be written down, so no run could go on with it: {cause}. Give "
            "it a get_config that returns the constructor's arguments as plain numbers, text and lists."
        ) from cause
    schedule.live = value
    return schedule
