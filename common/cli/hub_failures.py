"""Failures of the Hugging Face Hub and of the connection to it, in one line with the remedy.

Errors of huggingface_hub, httpx, requests and urllib, as timm, open_clip and transformers pass them on -> one line

They are distinguished by class name and status, so that none of these libraries is imported.
"""

import os
import re

NO_CONNECTION = (
    "no connection to the Hugging Face Hub; check the network, set HF_ENDPOINT to a mirror, or HF_HUB_OFFLINE=1 to use "
    "what is in its cache on this machine, or give a local file or folder"
)
OFFLINE = (
    "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, and it is not in the Hub's cache on this machine; unset that, or "
    "give a local file or folder"
)
CONNECTION = {
    "ConnectError", "ConnectTimeout", "ReadTimeout", "ReadError", "RemoteProtocolError", "ConnectionError",
    "MaxRetryError", "NameResolutionError", "ProxyError", "SSLError", "URLError", "gaierror", "PoolTimeout",
    "WriteTimeout", "WriteError", "ChunkedEncodingError",
}  # fmt: skip
MISSING = {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "IncompleteSnapshotError"}
SAID = re.compile(r"couldn't connect to|cannot find the requested files in the (disk|local) cache", re.IGNORECASE)
LIBRARIES = ("huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "urllib")
STATUS = {
    401: "not logged in, or no such name; log in with `hf auth login`, and check the spelling",
    403: "not allowed: accept the terms on the model's page, and log in with `hf auth login` and a token that allows "
    "it (write access for an upload)",
    404: "no such name on the Hub; check the spelling, and log in with `hf auth login` if it is private",
    409: "the Hub was changed at the same time, or the name is taken; try again",
    413: "too large for the Hub",
    429: "too many requests; wait some minutes, or log in with `hf auth login` for a higher limit",
}


def is_of_hub(error: BaseException) -> bool:
    """Whether an error that nobody has caught comes from the libraries that fetch files."""
    return type(error).__module__.partition(".")[0] in LIBRARIES or bool(SAID.search(str(error)))


def explain_hub(error: BaseException) -> str:
    """One line for a failure of the Hub or of the way to it, '' for any other error."""
    chain, names = _chain(error), set[str]()
    for link in chain:
        kinds = [kind for kind in type(link).__mro__ if not kind.__module__.startswith(("builtins", "torch"))]
        names |= {kind.__name__ for kind in kinds}
        status = getattr(getattr(link, "response", None), "status_code", None) or getattr(link, "code", None)
        if isinstance(status, int) and status >= 400:
            reason = STATUS.get(status, "the Hub itself fails; try again later" if status >= 500 else "refused")
            return f"{reason} (HTTP {status})"
    if names & CONNECTION:
        return NO_CONNECTION
    if names & MISSING or SAID.search(" ".join(map(str, chain))):
        return OFFLINE if "OfflineModeIsEnabled" in names or _offline() else NO_CONNECTION
    return ""


def _offline() -> bool:
    return any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and what it came from, the cause before what it happened in."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return chain
