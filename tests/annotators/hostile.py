"""An OpenAI-compatible endpoint with real sockets that misbehaves on demand, and counts who asked what how
often.

The "model" is a byte-level tokenizer (`tokenizer_folder`) and a score per (text, token) taken from a hash, or
from
`truth`: a text that contains a label's word scores that word highest.
"""

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

Fault = Callable[[str, int], str | None]
"""(prompt, how often it was asked before) -> name of a fault, or None for a good answer."""


class Hostile:
    """The endpoint; use as a context manager, then `url`."""

    def __init__(self, fault: Fault = lambda prompt, before: None, latency: float = 0.0, model: str = "tiny"):
        self.fault, self.latency, self.model = fault, latency, model
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.peak = 0

    def __enter__(self) -> "Hostile":
        app = Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/completions", self.completions, methods=["POST"]),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
            ]
        )
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            if not self.thread.is_alive():
                raise RuntimeError("the fake endpoint did not start")
            threading.Event().wait(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    def __exit__(self, *exc: object) -> None:
        # Its thread ends within .2 s, for which nobody waits.
        self.server.should_exit = self.server.force_exit = True

    def calls(self) -> Counter[str]:
        """How often each prompt was asked; probes left out."""
        return Counter(
            {prompt: count for prompt, count in self.asked.items() if "capital of France" not in prompt}
        )

    async def models(self, request: Request) -> Response:
        return JSONResponse({"data": [{"id": self.model}]})

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        prompts = [decode(tokens) for tokens in body["prompt"]]

        def good() -> dict[str, Any]:
            ids = body["logprob_token_ids"]
            choices = []
            for index, prompt in enumerate(prompts):
                scores = {token: token_score(prompt, token) for token in ids}
                best = max(scores, key=lambda token: scores[token])
                choices.append(
                    {
                        "index": index,
                        "text": decode([best]),
                        "logprobs": {
                            "tokens": [f"token_id:{best}"],
                            "top_logprobs": [{f"token_id:{token}": score for token, score in scores.items()}],
                        },
                    }
                )
            return {
                "choices": choices,
                "usage": {"prompt_tokens": sum(map(len, prompts)), "completion_tokens": len(prompts)},
            }

        return await self._answer(request, body, prompts[0], good)

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        prompt = body["messages"][0]["content"]
        if "structured_outputs" in body:
            options = body["structured_outputs"]["choice"]
        else:
            options = body["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"]

        def good() -> dict[str, Any]:
            scores = {option: choice_score(prompt, option) for option in options}
            best = max(scores, key=lambda option: scores[option])
            text = best if "structured_outputs" in body else json.dumps({"answer": best})
            top = [{"token": option, "logprob": score} for option, score in scores.items()]
            choice = {"message": {"content": text}}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [{"token": best, "top_logprobs": top}]}
            return {"choices": [choice], "usage": {"prompt_tokens": len(prompt), "completion_tokens": 1}}

        return await self._answer(request, body, prompt, good)

    async def _answer(
        self, request: Request, body: dict[str, Any], prompt: str, good: Callable[[], dict[str, Any]]
    ) -> Response:
        before = self.asked[prompt]
        self.asked[prompt] += 1
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
            fault = self.fault(prompt, before)
            if fault is None:
                answer = good()
                return JSONResponse(answer)
            return await self._misbehave(fault, request, good)
        finally:
            self.in_flight -= 1

    async def _misbehave(self, fault: str, request: Request, good: Callable[[], dict[str, Any]]) -> Response:
        if fault == "hang":
            await asyncio.sleep(30)
        if fault == "rate_limit":
            return JSONResponse({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.3"})
        if fault == "server":
            return PlainTextResponse("boom", 500)
        if fault == "client":
            return JSONResponse(
                {"error": {"message": f"bad key {request.headers.get('authorization', '')}"}}, 400
            )
        if fault == "redirect":
            return Response(status_code=307, headers={"Location": f"{self.url}/chat/completions?elsewhere"})
        if fault == "huge":
            return PlainTextResponse("[" * 200_000)
        if fault == "echo":
            answer = good()
            for choice in answer["choices"]:
                choice["sent"] = request.headers.get("authorization", "")
            return JSONResponse(answer)
        if fault == "html":
            return HTMLResponse("<html><body>Sign in</body></html>")
        if fault == "junk":
            return PlainTextResponse('{"choices": [{"inde', media_type="application/json")
        if fault == "list":
            return JSONResponse(["what", "now"])
        if fault == "empty":
            return JSONResponse({"choices": []})
        if fault == "no_logprobs":
            answer = good()
            for choice in answer["choices"]:
                choice.pop("logprobs", None)
            return JSONResponse(answer)
        if fault == "nan":
            return Response(json.dumps(good()).replace("-", "-1e999"), media_type="application/json")
        if fault == "outside":
            answer = good()
            for choice in answer["choices"]:
                if "message" in choice:
                    choice["message"]["content"] = "I would say: neither"
                else:
                    choice["logprobs"]["tokens"] = ["token_id:7"]
                    choice["logprobs"]["top_logprobs"][0]["token_id:7"] = -0.1
            return JSONResponse(answer)
        if fault == "drop":
            request.scope["extensions"] = {}
            raise ConnectionResetError("dropped")
        raise AssertionError(fault)


def serve_in_process(
    fault: Fault = lambda prompt, before: None, latency: float = 0.0, model: str = "tiny"
) -> Hostile:
    """An endpoint in a thread of this process."""
    return Hostile(fault, latency, model)


def token_score(prompt: str, token: int) -> float:
    """A word of the text that begins with the token makes it likely; otherwise a hash decides."""
    text = prompt.rsplit("Text: ", 1)[-1]
    noise = int.from_bytes(hashlib.blake2b(f"{prompt}|{token}".encode(), digest_size=2).digest()) / 65536
    return -1.0 - noise if f"*{chr(token % 256)}" in text else -3.0 - noise


def choice_score(prompt: str, option: str) -> float:
    """The option whose word stands with an asterisk in the text."""
    text = prompt.rsplit("<text>", 1)[-1].split("</text>")[0]
    line = next(
        (line for line in prompt.splitlines() if line.startswith(f"{option} = ")), f"{option} = {option}"
    )
    word = line.split(" = ")[1].split(":")[0]
    return -0.1 if f"*{word}" in text else -2.5


def decode(tokens: list[int]) -> str:
    return b"".join(
        bytes([token]) if token < 256 else b" " + bytes([token - 256]) for token in tokens
    ).decode()


def tokenizer_folder(path: Path) -> str:
    """A tokenizer as a Hugging Face folder: one id per UTF-8 byte, and 256 + byte for a blank with a letter
    after it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def visible(byte: int) -> str:  # GPT-2's map from bytes to characters
        keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
        return chr(byte) if byte in keep else chr(256 + [b for b in range(256) if b not in keep].index(byte))

    blank, letters = visible(32), "abcdefghijklmnopqrstuvwxyz"
    vocabulary = {visible(byte): byte for byte in range(256)}
    vocabulary |= {blank + letter: 256 + ord(letter) for letter in letters}
    tokenizer = Tokenizer(models.BPE(vocabulary, [(blank, letter) for letter in letters]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(path)
    return str(path)
