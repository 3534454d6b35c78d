"""How many requests, and sequences in them, a question costs."""

import asyncio
import string

import pytest

from rayclean.annotators.openai import OpenAIAnnotator
from rayclean.annotators.query import Annotation, Query
from rayclean.schema import Candidate, Label
from tests.annotators.hostile import serve_in_process, token_score, tokenizer_folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tokenizer_folder(tmp_path_factory.mktemp("tokenizer"))


def asked(words: list[str], tokenizer: str, form: str) -> tuple[Annotation, list[int], str]:
    """The answer to a question about all words, the number of sequences of each request, and the prompt."""
    labels = tuple(Label(number, word, word) for number, word in enumerate(words))
    query = Query(1, "a text", tuple(map(Candidate.of, labels)))
    with serve_in_process() as server:
        config = OpenAIAnnotator.Config(
            base_url=server.url, model="tiny", tokenizer=tokenizer, form=form, timeout=5.0, deadline=10.0
        )
        asker = OpenAIAnnotator(config, labels)

        async def go() -> Annotation:
            await asker.start()
            try:
                server.bodies.clear()  # of the probe
                return (await asker.annotate([query]))[0]
            finally:
                await asker.close()

        answer = asyncio.run(go())
        sequences = [len(body.get("prompt", "x")) for body in server.bodies]
    assert answer.error is None
    return answer, sequences, asker.prompt.render(query)


ONE_TOKEN = list("abcdef")  # as of TREC: a blank with a letter is a token of the fake model
TWO_TOKENS = [f"{letter}x" for letter in string.ascii_lowercase[:20]]


@pytest.mark.parametrize(
    ("words", "form", "sequences"),
    [
        (ONE_TOKEN, "label_words", [1]),
        (TWO_TOKENS, "label_words", [21]),
        (["ab", "ac"], "label_words", [2]),  # they part after the first token
        (ONE_TOKEN[:2], "choice", [1, 1]),
        (TWO_TOKENS, "choice", [1, 1]),
    ],
)
def test_requests_and_sequences_of_a_question(
    words: list[str], form: str, sequences: list[int], tokenizer: str
) -> None:
    assert asked(words, tokenizer, form)[1] == sequences


def test_scores_are_those_of_one_request_for_each_node(tokenizer: str) -> None:
    answer, _, prompt = asked(TWO_TOKENS, tokenizer, "label_words")
    separately = [
        token_score(prompt, 256 + ord(word[0])) + token_score(f"{prompt} {word[0]}", ord(word[1]))
        for word in TWO_TOKENS
    ]
    assert list(answer.scores) == separately
    assert answer.answer_tokens == 21


def test_the_prompt_of_the_root_comes_first(tokenizer: str) -> None:
    """So that a server has it in its prefix cache when it comes to the deeper nodes."""
    labels = tuple(Label(number, word, word) for number, word in enumerate(TWO_TOKENS))
    with serve_in_process() as server:
        config = OpenAIAnnotator.Config(base_url=server.url, model="tiny", tokenizer=tokenizer)
        asker = OpenAIAnnotator(config, labels)

        async def go() -> None:
            await asker.start()
            await asker.annotate([Query(1, "a text", tuple(map(Candidate.of, labels)))])
            await asker.close()

        asyncio.run(go())
        root, *deeper = server.bodies[-1]["prompt"]
    assert len(deeper) == 20
    assert all(prompt[:-1] == root for prompt in deeper)
