"""The named chat templates, for models that have none of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class NamedTemplate:
    """A chat template that kerasgen brings, such as `chatml`.

    Args:
        text: in Jinja.
        tokens: the special tokens that it writes; what a vocabulary lacks of them is added.
        end_of_turn: the one that ends an answer; None for the tokenizer's end token.
    """

    text: str
    tokens: tuple[str, ...]
    end_of_turn: str | None

    def begun_by(self, start_token: str) -> NamedTemplate:
        """Return the template for a model with this start token; "" stands for a model without one.

        A runtime that puts that token before every text, as LiteRT-LM and llama.cpp do, puts it before a conversation
        too, so the template writes it.
        """
        if not start_token or _WRITES_OWN in self.text:
            return self
        written = f"{{{{- {start_token!r} }}}}"
        if _WRITES_LLAMA3 in self.text:
            tokens = tuple(name for name in self.tokens if name != _LLAMA3_START)
            return replace(self, text=self.text.replace(_WRITES_LLAMA3, written), tokens=tokens)
        return replace(self, text=f"{written}\n{self.text}")


_LLAMA3_START: Final = "<|begin_of_text|>"
_WRITES_LLAMA3: Final = f"{{{{- {_LLAMA3_START!r} }}}}"
_WRITES_OWN: Final = "{{- bos_token }}"

# What a message says, which some runtimes give as a list of pieces, LiteRT-LM among them.
_SAID: Final = """\
{%- macro said(content) %}
    {%- if content is string %}
        {{- content }}
    {%- else %}
        {%- for piece in content or [] %}
            {{- piece.text }}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
"""

_CHATML: Final = (
    _SAID
    + """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- said(messages[0].content) + '\\n\\n' }}
    {%- endif %}
    {{- 'You may call these tools:\\n' }}
    {%- for tool in tools %}
        {{- (tool | tojson) + '\\n' }}
    {%- endfor %}
    {{- 'To call one, write <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (tools and loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' + said(message.content) }}
        {%- for call in message.tool_calls or [] %}
            {%- set function = call.function if call.function is defined else call %}
            {{- '\\n' if message.content or not loop.first }}
            {{- '<tool_call>{"name": ' + (function.name | tojson) + ', "arguments": ' }}
            {{- function.arguments if function.arguments is string else function.arguments | tojson }}
            {{- '}</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
)

_LLAMA3: Final = (
    _SAID
    + """\
{{- '<|begin_of_text|>' }}
{%- macro turn(role) %}
    {{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}
{%- endmacro %}
{%- set first = 0 %}
{%- if messages[0].role in ('system', 'developer') %}
    {%- set first = 1 %}
{%- endif %}
{%- if first or tools %}
    {{- turn('system') }}
    {%- if tools %}
        {{- 'Environment: ipython\\n' }}
    {%- endif %}
    {%- if first %}
        {{- said(messages[0].content) | trim }}
    {%- endif %}
    {%- if tools %}
        {{- '\\n\\n' if first }}
        {{- 'Call one of these functions by writing {"name": ..., "parameters": ...}:' }}
        {%- for tool in tools %}
            {{- '\\n\\n' + (tool | tojson(indent=4)) }}
        {%- endfor %}
    {%- endif %}
    {{- '<|eot_id|>' }}
{%- endif %}
{%- for message in messages[first:] %}
    {%- if message.role == 'tool' %}
        {{- turn('ipython') + (said(message.content) | trim) + '<|eot_id|>' }}
    {%- elif message.tool_calls %}
        {%- if message.tool_calls | length > 1 %}
            {{- raise_exception('Llama 3 calls one tool at a time.') }}
        {%- endif %}
        {%- set call = message.tool_calls[0] %}
        {%- set call = call.function if call.function is defined else call %}
        {{- turn('assistant') + '{"name": ' + (call.name | tojson) + ', "parameters": ' }}
        {{- call.arguments if call.arguments is string else call.arguments | tojson }}
        {{- '}<|eot_id|>' }}
    {%- else %}
        {{- turn(message.role) + (said(message.content) | trim) + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- turn('assistant') }}
{%- endif %}
"""
)

_GEMMA: Final = (
    _SAID
    + """\
{{- bos_token }}
{%- set system = '' %}
{%- set first = 0 %}
{%- if messages[0].role in ('system', 'developer') %}
    {%- set system = (said(messages[0].content) | trim) + '\\n\\n' %}
    {%- set first = 1 %}
{%- endif %}
{%- if tools %}
    {%- set system = system + 'You may call these tools: ' + (tools | tojson) + '\\n\\n' %}
{%- endif %}
{%- for message in messages[first:] %}
    {%- if message.role == 'assistant' %}
        {{- '<start_of_turn>model\\n' + (said(message.content) | trim) }}
        {%- if message.tool_calls %}
            {{- message.tool_calls | tojson }}
        {%- endif %}
    {%- else %}
        {{- '<start_of_turn>user\\n' + (system if loop.first else '') }}
        {{- ('Answer of the tool: ' if message.role != 'user' else '') + (said(message.content) | trim) }}
    {%- endif %}
    {{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\\n' }}
{%- endif %}
"""
)

_ALPACA: Final = (
    _SAID
    + """\
{%- if tools %}
    {{- raise_exception('The template alpaca has no place for tools.') }}
{%- endif %}
{%- if messages[0].role == 'system' %}
    {{- said(messages[0].content) + '\\n\\n' }}
{%- else %}
    {{- 'Below is an instruction that describes a task. Write a response that completes the request.\\n\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '### Instruction:\\n' + said(message.content) + '\\n\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '### Response:\\n' + said(message.content) + eos_token }}
        {{- '\\n\\n' if not loop.last }}
    {%- elif not loop.first %}
        {{- raise_exception('The template alpaca has no place for the role ' + message.role + '.') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '### Response:\\n' }}
{%- endif %}
"""
)

NAMED: Final = {
    "chatml": NamedTemplate(_CHATML, ("<|im_start|>", "<|im_end|>"), "<|im_end|>"),
    "llama3": NamedTemplate(
        _LLAMA3, (_LLAMA3_START, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>"
    ),
    "gemma": NamedTemplate(_GEMMA, ("<start_of_turn>", "<end_of_turn>"), "<end_of_turn>"),
    "alpaca": NamedTemplate(_ALPACA, (), None),
}
"""The templates by name. Their forms are those of ChatML (OpenAI 2023), of the model cards of Llama 3 and Gemma, and of
Stanford Alpaca; the texts are kerasgen's."""
