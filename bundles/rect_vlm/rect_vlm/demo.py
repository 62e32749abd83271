"""The command `demo`: a page in the browser that reads a chest CT with a trained model, on this machine."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from medbundles.precision import Precision

from rect_vlm.case_sources import cases_from
from rect_vlm.model_files import CONFIG, read_config
from rect_vlm.predictions import check_threshold
from rect_vlm.trained_model import TRAIN_COMMAND, check_flags, load_trained

logger = logging.getLogger(__name__)

PACKAGES = ("gradio", "uvicorn", "fastapi")
MAX_UPLOAD = "2gb"
# The browser loads nothing from elsewhere, whatever the pages of Gradio ask for.
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"
SHUTDOWN_SECONDS = 2  # for open connections

Message = MutableMapping[str, Any]


def demo(
    model: str = "bundles/rect_vlm/models/rect_vlm",
    samples: str | None = None,
    port: int = 7860,
    host: str = "127.0.0.1",
    report: bool = True,
    llm: str | None = None,
    device: str | None = None,
    amp: str = "auto",
    finding_threshold: float | None = None,
    mask_threshold: float = 0.5,
    max_new_tokens: int = 512,
) -> None:
    """Serve a page that reads a chest CT: findings, outlined lesions, report; until Ctrl-C.

    Args:
        model: folder of a trained model.
        samples: CTs to choose from besides uploads: a CT, a folder of them, a datalist or a cohort.
        port: of the page; 0 takes a free one.
        host: address to listen at; the default is reached from this machine only.
        report: False leaves the language model out.
        llm: another folder or hub id of the model's language model.
        device, amp: see medbundles.precision.Precision.
        finding_threshold: a finding is present above it; default those validated in training, 0.5 for a model
            without.
        mask_threshold: a voxel belongs to a lesion above it.
        max_new_tokens: of a report.

    Raises:
        ImportError: the extra `demo` is not installed.
        FileNotFoundError: no trained model, or no samples.
        ValueError: a model, threshold or option that does not fit.
        OSError: the port is taken.
    """
    require_demo_extra()
    from rect_vlm.demo_scan import Reading

    check_flags(report=report)
    if finding_threshold is not None:
        check_threshold(finding_threshold)
    how = Reading(finding_threshold, check_threshold(mask_threshold), report, max_new_tokens)
    place = trained_folder(model)
    if report and read_config(place)["generator"] is None:
        raise ValueError(f"{place} was saved without a report generator; go on without by --report False")
    cases = cases_from(samples) if samples is not None else []
    _log_to_terminal()
    with _listen(host, port) as listener:
        logger.info("loading %s", place)
        precision = Precision(device, amp)
        trained = load_trained(place, precision.device, report, llm)
        precision.prepare(trained)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the temporary folder goes as well
        with tempfile.TemporaryDirectory(prefix="rect_vlm_demo_") as folder:
            _prepare_gradio(Path(folder) / "uploads")
            from rect_vlm.demo_page import Reader, build_page

            store = Path(folder) / "scans"
            store.mkdir()
            _serve(build_page(Reader(trained, precision, how, cases, store)), listener)


def require_demo_extra() -> None:
    """ImportError naming the missing packages of the extra `demo` and how to install them."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the demo page needs the extra 'demo', missing here: {', '.join(missing)}; "
            "install it with: pip install 'medbundles[demo]'"
        )


def trained_folder(model: str | Path) -> Path:
    """The folder of a trained model; FileNotFoundError that says how to train one."""
    place = Path(model).expanduser().absolute()
    if not (place / CONFIG).is_file():
        raise FileNotFoundError(
            f"no trained model in {place}: train one with `{TRAIN_COMMAND}` (phase 2 writes it), "
            "or name the folder of another with --model"
        )
    return place


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"cannot listen at {host} port {port}: {reason}; choose another with --port") from error


def _prepare_gradio(folder: Path) -> None:
    """Settings that Gradio takes from the environment when it is imported."""
    folder.mkdir()
    os.environ |= {
        "GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False",
        "GRADIO_SSR_MODE": "False", "GRADIO_MCP_SERVER": "False",
    }  # fmt: skip


def _serve(page: Any, listener: socket.socket) -> None:
    """Serve until Ctrl-C; nothing is shared beyond the socket."""
    import gradio
    import uvicorn
    from fastapi import FastAPI

    from rect_vlm.demo_page import style

    host, port, *_ = listener.getsockname()
    app = gradio.mount_gradio_app(
        FastAPI(openapi_url=None), page, path="/", server_name=host, server_port=port, footer_links=[],
        run_history=False, max_file_size=MAX_UPLOAD, ssr_mode=False, pwa=False, mcp_server=False,
        enable_monitoring=False, **style(),
    )  # fmt: skip
    config = uvicorn.Config(
        _at_home(app), log_level="warning", timeout_graceful_shutdown=SHUTDOWN_SECONDS
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    logger.info("demo at http://%s:%d (Ctrl-C ends it)", shown, port)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        logger.info("demo ended")


def _at_home(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The ASGI application with POLICY in the header of every answer."""

    async def served(scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY)]
            await send(message)

        await app(scope, receive, answer)

    return served


def _log_to_terminal() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    package = logging.getLogger("rect_vlm")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
