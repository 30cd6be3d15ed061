"""Renders conversations by a chat template, and finds which of the text are answers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

from kerasgen.corpora.base import Conversation, Part
from kerasgen.corpora.conversations import SYSTEM_ROLES
from kerasgen.errors import ChatTemplateError

# A content that no template knows, in the place of an answer; without blanks, which templates strip.
_MARK: Final = "\u2997answer{}\u2998"
_REASONING: Final = ("reasoning_content", "thinking", "reasoning")


class Answer(NamedTuple):
    """The place of an answer in a rendered text, in characters.

    Args:
        begin: index of its first character.
        end: index behind its last character, which is the last of its end of turn.
        turn_end: index at which the next message begins.
    """

    begin: int
    end: int
    turn_end: int


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with the tokenizer's special tokens, which it writes.

    Args:
        text: in Jinja.
        variables: what it finds beside the messages: `bos_token`, `eos_token` and others, by name.
        special_tokens: names that become special tokens where the template or a message writes them.
        name: what it is called in messages.
    """

    text: str
    variables: Mapping[str, str] = field(default_factory=dict)
    special_tokens: Collection[str] = ()
    name: str = "the chat template"

    def check(self) -> None:
        """Check the template's syntax.

        Raises:
            ChatTemplateError: the text is not a valid Jinja template.
        """
        import jinja2

        from kerasgen.chat import environment

        try:
            environment.compiled(self.text)
        except jinja2.TemplateError as cause:
            line = f", line {cause.lineno}" if isinstance(cause, jinja2.TemplateSyntaxError) else ""
            raise ChatTemplateError(f"{self._called} is no Jinja template{line}: {cause}.") from cause

    @property
    def _called(self) -> str:
        return self.name[0].upper() + self.name[1:]

    def render(
        self,
        talk: Conversation,
        *,
        add_generation_prompt: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the text of a conversation, as transformers' `apply_chat_template` does.

        Args:
            talk: the conversation.
            add_generation_prompt: write what comes before an answer too, so that one follows.
            arguments: further values that the template asks for, such as `enable_thinking`.

        Raises:
            ChatTemplateError: the template refuses the conversation, or fails.
        """
        return self._rendered(talk.messages, talk.tools, prompt=add_generation_prompt, arguments=arguments)[0]

    def parts(self, talk: Conversation) -> tuple[Part, ...]:
        """Return the rendered conversation in parts: answers with their ends of turn are learned, all else is read.

        A part of `"user"` begins where a turn of the conversation does, with all that the template writes before what
        the user says; the first parts of `"system"` are all before the first of them.

        Raises:
            ChatTemplateError: as `render`; or it can't be told which of the text are the answers.
        """
        text, spans = self._rendered(talk.messages, talk.tools)
        answers = self._marked_answers(spans, text) or self._by_prefix(talk, text) or self._by_marks(talk, text)
        spoken = [n for n, message in enumerate(talk.messages) if message["role"] == "assistant"]
        if answers is None or len(answers) != len(spoken):
            raise ChatTemplateError(
                f"{self._called} writes the answers of a conversation in a way in which they can't be told "
                f"from what stands around them: {text!r:.200}. Write {{% generation %}} before an answer in it, and "
                "{% endgeneration %} behind it."
            )
        begins = self._beside_system(talk, text, self._turns(talk, text, answers))
        edges: dict[int, tuple[str | None, float]] = {0: ("system" if begins and begins[0] else None, 0)}
        weights = talk.weights()
        for answer, place in zip(answers, spoken, strict=True):
            edges[answer.begin] = ("assistant", weights[place])
            edges.setdefault(answer.end, (None, 0))
        edges |= dict.fromkeys(begins, ("user", 0))
        places = sorted(edges)
        stops = [*places[1:], len(text)]
        return tuple(
            Part(text[begin:end], edges[begin][1], edges[begin][0])
            for begin, end in zip(places, stops, strict=True)
            if end > begin
        )

    def digest(self) -> str:
        """Return 64 hexadecimal digits that change with anything that could change a rendered text."""
        held = [self.text, dict(self.variables), sorted(self.special_tokens)]
        return hashlib.sha256(json.dumps(held, sort_keys=True, allow_nan=False).encode()).hexdigest()

    def ends_itself(self, text: str) -> bool:
        """Return whether an answer ends with a special token, so that a model that learned it knows how to end."""
        end = self._ending.search(text)
        return end is not None and end.end() == len(text)

    @cached_property
    def end_of_turn(self) -> str | None:
        """The special token that the template writes behind an answer; None where it writes none."""
        talk = Conversation(({"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK.format(0)}))
        try:
            text = self.render(talk)
        except ChatTemplateError:
            return None
        behind = text.partition(_MARK.format(0))[2]
        found = self._beginning.match(behind)
        return None if found is None else found[1]

    @cached_property
    def _special(self) -> str:
        return "|".join(map(re.escape, sorted(self.special_tokens, key=len, reverse=True))) or r"(?!)"

    @cached_property
    def _ending(self) -> re.Pattern[str]:
        return re.compile(rf"(?:{self._special})(?=\s*\Z)")

    @cached_property
    def _beginning(self) -> re.Pattern[str]:
        return re.compile(rf"\s*({self._special})")

    @cached_property
    def _header(self) -> str | None:
        """What the template writes before the content of a user who speaks after an answer; None where unknown."""
        first, answer, second = (
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            "\u2997c\u2998",
        )
        try:
            before = self._rendered((first, answer), None)[0]
            whole = self._rendered((first, answer, {"role": "user", "content": second}), None)[0]
        except ChatTemplateError:
            return None
        if not whole.startswith(before) or second not in whole:
            return None
        return whole[len(before) : whole.index(second)]

    def _rendered(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None,
        *,
        prompt: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return the text, and the spans that the template itself calls generated."""
        self.check()
        import jinja2

        from kerasgen.chat import environment

        given = [_aliased({key: value for key, value in message.items() if value is not None}) for message in messages]
        try:
            rendered = environment.compiled(self.text).render(
                messages=environment.plain(given),
                tools=environment.plain(None if tools is None else list(tools)),
                documents=None,
                add_generation_prompt=prompt,
                **{**self.variables, **environment.plain(dict(arguments or {}))},
            )
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as cause:
            raise ChatTemplateError(f"{self._called} refuses the conversation: {cause}") from cause
        return environment.unmarked(rendered)

    def _prefix(self, talk: Conversation, count: int, text: str, *, prompt: bool = False) -> int | None:
        """Return how long the text of the first messages is, where the whole text begins with it."""
        try:
            written = self._rendered(talk.messages[:count], talk.tools, prompt=prompt)[0]
        except ChatTemplateError:
            return None
        return len(written) if text.startswith(written) else None

    def _marked_answers(self, spans: Sequence[tuple[int, int]], text: str) -> list[Answer] | None:
        """Return the answers that the template itself marks, each with an end of turn that follows."""
        if not spans:
            return None
        return [self._ended(begin, end, text) for begin, end in spans]

    def _by_prefix(self, talk: Conversation, text: str) -> list[Answer] | None:
        """Return where answers lie by what the template writes to ask for each, and up to each."""
        answers = []
        for place, message in enumerate(talk.messages):
            if message["role"] != "assistant":
                continue
            begin = self._prefix(talk, place, text, prompt=True)
            is_last = place == len(talk.messages) - 1
            turn_end = len(text) if is_last else self._prefix(talk, place + 1, text)
            if begin is None or turn_end is None:
                return None
            content = (message.get("content") or "").strip()
            if begin >= turn_end or content not in text[begin:turn_end]:
                return None
            found = self._ending.search(text[begin:turn_end])
            answers.append(Answer(begin, turn_end if found is None else begin + found.end(), turn_end))
        return answers

    def _by_marks(self, talk: Conversation, text: str) -> list[Answer] | None:
        """Return where answers lie by a text that has marks in their place, and else is the same."""
        messages, contents = [], []
        for message in talk.messages:
            if message["role"] == "assistant":
                if message.get("tool_calls") or _MARK[0] in message["content"]:
                    return None
                contents.append(message["content"])
                message = {**message, "content": _MARK.format(len(contents) - 1)}
            messages.append(message)
        try:
            marked = self._rendered(messages, talk.tools)[0]
        except ChatTemplateError:
            return None
        pieces = re.split("|".join(re.escape(_MARK.format(n)) for n in range(len(contents))), marked)
        if len(pieces) != len(contents) + 1 or not text.startswith(pieces[0]):
            return None
        answers, place = [], len(pieces[0])
        for content, behind in zip(contents, pieces[1:], strict=True):
            forms = (content, content.strip(), content.lstrip(), content.rstrip())
            fitting = (form for form in forms if text.startswith(form + behind, place))
            form = next(fitting, None)
            if form is None:
                return None
            answers.append(self._ended(place, place + len(form), text))
            place += len(form) + len(behind)
        return answers if place == len(text) else None

    def _ended(self, begin: int, end: int, text: str) -> Answer:
        """Return an answer with the end of turn behind it, unless it holds that already."""
        following = None if self.ends_itself(text[begin:end].rstrip()) else self._beginning.match(text, end)
        end = end if following is None else following.end()
        return Answer(begin, end, end)

    def _turns(self, talk: Conversation, text: str, answers: Sequence[Answer]) -> list[int]:
        """Return where each turn begins in the text, with what the template writes before what its user says."""
        begins: list[int] = []
        answered = place = 0
        for n, message in enumerate(talk.messages):
            if message["role"] == "assistant":
                place = answers[answered].turn_end
                answered += 1
            elif message["role"] == "user":
                first = not begins
                if not first or n == 0:
                    begin: int | None = place
                    if first:
                        begin = self._first_turn(message["content"], text[: answers[0].begin])
                else:
                    begin = self._prefix(talk, n, text)
                    begin = self._first_turn(message["content"], text[: answers[0].begin]) if begin is None else begin
                begins.append(begin or 0)
        return begins

    def _beside_system(self, talk: Conversation, text: str, begins: list[int]) -> list[int]:
        """Return where turns begin so that a system turn stays when the first of them are left out.

        Some templates write the system turn within a user's. What they write of the conversation without its first
        turns is a beginning of the text and then its end from within a later turn on: these places are returned.
        """
        users = [n for n, message in enumerate(talk.messages) if message["role"] == "user"]
        first = next((n for n, message in enumerate(talk.messages) if message["role"] not in SYSTEM_ROLES), 0)
        if not first or not users or len(begins) != len(users):
            return begins
        shorter = []
        for n in users[1:]:
            try:
                shorter.append(self._rendered((*talk.messages[:first], *talk.messages[n:]), talk.tools)[0])
            except ChatTemplateError:
                return begins
            if shorter[0] == text[: begins[0]] + text[begins[1] :]:
                return begins
        place = users[0]
        marked = {**talk.messages[place], "content": _MARK.format(0)}
        try:
            other = self._rendered((*talk.messages[:place], marked, *talk.messages[place + 1 :]), talk.tools)[0]
        except ChatTemplateError:
            return begins
        head = other.find(_MARK.format(0))
        said = text[begins[0] : max(head, 0)]
        if talk.messages[0]["content"].strip() not in said or not text.startswith(other[:head]):
            return begins
        ends = [len(text) - (len(short) - head) for short in shorter]
        same = all(short == text[:head] + text[end:] for short, end in zip(shorter, ends, strict=True))
        return [head, *ends] if same else begins

    def _first_turn(self, content: str, before: str) -> int | None:
        """Return where the first user's turn begins, behind what a template says by itself."""
        header = self._header
        at = before.rfind(content.strip())
        if not header or at < len(header) or not before[:at].endswith(header):
            return None
        return at - len(header)


def _aliased(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose reasoning stands under each name that templates know it by."""
    reasoning = next((message[key] for key in _REASONING if key in message), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}
