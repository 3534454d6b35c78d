"""The rendering of queries to prompts, by sandboxed Jinja templates that treat texts as data.

Fixed parts come first (the instruction, definitions of labels that do not change places), then the
demonstrations, then the text, and last the options of a choice, whose order changes, so that servers can cache
the prefix. A text cannot escape from its place: everything that looks like a tag, a chat-template token
or, in the one-line form, a line break is neutralised. The same holds for the words of labels, which come from
the data, too (of tags they are whole sentences); only the instruction and the definitions are the config's own.
An undefined name in a template is an error, never an empty string.
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rayclean.annotators.query import Query
from rayclean.errors import ConfigError
from rayclean.hashing import digest
from rayclean.schema import Label

_FOLDER = Path(__file__).parent / "templates"

# Delimiters of chat templates and of our prompts: <|im_end|>, <｜User｜>, <text>, </s>, <start_of_turn>, <<SYS>>, [INST].
_OPENING = re.compile(r"<(?=[|｜!<A-Za-z_]|\s*/)")
_CLOSING = re.compile(r"[|｜]>")
_BRACKET = re.compile(
    r"\[(?=\s*/?\s*(?:(?:INST|SYS|SYSTEM|AVAILABLE_TOOLS|TOOL_)\b|(?:SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|"
    r"THINK|ARGS|CALL_ID|IMG|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|PREFIX|MIDDLE|SUFFIX)\s*\]))",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BLANKS = re.compile(r"\s+")


def neutralise(text: str) -> str:
    """The text without sequences that a template or a tokenizer could interpret as delimiters.

    >>> neutralise("fine </text><|im_end|> [/INST] [TOOL_CALLS] a < b <3")
    'fine ‹/text>‹|im_end|› ［/INST] ［TOOL_CALLS] a < b <3'
    """
    text = _CONTROL.sub(" ", text.encode(errors="replace").decode())
    return _BRACKET.sub("［", _CLOSING.sub("|›", _OPENING.sub("‹", text)))


def one_line(text: str) -> str:
    """The neutralised text on one line, so that it cannot imitate a line of the prompt (`Category:`)."""
    return _BLANKS.sub(" ", neutralise(text)).strip()


def shorten(text: str, limit: int) -> str:
    """The text cut to at most `limit` characters, between words where possible, with an ellipsis at the cut.

    >>> shorten("the striker scored twice", 14)
    'the striker …'
    """
    if len(text) <= limit:
        return text
    head = text[: max(limit - 2, 1)]
    cut = head.rfind(" ")
    return f"{head[:cut] if cut > len(head) // 2 else head} …"


def template_source(template: str | None, form: str) -> str:
    """Text of the template: the file `template`, or the default template of the prompt form.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = Path(template) if template else _FOLDER / f"{form}.jinja"
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"annotator.template: cannot read {str(path)!r} ({error})") from error


@dataclass(frozen=True)
class Option:
    """One candidate as shown in a choice prompt."""

    answer: str
    """Answer that selects the option: a letter, or the word."""
    word: str
    definition: str


_environment = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
)
_environment.filters.update(one_line=one_line, fenced=neutralise)
_compile = functools.lru_cache(maxsize=16)(_environment.from_string)


class Prompt:
    """A prompt template with its fixed parts.

    Args:
        source: text of the template.
        instruction: first line of every prompt.
        labels: all labels.
        max_text_chars: longer texts are cut to this length.
        max_demonstration_chars: longer demonstrations are cut to this length.
        shows_given: whether templates get to know which candidates are the given and the suggested label.

    Raises:
        ConfigError: the template is not valid Jinja, or uses an unknown name.
    """

    def __init__(
        self,
        source: str,
        instruction: str,
        labels: Sequence[Label],
        max_text_chars: int,
        max_demonstration_chars: int,
        shows_given: bool = False,
    ):
        self.instruction = instruction
        self.labels = tuple(labels)
        self.max_text_chars = max_text_chars
        self.max_demonstration_chars = max_demonstration_chars
        self.shows_given = shows_given
        self.source = source
        try:
            _compile(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"annotator.template: line {error.lineno}: {error.message}") from error
        # Render once, so that an unknown name is refused before any work.
        self.render(Query(0, "x", ()), options=[Option("A", "a", ""), Option("B", "b", "")])

    def render(
        self, query: Query, *, options: Sequence[Option] = (), max_text_chars: int | None = None
    ) -> str:
        """The prompt for a query.

        Args:
            query: the question.
            options: the possible answers in the order shown (choice form).
            max_text_chars: most characters of the text, if fewer than configured.

        Raises:
            ConfigError: the template uses an unknown name.
        """
        try:
            prompt = _compile(self.source).render(
                instruction=self.instruction,
                labels=self.labels,
                candidates=query.candidates,
                demonstrations=[
                    {"text": shorten(each.text, self.max_demonstration_chars), "word": each.answer.word}
                    for each in query.demonstrations
                ],
                text=shorten(query.text, min(max_text_chars or self.max_text_chars, self.max_text_chars)),
                options=list(options),
                previous=query.given.word if self.shows_given and query.given else None,
                predicted=query.suggested.word if self.shows_given and query.suggested else None,
            )
        except jinja2.TemplateError as error:  # an undefined name, or what the sandbox forbids
            raise ConfigError(f"annotator.template: {error.message}") from error
        return prompt.strip()


def with_fewer_demonstrations(query: Query) -> Query:
    """The query without the least similar demonstration of the answer that most of them have; where all candidates are
    shown equally often, without one of each, so that they still are.
    """
    counts = Counter(each.answer.word for each in query.demonstrations)
    most = max(counts.values())
    dropped = {word for word, count in counts.items() if count == most}
    if len(dropped) < len(query.candidates):
        dropped = {next(each.answer.word for each in query.demonstrations if each.answer.word in dropped)}
    kept = []
    for each in query.demonstrations:  # the least similar is the first
        if each.answer.word in dropped:
            dropped.remove(each.answer.word)
        else:
            kept.append(each)
    return replace(query, demonstrations=tuple(kept))


def prompt_hash(*prompts: str) -> str:
    """Hash (16 hex digits) of the prompts sent."""
    return digest("\0".join(prompts), digits=16)
