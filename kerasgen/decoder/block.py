"""One transformer block, written once over hooks. Imports the standard library only.

An executor brings the hooks, and owns everything around the block: the loop over layers, the layout of hidden states,
caches, masks and what is computed again for a gradient. Branches on the description are taken when a graph is traced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from kerasgen.decoder.config import DecoderConfig

Roles = tuple[str, ...]

QUERY_KEY_VALUE: Roles = ("query", "key", "value")
OUTPUT: Roles = ("output",)
GATE_UP: Roles = ("gate", "up")
UP: Roles = ("up",)
DOWN: Roles = ("down",)
ROUTER: Roles = ("router",)

_NORM_BEFORE = ("before", "before_and_after")
_NORM_AFTER = ("before_and_after", "after")


class Hooks(Protocol):
    """Operations that an executor supplies. Hidden states are of its own type: the block only adds and scales them."""

    def norm(self, hidden: Any, weights: Any) -> Any:
        """Return a hidden state normalized by the description's norm with these weights."""

    def project(self, hidden: Any, layer: Mapping[str, Any], roles: Roles) -> Any:
        """Return the projections of these roles, biases and adapters included.

        Of `OUTPUT` and `DOWN` it is a hidden state; of others it is what `attend` or `activate` takes, such as a tuple
        or one array of all.
        """

    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        """Return what the heads gather, for `project` to take.

        Args:
            index: of the layer.
            layer: its weights.
            projected: queries, keys and values as `project` gave them.
        """

    def activate(self, projected: Any) -> Any:
        """Return the activation of `up`, or that of `gate` times `up`, for `project` to take."""

    def drop(self, hidden: Any, site: str) -> Any:
        """Return a hidden state after dropout; the site is `"attention"` or `"feedforward"`."""


class ExpertHooks(Hooks, Protocol):
    """The operations of an executor that supports mixtures of experts too."""

    def experts(self, hidden: Any, layer: Mapping[str, Any]) -> Any:
        """Return what a mixture of experts makes of a hidden state."""


def block(config: DecoderConfig, index: int, layer: Mapping[str, Any], hidden: Any, hooks: Hooks) -> Any:
    """Return the hidden state after one block.

    Args:
        config: the decoder's description.
        index: of the layer.
        layer: its weights, by the names of `kerasgen.decoder.weights`, as the hooks take them.
        hidden: the hidden state before it.
        hooks: the executor's; `ExpertHooks` where the description has experts.
    """
    placement = config.norm_placement
    if placement in ("parallel", "parallel_shared"):
        normed = hooks.norm(hidden, layer["attention_norm"])
        other = normed if placement == "parallel_shared" else hooks.norm(hidden, layer["feedforward_norm"])
        attended = _scaled(config, _attention(index, layer, normed, hooks))
        return hidden + attended + _scaled(config, _feedforward(config, index, layer, other, hooks))
    for site in ("attention", "feedforward"):
        given = hooks.norm(hidden, layer[f"{site}_norm"]) if placement in _NORM_BEFORE else hidden
        if site == "attention":
            added = _attention(index, layer, given, hooks)
        else:
            added = _feedforward(config, index, layer, given, hooks)
        if placement in _NORM_AFTER:
            added = hooks.norm(added, layer[f"{site}_post_norm"])
        hidden = hidden + _scaled(config, added)
        if placement == "after_sum":
            hidden = hooks.norm(hidden, layer[f"{site}_post_norm"])
    return hidden


def _attention(index: int, layer: Mapping[str, Any], hidden: Any, hooks: Hooks) -> Any:
    gathered = hooks.attend(index, layer, hooks.project(hidden, layer, QUERY_KEY_VALUE))
    return hooks.drop(hooks.project(gathered, layer, OUTPUT), "attention")


def _feedforward(config: DecoderConfig, index: int, layer: Mapping[str, Any], hidden: Any, hooks: Hooks) -> Any:
    if config.has_experts(index):
        return hooks.drop(cast(ExpertHooks, hooks).experts(hidden, layer), "feedforward")
    wide = hooks.activate(hooks.project(hidden, layer, GATE_UP if config.feedforward.gated else UP))
    return hooks.drop(hooks.project(wide, layer, DOWN), "feedforward")


def shared_expert(config: DecoderConfig, layer: Mapping[str, Any], hidden: Any, hooks: Hooks) -> Any:
    """Return what the expert that each token goes through makes of a hidden state, before its share is taken.

    Its weights have the names of a plain feed-forward part behind `shared_`.
    """
    own = {name.removeprefix("shared_"): value for name, value in layer.items() if name.startswith("shared_")}
    wide = hooks.activate(hooks.project(hidden, own, GATE_UP if config.feedforward.gated else UP))
    return hooks.project(wide, own, DOWN)


def _scaled(config: DecoderConfig, added: Any) -> Any:
    return added if config.residual_scale == 1.0 else added * config.residual_scale
