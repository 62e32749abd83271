"""A model that answers a prompt: behind an OpenAI-compatible endpoint, or loaded here."""

from __future__ import annotations

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Protocol

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
MAX_WAIT = 60.0  # seconds between two attempts


class ChatModel(Protocol):
    """What the generation needs to know about a model; `tries` answers to one prompt may differ."""

    name: str
    tries: int

    def answer(self, prompt: str) -> str: ...


class EndpointModel:
    """A model behind `{base_url}/chat/completions`, as OpenAI, vLLM, Ollama and llama.cpp offer it.

    Args:
        name: of the model, as the server knows it.
        base_url: such as http://localhost:8000/v1.
        key_variable: environment variable with the key; a server without keys needs none.
        max_tokens, temperature: of an answer.
        attempts: requests per prompt when the server is busy or fails.
        timeout: seconds to wait for an answer.
        wait: called with the seconds between two tries.
    """

    tries = 3

    def __init__(
        self,
        name: str,
        base_url: str,
        key_variable: str = "OPENAI_API_KEY",
        max_tokens: int = 1024,
        temperature: float = 0.3,
        attempts: int = 5,
        timeout: float = 120.0,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, got {base_url!r}")
        self.name, self.url = name, f"{base_url.rstrip('/')}/chat/completions"
        self.key_variable = key_variable
        self.options = {"max_tokens": max_tokens, "temperature": temperature}
        self.attempts, self.timeout, self.wait = max(attempts, 1), timeout, wait

    def answer(self, prompt: str) -> str:
        """The text of the answer.

        Raises:
            ConnectionError: the server cannot be reached, refuses the request, or is still busy after the
                last attempt; names the address.
            ValueError: what it sends is no answer.
        """
        body = {"model": self.name, "messages": [{"role": "user", "content": prompt}], **self.options}
        for attempt in range(1, self.attempts + 1):
            try:
                return self._text(self._post(body))
            except urllib.error.HTTPError as error:
                if error.code not in RETRIED or attempt == self.attempts:
                    raise ConnectionError(f"{self.url}: HTTP {error.code}: {_told(error)}") from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == self.attempts:
                    raise ConnectionError(f"{self.url}: cannot be reached: {error}") from error
            self.wait(min(MAX_WAIT, 2.0**attempt) * random.uniform(0.5, 1))
        raise AssertionError("the last attempt returns or raises")

    def _post(self, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            return response.read()

    def _text(self, content: bytes) -> str:
        try:
            return str(json.loads(content)["choices"][0]["message"]["content"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{self.url}: sent no chat completion: {content[:200]!r}") from error


class LocalModel:
    """A causal language model of transformers in this process, answering greedily.

    Args:
        source: as in `llm.load_llm`.
        max_tokens: of an answer.
        device: where to; None is the best there is.
    """

    tries = 1  # the answer would be the same

    def __init__(self, source: str, max_tokens: int = 1024, device: str | None = None) -> None:
        from medbundles.precision import best_device

        from rect_vlm.llm import load_llm

        self.name, self.max_tokens = str(source), max_tokens
        self.model, self.tokenizer = load_llm(source, device=device or best_device())

    def answer(self, prompt: str) -> str:
        """The text of the answer; with the chat template of the tokenizer if it has one."""
        import torch

        if self.tokenizer.chat_template:
            messages = [{"role": "user", "content": prompt}]
            prompt = str(
                self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            )
        bare = not self.tokenizer.chat_template
        inputs = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=bare).to(self.model.device)
        ids = inputs["input_ids"]
        generate: Any = self.model.generate
        with torch.inference_mode():
            made = generate(
                ids,
                attention_mask=inputs["attention_mask"],
                max_new_tokens=self.max_tokens,
                do_sample=False,
            )
        return str(self.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))


def _told(error: urllib.error.HTTPError) -> str:
    return " ".join(error.read().decode(errors="replace").split())[:300] or str(error.reason)
